//! The files of a call's transcript. Only their owner may read them, their names end in `.part` until they are complete,
//! and they never overwrite a file.

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

use super::{file_format::Formatter, options::Format};
use crate::{clock, failure::Failure};

/// The most files with the same UUID and second.
const MAX_NUMBER: u32 = 10_000;

/// How long a write may take. After that the files of the call are given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The most writes that may take longer than that. Until one of them ends, no file is created or written.
const MAX_STALLED: usize = 100;

/// The number of writes, of all calls, that have taken longer than [`WRITE_TIMEOUT`].
#[derive(Clone, Debug, Default)]
pub(super) struct StalledWrites(Arc<AtomicUsize>);

/// Checks that the directory can be written to, before the server listens.
pub(super) fn prepare(directory: &Path) -> Result<(), Failure> {
    record::check_directory(directory).map_err(|error| {
        Failure::new(format_args!(
            "can't write transcripts into {} ({error}): choose a directory that this user may write to",
            directory.display()
        ))
    })
}

/// The files of one call. An error in one of them ends all, and does not affect the call.
#[derive(Debug, Default)]
pub(super) struct Files {
    parts: Vec<Part>,
    failure: Option<String>,
    stalled: StalledWrites,
}

/// A file that is not complete yet. Its name ends in `.part`.
#[derive(Debug)]
struct Part {
    file: File,
    path: PathBuf,
    formatter: Formatter,
}

impl Files {
    pub(super) async fn create(
        stalled: StalledWrites,
        directory: &Path,
        formats: &[Format],
        labelled: bool,
        id: Uuid,
    ) -> Self {
        let (directory, formats) = (directory.to_owned(), formats.to_owned());
        let stem = format!("{}-{id}", clock::compact_utc());
        let mut files = Self {
            stalled,
            ..Self::default()
        };
        files
            .work(move |parts| {
                for format in formats {
                    let formatter = Formatter::new(format, labelled);
                    parts.push(Part::create(&directory, &stem, formatter)?);
                }
                Ok(())
            })
            .await;
        files
    }

    /// Appends to each file what `text` formats for it.
    pub(super) async fn add(&mut self, text: impl Fn(&mut Formatter) -> String + Send + 'static) {
        self.work(move |parts| {
            let mut parts = parts.iter_mut();
            parts.try_for_each(|part| part.file.write_all(text(&mut part.formatter).as_bytes()))
        })
        .await;
    }

    /// Completes the files. Returns their names, and the error if there was one.
    pub(super) async fn finish(mut self) -> (Vec<PathBuf>, Option<String>) {
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

    /// Does work on a thread that may block.
    async fn work(&mut self, work: impl FnOnce(&mut Vec<Part>) -> io::Result<()> + Send + 'static) {
        if self.failure.is_some() {
            return;
        }
        if self.stalled.0.load(Ordering::Acquire) >= MAX_STALLED {
            self.failure = Some(format!(
                "the disk does not respond, and {MAX_STALLED} transcripts wait for it"
            ));
            return;
        }
        let mut parts = std::mem::take(&mut self.parts);
        // Set by what comes first: the end of the work, or the timeout.
        let is_decided = Arc::new(AtomicBool::new(false));
        let (stalled, decided) = (self.stalled.clone(), Arc::clone(&is_decided));
        let working = spawn_blocking(move || {
            let result = work(&mut parts);
            if decided.swap(true, Ordering::AcqRel) {
                stalled.0.fetch_sub(1, Ordering::AcqRel);
            }
            (parts, result)
        });
        self.failure = match timeout(WRITE_TIMEOUT, working).await {
            Ok(Ok((parts, result))) => {
                self.parts = parts;
                result.err().map(|error| error.to_string())
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => {
                self.stalled.0.fetch_add(1, Ordering::AcqRel);
                if is_decided.swap(true, Ordering::AcqRel) {
                    self.stalled.0.fetch_sub(1, Ordering::AcqRel);
                }
                let seconds = WRITE_TIMEOUT.as_secs();
                Some(format!(
                    "a write did not finish within {seconds} s: what is written stays as .part"
                ))
            }
        };
    }
}

impl Part {
    fn create(directory: &Path, stem: &str, formatter: Formatter) -> io::Result<Self> {
        for name in names(stem, formatter.extension()) {
            // A name is free if neither the complete nor the partial file exists.
            if directory.join(&name).exists() {
                continue;
            }
            let path = directory.join(name + ".part");
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            let opened = match options.open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    // The directory was removed.
                    std::fs::create_dir_all(directory)?;
                    options.open(&path)
                }
                opened => opened,
            };
            match opened {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                opened => {
                    let mut file = opened?;
                    file.write_all(formatter.head().as_bytes())
                        .inspect_err(|_| remove_empty(&path))?;
                    return Ok(Self {
                        file,
                        path,
                        formatter,
                    });
                }
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Gives the file the name of a complete one.
    fn finish(&mut self) -> io::Result<()> {
        let whole = self.path.with_extension("");
        match renameat_with(CWD, &self.path, CWD, &whole, RenameFlags::NOREPLACE) {
            // Some file systems, such as NFS, can't do this in one step.
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

/// Removes the empty file that each call leaves on a full disk.
fn remove_empty(path: &Path) {
    if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) {
        // If this fails, an empty file stays.
        let _ = std::fs::remove_file(path);
    }
}

/// `stem.txt`, `stem-2.txt` and so on.
fn names(stem: &str, extension: &str) -> impl Iterator<Item = String> {
    (1..MAX_NUMBER).map(move |number| match number {
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
        create_on(StalledWrites::default(), directory).await
    }

    async fn create_on(stalled: StalledWrites, directory: &Path) -> Files {
        let formats = [Format::Text, Format::Srt];
        Files::create(stalled, directory, &formats, false, Uuid::nil()).await
    }

    #[tokio::test]
    async fn a_file_is_part_until_it_is_complete_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = create(directory.path()).await;
        files.add(|_| "a line\n".into()).await;
        for name in names_in(directory.path()) {
            assert!(name.ends_with(".part"), "{name}");
            let path = directory.path().join(name);
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            // Each transcript is written when it comes.
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
    async fn files_are_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let mut all = Vec::new();
        // Three transcripts of the same call in about the same second.
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
    async fn a_directory_that_was_removed_is_created_again() {
        let directory = tempfile::tempdir().unwrap();
        let gone = directory.path().join("gone");
        let mut files = create(&gone).await;
        files.add(|_| "a line\n".into()).await;
        let (paths, failure) = files.finish().await;
        assert_eq!((paths.len(), failure), (2, None));
    }

    #[tokio::test]
    async fn write_errors_are_reported_and_leave_no_empty_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let files = create(&file).await;
        let (paths, failure) = files.finish().await;
        assert!(paths.is_empty() && failure.is_some());
        // A file whose head is written and nothing else.
        let files = create(directory.path()).await;
        let failed = Files {
            failure: Some("the disk is full".into()),
            ..files
        };
        assert_eq!(failed.finish().await.0, Vec::<PathBuf>::new());
        assert_eq!(names_in(directory.path()), ["file"]);
    }

    #[tokio::test]
    async fn a_disk_that_does_not_respond_holds_a_limited_number_of_transcripts() {
        let directory = tempfile::tempdir().unwrap();
        let stalled = StalledWrites::default();
        let mut all = Vec::new();
        for _ in 0..=MAX_STALLED {
            all.push(create_on(stalled.clone(), directory.path()).await);
        }
        let mut last = all.pop().unwrap();
        let unblocked = Arc::new(std::sync::OnceLock::new());
        tokio::time::pause();
        for mut files in all {
            let (has_begun, wait) = (Arc::new(AtomicBool::new(false)), Arc::clone(&unblocked));
            let begins = Arc::clone(&has_begun);
            let adding = files.add(move |_| {
                begins.store(true, Ordering::Release);
                wait.wait();
                "late\n".into()
            });
            let passing = async {
                while !has_begun.load(Ordering::Acquire) {
                    tokio::task::yield_now().await;
                }
                tokio::time::advance(WRITE_TIMEOUT * 2).await;
            };
            tokio::join!(adding, passing);
            let (_, failure) = files.finish().await;
            assert!(failure.unwrap().contains("within 10 s"));
        }
        tokio::time::resume();
        // Neither a new transcript nor one that has begun waits for the disk.
        let refused = "the disk does not respond, and 100 transcripts wait for it";
        last.add(|_| "more\n".into()).await;
        assert_eq!(last.finish().await.1.as_deref(), Some(refused));
        let next = create_on(stalled.clone(), directory.path()).await;
        assert_eq!(next.finish().await.1.as_deref(), Some(refused));

        unblocked.set(()).unwrap();
        while stalled.0.load(Ordering::Acquire) > 0 {
            tokio::task::yield_now().await;
        }
        let mut recovered = create_on(stalled, directory.path()).await;
        recovered.add(|_| "whole\n".into()).await;
        assert_eq!(recovered.finish().await.1, None);
    }
}
