//! What can be wrong with a sound file, and what to do about it.

use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use os_display::Quotable;

/// The name of a sound file as messages show it: plain if that is safe, else quoted for a shell,
/// whatever it contains. Without a file it is "this sound".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName(Option<PathBuf>);

impl FileName {
    /// The name of this file.
    pub fn new(path: &Path) -> Self {
        Self(Some(path.to_owned()))
    }

    pub(super) fn unnamed() -> Self {
        Self(None)
    }

    /// The path as it was given, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// A shell command that converts it to WAV.
    fn conversion(&self) -> String {
        let Some(path) = &self.0 else {
            return "ffmpeg -i FILE -ar 8000 -ac 1 out.wav".into();
        };
        // To ffmpeg a colon ends the name of a protocol.
        let bytes = path.as_os_str().as_encoded_bytes();
        let is_misread = bytes.starts_with(b"-") || bytes.contains(&b':');
        let path = match is_misread && path.is_relative() {
            true => Path::new(".").join(path),
            false => path.clone(),
        };
        format!("ffmpeg -i {} -ar 8000 -ac 1 out.wav", path.maybe_quote())
    }
}

impl Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(path) => path.maybe_quote().fmt(f),
            None => f.write_str("this sound"),
        }
    }
}

/// Why a sound could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SoundError {
    /// The file does not exist.
    #[error("{name}: no such file; check the path")]
    Missing {
        /// The file.
        name: FileName,
    },
    /// The path is a directory.
    #[error("{name} is a directory; name a sound file in it")]
    Directory {
        /// The directory.
        name: FileName,
    },
    /// The path is a pipe, a device or a socket, which may never end.
    #[error("{name} is a {kind}, not a file; name a sound file")]
    NotAFile {
        /// The path.
        name: FileName,
        /// `pipe`, `device` or `socket`.
        kind: &'static str,
    },
    /// The file exists but can't be read.
    #[error("{name} can't be read ({source}); check its permissions and the disk")]
    Unreadable {
        /// The file.
        name: FileName,
        /// The system's error.
        source: io::Error,
    },
    /// The file is of no known format.
    #[error(
        "{name} is not in a known sound format; give a WAV file, or convert it with: {}",
        name.conversion()
    )]
    NotSound {
        /// The file.
        name: FileName,
    },
    /// The file's encoding can't be decoded.
    #[error(
        "{name} holds {encoding}, which is not supported; convert it with: {}",
        name.conversion()
    )]
    Unsupported {
        /// The file.
        name: FileName,
        /// What it holds.
        encoding: String,
    },
    /// The file's header contradicts itself.
    #[error(
        "{name} contradicts itself: {fields}; export it again, or try if this makes it sound right: {}",
        name.conversion()
    )]
    Contradictory {
        /// The file.
        name: FileName,
        /// The fields that disagree.
        fields: String,
    },
    /// The bytes of a headerless file are not what its extension says.
    #[error(
        "{name} holds {holds}, which is not what its extension says; rename it to {extensions}"
    )]
    Misnamed {
        /// The file.
        name: FileName,
        /// What it holds.
        holds: &'static str,
        /// The right extensions.
        extensions: &'static str,
    },
    /// This build leaves the format out.
    #[error(
        "{name} is {format}, which this build leaves out; build it with the feature `compressed`, \
         or convert the file with: {}",
        name.conversion()
    )]
    NotBuiltIn {
        /// The file.
        name: FileName,
        /// `mp3`, `FLAC` or `Ogg`.
        format: &'static str,
    },
    /// The sound exceeds the limit.
    #[error(
        "{name} is too long: a sound is at most 9 hours at 8 kHz or 90 minutes at 48 kHz, and 256 MiB \
         where it comes from a pipe; cut it, or convert it with: {}",
        name.conversion()
    )]
    TooLong {
        /// The file.
        name: FileName,
    },
    /// The file has no samples.
    #[error("{name} holds no sound; give a file that does")]
    Empty {
        /// The file.
        name: FileName,
    },
}

/// A flaw of a file that could be read all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// The file ends before its sound does.
    Truncated {
        /// How much is missing, if the file says how long it should be.
        missing: Option<Duration>,
    },
    /// Some of the sound can't be decoded, and is left out.
    Damaged {
        /// Pieces that were left out, of some 10 to 100 ms each.
        pieces: u32,
    },
    /// The file contains bytes that are not sound, or can't be read.
    Skipped {
        /// How many.
        bytes: u64,
    },
}

impl Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated {
                missing: Some(missing),
            } => write!(
                f,
                "it was cut off, {:.2} s are missing; the rest plays",
                missing.as_secs_f64()
            ),
            Self::Truncated { missing: None } => f.write_str("it was cut off; the rest plays"),
            Self::Damaged { pieces } => {
                write!(f, "{pieces} pieces of it are damaged and left out")
            }
            Self::Skipped { bytes } => {
                write!(
                    f,
                    "{bytes} bytes in it are not sound that can be read; the rest plays"
                )
            }
        }
    }
}
