use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rustix::process::{Resource, getrlimit};

use super::Source;
use crate::media::Token;

/// Connections without a UUID may hold one in so many of the process's descriptors, unless a limit is set.
const DESCRIPTORS_PER_UNIDENTIFIED: u64 = 4;

/// And no more than this, however many descriptors there are.
const MAX_UNIDENTIFIED: u64 = 4096;

/// Gone entries that a list may hold beside as many as are left, so that not every connection filters the list.
const SPARE_ENTRIES: usize = 64;

/// Limits the connections that have not sent a UUID, in all and of each address: peers that connect and send nothing must
/// not keep calls out. The oldest goes first.
pub(super) struct Unidentified {
    all: Group,
    max: usize,
    max_per_source: Option<usize>,
    by_source: HashMap<Source, Group>,
    /// At this many addresses, those without connections are dropped.
    prune_at: usize,
}

/// A connection without a UUID, for the thread that accepts and the thread that it is on.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The thread that it is on.
    pub(crate) thread: usize,
    /// What that thread knows it by.
    pub(crate) token: OnceLock<Token>,
    /// It counts among the connections without a UUID.
    is_counted: AtomicBool,
    /// The numbers of connections that it counts in.
    counts: (Arc<AtomicUsize>, Option<Arc<AtomicUsize>>),
}

pub(crate) type Entry = Arc<Pending>;

impl Pending {
    /// Counts the connection no more. Returns whether it counted until now: only one thread finds it so.
    fn leave(&self) -> bool {
        let was_counted = self.is_counted.swap(false, Ordering::AcqRel);
        if was_counted {
            let (all, of_source) = &self.counts;
            for count in [Some(all), of_source.as_ref()].into_iter().flatten() {
                count.fetch_sub(1, Ordering::AcqRel);
            }
        }
        was_counted
    }
}

/// What a connection holds while it has no UUID. Dropped, it is none of those any more.
#[derive(Debug)]
pub(crate) struct Waiting(Entry);

impl Waiting {
    pub(crate) fn set_token(&self, token: Token) {
        // A connection is added once.
        let _ = self.0.token.set(token);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Connections with a limit in common.
#[derive(Default)]
struct Group {
    /// Those that have no UUID. Any media thread takes one of them out.
    count: Arc<AtomicUsize>,
    /// The oldest first. Some may be gone, or have a UUID.
    entries: VecDeque<Entry>,
}

impl Group {
    fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn push(&mut self, entry: &Entry) {
        self.entries.push_back(Arc::clone(entry));
        if self.entries.len() > 2 * self.count() + SPARE_ENTRIES {
            let is_counted = |entry: &Entry| entry.is_counted.load(Ordering::Acquire);
            self.entries.retain(is_counted);
        }
    }

    /// Takes the oldest out until no more than `max` are left.
    fn crowd_out(&mut self, max: usize, crowded_out: &mut Vec<Entry>) {
        while self.count() > max
            && let Some(oldest) = self.entries.pop_front()
        {
            if oldest.leave() {
                crowded_out.push(oldest);
            }
        }
    }
}

impl Unidentified {
    pub(super) fn new(max: Option<usize>, max_per_source: Option<usize>) -> Self {
        Self {
            all: Group::default(),
            max: max.unwrap_or_else(max_of_descriptors).max(1),
            max_per_source: max_per_source.map(|max| max.max(1)),
            by_source: HashMap::new(),
            prune_at: SPARE_ENTRIES,
        }
    }

    /// Adds a connection for this thread, and returns the oldest ones if there are too many now. Without an address it
    /// counts only in all.
    pub(super) fn add(&mut self, source: Option<Source>, thread: usize) -> (Waiting, Vec<Entry>) {
        if self.by_source.len() >= self.prune_at {
            self.by_source.retain(|_, group| group.count() > 0);
            self.prune_at = 2 * self.by_source.len() + SPARE_ENTRIES;
        }
        let limited = source.zip(self.max_per_source);
        let mut of_source =
            limited.map(|(source, max)| (self.by_source.entry(source).or_default(), max));
        let entry = Arc::new(Pending {
            thread,
            token: OnceLock::new(),
            is_counted: AtomicBool::new(true),
            counts: (
                Arc::clone(&self.all.count),
                of_source
                    .as_ref()
                    .map(|(group, _)| Arc::clone(&group.count)),
            ),
        });
        let mut crowded_out = Vec::new();
        let groups = [Some((&mut self.all, self.max)), of_source.take()];
        // Of its address first: that may be enough.
        for (group, max) in groups.into_iter().rev().flatten() {
            group.count.fetch_add(1, Ordering::AcqRel);
            group.push(&entry);
            group.crowd_out(max, &mut crowded_out);
        }
        (Waiting(entry), crowded_out)
    }
}

fn max_of_descriptors() -> usize {
    // Where there is no limit, or one beyond any memory, the second constant counts.
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (descriptors / DESCRIPTORS_PER_UNIDENTIFIED).min(MAX_UNIDENTIFIED) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u8) -> Option<Source> {
        Some(Source::of([10, 0, 0, number].into()))
    }

    fn threads(entries: &[Entry]) -> Vec<usize> {
        entries.iter().map(|entry| entry.thread).collect()
    }

    #[test]
    fn the_oldest_goes_first_of_its_address_if_that_has_too_many() {
        let mut unidentified = Unidentified::new(Some(5), Some(2));
        let mut waiting = Vec::new();
        let mut add = |number, thread| {
            let (one, crowded_out) = unidentified.add(number, thread);
            waiting.push(one);
            threads(&crowded_out)
        };
        assert_eq!(add(source(1), 1), []);
        assert_eq!(add(source(2), 2), []);
        assert_eq!(add(source(2), 3), []);
        assert_eq!(add(source(2), 4), [2], "of that address");
        assert_eq!(add(None, 5), []);
        assert_eq!(add(None, 6), []);
        assert_eq!(add(None, 7), [1], "trusted ones have no limit of their own");
        assert_eq!(add(source(2), 8), [3]);
        assert_eq!(add(source(3), 9), [4]);
        // What has been taken out counts no more when it goes.
        drop(waiting);
        assert_eq!(unidentified.all.count(), 0);
        assert!(
            unidentified
                .by_source
                .values()
                .all(|group| group.count() == 0)
        );
    }

    #[test]
    fn connections_that_have_a_uuid_or_are_gone_take_no_place() {
        let mut unidentified = Unidentified::new(Some(2), Some(2));
        let (oldest, _) = unidentified.add(source(1), 0);
        for _ in 0..1_000 {
            let (gone, crowded_out) = unidentified.add(source(1), 1);
            assert!(crowded_out.is_empty());
            drop(gone);
        }
        let (_second, crowded_out) = unidentified.add(source(1), 2);
        assert!(crowded_out.is_empty());
        assert_eq!(threads(&unidentified.add(source(1), 3).1), [0]);
        drop(oldest);
    }

    #[test]
    fn memory_is_bounded_however_many_come_and_go() {
        let mut unidentified = Unidentified::new(Some(10), Some(5));
        let mut waiting = VecDeque::new();
        for number in 0..100_000_u32 {
            let address = Source::of(number.to_be_bytes().into());
            waiting.push_back(unidentified.add(Some(address), 0).0);
            if waiting.len() > 20 {
                waiting.pop_front();
            }
        }
        assert!(unidentified.all.entries.len() <= 2 * 10 + SPARE_ENTRIES + 1);
        assert!(unidentified.by_source.len() <= 2 * 20 + SPARE_ENTRIES + 1);
    }

    #[test]
    fn without_a_setting_the_descriptors_are_the_limit() {
        let unidentified = Unidentified::new(None, None);
        assert!((1..=MAX_UNIDENTIFIED as usize).contains(&unidentified.max));
        assert_eq!(unidentified.max_per_source, None);
    }
}
