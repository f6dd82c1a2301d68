//! A sound that the command line names: a file, or a pipe.

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

use crate::failure::{Failure, print_error};

/// After this time a wait for a pipe is reported.
const REPORT_AFTER: Duration = Duration::from_secs(1);

/// The longest waits for a pipe.
#[derive(Clone, Copy, Debug)]
struct Timeouts {
    /// For the next byte.
    idle: Duration,
    /// For the whole sound.
    total: Duration,
}

const TIMEOUTS: Timeouts = Timeouts {
    idle: Duration::from_secs(10),
    total: Duration::from_secs(60),
};

/// Reads a whole sound, and reports its flaws on standard error. Blocks.
pub(crate) fn open(path: &Path) -> Result<Sound, Failure> {
    let is_pipe = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    let loaded = match is_pipe {
        true => Pipe::open(path, TIMEOUTS).and_then(|pipe| Loaded::from_reader(pipe, Some(path))),
        false => Loaded::open(path),
    };
    let loaded = loaded.map_err(|error| match error {
        SoundError::Unreadable { name, source } if source.kind() == ErrorKind::TimedOut => {
            Failure::new(format_args!("{name} is a pipe, and {source}"))
        }
        error => Failure::new(error),
    })?;
    for flaw in &loaded.flaws {
        print_error(&format!("{}: {flaw}", FileName::new(path)));
    }
    Ok(loaded.sound)
}

/// A named pipe, or the shell's `<(…)`.
struct Pipe<'a> {
    file: File,
    path: &'a Path,
    timeouts: Timeouts,
    began: Instant,
    latest: Instant,
    /// A byte has come, so that reading nothing means the end.
    has_begun: bool,
    is_reported: bool,
}

impl<'a> Pipe<'a> {
    fn open(path: &'a Path, timeouts: Timeouts) -> Result<Self, SoundError> {
        // A blocking open would wait for a writer.
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
            timeouts,
            began: now,
            latest: now,
            has_begun: false,
            is_reported: false,
        })
    }

    /// Waits until there is something to read. `false` if the writer closed the pipe without writing.
    fn wait(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        let Timeouts { idle, total } = self.timeouts;
        let (idle_at, total_at) = (self.latest + idle, self.began + total);
        self.check(now)?;
        if now >= idle_at {
            return Err(timed_out(format!(
                "nothing has come from it for {} s: start the program that writes to it first",
                idle.as_secs()
            )));
        }
        let report_at = self.began + REPORT_AFTER;
        let mut until = idle_at.min(total_at);
        if !self.is_reported && now >= report_at {
            self.is_reported = true;
            print_error(&format!(
                "{} is a pipe: waiting for its sound, {} s at most",
                FileName::new(self.path),
                total.as_secs()
            ));
        } else if !self.is_reported {
            until = until.min(report_at);
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

    /// Checks the time for the whole sound, even while bytes come steadily.
    fn check(&self, now: Instant) -> io::Result<()> {
        let total = self.timeouts.total;
        match now < self.began + total {
            true => Ok(()),
            false => Err(timed_out(format!(
                "its sound was not complete after {} s: use a file instead",
                total.as_secs()
            ))),
        }
    }
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read(buffer) {
                // No writer has opened it yet.
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

fn timed_out(why: String) -> io::Error {
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

    /// Reads a pipe that `write` writes to.
    fn read(timeouts: Timeouts, write: impl FnOnce(File) + Send + 'static) -> io::Result<Vec<u8>> {
        let directory = tempfile::tempdir().unwrap();
        let path = pipe(&directory);
        let mut pipe = Pipe::open(&path, timeouts).unwrap();
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
        let bytes = read(TIMEOUTS, |mut writer| {
            writer.write_all(&[7; 200_000]).unwrap()
        });
        assert_eq!(bytes.unwrap(), [7; 200_000]);
        assert!(read(TIMEOUTS, drop).unwrap().is_empty());
    }

    #[test]
    fn a_pipe_that_falls_silent_times_out() {
        let timeouts = Timeouts {
            idle: Duration::from_millis(20),
            ..TIMEOUTS
        };
        let directory = tempfile::tempdir().unwrap();
        let path = pipe(&directory);
        let mut pipe = Pipe::open(&path, timeouts).unwrap();
        let error = pipe.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let mut pipe = Pipe::open(&path, timeouts).unwrap();
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all(b"RIFF").unwrap();
        let error = pipe.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("nothing has come"), "{error}");
    }

    #[test]
    fn a_pipe_that_never_ends_times_out() {
        let timeouts = Timeouts {
            total: Duration::from_millis(20),
            ..TIMEOUTS
        };
        // The writer ends when the reader closes the pipe.
        let error = read(
            timeouts,
            |mut writer| while writer.write_all(&[7]).is_ok() {},
        );
        let error = error.unwrap_err();
        assert!(error.to_string().contains("not complete"), "{error}");
    }
}
