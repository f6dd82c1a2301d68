//! Sound files, read into memory.
//!
//! This module reads WAV itself, because files of a writer that was killed must load: see
//! [`wav`](crate::wav). mp3, FLAC and Ogg Vorbis come with the feature `compressed`.
//!
//! If a file's header says something twice, both must agree, and what follows the sound is not
//! played. A file is read while it is decoded, so a sound takes no more memory than its samples.
mod au;
mod collector;
#[cfg(feature = "compressed")]
mod compressed;
mod error;
mod kind;
#[cfg(feature = "compressed")]
mod mpeg;
#[cfg(feature = "compressed")]
mod ogg;
mod part;
mod pcm;
mod raw;
mod tags;
mod wave;

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use self::collector::{Collector, ReadError};
use self::kind::{Compressed, Kind};
use self::part::Part;
use crate::resample::{UnsupportedRate, resample_clip};

pub use self::error::{FileName, Flaw, SoundError};

/// A whole sound: mono, 16 bits. It is never empty if it was read from somewhere.
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

/// A sound, and the flaws of the file it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// The sound.
    pub sound: Sound,
    /// What is missing from the sound, or in the file besides it. Mostly empty.
    pub flaws: Vec<Flaw>,
}

impl Loaded {
    /// Reads a file, as [`Sound::open`] does.
    ///
    /// # Errors
    ///
    /// As for [`Sound::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Loaded, SoundError> {
        let path = path.as_ref();
        let name = || FileName::new(path);
        let failed = |source: std::io::Error| match source.kind() {
            ErrorKind::NotFound => SoundError::Missing { name: name() },
            ErrorKind::IsADirectory => SoundError::Directory { name: name() },
            _ => SoundError::Unreadable {
                name: name(),
                source,
            },
        };
        // Opening a pipe could wait for ever.
        if let Some(kind) = not_a_file(&fs::metadata(path).map_err(failed)?) {
            return Err(SoundError::NotAFile { name: name(), kind });
        }
        let file = File::open(path).map_err(failed)?;
        let part = Part::of_file(file).map_err(failed)?;
        read(&part, extension_of(path), FileName::new(path))
    }

    /// Reads from any reader to its end. `name` is for messages, and its extension tells headerless
    /// formats. Up to 256 MiB are read into memory.
    ///
    /// # Errors
    ///
    /// As for [`Sound::open`].
    pub fn from_reader(reader: impl Read, name: Option<&Path>) -> Result<Loaded, SoundError> {
        let file_name = || name.map_or_else(FileName::unnamed, FileName::new);
        let mut bytes = Vec::new();
        let read_to_end = reader.take(MAX_READ + 1).read_to_end(&mut bytes);
        read_to_end.map_err(|source| SoundError::Unreadable {
            name: file_name(),
            source,
        })?;
        if bytes.len() as u64 > MAX_READ {
            return Err(SoundError::TooLong { name: file_name() });
        }
        let extension = name.map(extension_of).unwrap_or_default();
        read(&Part::of_memory(bytes), extension, file_name())
    }
}

impl Sound {
    /// Reads a file.
    ///
    /// - WAV: 8, 16, 24 or 32 bits, float of 32 or 64 bits, µ-law, A-law; any number of channels,
    ///   which are averaged; as RIFF, RIFX, RF64 or BW64; also with a header that was never
    ///   finished.
    /// - AU with the same samples.
    /// - Asterisk's headerless formats, by the file's extension: `sln` and `sln8` to `sln192` (also
    ///   `slin…`), `ulaw`, `ul`, `mu`, `ulw`, `pcm` (µ-law in Asterisk), `alaw`, `al`, `alw`;
    ///   unless the bytes are certainly in another of these.
    /// - With the feature `compressed`: mp3, FLAC, Ogg Vorbis.
    ///
    /// Files appended to the first are read, too. Flaws are not reported here: see
    /// [`Loaded::open`].
    ///
    /// # Errors
    ///
    /// A [`SoundError`] says what is wrong with the file and what to do about it, in one line. A
    /// pipe or a device is an error, too, since it may never end, and so is a sound of more than
    /// 2²⁸ samples, which are 512 MiB.
    pub fn open(path: impl AsRef<Path>) -> Result<Sound, SoundError> {
        Ok(Loaded::open(path)?.sound)
    }

    /// Reads from any reader to its end, as [`open`](Self::open), except for headerless formats. Up
    /// to 256 MiB are read into memory.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn from_reader(reader: impl Read) -> Result<Sound, SoundError> {
        Ok(Loaded::from_reader(reader, None)?.sound)
    }

    /// Reads from memory, as [`from_reader`](Self::from_reader).
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn from_bytes(bytes: &[u8]) -> Result<Sound, SoundError> {
        Self::from_reader(bytes)
    }

    /// As [`to_rate`](Self::to_rate), without a copy if the rate is the same.
    ///
    /// # Errors
    ///
    /// [`UnsupportedRate`] for a rate that can't be resampled.
    pub fn into_rate(self, rate: u32) -> Result<Sound, UnsupportedRate> {
        match self.rate == rate {
            true => Ok(self),
            false => self.to_rate(rate),
        }
    }

    /// This sound at another rate in Hz, with the same duration.
    ///
    /// # Errors
    ///
    /// [`UnsupportedRate`] for a rate that can't be resampled.
    pub fn to_rate(&self, rate: u32) -> Result<Sound, UnsupportedRate> {
        Ok(Sound {
            samples: resample_clip(&self.samples, self.rate, rate)?,
            rate,
        })
    }
}

/// The most bytes read into memory before decoding.
const MAX_READ: u64 = 256 << 20;

fn extension_of(path: &Path) -> &str {
    path.extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default()
}

fn not_a_file(metadata: &fs::Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_fifo() {
        Some("pipe")
    } else if kind.is_char_device() || kind.is_block_device() {
        Some("device")
    } else if kind.is_socket() {
        Some("socket")
    } else {
        None
    }
}

fn read(part: &Part, extension: &str, name: FileName) -> Result<Loaded, SoundError> {
    let mut collector = Collector::new();
    match read_parts(part, extension, &mut collector) {
        Ok(()) if collector.len() == 0 && !collector.flaws.is_empty() => {
            Err(SoundError::Unsupported {
                name,
                encoding:
                    "a sound that was cut off or damaged so that nothing of it can be decoded"
                        .into(),
            })
        }
        Ok(()) if collector.len() == 0 => Err(SoundError::Empty { name }),
        Ok(()) => Ok(collector.finish()),
        Err(ReadError::Io(source)) if source.kind() == ErrorKind::IsADirectory => {
            Err(SoundError::Directory { name })
        }
        Err(error) => Err(error.with_name(name)),
    }
}

/// Reads a file, and those appended to it.
fn read_parts(part: &Part, extension: &str, collector: &mut Collector) -> Result<(), ReadError> {
    let mut from = 0;
    for _ in 0..MAX_JOINED {
        let rest = part.from(from);
        let another = match read_one(&rest, extension, collector) {
            Ok(another) => another,
            // The first part plays all the same.
            Err(ReadError::Unsupported(_) | ReadError::Contradictory(_)) if collector.len() > 0 => {
                collector.flaws.push(Flaw::Skipped { bytes: rest.len() });
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match another {
            Some(another) => from += another,
            None => return Ok(()),
        }
    }
    let bytes = part.len() - from;
    collector.flaws.push(Flaw::Skipped { bytes });
    Ok(())
}

/// The most files read from one.
const MAX_JOINED: usize = 1000;

/// Reads the file at the start of `part`. Returns where the next one begins, if any.
fn read_one(
    part: &Part,
    extension: &str,
    collector: &mut Collector,
) -> Result<Option<u64>, ReadError> {
    if part.len() == 0 {
        return Ok(None);
    }
    let (begin, end) = tags::strip(part)?;
    let start = part.peek(begin, kind::START)?;
    let raw = raw::layout_of(extension);
    match kind::identify(&start) {
        // `end` counts from the start of `part`, before the tags.
        Some(Ok(Kind::Wave(container))) => {
            let another = wave::read(container, &part.from(begin), end - begin, collector)?;
            return Ok(another.map(|another| begin + another));
        }
        Some(Ok(Kind::Au)) => au::read(&part.from(begin), end - begin, collector)?,
        Some(Ok(Kind::Compressed(format))) => {
            decompress(format, &part.slice(begin, end), collector)?
        }
        Some(Err(name)) => return Err(ReadError::Unsupported(name)),
        None => match raw {
            Some(layout) => raw::read(&layout, &part.slice(begin, end), collector)?,
            None if begin > 0 || kind::is_mp3(&start) || extension.eq_ignore_ascii_case("mp3") => {
                decompress(Compressed::Mp3, &part.slice(begin, end), collector)?;
            }
            None => return Err(unknown(&start, extension)),
        },
    }
    Ok(None)
}

/// The error for an unknown format.
fn unknown(start: &[u8], extension: &str) -> ReadError {
    match raw::foreign(extension).or_else(|| kind::mp3_lookalike(start)) {
        Some(name) => ReadError::Unsupported(name.into()),
        None => ReadError::NotSound,
    }
}

/// The mean of one frame's channels, each of 32 bits, which can't exceed full scale.
fn downmix(channels: impl ExactSizeIterator<Item = i32>) -> i16 {
    let count = channels.len() as i64;
    let sum: i64 = channels.map(i64::from).sum();
    let rounded = ((sum / count) + (1 << 15)) >> 16;
    rounded.min(i64::from(i16::MAX)) as i16
}

#[cfg(feature = "compressed")]
use self::compressed::decompress;

#[cfg(not(feature = "compressed"))]
fn decompress(format: Compressed, _: &Part, _: &mut Collector) -> Result<(), ReadError> {
    Err(ReadError::NotBuiltIn(format.name()))
}
