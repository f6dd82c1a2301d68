//! The transcript of a call in files: for their owner only, `.part` until whole, and never over another one.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use sidetone::record;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{options::Format, text::Writer};
use crate::{clock, failure::Failure};

/// Nobody has so many transcripts of one call in one second.
const MOST_NUMBERS: u32 = 10_000;

/// Tries, before anything is served, to write into the directory.
pub(crate) fn prepare(directory: &Path) -> Result<(), Failure> {
    record::try_directory(directory).map_err(|error| {
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
}

/// A file that is being written, under a name that says that it isn't whole.
#[derive(Debug)]
struct Part {
    file: File,
    path: PathBuf,
    writer: Writer,
}

impl Files {
    pub(crate) async fn create(
        directory: &Path,
        formats: &[Format],
        labelled: bool,
        id: Uuid,
    ) -> Self {
        let (directory, formats) = (directory.to_owned(), formats.to_owned());
        let stem = format!("{}-{id}", clock::compact_utc());
        let mut files = Self::default();
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
        let mut parts = std::mem::take(&mut self.parts);
        let worked = spawn_blocking(move || {
            let result = work(&mut parts);
            (parts, result)
        });
        self.failure = match worked.await {
            Ok((parts, result)) => {
                self.parts = parts;
                result.err().map(|error| error.to_string())
            }
            Err(error) => Some(error.to_string()),
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
        Files::create(directory, &[Format::Text, Format::Srt], false, Uuid::nil()).await
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
}
