//! What can be wrong with a sound file, and what to do about it.

use std::io;

/// Why a sound could not be read. `name` is the file's, as it was given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SoundError {
    /// No such file.
    #[error("{name}: no such file; check the path")]
    Missing {
        /// The file.
        name: String,
    },
    /// A directory where a file should be.
    #[error("{name} is a directory; name a sound file in it")]
    Directory {
        /// The directory.
        name: String,
    },
    /// The file is there but can't be read.
    #[error("{name} can't be read ({source}); check its permissions and the disk")]
    Unreadable {
        /// The file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// No sound file of any kind that is known here.
    #[error(
        "{name} is no sound file that is known here; give a WAV file, \
         or convert it with: sox {name} -r 8000 -c 1 -b 16 out.wav"
    )]
    NotSound {
        /// The file.
        name: String,
    },
    /// A sound file whose inside can't be decoded.
    #[error(
        "{name} holds {encoding}, which is not supported; \
         convert it with: sox {name} -r 8000 -c 1 -b 16 out.wav"
    )]
    Unsupported {
        /// The file.
        name: String,
        /// What it holds.
        encoding: String,
    },
    /// A format that this build leaves out.
    #[error(
        "{name} is {format}, which this build leaves out; build sidetone-audio with the feature \
         `compressed`, or convert it with: sox {name} -r 8000 -c 1 -b 16 out.wav"
    )]
    NotBuiltIn {
        /// The file.
        name: String,
        /// `mp3`, `FLAC` or `Ogg`.
        format: &'static str,
    },
    /// A sound file without a single sample.
    #[error("{name} holds no sound; give a file that does")]
    Empty {
        /// The file.
        name: String,
    },
}
