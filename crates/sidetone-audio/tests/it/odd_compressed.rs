//! mp3, FLAC and Ogg files that were cut, joined or damaged, or hold more than sound: what can be
//! decoded plays, and the rest is reported.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use sidetone_audio::level::rms_dbfs;
use sidetone_audio::sound::{Flaw, Loaded, Sound, SoundError};

const FORMATS: [&str; 3] = ["mp3", "flac", "ogg"];

fn file(format: &str) -> Vec<u8> {
    if format == "flac" {
        return flac();
    }
    std::fs::read(format!("tests/sounds/tone.{format}")).unwrap()
}

/// The tone in several uncompressed frames.
fn flac() -> Vec<u8> {
    const BLOCK: usize = 256;
    let samples = Sound::open("tests/sounds/tone.flac").unwrap().samples;
    let mut file = b"fLaC\x80\0\0\x22".to_vec();
    let block = (BLOCK as u16).to_be_bytes();
    file.extend([block, block].concat());
    file.extend([0; 6]);
    // 16 kHz, one channel, 16 bits; then how many samples.
    file.extend((16_000u64 << 44 | 15 << 36 | samples.len() as u64).to_be_bytes());
    file.extend([0; 16]);
    let crc = |bytes: &[u8], width: u32, polynomial: u32| {
        bytes.iter().fold(0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte) << (width - 8), |crc, _| {
                match crc >> (width - 1) & 1 {
                    0 => crc << 1,
                    _ => (crc << 1 ^ polynomial) & ((1 << width) - 1),
                }
            })
        })
    };
    for (number, block) in samples.chunks(BLOCK).enumerate() {
        // The block size less one follows; 16 kHz, mono, 16 bits; the frame number; the checksum.
        let mut frame = vec![0xFF, 0xF8, 0x75, 0x08, number as u8];
        frame.extend((block.len() as u16 - 1).to_be_bytes());
        frame.push(crc(&frame, 8, 0x07) as u8);
        // A verbatim subframe: the samples as they are.
        frame.push(0x02);
        frame.extend(block.iter().flat_map(|sample| sample.to_be_bytes()));
        let sum = crc(&frame, 16, 0x8005) as u16;
        frame.extend(sum.to_be_bytes());
        file.extend(frame);
    }
    file
}

fn load(bytes: &[u8]) -> Loaded {
    Loaded::from_reader(bytes, None).unwrap()
}

fn tags() -> [(&'static str, Vec<u8>); 3] {
    let mut id3v1 = b"TAG".to_vec();
    id3v1.resize(128, b'x');
    let mut ape = vec![0xFF; 500];
    ape.extend(b"APETAGEX");
    for field in [2000u32, 532, 1, 0, 0, 0] {
        ape.extend(field.to_le_bytes());
    }
    let both = [&ape[..], &id3v1].concat();
    [("ID3v1", id3v1), ("APE", ape), ("both", both)]
}

#[test]
fn tags_after_the_sound_change_nothing() {
    for format in FORMATS {
        let whole = load(&file(format));
        assert_eq!(whole.flaws, [], "{format}");
        for (what, tag) in tags() {
            let tagged = load(&[file(format), tag].concat());
            assert!(tagged.sound == whole.sound, "{format} with {what}");
            assert_eq!(tagged.flaws, [], "{format} with {what}");
        }
        let mut tagged = b"ID3\x04\0\0\0\0\x02\x01".to_vec();
        tagged.resize(10 + 257, 0xFF);
        tagged.extend(file(format));
        assert!(load(&tagged) == whole, "{format} behind ID3v2");
    }
}

#[test]
fn garbage_after_the_sound_is_not_played() {
    let garbage: Vec<u8> = (0..20_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for format in FORMATS {
        let whole = load(&file(format)).sound;
        let loaded = load(&[file(format), garbage.clone()].concat());
        let more = loaded.sound.samples.len().abs_diff(whole.samples.len());
        assert!(more <= 16_000 / 8, "{format}: {more} samples");
        let same = loaded
            .sound
            .samples
            .iter()
            .zip(&whole.samples)
            .filter(|(a, b)| a == b)
            .count();
        assert!(
            same + 2000 > whole.samples.len(),
            "{format}: {same} samples are as they were"
        );
    }
}

/// The share of a sound's power that is its tone, where it is audible.
fn is_tone(samples: &[i16]) -> bool {
    let crossings = samples
        .windows(2)
        .filter(|pair| (pair[0] < 0) != (pair[1] < 0))
        .count() as f64;
    let expected = samples.len() as f64 * 2.0 * 440.0 / 16_000.0;
    (crossings - expected).abs() < 3.0 && (rms_dbfs(samples) + 15.05).abs() < 0.3
}

#[test]
fn a_file_that_was_cut_off_plays_as_far_as_it_goes_and_reports_it() {
    for format in FORMATS {
        let whole = load(&file(format)).sound;
        for cut in [1, 5, 20, 200] {
            let bytes = file(format);
            let loaded = load(&bytes[..bytes.len() - cut]);
            let len = loaded.sound.samples.len();
            assert_eq!(loaded.sound.rate, 16_000);
            assert!(
                len < whole.samples.len() && len > 1000,
                "{format} without {cut}: {len}"
            );
            assert!(
                is_tone(&loaded.sound.samples[1000..len.min(3000)]) || len < 1500,
                "{format} without {cut}"
            );
            assert!(
                matches!(loaded.flaws[..], [Flaw::Truncated { .. }]),
                "{format} without {cut}: {:?}",
                loaded.flaws
            );
        }
    }
}

#[test]
fn an_unfinished_ogg_plays() {
    let mut bytes = file("ogg");
    let whole = load(&bytes).sound;
    let last = bytes.windows(4).rposition(|four| four == b"OggS").unwrap();
    assert_eq!(bytes[last + 5] & 4, 4);
    // The checksum now says that the page is damaged: two faults at once.
    bytes[last + 5] = 0;
    let loaded = load(&bytes);
    assert_eq!(loaded.sound.samples.len(), whole.samples.len());
}

#[test]
fn appended_files_play_one_after_the_other() {
    for format in FORMATS {
        let one = load(&file(format)).sound.samples;
        for (what, tag) in [("nothing", Vec::new()), ("a tag", tags()[0].1.clone())] {
            let joined = load(&[file(format), tag, file(format), file(format)].concat());
            let len = joined.sound.samples.len();
            assert_eq!(
                len,
                3 * one.len(),
                "{format} with {what} between: {:?}",
                joined.flaws
            );
            assert!(joined.sound.samples[..one.len()] == one, "{format}");
            assert!(joined.sound.samples[2 * one.len()..] == one, "{format}");
        }
    }
}

/// Silent frames of an mp3.
fn silent_mp3(frames: usize) -> Vec<u8> {
    // MPEG 1, layer III, 128 kbit/s, 44.1 kHz, mono.
    let mut frame = vec![0xFF, 0xFB, 0x90, 0xC4];
    frame.resize(417, 0);
    frame.repeat(frames)
}

#[test]
fn an_mp3_appended_to_one_of_another_rate_plays_at_the_right_speed() {
    let tone = load(&file("mp3")).sound.samples;
    let joined = load(&[file("mp3"), silent_mp3(38)].concat());
    assert_eq!(joined.sound.rate, 16_000);
    let silence = 38 * 1152 * 16_000 / 44_100;
    assert!(
        joined.sound.samples.len().abs_diff(tone.len() + silence) < 2,
        "{}",
        joined.sound.samples.len()
    );
    assert!(joined.sound.samples[..tone.len()] == tone);
    assert_eq!(joined.flaws, []);

    let joined = load(&[silent_mp3(38), file("mp3")].concat());
    assert_eq!(joined.sound.rate, 44_100);
    let second = &joined.sound.samples[38 * 1152..];
    assert!(
        second.len().abs_diff(tone.len() * 44_100 / 16_000) < 2,
        "{}",
        second.len()
    );
    assert!(rms_dbfs(&second[2000..6000]) > -16.0);
}

#[test]
fn an_mp3_of_many_rates_is_not_cut_to_an_estimate() {
    // The first frames are large and the others small, as with speech after music.
    let mut small = vec![0xFF, 0xFB, 0x10, 0xC4];
    small.resize(32 * 144_000 / 44_100, 0);
    let file = [silent_mp3(40), small.repeat(400)].concat();
    let loaded = load(&file);
    assert_eq!(loaded.sound.samples.len(), 440 * 1152);
    assert_eq!(loaded.flaws, []);
}

#[test]
fn damage_in_the_middle_is_a_reported_gap() {
    let frame = |bytes: &[u8]| {
        bytes
            .windows(2)
            .skip(800)
            .position(|two| two == [0xFF, 0xF3])
            .unwrap()
            + 800
    };
    for (format, place) in [
        ("mp3", frame(&file("mp3"))),
        ("flac", file("flac").len() / 2),
    ] {
        let whole = load(&file(format)).sound.samples;
        let mut bytes = file(format);
        bytes[place..place + 4].fill(0x55);
        let loaded = load(&bytes);
        let missing = whole.len() - loaded.sound.samples.len();
        assert!(missing < whole.len() / 3, "{format}: {missing} samples");
        assert!(!loaded.flaws.is_empty(), "{format}");
    }
}

#[test]
fn a_file_with_nothing_left_to_decode_is_refused() {
    let whole = std::fs::read("tests/sounds/tone.flac").unwrap();
    let error = Sound::from_bytes(&whole[..whole.len() - 5]).unwrap_err();
    assert!(matches!(error, SoundError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("cut off or damaged"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_damage_makes_the_decoder_panic(
        format in 0..3usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        header in any::<bool>(),
    ) {
        let mut bytes = file(FORMATS[format]);
        for (place, value) in damage {
            let len = if header { 200 } else { bytes.len() };
            bytes[place.index(len)] = value;
        }
        let len = if header { bytes.len() } else { cut.index(bytes.len()) };
        let _: Result<Sound, SoundError> = Sound::from_bytes(&bytes[..len]);
    }
}
