//! How much memory it takes to read a sound, whatever the file claims.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use allocation_counter::measure;
use sidetone_audio::sound::{Loaded, Sound, SoundError};

const MIB: u64 = 1 << 20;

fn header(data_size: u32) -> Vec<u8> {
    let mut file = b"RIFF\xFF\xFF\xFF\xFFWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    file.extend(8000u32.to_le_bytes());
    file.extend(16_000u32.to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend(data_size.to_le_bytes());
    file
}

/// A file in `dir` of this length, with nothing after its start.
fn sparse(dir: &tempfile::TempDir, name: &str, start: &[u8], len: u64) -> PathBuf {
    let path = dir.path().join(name);
    let mut file = File::create(&path).unwrap();
    file.write_all(start).unwrap();
    file.set_len(len).unwrap();
    path
}

#[test]
fn a_sound_takes_no_more_memory_than_its_samples() {
    let dir = tempfile::tempdir().unwrap();
    let size = 64 * MIB;
    // For an unknown length the end is searched for what is not sound.
    for (said, more) in [(size as u32, MIB), (u32::MAX, 20 * MIB)] {
        let path = sparse(&dir, "long.wav", &header(said), 44 + size);
        let mut len = 0;
        let taken = measure(|| len = Sound::open(&path).unwrap().samples.len());
        assert_eq!(len as u64, size / 2);
        assert!(taken.bytes_max < size + more, "{} bytes", taken.bytes_max);
    }
    let path = sparse(&dir, "long.sln", &[], size);
    let taken = measure(|| drop(Sound::open(&path).unwrap()));
    assert!(taken.bytes_max < size + MIB, "{} bytes", taken.bytes_max);
}

#[test]
fn a_file_that_is_too_long_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let tebibyte = 1 << 40;
    for (name, start) in [
        ("a.ulaw", vec![]),
        ("a.wav", header(0)),
        ("b.wav", header(u32::MAX)),
        ("c.wav", header(1 << 30)),
    ] {
        let path = sparse(&dir, name, &start, tebibyte);
        let taken = measure(|| {
            let error = Sound::open(&path).unwrap_err();
            assert!(
                matches!(error, SoundError::TooLong { .. }),
                "{name}: {error}"
            );
            assert!(error.to_string().contains("9 hours at 8 kHz"), "{error}");
        });
        assert!(
            taken.bytes_max < 40 * MIB,
            "{name}: {} bytes",
            taken.bytes_max
        );
    }
}

#[test]
fn an_endless_reader_is_refused_at_the_limit() {
    struct Endless(u64);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += buffer.len() as u64;
            buffer.fill(0);
            Ok(buffer.len())
        }
    }
    let mut endless = Endless(0);
    let error = Loaded::from_reader(&mut endless, Some("zeros.ulaw".as_ref())).unwrap_err();
    assert!(matches!(error, SoundError::TooLong { .. }), "{error}");
    assert!(
        (256 * MIB..257 * MIB).contains(&endless.0),
        "{} bytes were read",
        endless.0
    );
    let device = Sound::open("/dev/zero").unwrap_err();
    assert!(
        matches!(device, SoundError::NotAFile { kind: "device", .. }),
        "{device}"
    );
}

#[test]
fn a_header_made_of_chunks_ends() {
    let mut file = b"RIFF\0\0\0\0WAVE".to_vec();
    file.extend(b"JUNK\0\0\0\0".repeat(1 << 20));
    let error = Sound::from_bytes(&file).unwrap_err();
    assert!(matches!(error, SoundError::Unsupported { .. }), "{error}");
    // The same after a sound of unknown length: each chunk may begin what is not sound.
    let mut file = [header(0), vec![1; 1000]].concat();
    file.extend(b"JUNK\0\0\0\0".repeat(1 << 20));
    assert_eq!(Sound::from_bytes(&file).unwrap().samples.len(), 500);
}

#[cfg(feature = "compressed")]
#[test]
fn a_damaged_header_does_not_make_the_reader_allocate_what_it_claims() {
    let mut seed = 1u32;
    let mut chance = |below: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as usize % below
    };
    for format in ["mp3", "flac", "ogg"] {
        let file = std::fs::read(format!("tests/sounds/tone.{format}")).unwrap();
        for _ in 0..CASES {
            let mut bytes = file.clone();
            for _ in 0..=chance(4) {
                bytes[chance(file.len().min(300))] = chance(256) as u8;
            }
            let taken = measure(|| drop(Sound::from_bytes(&bytes)));
            assert!(
                taken.bytes_max < 64 * MIB,
                "{format}: {} bytes",
                taken.bytes_max
            );
        }
    }
}

/// Enough for each byte of the headers.
#[cfg(feature = "compressed")]
const CASES: usize = 1000;
