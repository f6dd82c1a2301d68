//! What a process leaves to the one that follows: unused tickets, and the results of the calls that it finishes.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{results::CallResult, ticket::Saved};

/// A result that nobody asked for goes away with the next process that starts after so long.
const RESULTS_KEPT: Duration = Duration::from_secs(300);

/// What is left.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Handover {
    pub(crate) tickets: Saved,
    /// The calls that the process before finishes, with the tokens that may ask for their results.
    pub(crate) running: HashMap<Uuid, Option<String>>,
    /// The results of calls that are over. Their dialplans may be about to ask.
    pub(crate) results: Vec<(Uuid, CallResult)>,
}

/// The folder in which it is left.
#[derive(Clone, Debug)]
pub(crate) struct HandoverDir {
    path: PathBuf,
    expected: Arc<Mutex<Expected>>,
}

/// Calls whose results come from processes before.
#[derive(Debug, Default)]
struct Expected {
    /// They were running.
    running: HashMap<Uuid, Option<String>>,
    /// They had a ticket. A connection that the process before accepted may not have said its UUID by then.
    promised: HashSet<Uuid>,
}

impl HandoverDir {
    /// Uses this folder, which is made if it isn't there.
    pub(crate) fn open(path: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let dir = Self {
            path: path.into(),
            expected: Arc::default(),
        };
        let results = dir.results();
        fs::create_dir_all(&results).map_err(|error| (path.into(), error))?;
        dir.remove_old_results();
        Ok(dir)
    }

    fn results(&self) -> PathBuf {
        self.path.join("results")
    }

    fn file(&self) -> PathBuf {
        self.path.join("handover.json")
    }

    pub(crate) fn leave(&self, handover: &Handover) -> io::Result<()> {
        let part = self.path.join("handover.json.part");
        fs::write(&part, serde_json::to_vec(handover)?)?;
        fs::rename(part, self.file())
    }

    /// What the process before left, once.
    pub(crate) fn take(&self) -> io::Result<Option<Handover>> {
        let bytes = match fs::read(self.file()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        fs::remove_file(self.file())?;
        Ok(Some(serde_json::from_slice(&bytes)?))
    }

    /// The process before finishes these calls, and perhaps some of those with a ticket, and leaves their results here.
    pub(crate) fn expect(&self, handover: &Handover) {
        let mut expected = self.expected.lock();
        let running = handover.running.iter();
        expected
            .running
            .extend(running.map(|(id, minted_by)| (*id, minted_by.clone())));
        expected.promised.extend(handover.tickets.ids());
    }

    /// Whether the result of a call may come from a process before.
    pub(crate) fn is_expected(&self, id: Uuid) -> bool {
        let expected = self.expected.lock();
        expected.running.contains_key(&id) || expected.promised.contains(&id)
    }

    /// Calls that processes before this one have not finished yet.
    pub(crate) fn unfinished(&self) -> Vec<(Uuid, Option<String>)> {
        let running = self.expected.lock().running.clone();
        let is_unfinished = |id: &Uuid| self.result(*id).is_none();
        let unfinished = running.into_iter().filter(|(id, _)| is_unfinished(id));
        unfinished.collect()
    }

    pub(crate) fn leave_result(&self, id: Uuid, result: &CallResult) -> io::Result<()> {
        let part = self.results().join(format!("{id}.part"));
        fs::write(&part, serde_json::to_vec(result)?)?;
        fs::rename(part, self.results().join(id.to_string()))
    }

    /// The result that the process before left of a call.
    pub(crate) fn result(&self, id: Uuid) -> Option<CallResult> {
        let bytes = fs::read(self.results().join(id.to_string())).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn remove_old_results(&self) {
        let now = SystemTime::now();
        let entries = fs::read_dir(self.results()).into_iter().flatten().flatten();
        for entry in entries {
            let modified = entry.metadata().and_then(|it| it.modified());
            let age = modified.ok().and_then(|it| now.duration_since(it).ok());
            if age.is_some_and(|age| age > RESULTS_KEPT) {
                // What stays only takes up room, and is tried again.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{action::Action, ticket::Tickets};

    #[test]
    fn the_next_process_finds_what_was_left_once() {
        let folder = tempfile::tempdir().unwrap();
        let (old, id) = (HandoverDir::open(folder.path()).unwrap(), Uuid::new_v4());
        let left = Handover {
            tickets: Tickets::default().save(std::time::Instant::now(), SystemTime::now()),
            running: HashMap::from([(id, Some("pbx".into()))]),
            results: Vec::new(),
        };
        old.leave(&left).unwrap();

        let new = HandoverDir::open(folder.path()).unwrap();
        new.expect(&new.take().unwrap().unwrap());
        assert!(new.take().unwrap().is_none());
        assert!(new.is_expected(id) && !new.is_expected(Uuid::new_v4()));
        assert_eq!(new.result(id), None);
        let result = CallResult {
            action: "set,SOLD".parse::<Action>().unwrap(),
            minted_by: Some("pbx".into()),
        };
        assert_eq!(new.unfinished(), [(id, result.minted_by.clone())]);
        old.leave_result(id, &result).unwrap();
        assert_eq!(new.result(id), Some(result));
        assert_eq!(new.unfinished(), []);
    }
}
