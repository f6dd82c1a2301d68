//! Which sounds load from files, and the errors of those that don't.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use hound::{SampleFormat, WavSpec, WavWriter};
use proptest::prelude::*;
use sidetone_audio::g711::Law;
use sidetone_audio::sound::{Flaw, Loaded, Sound, SoundError};
use sidetone_audio::wav::{Channels, Writer};

fn spec(channels: u16, rate: u32, bits: u16, format: SampleFormat) -> WavSpec {
    WavSpec {
        channels,
        sample_rate: rate,
        bits_per_sample: bits,
        sample_format: format,
    }
}

fn wav<S: hound::Sample + Copy>(spec: WavSpec, samples: &[S]) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut file, spec).unwrap();
    for &sample in samples {
        writer.write_sample(sample).unwrap();
    }
    writer.finalize().unwrap();
    file.into_inner()
}

fn samples(bytes: &[u8]) -> Vec<i16> {
    Sound::from_bytes(bytes).unwrap().samples
}

/// A WAV file built by hand, for what hound does not write.
fn riff(format: u16, channels: u16, frame_len: u16, data_size: u32, data: &[u8]) -> Vec<u8> {
    let mut file = Vec::from(b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0");
    file.extend(format.to_le_bytes());
    file.extend(channels.to_le_bytes());
    file.extend(8000u32.to_le_bytes());
    file.extend((8000 * u32::from(frame_len)).to_le_bytes());
    file.extend(frame_len.to_le_bytes());
    file.extend((frame_len / channels.max(1) * 8).to_le_bytes());
    file.extend(b"data");
    file.extend(data_size.to_le_bytes());
    file.extend(data);
    file
}

#[test]
fn every_width_of_wav_loads_as_the_same_sound() {
    let sixteen: Vec<i16> = vec![0, 1, -1, 256, -256, 12_800, -12_800, i16::MAX, i16::MIN];
    let int = SampleFormat::Int;
    assert_eq!(samples(&wav(spec(1, 8000, 16, int), &sixteen)), sixteen);

    let wider = |by: u32| {
        sixteen
            .iter()
            .map(move |&s| i32::from(s) << by)
            .collect::<Vec<_>>()
    };
    assert_eq!(samples(&wav(spec(1, 8000, 24, int), &wider(8))), sixteen);
    assert_eq!(samples(&wav(spec(1, 8000, 32, int), &wider(16))), sixteen);

    let float: Vec<f32> = sixteen.iter().map(|&s| f32::from(s) / 32768.0).collect();
    let float_spec = spec(1, 8000, 32, SampleFormat::Float);
    assert_eq!(samples(&wav(float_spec, &float)), sixteen);

    let eight = wav(spec(1, 8000, 8, int), &[0i8, 50, -50, 127, -128]);
    assert_eq!(samples(&eight), [0, 12_800, -12_800, 32_512, i16::MIN]);
}

#[test]
fn stereo_is_averaged_and_never_clipped_or_wrapped() {
    let both = [
        i16::MAX,
        i16::MAX,
        i16::MIN,
        i16::MIN,
        30_000,
        30_000,
        100,
        -100,
        1000,
        0,
    ];
    let file = wav(spec(2, 44_100, 16, SampleFormat::Int), &both);
    let sound = Sound::from_bytes(&file).unwrap();
    assert_eq!(sound.samples, [i16::MAX, i16::MIN, 30_000, 0, 500]);
    assert_eq!(sound.rate, 44_100);
}

#[test]
fn rounding_beyond_full_scale_clips() {
    let wide = wav(
        spec(1, 8000, 24, SampleFormat::Int),
        &[0x7F_FFFF, -0x80_0000],
    );
    assert_eq!(samples(&wide), [i16::MAX, i16::MIN]);
    let loud = [1.0f32, -1.0, 7.5, -7.5, f32::INFINITY, f32::NAN];
    let float = wav(spec(1, 8000, 32, SampleFormat::Float), &loud);
    assert_eq!(
        samples(&float),
        [i16::MAX, i16::MIN, i16::MAX, i16::MIN, i16::MAX, 0]
    );
}

#[test]
fn g711_in_a_wav_file_loads() {
    let codes: Vec<u8> = (0..=255).collect();
    for (format, law) in [(6, Law::Alaw), (7, Law::Ulaw)] {
        let mut expected = Vec::new();
        law.decode(&codes, &mut expected);
        assert_eq!(samples(&riff(format, 1, 1, 256, &codes)), expected);
    }
}

#[test]
fn other_chunks_around_the_sound_are_skipped() {
    let plain = riff(1, 1, 2, 4, &[1, 0, 2, 0]);
    let mut file = plain[..12].to_vec();
    // A chunk of odd length is padded.
    file.extend(b"LIST\x03\0\0\0abc\0");
    file.extend(&plain[12..]);
    file.extend(b"id3 \x02\0\0\0hi");
    assert_eq!(samples(&file), [1, 2]);
}

#[test]
fn a_wav_file_of_a_killed_writer_loads_with_any_size_in_its_header() {
    let sound: Vec<i16> = (0..4000).map(|n| (n * 31) as i16).collect();
    let data: Vec<u8> = sound.iter().flat_map(|s| s.to_le_bytes()).collect();
    for said in [0, 8000, 8001, 100_000, u32::MAX - 1, u32::MAX] {
        assert!(
            samples(&riff(1, 1, 2, said, &data)) == sound,
            "{said} bytes said"
        );
    }
    // A size that fits is trusted: anything may follow it.
    for said in [2, 1600] {
        let loaded = Loaded::from_reader(&riff(1, 1, 2, said, &data)[..], None).unwrap();
        assert!(
            loaded.sound.samples == sound[..said as usize / 2],
            "{said} bytes said"
        );
        let bytes = 8000 - u64::from(said);
        assert_eq!(loaded.flaws, [Flaw::Skipped { bytes }]);
    }
}

#[test]
fn a_wav_file_cut_anywhere_loads_as_far_as_it_goes() {
    let sound: Vec<i16> = (1..50).collect();
    let mut writer = Writer::new(Cursor::new(Vec::new()), 16_000, Channels::Mono).unwrap();
    writer.write(&sound).unwrap();
    let file = writer.finish().unwrap().into_inner();
    for len in 0..file.len() {
        match Sound::from_bytes(&file[..len]) {
            Ok(cut) => assert_eq!(cut.samples, sound[..(len - 44) / 2]),
            Err(error) => assert!(len < 46, "{error} at {len}"),
        }
    }
}

#[test]
fn the_extension_gives_the_format_of_a_headerless_file() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Sound::open(path).unwrap()
    };
    for (extension, rate) in [
        ("sln", 8000),
        ("slin", 8000),
        ("sln16", 16_000),
        ("SLN44", 44_100),
        ("slin192", 192_000),
    ] {
        let sound = open(&format!("a.{extension}"), &[1, 0, 0, 1, 9]);
        assert_eq!((sound.samples, sound.rate), (vec![1, 256], rate));
    }
    // Silence in one format looks like the start of an mp3 in another.
    let silence = [0xFF, 0xFB, 0xFF];
    assert_eq!(open("a.ulaw", &silence).samples, [0, 32, 0]);
    assert_eq!(open("a.al", &[0xD5]).samples, [8]);
    let wav = riff(1, 1, 2, 2, &[7, 0]);
    assert_eq!(open("wrongly-named.ulaw", &wav).samples, [7]);
}

#[test]
fn an_error_names_the_file_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let error = |name: &str, bytes: Option<&[u8]>| {
        if let Some(bytes) = bytes {
            std::fs::write(path(name), bytes).unwrap();
        }
        Sound::open(path(name)).unwrap_err()
    };
    let say = |error: SoundError, parts: &[&str]| {
        let text = error.to_string();
        for part in parts {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        assert!(!text.contains('\n') && !text.contains("  "), "{text:?}");
    };
    let missing = error("none.wav", None);
    assert!(matches!(missing, SoundError::Missing { .. }));
    say(missing, &["none.wav: no such file"]);

    let directory = Sound::open(dir.path()).unwrap_err();
    assert!(matches!(directory, SoundError::Directory { .. }));
    say(directory, &["is a directory"]);

    let text = error("notes.wav", Some(b"Dear diary"));
    assert!(matches!(text, SoundError::NotSound { .. }));
    say(
        text,
        &[
            "notes.wav is not in a known sound format",
            "ffmpeg -i ",
            "notes.wav -ar 8000 -ac 1 out.wav",
        ],
    );

    let empty = error("empty.wav", Some(b""));
    assert!(matches!(empty, SoundError::Empty { .. }));
    let empty = error("silent.wav", Some(&riff(1, 1, 2, 0, &[])));
    assert!(matches!(empty, SoundError::Empty { .. }));
    say(empty, &["silent.wav holds no sound"]);

    let gsm = error("old.wav", Some(&riff(0x31, 1, 65, 65, &[0; 65])));
    assert!(matches!(gsm, SoundError::Unsupported { .. }));
    say(gsm, &["old.wav holds GSM 6.10", "-ar 8000 -ac 1 out.wav"]);
    say(
        error("c.wav", Some(&riff(1, 0, 2, 2, &[0; 2]))),
        &["format"],
    );
    say(
        error("d.wav", Some(&riff(0x1234, 1, 2, 2, &[0; 2]))),
        &["0x1234"],
    );
}

#[cfg(not(feature = "compressed"))]
#[test]
fn an_mp3_says_which_feature_is_missing() {
    for (file, format) in [
        ("tone.mp3", "mp3"),
        ("tone.flac", "FLAC"),
        ("tone.ogg", "Ogg"),
    ] {
        let error = Sound::open(format!("tests/sounds/{file}")).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, SoundError::NotBuiltIn { .. }), "{text}");
        assert!(
            text.contains(format) && text.contains("`compressed`"),
            "{text}"
        );
    }
}

#[cfg(feature = "compressed")]
#[test]
fn mp3_flac_and_ogg_load_as_the_tone_they_were_made_of() {
    for (file, least) in [("tone.mp3", 3600), ("tone.flac", 4000), ("tone.ogg", 4000)] {
        let sound = Sound::open(format!("tests/sounds/{file}")).unwrap();
        assert_eq!(sound.rate, 16_000, "{file}");
        assert!(
            sound.samples.len() >= least,
            "{file}: {}",
            sound.samples.len()
        );
        let middle = &sound.samples[1500..3100];
        let level = sidetone_audio::level::rms_dbfs(middle);
        assert!((level + 15.05).abs() < 0.3, "{file}: {level} dBFS");
        let crossings = middle
            .windows(2)
            .filter(|w| (w[0] < 0) != (w[1] < 0))
            .count();
        assert!((87..=89).contains(&crossings), "{file}: {crossings} of 88");
    }
}

#[cfg(feature = "compressed")]
#[test]
fn a_broken_mp3_is_an_error() {
    let error = Sound::from_bytes(b"fLaC is how this begins").unwrap_err();
    assert!(matches!(error, SoundError::Unsupported { .. }), "{error}");
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        start in prop_oneof![Just(&b""[..]), Just(&b"RIFF....WAVE"[..]), Just(&b"RIFF....WAVEfmt \x10\0\0\0\x01\0"[..])],
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = Sound::from_bytes(&[start, &bytes].concat());
    }
}
