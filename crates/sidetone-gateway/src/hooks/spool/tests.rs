#![allow(clippy::unwrap_used)]

use std::{os::unix::fs::symlink, sync::mpsc};

use tempfile::TempDir;
use uuid::Uuid;

use super::{super::message::sample, *};

const PATIENCE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A process with a spool.
struct Process {
    spool: Spool,
    keys: Arc<Keys>,
    /// Ids of messages that were taken over.
    adopted: mpsc::Receiver<Vec<String>>,
}

impl Process {
    fn start(path: &Path) -> Self {
        let keys = Arc::<Keys>::default();
        let (spool, writer) = Spool::open(path, Arc::clone(&keys), DAY).unwrap();
        let (sender, adopted) = mpsc::channel();
        let adopt = move |adopted: Adopted| {
            let ids = adopted.iter().map(|(message, _)| message.id.to_string());
            sender.send(ids.collect()).unwrap();
        };
        writer.start(adopt).unwrap();
        Self {
            spool,
            keys,
            adopted,
        }
    }

    fn message(&self, id: &str) -> Arc<Message> {
        Arc::new(Message {
            key: self.keys.next(),
            id: id.into(),
            ..sample(0, Some(Uuid::from_u128(1)), "{\"type\":\"call.started\"}")
        })
    }

    fn put(&self, id: &str) -> Key {
        let message = self.message(id);
        let key = message.key;
        self.spool.put(message);
        key
    }

    fn adopted(&self) -> Vec<String> {
        self.adopted.recv_timeout(PATIENCE).unwrap()
    }

    /// Lets it end, and says what it took over.
    fn end(self) -> Vec<String> {
        self.spool.stop();
        let mut ids = Vec::new();
        // The thread drops its side when it ends.
        while let Ok(more) = self.adopted.recv_timeout(PATIENCE) {
            ids.extend(more);
        }
        ids
    }
}

/// The names of all messages in a spool.
fn files(spool: &Path) -> Vec<String> {
    let folders = fs::read_dir(spool).unwrap().map(|it| it.unwrap().path());
    let names = folders.filter(|it| it.is_dir()).flat_map(|folder| {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|it| it.unwrap().file_name().into_string().unwrap())
    });
    let mut names: Vec<_> = names.filter(|it| it != LOCK).collect();
    names.sort();
    names
}

/// Waits for a state of the folder, which the thread brings about soon.
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it didn't come to that");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The folder of a process that is gone, with one file for each of these ids.
fn left_folder(spool: &Path, ids: &[&str]) -> (PathBuf, Vec<PathBuf>) {
    let folder = spool.join(format!("{:013}-0000000a", since_1970().as_millis()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(LOCK), "").unwrap();
    let keys = Keys::default();
    let paths = ids.iter().map(|id| {
        let message = Message {
            key: keys.next(),
            id: (*id).into(),
            ..sample(0, None, "{}")
        };
        let path = folder.join(message.key.file_name());
        fs::write(&path, message.to_file().unwrap()).unwrap();
        path
    });
    let paths = paths.collect();
    (folder, paths)
}

#[test]
fn what_a_process_leaves_the_next_one_takes_over_in_order() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state/hooks");
    let first = Process::start(&path);
    for id in ["msg_1", "msg_2", "msg_3"] {
        first.put(id);
    }
    assert!(first.end().is_empty());
    // And again, since it did nothing with them.
    for _ in 0..2 {
        let next = Process::start(&path);
        assert_eq!(next.end(), ["msg_1", "msg_2", "msg_3"]);
    }
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
}

#[test]
fn what_was_delivered_is_not_kept_and_a_clean_end_leaves_nothing() {
    let directory = TempDir::new().unwrap();
    let process = Process::start(directory.path());
    let keys = ["msg_1", "msg_2"].map(|id| process.put(id));
    wait_until(|| files(directory.path()).len() == 2);
    process.spool.remove(keys[0]);
    wait_until(|| files(directory.path()) == [keys[1].file_name()]);
    process.spool.remove(keys[1]);
    process.end();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_message_that_is_delivered_first_is_never_written() {
    let directory = TempDir::new().unwrap();
    let (spool, writer) = Spool::open(directory.path(), Arc::default(), DAY).unwrap();
    let message = Arc::new(sample(1, None, "{}"));
    // Nothing is written before the thread starts.
    spool.put(Arc::clone(&message));
    spool.remove(message.key);
    spool.stop();
    writer.start(|_| ()).unwrap();
    wait_until(|| spool.ended.has_changed().is_err());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_running_process_keeps_its_messages_until_it_ends() {
    let directory = TempDir::new().unwrap();
    let old = Process::start(directory.path());
    old.put("msg_1");
    wait_until(|| files(directory.path()).len() == 1);
    let new = Process::start(directory.path());
    // It looks around before it does this.
    let key = new.put("msg_2");
    wait_until(|| files(directory.path()).len() == 2);
    new.spool.remove(key);
    wait_until(|| files(directory.path()).len() == 1);
    old.put("msg_3");
    old.end();
    assert_eq!(new.adopted(), ["msg_1", "msg_3"]);
    assert!(new.end().is_empty());
}

#[test]
fn a_file_that_was_cut_anywhere_costs_no_other() {
    let directory = TempDir::new().unwrap();
    let length = sample(0, None, "{}").to_file().unwrap().len();
    for kept in 0..length {
        let spool = directory.path().join(kept.to_string());
        let (_, files) = left_folder(&spool, &["msg_a", "msg_b", "msg_c"]);
        let content = fs::read(&files[1]).unwrap();
        fs::write(&files[1], &content[..kept]).unwrap();
        let mut half = files[2].clone().into_os_string();
        half.push(TEMPORARY);
        fs::write(half, &content[..kept]).unwrap();
        assert_eq!(Process::start(&spool).end(), ["msg_a", "msg_c"], "{kept}");
        assert_eq!(self::files(&spool).len(), 2, "{kept}");
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let spool = directory.path().join("hooks");
    let (folder, files) = left_folder(&spool, &["msg_a", "msg_b"]);
    fs::write(spool.join("README"), "keep out").unwrap();
    fs::create_dir(spool.join("lost+found")).unwrap();
    // A file where a folder should be.
    fs::write(spool.join("0000000000000-00000000"), "").unwrap();
    let outside = directory.path().join("outside");
    fs::write(&outside, "{}").unwrap();
    symlink(&outside, folder.join("0000000000001-0000000001.json")).unwrap();
    fs::create_dir(folder.join("0000000000001-0000000002.json")).unwrap();
    fs::write(folder.join("notes.txt"), "x").unwrap();
    let long = File::create(folder.join("0000000000001-0000000003.json")).unwrap();
    long.set_len(1 << 40).unwrap();
    let process = Process::start(&spool);
    assert_eq!(process.adopted(), ["msg_a", "msg_b"]);
    // It works on.
    process.put("msg_c");
    process.end();
    assert!(files.iter().all(|file| !file.exists()));
    assert_eq!(fs::read_to_string(outside).unwrap(), "{}");
    // The lock, and what was there before.
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 5);
    assert_eq!(Process::start(&spool).end(), ["msg_a", "msg_b", "msg_c"]);
}

#[test]
fn a_message_of_the_day_before_is_not_sent() {
    let directory = TempDir::new().unwrap();
    let (folder, files) = left_folder(directory.path(), &["msg_old", "msg_new", "msg_future"]);
    let now = since_1970();
    let rename = |file: &Path, created: Duration| {
        let created_ms = created.as_millis() as u64;
        let key = Key {
            created_ms,
            number: 1,
        };
        fs::rename(file, folder.join(key.file_name())).unwrap();
    };
    rename(&files[0], now - DAY);
    rename(&files[1], now - DAY / 2);
    // The clock was set back.
    rename(&files[2], now + DAY);
    assert_eq!(
        Process::start(directory.path()).end(),
        ["msg_new", "msg_future"]
    );
    assert_eq!(self::files(directory.path()).len(), 2);
}

#[test]
fn what_cannot_be_written_is_written_later() {
    let directory = TempDir::new().unwrap();
    let process = Process::start(directory.path());
    let entries = fs::read_dir(directory.path()).unwrap();
    let folder = entries.map(|it| it.unwrap().path()).next().unwrap();
    let away = directory.path().join("away");
    fs::rename(&folder, &away).unwrap();
    let keys = ["msg_1", "msg_2"].map(|id| process.put(id));
    wait_until(|| process.spool.is_failing());
    // Delivered in the meantime.
    process.spool.remove(keys[0]);
    fs::rename(&away, &folder).unwrap();
    wait_until(|| !process.spool.is_failing());
    wait_until(|| files(directory.path()) == [keys[1].file_name()]);
    process.end();
}

#[test]
fn nobody_else_may_read_messages() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("hooks");
    let process = Process::start(&path);
    process.put("msg_1");
    process.end();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = fs::read_dir(&path).unwrap().next().unwrap().unwrap().path();
    assert_eq!((mode(&path), mode(&folder)), (0o700, 0o700));
    assert_eq!(mode(&folder.join(&files(&path)[0])), 0o600);
}

#[test]
fn keys_rise_even_when_the_clock_is_set_back() {
    let keys = Keys::default();
    let before = keys.next();
    keys.last_ms.fetch_add(3_600_000, Ordering::Relaxed);
    let (first, second) = (keys.next(), keys.next());
    assert!(before < first && first < second && first.created_ms > before.created_ms);
}
