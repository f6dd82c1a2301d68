//! The folder under `target/` that keeps what was fetched, shared by any number of processes.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{FetchError, at};

/// How folders are named that are still being filled.
const PARTIAL: &str = "partial-";

/// The cache, locked until dropped.
pub(super) struct Cache {
    folder: PathBuf,
    _lock: File,
}

impl Cache {
    /// Waits until no other process has it.
    pub(super) fn open() -> Result<Self, FetchError> {
        let folder = folder();
        std::fs::create_dir_all(&folder).map_err(at(&folder))?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(at(&path))?;
        lock.lock().map_err(at(&path))?;
        let cache = Self {
            folder,
            _lock: lock,
        };
        cache.sweep();
        Ok(cache)
    }

    /// Removes what a killed process left half done; nobody else is at work while the lock is held.
    fn sweep(&self) {
        for entry in std::fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            if [PARTIAL, super::apt::PREFIX]
                .iter()
                .any(|prefix| name.to_string_lossy().starts_with(prefix))
            {
                // What can't be removed only takes up room.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }

    /// The entry of this name; if it isn't there yet, `fill` makes it in an empty folder.
    pub(super) fn entry(
        &self,
        name: &str,
        fill: impl FnOnce(&Path) -> Result<(), FetchError>,
    ) -> Result<PathBuf, FetchError> {
        let entry = self.folder.join(name);
        if !entry.exists() {
            // Whatever is cut short stays under the temporary name and goes away with it: an entry is always whole.
            let partial = tempfile::Builder::new()
                .prefix(PARTIAL)
                .tempdir_in(&self.folder)
                .map_err(at(&self.folder))?;
            fill(partial.path())?;
            std::fs::rename(partial.path(), &entry).map_err(at(&entry))?;
        }
        Ok(entry)
    }
}

/// `target/asterisk`, whatever `target` is called in this build.
pub(crate) fn folder() -> PathBuf {
    target().join("asterisk")
}

/// Cargo marks the folder it builds into, so the running program finds it from its own place; that holds for `CARGO_TARGET_DIR`,
/// `--target-dir` and a configured one alike.
fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let built_into = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists());
    built_into.map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        Path::to_path_buf,
    )
}
