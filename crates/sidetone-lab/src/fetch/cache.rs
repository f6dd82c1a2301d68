//! The folder under `target/` that keeps what was fetched, shared by any number of processes.

use std::fs::File;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::path::{Path, PathBuf};

use super::{FetchError, at};

/// How folders are named that are still being filled.
const PARTIAL: &str = "partial-";

/// What is between the name of an entry and the hash of its recipe.
const MARK: char = '+';

/// The cache, locked until dropped.
pub(super) struct Cache {
    folder: PathBuf,
    _lock: File,
}

impl Cache {
    /// Waits until no other process has it.
    pub(super) fn open() -> Result<Self, FetchError> {
        Self::open_in(&folder())
    }

    fn open_in(folder: &Path) -> Result<Self, FetchError> {
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(at(&path))?;
        lock.lock().map_err(at(&path))?;
        let cache = Self {
            folder: folder.to_owned(),
            _lock: lock,
        };
        cache.sweep();
        Ok(cache)
    }

    /// Removes what a killed process left half done; nobody else is at work while the lock is held.
    fn sweep(&self) {
        self.remove_all(|name| {
            [PARTIAL, super::apt::PREFIX]
                .iter()
                .any(|half| name.starts_with(half))
        });
    }

    /// The entry of this name and recipe; if it isn't there yet, `fill` makes it in an empty folder.
    ///
    /// The recipe is all that decides what is in it: once it changes, the entry is made anew, and the one it replaces goes.
    pub(super) fn entry(
        &self,
        name: &str,
        recipe: impl Hash,
        fill: impl FnOnce(&Path) -> Result<(), FetchError>,
    ) -> Result<PathBuf, FetchError> {
        // Should another Rust hash otherwise, all is fetched once more.
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(recipe);
        let entry = self.folder.join(format!("{name}{MARK}{hash:016x}"));
        if !entry.exists() {
            // Whatever is cut short stays under the temporary name and goes away with it: an entry is always whole.
            let partial = tempfile::Builder::new()
                .prefix(PARTIAL)
                .tempdir_in(&self.folder)
                .map_err(at(&self.folder))?;
            fill(partial.path())?;
            self.remove_all(|other| other == name || without_hash(other) == Some(name));
            std::fs::rename(partial.path(), &entry).map_err(at(&entry))?;
        }
        Ok(entry)
    }

    /// Removes the entries that are called so.
    fn remove_all(&self, called_so: impl Fn(&str) -> bool) {
        let entries = std::fs::read_dir(&self.folder);
        for entry in entries.into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(&called_so) {
                // What can't be removed only takes up room.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// The name of an entry, of what its folder is called.
fn without_hash(called: &str) -> Option<&str> {
    called.rsplit_once(MARK).map(|(name, _)| name)
}

/// `target/asterisk`, whatever `target` is called in this build.
pub(crate) fn folder() -> PathBuf {
    target().join("asterisk")
}

/// Cargo marks the folder it builds into, so the running program finds it from its own place; that holds for `CARGO_TARGET_DIR`,
/// `--target-dir` and a configured one alike.
pub(super) fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let built_into = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists());
    built_into.map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        Path::to_path_buf,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn another_recipe_makes_the_entry_anew_and_removes_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open_in(folder.path()).unwrap();
        // As the cache was filled before entries had recipes, and another entry that only begins alike.
        for other in ["asterisk-forky", "asterisk-forky-wav+0", "partial-asterisk"] {
            std::fs::create_dir(folder.path().join(other)).unwrap();
        }
        let fill = |text: &'static str| {
            move |path: &Path| std::fs::write(path.join("text"), text).map_err(at(path))
        };
        let make = |recipe: &[&str], text| {
            let entry = cache.entry("asterisk-forky", recipe, fill(text)).unwrap();
            std::fs::read_to_string(entry.join("text")).unwrap()
        };
        assert_eq!(make(&["asterisk"], "one"), "one");
        assert_eq!(make(&["asterisk"], "two"), "one");
        assert_eq!(make(&["asterisk", "libcurl4"], "three"), "three");
        let left = std::fs::read_dir(folder.path()).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<String> = left.collect();
        // A plus comes before a minus.
        left.sort();
        assert!(
            matches!(&left[..], [new, other, lock, partial]
                if new.starts_with("asterisk-forky+") && [other, lock, partial] == ["asterisk-forky-wav+0", "lock", "partial-asterisk"]),
            "{left:?}"
        );
    }
}
