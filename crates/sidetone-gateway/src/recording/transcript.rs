//! What is said on a call, in words, in a file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use time::OffsetDateTime;

use crate::call::CallContext;

/// The most files with the same UUID and second.
const MAX_NUMBER: u32 = 1000;

/// What somebody said.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) speaker: &'static str,
    pub(crate) text: String,
    /// On the call's clock.
    pub(crate) start: Duration,
    pub(crate) end: Duration,
}

impl Said {
    /// `[0:07] caller: I would like to know`, and the end of the line.
    pub(super) fn line(&self) -> String {
        let seconds = self.start.as_secs();
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let time = match hours {
            0 => format!("{minutes}:{seconds:02}"),
            _ => format!("{hours}:{minutes:02}:{seconds:02}"),
        };
        // What comes from a service must not look like a line of its own.
        let text = self.text.replace(char::is_control, " ");
        format!("[{time}] {}: {text}\n", self.speaker)
    }
}

/// `TIME-UUID.txt`, and `.part` until it is complete.
pub(super) struct TranscriptFile {
    file: File,
    path: PathBuf,
}

impl TranscriptFile {
    /// Only its owner can read it.
    pub(super) fn create(dir: &Path, call: &CallContext) -> io::Result<Self> {
        let started = OffsetDateTime::from(call.started);
        // As recordings are named.
        let stem = format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}Z-{}",
            started.year(),
            u8::from(started.month()),
            started.day(),
            started.hour(),
            started.minute(),
            started.second(),
            call.id
        );
        for number in 1..MAX_NUMBER {
            let name = match number {
                1 => format!("{stem}.txt"),
                _ => format!("{stem}-{number}.txt"),
            };
            if dir.join(&name).exists() {
                continue;
            }
            let path = dir.join(name + ".part");
            let mut options = OpenOptions::new();
            match options.write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                opened => return opened.map(|file| Self { file, path }),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    pub(super) fn append(&mut self, lines: &str) -> io::Result<()> {
        self.file.write_all(lines.as_bytes())
    }

    /// Gives it the name of a complete one, and returns that.
    pub(super) fn finish(self) -> io::Result<String> {
        let whole = self.path.with_extension("");
        fs::rename(&self.path, &whole)?;
        let name = whole.file_name().unwrap_or_default();
        Ok(name.to_string_lossy().into_owned())
    }
}

/// When the recording of a call was paused, on the call's clock.
#[derive(Debug, Default)]
pub(super) struct Pauses(Vec<(Duration, Option<Duration>)>);

/// Of so many pauses the oldest is forgotten: what was said in it has long been transcribed.
const MAX_PAUSES: usize = 64;

impl Pauses {
    pub(super) fn begin(&mut self, at: Duration) {
        if self.is_paused() {
            return;
        }
        if self.0.len() >= MAX_PAUSES {
            self.0.remove(0);
        }
        self.0.push((at, None));
    }

    pub(super) fn end(&mut self, at: Duration) {
        if let Some((_, end @ None)) = self.0.last_mut() {
            *end = Some(at);
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        matches!(self.0.last(), Some((_, None)))
    }

    /// Whether any of it was in a pause.
    pub(super) fn touch(&self, start: Duration, end: Duration) -> bool {
        let mut pauses = self.0.iter();
        pauses.any(|(from, to)| *from <= end && to.is_none_or(|to| start <= to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_transcript_is_one_line() {
        let said = |text: &str, start| Said {
            speaker: "bot",
            text: text.into(),
            start,
            end: start,
        };
        assert_eq!(said("Hello", at(7)).line(), "[0:07] bot: Hello\n");
        assert_eq!(
            said("one\n[0:08] caller: two\u{1b}[31m", at(3601)).line(),
            "[1:00:01] bot: one [0:08] caller: two [31m\n"
        );
    }

    #[test]
    fn what_is_said_in_a_pause_is_known_when_its_words_come_later() {
        let mut pauses = Pauses::default();
        assert!(!pauses.touch(at(0), at(100)));
        pauses.begin(at(10));
        pauses.begin(at(11));
        assert!(pauses.is_paused() && pauses.touch(at(5), at(10)) && pauses.touch(at(50), at(51)));
        pauses.end(at(20));
        pauses.end(at(30));
        assert!(!pauses.is_paused() && !pauses.touch(at(21), at(22)));
        for (start, end) in [(5, 15), (12, 13), (15, 25), (5, 25)] {
            assert!(pauses.touch(at(start), at(end)), "{start} {end}");
        }
    }
}
