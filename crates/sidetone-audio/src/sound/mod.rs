//! Sound files, read whole.
//!
//! WAV is read by this module itself, because its own writer's files must load after a kill: see
//! [`wav`](crate::wav). mp3, FLAC and Ogg Vorbis come with the feature `compressed`.
#[cfg(feature = "compressed")]
mod compressed;
mod error;
mod raw;
mod riff;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::resample::{UnsupportedRate, resample_clip};

pub use self::error::SoundError;

/// A whole sound: mono, 16 bits, never empty when it was read from somewhere.
///
/// ```
/// use sidetone_audio::sound::Sound;
///
/// let beep = Sound { samples: vec![1000; 160], rate: 8000 };
/// assert_eq!(beep.to_rate(16_000)?.samples.len(), 320);
/// # Ok::<(), sidetone_audio::resample::UnsupportedRate>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    /// The samples.
    pub samples: Vec<i16>,
    /// Samples per second.
    pub rate: u32,
}

impl Sound {
    /// Reads a file, all of it into memory.
    ///
    /// - WAV: 8, 16, 24 or 32 bits, float of 32 or 64 bits, µ-law, A-law; any number of channels,
    ///   which are averaged; also when its header was never finished.
    /// - Asterisk's headerless formats, told by the file's extension: `sln` and `sln8` to `sln192`
    ///   (also `slin…`), `ulaw`, `ul`, `mu`, `pcm` (µ-law to Asterisk), `alaw`, `al`.
    /// - With the feature `compressed`: mp3, FLAC, Ogg Vorbis.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, and what to do about it, in one line.
    pub fn open(path: impl AsRef<Path>) -> Result<Sound, SoundError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let failed = |source: std::io::Error| match source.kind() {
            ErrorKind::NotFound => SoundError::Missing { name: name.clone() },
            ErrorKind::IsADirectory => SoundError::Directory { name: name.clone() },
            _ => SoundError::Unreadable {
                name: name.clone(),
                source,
            },
        };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(failed)?;
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        match raw::encoding_of(&extension) {
            // A WAV file goes by its content, whatever it is called.
            Some(encoding) if !riff::is_riff(&bytes) => whole(raw::decode(encoding, &bytes), &name),
            _ => decode(bytes, &name),
        }
    }

    /// Reads from anything, to its end, what [`open`](Self::open) reads, but for headerless formats.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn from_reader(mut reader: impl Read) -> Result<Sound, SoundError> {
        let mut bytes = Vec::new();
        let read = reader.read_to_end(&mut bytes);
        let name = UNNAMED.to_owned();
        read.map_err(|source| SoundError::Unreadable { name, source })?;
        decode(bytes, UNNAMED)
    }

    /// The same from memory.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn from_bytes(bytes: &[u8]) -> Result<Sound, SoundError> {
        decode(bytes.to_vec(), UNNAMED)
    }

    /// This sound at another rate, as long as before.
    ///
    /// # Errors
    ///
    /// A rate that can't be resampled.
    pub fn to_rate(&self, rate: u32) -> Result<Sound, UnsupportedRate> {
        Ok(Sound {
            samples: resample_clip(&self.samples, self.rate, rate)?,
            rate,
        })
    }
}

/// Stands in messages for a sound without a file.
const UNNAMED: &str = "this sound";

fn decode(bytes: Vec<u8>, name: &str) -> Result<Sound, SoundError> {
    if bytes.is_empty() {
        return Err(SoundError::Empty { name: name.into() });
    }
    if riff::is_riff(&bytes) {
        return whole(riff::decode(&bytes, name)?, name);
    }
    match compressed_format(&bytes) {
        Some(format) => whole(decompress(bytes, format, name)?, name),
        None => Err(SoundError::NotSound { name: name.into() }),
    }
}

fn whole(sound: Sound, name: &str) -> Result<Sound, SoundError> {
    match sound.samples.is_empty() {
        true => Err(SoundError::Empty { name: name.into() }),
        false => Ok(sound),
    }
}

/// The mean of one moment's channels, each of 32 bits, which can't exceed full scale.
fn mix(channels: impl ExactSizeIterator<Item = i32>) -> i16 {
    let count = channels.len() as i64;
    let sum: i64 = channels.map(i64::from).sum();
    let rounded = ((sum / count) + (1 << 15)) >> 16;
    rounded.min(i64::from(i16::MAX)) as i16
}

/// The compressed format that a file starts like.
fn compressed_format(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [b'I', b'D', b'3', ..] | [0xFF, 0xFA | 0xFB | 0xF2 | 0xF3 | 0xE2 | 0xE3, ..] => Some("mp3"),
        [b'f', b'L', b'a', b'C', ..] => Some("FLAC"),
        [b'O', b'g', b'g', b'S', ..] => Some("Ogg"),
        _ => None,
    }
}

#[cfg(feature = "compressed")]
use self::compressed::decompress;

#[cfg(not(feature = "compressed"))]
fn decompress(_: Vec<u8>, format: &'static str, name: &str) -> Result<Sound, SoundError> {
    Err(SoundError::NotBuiltIn {
        name: name.into(),
        format,
    })
}
