use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Seek, Write},
    mem,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use sidetone_audio::wav::{Channels, Writer};
use time::OffsetDateTime;
use uuid::Uuid;

/// Bytes of a stereo frame.
const FRAME: u32 = 4;

/// Bytes of a file in which there is no sound.
const HEADER: u64 = 44;

/// Nobody has so many recordings of one call in one second.
const MAX_NUMBER: u32 = 10_000;

/// Where recordings go.
#[derive(Debug)]
pub(super) struct Storage {
    pub(super) directory: PathBuf,
    /// Bytes of sound in one file at most.
    pub(super) limit: u32,
    pub(super) open: fn(&Path) -> io::Result<Box<dyn RecordingFile>>,
}

/// What a recording is written to: a file, except in tests.
pub(super) trait RecordingFile: Write + Seek + Send {}

impl<T: Write + Seek + Send> RecordingFile for T {}

/// Opens a file that must not exist yet, for its owner only: it holds what people said.
pub(super) fn open_new(path: &Path) -> io::Result<Box<dyn RecordingFile>> {
    let file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(Box::new(file))
}

/// The name of a call's recording, without number and ending: `20261122T075406Z-UUID`.
pub(super) fn stem(started_at: OffsetDateTime, id: Uuid) -> String {
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z-{id}",
        started_at.year(),
        u8::from(started_at.month()),
        started_at.day(),
        started_at.hour(),
        started_at.minute(),
        started_at.second(),
    )
}

/// The longest name, in bytes, without its number and ending. File systems allow 255 with both.
pub(super) const MAX_STEM: usize = 200;

/// Whether this can be the name of a recording, without its number and ending.
pub(super) fn can_be_stem(name: &str) -> bool {
    (1..=MAX_STEM).contains(&name.len()) && !name.contains(['/', '\0'])
}

/// The file or, one after the other, files of one recording.
pub(super) struct Output {
    stem: String,
    hz: u32,
    part: Part,
    /// Files that are whole.
    finished: Vec<PathBuf>,
}

/// A file that is being written, under a name that says that it isn't whole.
struct Part {
    wav: Writer<Box<dyn RecordingFile>>,
    path: PathBuf,
    /// The frame of the recording that this file begins with.
    begin: u64,
}

impl Output {
    pub(super) fn create(storage: &Storage, stem: String, hz: u32) -> io::Result<Self> {
        let part = Part::create(storage, &stem, hz, 0)?;
        Ok(Self {
            stem,
            hz,
            part,
            finished: Vec::new(),
        })
    }

    /// Puts stereo frames at place `first` of the recording, over what may have been there.
    pub(super) fn write(
        &mut self,
        storage: &Storage,
        first: u64,
        frames: &[i16],
    ) -> io::Result<()> {
        let written = u64::from(self.part.wav.bytes_written() / FRAME);
        let back = (self.part.begin + written).saturating_sub(first);
        // What a file already finished holds can't be replaced any more.
        let skipped = back.saturating_sub(written).min(frames.len() as u64 / 2);
        if back > 0 {
            self.part.wav.rewind(back.min(written) as u32 * FRAME)?;
        }
        let mut rest = &frames[skipped as usize * 2..];
        while !rest.is_empty() {
            let wav = &mut self.part.wav;
            let room = storage.limit.saturating_sub(wav.bytes_written());
            let room = room.min(wav.remaining()) / FRAME;
            if room == 0 {
                self.next_part(storage)?;
                continue;
            }
            let (now, later) = rest.split_at(rest.len().min(room as usize * 2));
            wav.write(now)?;
            rest = later;
        }
        Ok(())
    }

    /// Makes the file whole up to here.
    pub(super) fn checkpoint(&mut self) -> io::Result<()> {
        self.part.wav.checkpoint()
    }

    /// Ends the last file. All files of the recording, in order.
    pub(super) fn finish(mut self) -> io::Result<Vec<PathBuf>> {
        self.finished.push(self.part.finish(&self.stem)?);
        Ok(self.finished)
    }

    /// Removes the last file if there is no sound in it: nobody misses it, and on a full disk there would be one more
    /// with each call.
    pub(super) fn remove_if_empty(self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.files().map(Into::into).collect();
        let length = std::fs::metadata(&self.part.path).map(|file| file.len());
        if length.is_ok_and(|length| length <= HEADER) && remove(&self.part.path) {
            files.pop();
        }
        files
    }

    /// All files of the recording as they are called now, in order.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let finished = self.finished.iter().map(PathBuf::as_path);
        finished.chain([self.part.path.as_path()])
    }

    fn next_part(&mut self, storage: &Storage) -> io::Result<()> {
        let begin = self.part.begin + u64::from(self.part.wav.bytes_written() / FRAME);
        let next = Part::create(storage, &self.stem, self.hz, begin)?;
        let full = mem::replace(&mut self.part, next);
        let part = full.path.clone();
        let finished = full.finish(&self.stem);
        self.finished
            .push(finished.as_ref().unwrap_or(&part).clone());
        finished.map(drop)
    }
}

impl Part {
    fn create(storage: &Storage, stem: &str, hz: u32, begin: u64) -> io::Result<Self> {
        for name in names(stem) {
            let path = storage.directory.join(format!("{name}.part"));
            // A name is free if neither of its two forms is taken.
            if storage.directory.join(name).exists() {
                continue;
            }
            let medium = match open_in(storage, &path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                opened => opened?,
            };
            let wav = Writer::new(medium, hz, Channels::Stereo).inspect_err(|_| {
                remove(&path);
            })?;
            return Ok(Self { wav, path, begin });
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Makes the file whole and gives it its name.
    fn finish(self, stem: &str) -> io::Result<PathBuf> {
        self.wav.finish()?;
        let named = self.path.with_extension("");
        let others = names(stem).map(|name| self.path.with_file_name(name));
        for name in [named].into_iter().chain(others) {
            match rename_new(&self.path, &name) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                renamed => return renamed.map(|()| name),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }
}

/// Opens a new file, in a directory that is made again if it went away.
fn open_in(storage: &Storage, path: &Path) -> io::Result<Box<dyn RecordingFile>> {
    match (storage.open)(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            std::fs::create_dir_all(&storage.directory)?;
            (storage.open)(path)
        }
        opened => opened,
    }
}

/// Whether it is gone.
fn remove(path: &Path) -> bool {
    std::fs::remove_file(path).is_ok()
}

/// Writes a file into a directory, which is made if it isn't there, and removes it again.
pub(super) fn check_writable(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let now = OffsetDateTime::now_utc().unix_timestamp_nanos();
    let path = directory.join(format!(".sidetone-{}-{now}.part", std::process::id()));
    let written = open_new(&path).and_then(|mut file| file.write_all(&[0; HEADER as usize]));
    remove(&path);
    written
}

/// What the system said, in words that say what to do where it is short of them.
pub(super) fn explain(error: &io::Error) -> String {
    match error.kind() {
        // Our own error, at the end of a WAV file, says it itself.
        ErrorKind::FileTooLarge if error.raw_os_error().is_some() => format!(
            "{error}: the limit on the size of files is reached (ulimit -f, or LimitFSIZE= in systemd)"
        ),
        _ => error.to_string(),
    }
}

/// `stem.wav`, `stem-2.wav` and so on.
fn names(stem: &str) -> impl Iterator<Item = String> {
    (1..MAX_NUMBER).map(move |number| match number {
        1 => format!("{stem}.wav"),
        _ => format!("{stem}-{number}.wav"),
    })
}

/// Renames without overwriting.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems, NFS among them, can't do that in one step.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        renamed => Ok(renamed?),
    }
}

#[cfg(test)]
mod tests;
