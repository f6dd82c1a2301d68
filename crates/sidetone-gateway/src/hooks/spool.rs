//! Messages on disk, so that they outlive the process.
//!
//! Each process has a folder of its own in the spool, locked while it lives, with one file for each
//! message. A process takes over what is in folders whose process is gone: at its start, and later,
//! since under socket activation the process before goes on with its calls for a while.
//!
//! A thread of its own does all of this. It writes a file at once, which a killed process doesn't
//! take back, and sees to it that the disk has it within about a quarter of a second, unless the
//! message is delivered before. So a power cut costs what is younger, or younger than the disk is
//! slow. It can also bring back messages that were delivered.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::message::{Key, LONGEST_FILE, Message};

/// How long files wait for the disk, together.
const SYNC_AFTER: Duration = Duration::from_millis(250);
/// How often folders are looked for whose process is gone.
const ADOPT_EVERY: Duration = Duration::from_secs(1);
/// When a file that couldn't be written is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const LOCK: &str = "lock";
const TEMPORARY: &str = ".tmp";

/// Makes keys. They rise, even when the clock is set back.
#[derive(Debug, Default)]
pub(super) struct Keys {
    last_ms: AtomicU64,
    numbers: AtomicU64,
}

/// Messages of a process that is gone, with their ages.
pub(super) type Adopted = Vec<(Message, Duration)>;

/// Writes messages to a folder. None of its functions waits for the disk.
#[derive(Debug)]
pub(super) struct Spool {
    shared: Arc<Shared>,
    ended: watch::Receiver<()>,
}

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    wake: Condvar,
    is_failing: AtomicBool,
}

/// What the thread has to do. It holds no more than there are messages and files.
#[derive(Debug, Default)]
struct Work {
    put: BTreeMap<Key, Arc<Message>>,
    remove: BTreeSet<Key>,
    stop: bool,
}

impl Keys {
    pub(super) fn next(&self) -> Key {
        let now = since_1970().as_millis() as u64;
        let last = self.last_ms.fetch_max(now, Ordering::Relaxed);
        self.numbered(last.max(now))
    }

    fn numbered(&self, created_ms: u64) -> Key {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        Key { created_ms, number }
    }
}

impl Spool {
    /// Makes this process's folder in `path`. Nothing is written or taken over until
    /// [`Writer::start`].
    pub(super) fn open(path: &Path, keys: Arc<Keys>, keep: Duration) -> io::Result<(Self, Writer)> {
        private_folder().recursive(true).create(path)?;
        let folder = Folder::create(path)?;
        let shared = Arc::<Shared>::default();
        let (on_end, ended) = watch::channel(());
        let writer = Writer {
            shared: Arc::clone(&shared),
            spool: path.into(),
            folder,
            keys,
            keep,
            left_alone: HashSet::new(),
            unsynced: BTreeSet::new(),
            sync_at: None,
            syncing: BTreeSet::new(),
            retry_at: None,
            adopt_at: Instant::now(),
            _on_end: on_end,
        };
        Ok((Self { shared, ended }, writer))
    }

    /// Keeps a message.
    pub(super) fn put(&self, message: Arc<Message>) {
        self.shared.work.lock().put.insert(message.key, message);
        self.shared.wake.notify_one();
    }

    /// Forgets a message, which may not have been written yet.
    pub(super) fn remove(&self, key: Key) {
        let mut work = self.shared.work.lock();
        if work.put.remove(&key).is_none() {
            work.remove.insert(key);
            drop(work);
            self.shared.wake.notify_one();
        }
    }

    /// Whether messages can't be written at the moment. They are tried again.
    pub(super) fn is_failing(&self) -> bool {
        self.shared.is_failing.load(Ordering::Relaxed)
    }

    /// Lets the thread finish what it has to do, and end.
    pub(super) fn stop(&self) {
        self.shared.work.lock().stop = true;
        self.shared.wake.notify_one();
    }

    /// Waits until the thread has ended. Cancel safe.
    pub(super) async fn ended(&self) {
        // An error is what the end looks like.
        let _ = self.ended.clone().changed().await;
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.stop();
    }
}

enum Task {
    Put(Arc<Message>),
    Remove(Key),
    Sync,
    Adopt,
    End,
}

/// The thread's side of a spool.
pub(super) struct Writer {
    shared: Arc<Shared>,
    spool: PathBuf,
    folder: Folder,
    keys: Arc<Keys>,
    keep: Duration,
    /// Folders that can't be taken over, or that hold what is not ours.
    left_alone: HashSet<OsString>,
    /// Written, but perhaps not on the disk, with the time for the next batch.
    unsynced: BTreeSet<Key>,
    sync_at: Option<Instant>,
    /// The rest of the batch that the disk gets now.
    syncing: BTreeSet<Key>,
    /// Nothing is written before, after a failure.
    retry_at: Option<Instant>,
    adopt_at: Instant,
    /// Dropped last, when the lock of the folder is free.
    _on_end: watch::Sender<()>,
}

impl Writer {
    /// Starts the thread. It passes to `adopt` what processes before left, oldest first, and drops
    /// `adopt` when it ends.
    pub(super) fn start(
        mut self,
        mut adopt: impl FnMut(Adopted) + Send + 'static,
    ) -> io::Result<()> {
        let run = move || self.run(&mut adopt);
        thread::Builder::new()
            .name("hooks-spool".into())
            .spawn(run)?;
        Ok(())
    }

    fn run(&mut self, adopt: &mut dyn FnMut(Adopted)) {
        self.adopt(adopt);
        loop {
            match self.next_task() {
                Task::Put(message) => self.put(message),
                Task::Remove(key) => self.remove(key),
                Task::Sync => self.sync(),
                Task::Adopt => self.adopt(adopt),
                Task::End => return self.folder.remove_if_empty(),
            }
        }
    }

    fn next_task(&mut self) -> Task {
        let shared = Arc::clone(&self.shared);
        let mut work = shared.work.lock();
        loop {
            let now = Instant::now();
            if self.retry_at.is_none_or(|at| at <= now || work.stop)
                && let Some((_, message)) = work.put.pop_first()
            {
                return Task::Put(message);
            }
            if let Some(key) = work.remove.pop_first() {
                return Task::Remove(key);
            }
            if !self.syncing.is_empty() || self.sync_at.is_some_and(|at| at <= now || work.stop) {
                return Task::Sync;
            }
            if work.stop {
                return Task::End;
            }
            if self.adopt_at <= now {
                return Task::Adopt;
            }
            let retry_at = self.retry_at.filter(|_| !work.put.is_empty());
            let wakes = [self.sync_at, retry_at].into_iter().flatten();
            let until = wakes.fold(self.adopt_at, Instant::min);
            self.shared.wake.wait_until(&mut work, until);
        }
    }

    fn put(&mut self, message: Arc<Message>) {
        match self.folder.write(&message) {
            Ok(()) => {
                self.retry_at = None;
                if self.shared.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("hooks are kept on disk again");
                }
                self.unsynced.insert(message.key);
                self.sync_at
                    .get_or_insert_with(|| Instant::now() + SYNC_AFTER);
            }
            Err(error) => {
                if !self.shared.is_failing.swap(true, Ordering::Relaxed) {
                    let path = self.folder.path.display();
                    tracing::error!(
                        "can't write to {path}: {error}; hooks are kept in memory, and a restart loses them"
                    );
                }
                self.retry_at = Some(Instant::now() + RETRY_AFTER);
                let mut work = self.shared.work.lock();
                // It may be delivered by now. At the end, there is no later.
                if !work.remove.remove(&message.key) && !work.stop {
                    work.put.insert(message.key, message);
                }
            }
        }
    }

    fn remove(&mut self, key: Key) {
        self.unsynced.remove(&key);
        self.syncing.remove(&key);
        let path = self.folder.path.join(key.file_name());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = path.display();
                tracing::warn!(
                    "can't remove {path}: {error}; this hook is sent again after a restart"
                );
            }
            _ => {}
        }
    }

    /// Sees one file, or at the end of a batch the folder, to the disk. New files don't wait for
    /// the whole batch.
    fn sync(&mut self) {
        if self.syncing.is_empty() {
            self.syncing = std::mem::take(&mut self.unsynced);
            self.sync_at = None;
        }
        let synced = match self.syncing.pop_first() {
            Some(key) => File::open(self.folder.path.join(key.file_name())),
            None => return,
        };
        let mut result = synced.and_then(|file| file.sync_data());
        if self.syncing.is_empty() && result.is_ok() {
            result = File::open(&self.folder.path).and_then(|folder| folder.sync_all());
        }
        if let Err(error) = result {
            let path = self.folder.path.display();
            tracing::warn!("can't see hooks in {path} to the disk: {error}");
        }
    }

    /// Takes over what is in folders whose process is gone.
    fn adopt(&mut self, adopt: &mut dyn FnMut(Adopted)) {
        self.adopt_at = Instant::now() + ADOPT_EVERY;
        let entries = match fs::read_dir(&self.spool) {
            Ok(entries) => entries,
            Err(error) => {
                let path = self.spool.display();
                return tracing::warn!("can't read {path}: {error}");
            }
        };
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
        // By their names, the oldest comes first.
        let names: BTreeSet<OsString> = names.collect();
        for name in names {
            let is_folder = name.to_str().is_some_and(Folder::is_name);
            if !is_folder || self.left_alone.contains(&name) || self.folder.path.ends_with(&name) {
                continue;
            }
            let left = match Folder::lock(self.spool.join(&name)) {
                Ok(Some(left)) => left,
                Ok(None) => continue,
                Err(error) => {
                    let path = self.spool.join(&name);
                    tracing::warn!("can't take over the hooks in {}: {error}", path.display());
                    self.left_alone.insert(name);
                    continue;
                }
            };
            let (adopted, is_clean) = self.take_over(&left);
            if is_clean {
                left.remove_if_empty();
            } else {
                self.left_alone.insert(name);
            }
            if !adopted.is_empty() {
                tracing::info!("{} hooks of before are sent now", adopted.len());
                adopt(adopted);
            }
        }
    }

    /// Moves a folder's messages to our own. Says whether nothing else is left.
    fn take_over(&mut self, left: &Folder) -> (Adopted, bool) {
        let (mut adopted, mut is_clean) = (Vec::new(), true);
        let mut names: Vec<OsString> = match fs::read_dir(&left.path) {
            Ok(entries) => entries
                .filter_map(|it| Some(it.ok()?.file_name()))
                .collect(),
            Err(_) => return (adopted, false),
        };
        names.sort();
        for name in names {
            let path = left.path.join(&name);
            let result = match name.to_str() {
                Some(LOCK) => continue,
                // Its process was killed while it wrote.
                Some(name) if name.ends_with(TEMPORARY) => fs::remove_file(&path).map(|()| None),
                Some(name) => match Key::from_file_name(name) {
                    Some(key) => self.take_over_file(&path, key),
                    None => Err(io::Error::other("it is no hook")),
                },
                None => Err(io::Error::other("it is no hook")),
            };
            match result {
                Ok(message) => adopted.extend(message),
                Err(error) => {
                    tracing::warn!("{} is left alone: {error}", path.display());
                    is_clean = false;
                }
            }
        }
        (adopted, is_clean)
    }

    fn take_over_file(&mut self, path: &Path, key: Key) -> io::Result<Option<(Message, Duration)>> {
        let content = read(path)?;
        let created = Duration::from_millis(key.created_ms);
        // Where the clock was set back, it counts as new.
        let age = since_1970().saturating_sub(created);
        let key = self.keys.numbered(key.created_ms);
        match Message::from_file(key, &content) {
            Ok(_) if age >= self.keep => {
                fs::remove_file(path)?;
                tracing::warn!(
                    "a hook that was kept in {} is too old to send",
                    path.display()
                );
                Ok(None)
            }
            Ok(message) => {
                fs::rename(path, self.folder.path.join(key.file_name()))?;
                Ok(Some((message, age)))
            }
            Err(error) => {
                fs::remove_file(path)?;
                let path = path.display();
                tracing::error!(
                    "the hook in {path} is damaged ({error}), and lost: was there a power cut?"
                );
                Ok(None)
            }
        }
    }
}

/// A folder that this process holds the lock of.
struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes a new one.
    fn create(spool: &Path) -> io::Result<Self> {
        loop {
            let now = since_1970().as_millis();
            let path = spool.join(format!("{now:013}-{:08x}", fastrand::u32(..)));
            match private_folder().create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            // Another process may just have found it without an owner, and removed it.
            if let Some(folder) = Self::lock(path)? {
                return Ok(folder);
            }
        }
    }

    fn is_name(name: &str) -> bool {
        let is = |part: &str, length| {
            part.len() == length && part.bytes().all(|it| it.is_ascii_hexdigit())
        };
        name.split_once('-')
            .is_some_and(|(time, random)| is(time, 13) && is(random, 8))
    }

    /// Locks a folder. `None` if another process has it, or just removed it.
    fn lock(path: PathBuf) -> io::Result<Option<Self>> {
        let file = path.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&file);
        let lock = match lock {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Its last owner may have removed the file between opening and locking it.
        let ours = lock.metadata()?;
        match fs::symlink_metadata(&file) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {}
            _ => return Ok(None),
        }
        Ok(Some(Self { path, _lock: lock }))
    }

    fn write(&self, message: &Message) -> io::Result<()> {
        let name = message.key.file_name();
        let temporary = self.path.join(format!("{name}{TEMPORARY}"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options
            .open(&temporary)
            .and_then(|mut file| file.write_all(&message.to_file()?))
            .and_then(|()| fs::rename(&temporary, self.path.join(name)));
        if written.is_err() {
            // Half a file is of no use, and takes space that may be what is missing.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Removes it if no message is in it.
    fn remove_if_empty(&self) {
        let is_lock = |it: io::Result<fs::DirEntry>| it.is_ok_and(|it| it.file_name() == LOCK);
        if fs::read_dir(&self.path).is_ok_and(|mut entries| entries.all(is_lock)) {
            // If that fails, the next process tries again.
            let _ = fs::remove_file(self.path.join(LOCK));
            let _ = fs::remove_dir(&self.path);
        }
    }
}

fn private_folder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut content = Vec::new();
    File::open(path)?
        .take(LONGEST_FILE + 1)
        .read_to_end(&mut content)?;
    match content.len() as u64 > LONGEST_FILE {
        true => Err(io::Error::other("it is too long for a hook")),
        false => Ok(content),
    }
}

fn since_1970() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default()
}

#[cfg(test)]
mod tests;
