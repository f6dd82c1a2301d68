//! A sound that was named on the command line: a file, or a pipe that brings one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};
use sidetone_audio::sound::{FileName, Loaded, Sound, SoundError};

use crate::failure::{Failure, complain};

/// A pipe that brings its sound at once is not worth a word.
const UNTOLD: Duration = Duration::from_secs(1);

/// How long a pipe is waited for.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Between two of its bytes.
    quiet: Duration,
    /// For all of them.
    whole: Duration,
}

const PATIENCE: Patience = Patience {
    quiet: Duration::from_secs(10),
    whole: Duration::from_secs(60),
};

/// Reads it whole, and says what is odd about it on standard error. This blocks.
pub(crate) fn open(path: &Path) -> Result<Sound, Failure> {
    let is_pipe = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    let loaded = match is_pipe {
        true => Pipe::open(path, PATIENCE).and_then(|pipe| Loaded::from_reader(pipe, Some(path))),
        false => Loaded::open(path),
    };
    let loaded = loaded.map_err(|error| match error {
        SoundError::Unreadable { name, source } if source.kind() == ErrorKind::TimedOut => {
            Failure::new(format_args!("{name} is a pipe, and {source}"))
        }
        error => Failure::new(error),
    })?;
    for flaw in &loaded.flaws {
        complain(&format!("{}: {flaw}", FileName::new(path)));
    }
    Ok(loaded.sound)
}

/// A named pipe, or what a shell makes of `<(…)`.
struct Pipe<'a> {
    file: File,
    path: &'a Path,
    patience: Patience,
    began: Instant,
    latest: Instant,
    /// Something has come, so that nothing means the end.
    has_begun: bool,
    is_told: bool,
}

impl<'a> Pipe<'a> {
    fn open(path: &'a Path, patience: Patience) -> Result<Self, SoundError> {
        // Otherwise opening it waits for a writer.
        let nonblocking = OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nonblocking)
            .open(path);
        let file = file.map_err(|source| SoundError::Unreadable {
            name: FileName::new(path),
            source,
        })?;
        let now = Instant::now();
        Ok(Self {
            file,
            path,
            patience,
            began: now,
            latest: now,
            has_begun: false,
            is_told: false,
        })
    }

    /// Waits until there is something to read; `false` if its writer left without a word.
    fn wait(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        let Patience { quiet, whole } = self.patience;
        let (quiet_at, whole_at) = (self.latest + quiet, self.began + whole);
        self.check(now)?;
        if now >= quiet_at {
            return Err(given_up(format!(
                "nothing has come from it for {} s: start what writes to it first",
                quiet.as_secs()
            )));
        }
        let told_at = self.began + UNTOLD;
        let mut until = quiet_at.min(whole_at);
        if !self.is_told && now >= told_at {
            self.is_told = true;
            complain(&format!(
                "{} is a pipe: waiting for its sound, {} s at most",
                FileName::new(self.path),
                whole.as_secs()
            ));
        } else if !self.is_told {
            until = until.min(told_at);
        }
        let timeout = Timespec::try_from(until - now).unwrap_or_default();
        let mut watched = [PollFd::new(&self.file, PollFlags::IN)];
        match poll(&mut watched, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened = watched[0].revents();
        Ok(!happened.contains(PollFlags::HUP) || happened.contains(PollFlags::IN))
    }

    /// However steadily it comes, it must end.
    fn check(&self, now: Instant) -> io::Result<()> {
        let whole = self.patience.whole;
        match now < self.began + whole {
            true => Ok(()),
            false => Err(given_up(format!(
                "its sound was not whole after {} s: name a file instead",
                whole.as_secs()
            ))),
        }
    }
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read(buffer) {
                // Nobody has opened it for writing yet.
                Ok(0) if !self.has_begun => {}
                Ok(len) => {
                    let now = Instant::now();
                    self.check(now)?;
                    (self.has_begun, self.latest) = (true, now);
                    return Ok(len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if !self.wait()? {
                return Ok(0);
            }
        }
    }
}

fn given_up(why: String) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{io::Write, thread};

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    fn pipe(directory: &tempfile::TempDir) -> std::path::PathBuf {
        let path = directory.path().join("pipe");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        path
    }

    /// What is read from a pipe that `write` writes to.
    fn read(patience: Patience, write: impl FnOnce(File) + Send + 'static) -> io::Result<Vec<u8>> {
        let directory = tempfile::tempdir().unwrap();
        let path = pipe(&directory);
        let mut pipe = Pipe::open(&path, patience).unwrap();
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        let writing = thread::spawn(move || write(writer));
        let mut bytes = Vec::new();
        let read = pipe.read_to_end(&mut bytes);
        drop(pipe);
        writing.join().unwrap();
        read.map(|_| bytes)
    }

    #[test]
    fn a_pipe_is_read_to_its_end() {
        let bytes = read(PATIENCE, |mut writer| {
            writer.write_all(&[7; 200_000]).unwrap()
        });
        assert_eq!(bytes.unwrap(), [7; 200_000]);
        assert!(read(PATIENCE, drop).unwrap().is_empty());
    }

    #[test]
    fn a_pipe_that_falls_silent_is_given_up() {
        let patience = Patience {
            quiet: Duration::from_millis(20),
            ..PATIENCE
        };
        let directory = tempfile::tempdir().unwrap();
        let path = pipe(&directory);
        let mut pipe = Pipe::open(&path, patience).unwrap();
        let error = pipe.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let mut pipe = Pipe::open(&path, patience).unwrap();
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all(b"RIFF").unwrap();
        let error = pipe.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("nothing has come"), "{error}");
    }

    #[test]
    fn a_pipe_that_never_ends_is_given_up() {
        let patience = Patience {
            whole: Duration::from_millis(20),
            ..PATIENCE
        };
        // It ends when the other side closes it.
        let error = read(
            patience,
            |mut writer| while writer.write_all(&[7]).is_ok() {},
        );
        let error = error.unwrap_err();
        assert!(error.to_string().contains("not whole"), "{error}");
    }
}
