//! The transcript of a call in files: for their owner only, `.part` until whole, and never over another one.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use sidetone::record;
use tokio::{task::spawn_blocking, time::timeout};
use uuid::Uuid;

use super::{options::Format, text::Writer};
use crate::{clock, failure::Failure};

/// Nobody has so many transcripts of one call in one second.
const MOST_NUMBERS: u32 = 10_000;

/// How long the disk may take for a piece of a transcript. After that the files are given up.
const STANDS_STILL: Duration = Duration::from_secs(10);

/// Pieces that a disk may keep for longer than that. With so many no further file is begun or written.
const MOST_KEPT: usize = 100;

/// What all calls know of the disk: how many pieces it keeps for too long.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<AtomicUsize>);

/// Tries, before anything is served, to write into the directory.
pub(crate) fn prepare(directory: &Path) -> Result<(), Failure> {
    record::check_directory(directory).map_err(|error| {
        Failure::new(format_args!(
            "can't write transcripts into {} ({error}): choose a directory that this user may write to",
            directory.display()
        ))
    })
}

/// The files of one call. What goes wrong with one ends all, and costs the call nothing.
#[derive(Debug, Default)]
pub(crate) struct Files {
    parts: Vec<Part>,
    failure: Option<String>,
    disk: Disk,
}

/// A file that is being written, under a name that says that it isn't whole.
#[derive(Debug)]
struct Part {
    file: File,
    path: PathBuf,
    writer: Writer,
}

impl Files {
    pub(super) async fn create(
        disk: Disk,
        directory: &Path,
        formats: &[Format],
        labelled: bool,
        id: Uuid,
    ) -> Self {
        let (directory, formats) = (directory.to_owned(), formats.to_owned());
        let stem = format!("{}-{id}", clock::compact_utc());
        let mut files = Self {
            disk,
            ..Self::default()
        };
        files
            .work(move |parts| {
                for format in formats {
                    let writer = Writer::new(format, labelled);
                    parts.push(Part::create(&directory, &stem, writer)?);
                }
                Ok(())
            })
            .await;
        files
    }

    /// Adds what `text` makes of it to each file.
    pub(crate) async fn add(&mut self, text: impl Fn(&mut Writer) -> String + Send + 'static) {
        self.work(move |parts| {
            let mut parts = parts.iter_mut();
            parts.try_for_each(|part| part.file.write_all(text(&mut part.writer).as_bytes()))
        })
        .await;
    }

    /// Makes them whole. Their names, and what went wrong.
    pub(crate) async fn finish(mut self) -> (Vec<PathBuf>, Option<String>) {
        if self.failure.is_none() {
            self.work(|parts| {
                for part in parts {
                    part.finish()?;
                }
                Ok(())
            })
            .await;
        }
        let mut paths: Vec<PathBuf> = self.parts.into_iter().map(|part| part.path).collect();
        if self.failure.is_some() {
            paths.iter().for_each(|path| remove_empty(path));
            paths.retain(|path| path.exists());
        }
        (paths, self.failure)
    }

    /// Works on a thread that may wait for the disk.
    async fn work(&mut self, work: impl FnOnce(&mut Vec<Part>) -> io::Result<()> + Send + 'static) {
        if self.failure.is_some() {
            return;
        }
        if self.disk.0.load(Ordering::Acquire) >= MOST_KEPT {
            self.failure = Some(format!(
                "the disk stands still, and {MOST_KEPT} transcripts wait for it"
            ));
            return;
        }
        let mut parts = std::mem::take(&mut self.parts);
        // Set by whichever comes first: the end of the work, or of the time for it.
        let is_decided = Arc::new(AtomicBool::new(false));
        let (disk, decided) = (self.disk.clone(), Arc::clone(&is_decided));
        let working = spawn_blocking(move || {
            let result = work(&mut parts);
            if decided.swap(true, Ordering::AcqRel) {
                disk.0.fetch_sub(1, Ordering::AcqRel);
            }
            (parts, result)
        });
        self.failure = match timeout(STANDS_STILL, working).await {
            Ok(Ok((parts, result))) => {
                self.parts = parts;
                result.err().map(|error| error.to_string())
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => {
                self.disk.0.fetch_add(1, Ordering::AcqRel);
                if is_decided.swap(true, Ordering::AcqRel) {
                    self.disk.0.fetch_sub(1, Ordering::AcqRel);
                }
                let seconds = STANDS_STILL.as_secs();
                Some(format!(
                    "the disk did not take it within {seconds} s: what was written stays there as .part"
                ))
            }
        };
    }
}

impl Part {
    fn create(directory: &Path, stem: &str, writer: Writer) -> io::Result<Self> {
        for name in names(stem, writer.extension()) {
            // A name is free if neither of its two forms is taken.
            if directory.join(&name).exists() {
                continue;
            }
            let path = directory.join(name + ".part");
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            let opened = match options.open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    // The directory went away.
                    std::fs::create_dir_all(directory)?;
                    options.open(&path)
                }
                opened => opened,
            };
            match opened {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                opened => {
                    let mut file = opened?;
                    file.write_all(writer.head().as_bytes())
                        .inspect_err(|_| remove_empty(&path))?;
                    return Ok(Self { file, path, writer });
                }
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Gives the file the name of a whole one.
    fn finish(&mut self) -> io::Result<()> {
        let whole = self.path.with_extension("");
        match renameat_with(CWD, &self.path, CWD, &whole, RenameFlags::NOREPLACE) {
            // Some file systems, NFS among them, can't do that in one step.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                std::fs::hard_link(&self.path, &whole)?;
                std::fs::remove_file(&self.path)?;
            }
            renamed => renamed?,
        }
        self.path = whole;
        Ok(())
    }
}

/// On a full disk there would be one more with each call.
fn remove_empty(path: &Path) {
    if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) {
        // It stays where it is as empty as it was.
        let _ = std::fs::remove_file(path);
    }
}

/// `stem.txt`, `stem-2.txt` and so on.
fn names(stem: &str, extension: &str) -> impl Iterator<Item = String> {
    (1..MOST_NUMBERS).map(move |number| match number {
        1 => format!("{stem}.{extension}"),
        _ => format!("{stem}-{number}.{extension}"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn names_in(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    async fn create(directory: &Path) -> Files {
        on(Disk::default(), directory).await
    }

    async fn on(disk: Disk, directory: &Path) -> Files {
        let formats = [Format::Text, Format::Srt];
        Files::create(disk, directory, &formats, false, Uuid::nil()).await
    }

    #[tokio::test]
    async fn a_file_is_part_until_it_is_whole_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = create(directory.path()).await;
        files.add(|_| "a line\n".into()).await;
        for name in names_in(directory.path()) {
            assert!(name.ends_with(".part"), "{name}");
            let path = directory.path().join(name);
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            // It is written as it comes.
            assert_eq!(std::fs::read_to_string(path).unwrap(), "a line\n");
        }
        let (paths, failure) = files.finish().await;
        assert_eq!(failure, None);
        assert_eq!(paths.len(), 2);
        assert!(paths.iter().all(|path| path.exists()));
        assert!(
            !names_in(directory.path())
                .iter()
                .any(|it| it.ends_with(".part"))
        );
    }

    #[tokio::test]
    async fn nothing_is_ever_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let mut all = Vec::new();
        // Three of the same call in about the same second.
        for number in 0..3 {
            let mut files = create(directory.path()).await;
            files.add(move |_| number.to_string()).await;
            all.extend(files.finish().await.0);
        }
        assert_eq!(all.len(), 6);
        for (place, path) in all.iter().enumerate() {
            assert_eq!(
                std::fs::read_to_string(path).unwrap(),
                (place / 2).to_string()
            );
        }
    }

    #[tokio::test]
    async fn a_directory_that_went_away_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let gone = directory.path().join("gone");
        let mut files = create(&gone).await;
        files.add(|_| "a line\n".into()).await;
        let (paths, failure) = files.finish().await;
        assert_eq!((paths.len(), failure), (2, None));
    }

    #[tokio::test]
    async fn what_cant_be_written_is_told_and_leaves_nothing_empty() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let files = create(&file).await;
        let (paths, failure) = files.finish().await;
        assert!(paths.is_empty() && failure.is_some());
        // A writer whose head can be written and nothing else.
        let files = create(directory.path()).await;
        let failed = Files {
            failure: Some("the disk is full".into()),
            ..files
        };
        assert_eq!(failed.finish().await.0, Vec::<PathBuf>::new());
        assert_eq!(names_in(directory.path()), ["file"]);
    }

    #[tokio::test]
    async fn a_disk_that_stands_still_keeps_a_bounded_number_of_transcripts() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let mut all = Vec::new();
        for _ in 0..=MOST_KEPT {
            all.push(on(disk.clone(), directory.path()).await);
        }
        let mut last = all.pop().unwrap();
        let moves = Arc::new(std::sync::OnceLock::new());
        tokio::time::pause();
        for mut files in all {
            let (begun, waits) = (Arc::new(AtomicBool::new(false)), Arc::clone(&moves));
            let begins = Arc::clone(&begun);
            let adding = files.add(move |_| {
                begins.store(true, Ordering::Release);
                waits.wait();
                "late\n".into()
            });
            let passing = async {
                while !begun.load(Ordering::Acquire) {
                    tokio::task::yield_now().await;
                }
                tokio::time::advance(STANDS_STILL * 2).await;
            };
            tokio::join!(adding, passing);
            let (_, failure) = files.finish().await;
            assert!(failure.unwrap().contains("within 10 s"));
        }
        tokio::time::resume();
        // Neither the next one nor one that has begun waits for it.
        let refused = "the disk stands still, and 100 transcripts wait for it";
        last.add(|_| "more\n".into()).await;
        assert_eq!(last.finish().await.1.as_deref(), Some(refused));
        let next = on(disk.clone(), directory.path()).await;
        assert_eq!(next.finish().await.1.as_deref(), Some(refused));

        moves.set(()).unwrap();
        while disk.0.load(Ordering::Acquire) > 0 {
            tokio::task::yield_now().await;
        }
        let mut mended = on(disk, directory.path()).await;
        mended.add(|_| "whole\n".into()).await;
        assert_eq!(mended.finish().await.1, None);
    }
}
