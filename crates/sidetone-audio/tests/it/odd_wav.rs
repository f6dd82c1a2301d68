//! WAV and AU files whose headers are wrong, or which hold more than sound: none plays as noise or
//! at another speed.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use sidetone_audio::g711::Law;
use sidetone_audio::sound::{Flaw, Loaded, Sound, SoundError};

const RATE: u32 = 8000;

/// One second of a tone, which any mistake would change.
fn tone() -> Vec<i16> {
    let step = 440.0 * std::f64::consts::TAU / f64::from(RATE);
    (0..RATE)
        .map(|n| ((f64::from(n) * step).sin() * 12_000.0) as i16)
        .collect()
}

/// A WAV file of which each field can be set wrong.
#[derive(Clone)]
struct Wav {
    container: &'static [u8; 4],
    tag: u16,
    channels: u16,
    rate: u32,
    bytes_per_second: u32,
    block: u16,
    bits: u16,
    /// Before the sound.
    before: Vec<u8>,
    said: Option<u32>,
    data: Vec<u8>,
    /// After the sound.
    behind: Vec<u8>,
}

impl Wav {
    fn linear() -> Self {
        Self {
            container: b"RIFF",
            tag: 1,
            channels: 1,
            rate: RATE,
            bytes_per_second: 2 * RATE,
            block: 2,
            bits: 16,
            before: Vec::new(),
            said: None,
            data: tone()
                .iter()
                .flat_map(|sample| sample.to_le_bytes())
                .collect(),
            behind: Vec::new(),
        }
    }

    fn companded() -> Self {
        let mut data = Vec::new();
        Law::Ulaw.encode(&tone(), &mut data);
        Self {
            tag: 7,
            bytes_per_second: RATE,
            block: 1,
            bits: 8,
            data,
            ..Self::linear()
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let big = self.container == b"RIFX";
        let word = |word: u16| {
            if big {
                word.to_be_bytes()
            } else {
                word.to_le_bytes()
            }
        };
        let long = |long: u32| {
            if big {
                long.to_be_bytes()
            } else {
                long.to_le_bytes()
            }
        };
        let mut file = self.container.to_vec();
        let len = 36 + self.before.len() + self.data.len() + self.behind.len();
        file.extend(long(len as u32));
        file.extend(b"WAVE");
        file.extend(&self.before);
        file.extend(b"fmt ");
        file.extend(long(16));
        file.extend(word(self.tag));
        file.extend(word(self.channels));
        file.extend(long(self.rate));
        file.extend(long(self.bytes_per_second));
        file.extend(word(self.block));
        file.extend(word(self.bits));
        file.extend(b"data");
        file.extend(long(self.said.unwrap_or(self.data.len() as u32)));
        file.extend(&self.data);
        file.extend(&self.behind);
        file
    }

    fn load(&self) -> Result<Loaded, SoundError> {
        Loaded::from_reader(&self.bytes()[..], None)
    }

    #[track_caller]
    fn plays(&self, samples: &[i16], flaws: &[Flaw]) {
        let loaded = self.load().unwrap();
        assert_eq!(loaded.sound.rate, RATE);
        assert_eq!(loaded.sound.samples.len(), samples.len());
        assert!(loaded.sound.samples == samples, "it sounds differently");
        assert_eq!(loaded.flaws, flaws);
    }

    #[track_caller]
    fn contradicts_itself(&self, words: &str) {
        let error = self.load().unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, SoundError::Contradictory { .. }), "{text}");
        assert!(text.contains(words), "{text}");
    }
}

fn companded_tone() -> Vec<i16> {
    let mut samples = Vec::new();
    Law::Ulaw.decode(&Wav::companded().data, &mut samples);
    samples
}

fn chunk(id: &[u8; 4], contents: &[u8]) -> Vec<u8> {
    let mut chunk = id.to_vec();
    chunk.extend((contents.len() as u32).to_le_bytes());
    chunk.extend(contents);
    if contents.len() % 2 == 1 {
        chunk.push(0);
    }
    chunk
}

fn list() -> Vec<u8> {
    chunk(b"LIST", b"INFOISFT\x0e\0\0\0Lavf60.16.100\0")
}

fn id3v1() -> Vec<u8> {
    let mut tag = b"TAG".to_vec();
    tag.resize(128, b'x');
    tag
}

fn ape(has_header: bool) -> Vec<u8> {
    let items = b"\x05\0\0\0\0\0\0\0Title\0Hello";
    let edge = |flags: u32| {
        let mut edge = b"APETAGEX".to_vec();
        let size = 32 + items.len() as u32;
        for field in [2000, size, 1, flags, 0, 0] {
            edge.extend(field.to_le_bytes());
        }
        edge
    };
    let (mut tag, has) = match has_header {
        true => (edge(0xA000_0000), 0x8000_0000),
        false => (Vec::new(), 0),
    };
    tag.extend(items);
    tag.extend(edge(has));
    tag
}

fn id3v2() -> Vec<u8> {
    let mut tag = b"ID3\x04\0\0\0\0\x02\x01".to_vec();
    tag.resize(10 + 257, 7);
    tag
}

#[test]
fn a_wrong_block_length_is_computed_where_two_of_three_fields_agree() {
    for block in [0, 1, 3, 4, 8, 65_535] {
        Wav {
            block,
            ..Wav::linear()
        }
        .plays(&tone(), &[]);
        Wav {
            block,
            ..Wav::companded()
        }
        .plays(&companded_tone(), &[]);
    }
    for bytes_per_second in [0, 1, 7999, 8000 * 16, u32::MAX] {
        Wav {
            bytes_per_second,
            ..Wav::linear()
        }
        .plays(&tone(), &[]);
    }
    Wav {
        bits: 0,
        ..Wav::linear()
    }
    .plays(&tone(), &[]);
    Wav {
        bits: 16,
        ..Wav::companded()
    }
    .plays(&companded_tone(), &[]);
}

#[test]
fn a_block_length_without_an_agreeing_field_is_refused() {
    let both = Wav {
        block: 4,
        bytes_per_second: 4 * RATE,
        ..Wav::linear()
    };
    both.contradicts_itself("one channel of 16 bits take 4 bytes, and 32000 bytes a second");
    Wav {
        block: 4,
        bytes_per_second: 0,
        ..Wav::linear()
    }
    .contradicts_itself("take 4 bytes");
    Wav {
        channels: 2,
        ..Wav::linear()
    }
    .contradicts_itself("2 channels of 16 bits take 2 bytes");
    Wav {
        bits: 8,
        ..Wav::linear()
    }
    .contradicts_itself("8 bits");
    Wav {
        bits: 32,
        ..Wav::linear()
    }
    .contradicts_itself("32 bits");
    Wav {
        tag: 3,
        ..Wav::linear()
    }
    .load()
    .unwrap_err();
    Wav {
        block: 0,
        bytes_per_second: 0,
        ..Wav::linear()
    }
    .contradicts_itself("0 bytes");
    Wav {
        block: 2,
        bytes_per_second: 2 * RATE,
        ..Wav::companded()
    }
    .contradicts_itself("take 2 bytes");
}

#[test]
fn a_rate_that_contradicts_the_byte_rate_is_refused() {
    Wav {
        rate: 16_000,
        ..Wav::linear()
    }
    .contradicts_itself("16000 Hz");
    Wav {
        rate: 44_100,
        ..Wav::companded()
    }
    .contradicts_itself("8000 Hz");
    Wav {
        rate: 0,
        ..Wav::linear()
    }
    .load()
    .unwrap_err();
}

#[test]
fn three_bytes_may_be_stored_in_four() {
    let data: Vec<u8> = tone()
        .iter()
        .flat_map(|s| (i32::from(*s) << 16).to_le_bytes())
        .collect();
    let wide = Wav {
        bits: 24,
        block: 4,
        bytes_per_second: 4 * RATE,
        data,
        ..Wav::linear()
    };
    wide.plays(&tone(), &[]);
}

#[test]
fn two_format_chunks_must_agree() {
    let format = |rate: u32| {
        let mut fields = 1u16.to_le_bytes().to_vec();
        fields.extend(1u16.to_le_bytes());
        fields.extend(rate.to_le_bytes());
        fields.extend((2 * RATE).to_le_bytes());
        fields.extend([2, 0, 16, 0]);
        chunk(b"fmt ", &fields)
    };
    Wav {
        before: format(RATE),
        ..Wav::linear()
    }
    .plays(&tone(), &[]);
    Wav {
        before: format(RATE / 2),
        ..Wav::linear()
    }
    .contradicts_itself("two format chunks that disagree");
}

#[test]
fn nothing_after_the_sound_is_played() {
    let lyrics = {
        let text = b"LYRICSBEGININD0000200";
        let mut tag = text.to_vec();
        tag.extend(b"000021LYRICS200");
        tag
    };
    let unending = {
        let mut list = list();
        list[4] = 0xFF;
        list
    };
    let tags: [(&str, Vec<u8>); 9] = [
        ("ID3v1", id3v1()),
        ("APE", ape(true)),
        ("APE without a header", ape(false)),
        ("APE and ID3v1", [ape(true), id3v1()].concat()),
        ("Lyrics3 and ID3v1", [lyrics, id3v1()].concat()),
        ("ID3v2", id3v2()),
        ("LIST", list()),
        ("LIST and ID3v1", [list(), id3v1()].concat()),
        ("a last chunk longer than the file", unending),
    ];
    for (what, behind) in tags {
        for wav in [Wav::linear(), Wav::companded()] {
            let expected = if wav.tag == 1 {
                tone()
            } else {
                companded_tone()
            };
            let loaded = Wav {
                behind: behind.clone(),
                ..wav
            }
            .load()
            .unwrap();
            assert!(
                loaded.sound.samples == expected,
                "{what}: {}",
                loaded.sound.samples.len()
            );
            assert_eq!(loaded.flaws, [], "{what}");
        }
    }
    let garbage: Vec<u8> = (0..999u32).map(|n| (n * 77 % 251) as u8).collect();
    let bytes = garbage.len() as u64;
    Wav {
        behind: garbage,
        ..Wav::linear()
    }
    .plays(&tone(), &[Flaw::Skipped { bytes }]);
}

#[test]
fn a_sound_of_odd_length_ends_where_its_header_says_padded_or_not() {
    let data = Wav::companded().data[..7999].to_vec();
    for behind in [
        list(),
        [&[0][..], &list()].concat(),
        id3v1(),
        vec![0],
        Vec::new(),
    ] {
        Wav {
            data: data.clone(),
            behind,
            ..Wav::companded()
        }
        .plays(&companded_tone()[..7999], &[]);
    }
    // A chunk before the sound may lack its padding, too.
    for padding in [&[][..], &[0]] {
        let before = [b"LIST\x05\0\0\0INFOx", padding].concat();
        Wav {
            before,
            ..Wav::companded()
        }
        .plays(&companded_tone(), &[]);
    }
}

#[test]
fn a_sound_of_unknown_length_ends_before_chunks_and_tags() {
    let behind = [
        list(),
        [chunk(b"bext", &[1; 602]), list()].concat(),
        [list(), id3v1()].concat(),
        [list(), ape(true), id3v1()].concat(),
        id3v1(),
        ape(true),
        ape(false),
        chunk(b"id3 ", &id3v2()),
        // The last chunk is longer than the file.
        list()[..20].to_vec(),
    ];
    for (number, behind) in behind.into_iter().enumerate() {
        for said in [0, u32::MAX, 0x7FFF_FFFF] {
            let wav = Wav {
                said: Some(said),
                behind: behind.clone(),
                ..Wav::linear()
            };
            let loaded = wav.load().unwrap();
            let samples = loaded.sound.samples;
            assert!(
                samples == tone(),
                "{number}, {said:#x}: {} samples",
                samples.len()
            );
            assert_eq!(loaded.flaws, [], "{number}, {said:#x}");
        }
    }
    let nothing = Wav {
        said: Some(0),
        data: Vec::new(),
        behind: list(),
        ..Wav::linear()
    };
    assert!(matches!(nothing.load(), Err(SoundError::Empty { .. })));
}

#[test]
fn a_sound_that_was_cut_off_reports_how_much_is_missing() {
    let data = Wav::linear().data[..12_000].to_vec();
    let missing = Some(std::time::Duration::from_millis(250));
    let cut = Wav {
        said: Some(16_000),
        data,
        ..Wav::linear()
    };
    cut.plays(&tone()[..6000], &[Flaw::Truncated { missing }]);
}

#[test]
fn all_kinds_of_riff_are_read() {
    let swapped = tone()
        .iter()
        .flat_map(|sample| sample.to_be_bytes())
        .collect();
    Wav {
        container: b"RIFX",
        data: swapped,
        ..Wav::linear()
    }
    .plays(&tone(), &[]);
    for container in [b"RF64", b"BW64"] {
        for (size, said) in [(16_000u64, u32::MAX), (0, u32::MAX), (1, 16_000)] {
            let mut sizes = 99u64.to_le_bytes().to_vec();
            sizes.extend(size.to_le_bytes());
            sizes.extend([0; 12]);
            let before = chunk(b"ds64", &sizes);
            let said = Some(said);
            Wav {
                container,
                before,
                said,
                behind: list(),
                ..Wav::linear()
            }
            .plays(&tone(), &[]);
        }
    }
    let tagged = [id3v2(), Wav::linear().bytes()].concat();
    assert!(Sound::from_bytes(&tagged).unwrap().samples == tone());
}

#[test]
fn a_file_appended_to_another_plays_after_it() {
    let doubled: Vec<i16> = tone()
        .iter()
        .flat_map(|sample| [*sample, *sample])
        .collect();
    let data = doubled
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect();
    let faster = Wav {
        rate: 16_000,
        bytes_per_second: 32_000,
        data,
        ..Wav::linear()
    };
    let first = Wav {
        behind: list(),
        ..Wav::linear()
    };
    let joined = [first.bytes(), Wav::companded().bytes(), faster.bytes()].concat();
    let loaded = Loaded::from_reader(&joined[..], None).unwrap();
    assert_eq!(loaded.sound.rate, RATE);
    assert_eq!(loaded.sound.samples.len(), 24_000);
    assert!(loaded.sound.samples[..8000] == tone());
    assert!(loaded.sound.samples[8000..16_000] == companded_tone());
    assert_eq!(loaded.flaws, []);

    let other = Wav {
        tag: 0x31,
        ..Wav::linear()
    }
    .bytes();
    let bytes = other.len() as u64;
    Wav {
        behind: other,
        ..Wav::linear()
    }
    .plays(&tone(), &[Flaw::Skipped { bytes }]);
}

#[test]
fn au_is_read_and_its_size_trusted_if_it_fits() {
    let au = |said: u32, encoding: u32, data: &[u8]| {
        let mut file = b".snd".to_vec();
        for field in [24, said, encoding, RATE, 1] {
            file.extend(field.to_be_bytes());
        }
        file.extend(data);
        file
    };
    let swapped: Vec<u8> = tone()
        .iter()
        .flat_map(|sample| sample.to_be_bytes())
        .collect();
    for (said, behind) in [
        (16_000, &[][..]),
        (16_000, &id3v1()),
        (u32::MAX, &ape(true)),
        (0, &[]),
    ] {
        let file = [au(said, 3, &swapped), behind.to_vec()].concat();
        let loaded = Loaded::from_reader(&file[..], None).unwrap();
        assert!(loaded.sound.samples == tone(), "{said}");
        assert_eq!(loaded.flaws, []);
    }
    let companded = au(8000, 1, &Wav::companded().data);
    assert!(Sound::from_bytes(&companded).unwrap().samples == companded_tone());
    let error = Sound::from_bytes(&au(8000, 23, &swapped))
        .unwrap_err()
        .to_string();
    assert!(error.contains("AU of encoding 23"), "{error}");
    Sound::from_bytes(&au(8000, 3, &swapped)[..20]).unwrap_err();
}

#[test]
fn an_unsupported_format_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let kinds: [(&str, &[u8], &str); 13] = [
        ("a.aiff", b"FORM\0\0\0\x20AIFFCOMM", "AIFF"),
        ("a.m4a", b"\0\0\0\x20ftypM4A \0\0\0\0", "MP4"),
        ("a.caf", b"caff\0\x01\0\0desc", "CAF"),
        ("a.w64", b"riff\x2E\x91\xCF\x11\xA5\xD6\x28\xDB", "Wave64"),
        (
            "a.opus",
            b"OggS\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x13OpusHead",
            "Opus in an Ogg",
        ),
        ("a.webm", b"\x1A\x45\xDF\xA3\0\0", "WebM"),
        ("a.amr", b"#!AMR\n", "AMR"),
        ("a.avi", b"RIFF\x10\0\0\0AVI LIST", "of the kind AVI"),
        ("a.aac", b"\xFF\xF1\x50\x80", "AAC"),
        ("a.mp2", b"\xFF\xFD\x50\x80", "layer II"),
        ("a.gsm", b"\xD2\x00\x11", "GSM 6.10"),
        ("a.g722", b"\xD2\x00\x11", "G.722"),
        ("a.g729", b"\xD2\x00\x11", "G.729"),
    ];
    for (name, bytes, word) in kinds {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = Sound::open(path).unwrap_err();
        assert!(matches!(error, SoundError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn headerless_bytes_of_another_encoding_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Sound::open(path)
    };
    let linear = Wav::linear().data;
    let (mut ulaw, mut alaw) = (Vec::new(), Vec::new());
    Law::Ulaw.encode(&tone(), &mut ulaw);
    Law::Alaw.encode(&tone(), &mut alaw);
    let wrong: [(&str, &[u8], &str); 6] = [
        ("a.pcm", &linear, "linear samples of 16 bits"),
        ("a.ulaw", &linear, ".sln16 if of 16 kHz"),
        ("a.alaw", &ulaw, "µ-law"),
        ("a.pcm", &alaw, "rename it to .alaw"),
        ("a.sln", &ulaw, "rename it to .ulaw"),
        ("a.sln16", &alaw, "A-law"),
    ];
    for (name, bytes, words) in wrong {
        let error = open(name, bytes).unwrap_err();
        assert!(matches!(error, SoundError::Misnamed { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    for (name, bytes) in [
        ("a.pcm", &ulaw),
        ("a.ulw", &ulaw),
        ("a.alw", &alaw),
        ("a.sln48", &linear),
    ] {
        let samples = open(name, bytes).unwrap().samples;
        assert_eq!(samples.len(), 8000, "{name}");
        // Tags after these are not played either.
        assert!(
            open(name, &[&bytes[..], &id3v1()].concat())
                .unwrap()
                .samples
                == samples,
            "{name}"
        );
    }
}

#[test]
fn a_name_is_quoted_for_terminals_and_shells() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let names: [(&[u8], &str); 5] = [
        (b"two words.wav", "two words.wav'"),
        (b"it's.wav", "it's.wav\""),
        (b"\x1b[31mred\x07.wav", "\\x1B[31mred\\x07"),
        (b"\xC2\x9B31m.wav", "\\xC2\\x9B'$'31m"),
        (b"\xFFmine.wav", "\\xFF"),
    ];
    for (name, quoted) in names {
        let path = dir.path().join(std::ffi::OsStr::from_bytes(name));
        std::fs::write(&path, b"Dear diary").unwrap();
        let text = Sound::open(&path).unwrap_err().to_string();
        assert!(text.chars().all(|letter| !letter.is_control()), "{text:?}");
        assert!(text.contains(quoted), "{text:?} lacks {quoted:?}");
        // A shell prints the name unchanged.
        let word = text
            .split("ffmpeg -i ")
            .nth(1)
            .unwrap()
            .split(" -ar")
            .next()
            .unwrap();
        let shell = Command::new("bash")
            .args(["-c", &format!("printf %s {word}")])
            .output()
            .unwrap();
        assert_eq!(shell.stdout, path.as_os_str().as_bytes(), "{word}");
    }
    let protocol = Loaded::from_reader(&b"?"[..], Some("a:b.wav".as_ref())).unwrap_err();
    assert!(
        protocol.to_string().contains("ffmpeg -i ./a:b.wav"),
        "{protocol}"
    );
    let option = Loaded::from_reader(&b"?"[..], Some("-x.wav".as_ref())).unwrap_err();
    assert!(
        option.to_string().contains("ffmpeg -i ./-x.wav"),
        "{option}"
    );
}
