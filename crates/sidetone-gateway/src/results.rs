//! What ended calls leave to their dialplans, for a few minutes.
//!
//! Time is an argument.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::action::Action;

/// How long a result is kept.
pub(crate) const KEPT: Duration = Duration::from_secs(300);

/// More are not kept, whatever their age.
const MAX_KEPT: usize = 100_000;

/// The result of a call that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallResult {
    pub(crate) action: Action,
    /// The token that minted the call's ticket, and may read its result.
    pub(crate) minted_by: Option<String>,
}

/// The results of the last few minutes.
#[derive(Debug, Default)]
pub(crate) struct Results {
    results: HashMap<Uuid, CallResult>,
    /// The oldest first.
    forgetting: VecDeque<(Instant, Uuid)>,
}

impl Results {
    pub(crate) fn add(&mut self, id: Uuid, result: CallResult, now: Instant) {
        self.forget(now);
        self.results.insert(id, result);
        self.forgetting.push_back((now + KEPT, id));
    }

    pub(crate) fn get(&mut self, id: Uuid, now: Instant) -> Option<&CallResult> {
        self.forget(now);
        self.results.get(&id)
    }

    pub(crate) fn all(&self) -> Vec<(Uuid, CallResult)> {
        let results = self.results.iter();
        results.map(|(id, result)| (*id, result.clone())).collect()
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, id)) = self.forgetting.front().copied()
            && (at <= now || self.forgetting.len() >= MAX_KEPT)
        {
            self.forgetting.pop_front();
            self.results.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_kept_for_five_minutes() {
        let (mut results, now, id) = (Results::default(), Instant::now(), Uuid::new_v4());
        let result = CallResult {
            action: Action::Hangup,
            minted_by: None,
        };
        results.add(id, result.clone(), now);
        let last = now + KEPT - Duration::from_millis(1);
        assert_eq!(results.get(id, last), Some(&result));
        assert_eq!(results.get(id, now + KEPT), None);
        assert!(results.forgetting.is_empty());
    }
}
