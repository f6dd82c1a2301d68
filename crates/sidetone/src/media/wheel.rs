//! A timing wheel: when to poll which connection.

use std::time::Duration;

use sidetone_proto::Time;

/// The resolution of the wheel.
const TICK: Duration = Duration::from_micros(250);

/// One revolution takes 512 ms. An entry that is due later is moved on once in a revolution.
const BUCKETS: u64 = 2048;

/// Deadlines of any number of connections, at constant cost each.
///
/// An entry is due at the end of its tick of 0.25 ms. Entries are never cancelled: the event loop ignores one that
/// does not match the tick that its connection remembers.
///
/// A bucket is a linked list through one store of entries, so the wheel allocates only when it holds more entries than
/// ever before.
#[derive(Debug)]
pub(crate) struct TimingWheel<K> {
    /// The first entry of each bucket.
    buckets: Vec<Option<u32>>,
    entries: Vec<Entry<K>>,
    /// The first unused entry.
    free: Option<u32>,
    in_use: usize,
    /// All ticks before this one have elapsed, and their entries have been popped.
    elapsed: u64,
}

#[derive(Debug)]
struct Entry<K> {
    token: K,
    tick: u64,
    next: Option<u32>,
}

impl<K: Copy> TimingWheel<K> {
    pub(crate) fn new(now: Time) -> Self {
        Self {
            buckets: vec![None; BUCKETS as usize],
            entries: Vec::new(),
            free: None,
            in_use: 0,
            elapsed: tick_of(now),
        }
    }

    /// Reserves capacity for `total` entries, those included that the wheel has.
    pub(crate) fn reserve(&mut self, total: usize) {
        let more = total.saturating_sub(self.entries.len());
        self.entries.reserve(more);
    }

    /// The tick at which an entry for `deadline` is due.
    pub(crate) fn tick(&self, deadline: Time) -> u64 {
        tick_of(deadline).max(self.elapsed)
    }

    /// Adds an entry for `token`, which its [`tick`](Self::tick) identifies.
    pub(crate) fn schedule(&mut self, token: K, tick: u64) {
        let bucket = self.bucket(tick);
        let next = self.buckets[bucket];
        let entry = Entry { token, tick, next };
        let index = match self.free {
            Some(index) => {
                let unused = &mut self.entries[index as usize];
                self.free = unused.next;
                *unused = entry;
                index
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.buckets[bucket] = Some(index);
        self.in_use += 1;
    }

    /// When the next entry is due. `None` if there is none.
    pub(crate) fn next(&self) -> Option<Time> {
        if self.in_use == 0 {
            return None;
        }
        let tick = (self.elapsed..self.elapsed + BUCKETS)
            .find(|tick| self.buckets[(tick % BUCKETS) as usize].is_some())?;
        Some(end_of(tick))
    }

    /// Moves all entries due at `now` to `due`, each with its tick.
    pub(crate) fn advance(&mut self, now: Time, due: &mut Vec<(K, u64)>) {
        let end = tick_of(now);
        let buckets = end.saturating_sub(self.elapsed).min(BUCKETS);
        for _ in 0..buckets {
            let bucket = (self.elapsed % BUCKETS) as usize;
            self.elapsed += 1;
            let begin = due.len();
            let mut next = self.buckets[bucket].take();
            while let Some(index) = next {
                let entry = &mut self.entries[index as usize];
                let (token, tick) = (entry.token, entry.tick);
                next = entry.next;
                if tick < self.elapsed.max(end) {
                    due.push((token, tick));
                    entry.next = self.free.replace(index);
                    self.in_use -= 1;
                } else {
                    let later = self.bucket(tick);
                    self.entries[index as usize].next = self.buckets[later].replace(index);
                }
            }
            // First in, first out. A call that comes first in its tick at one slot and last at the next has jitter.
            due[begin..].reverse();
        }
        self.elapsed = self.elapsed.max(end);
    }

    /// The bucket of an entry for `tick`: its own, or the farthest one if it lies beyond a revolution.
    fn bucket(&self, tick: u64) -> usize {
        (tick.min(self.elapsed + BUCKETS - 1) % BUCKETS) as usize
    }
}

fn tick_of(time: Time) -> u64 {
    time.as_nanos() / TICK.as_nanos() as u64
}

fn end_of(tick: u64) -> Time {
    Time::from_nanos((tick + 1) * TICK.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn schedule(wheel: &mut TimingWheel<u8>, token: u8, deadline: Time) {
        wheel.schedule(token, wheel.tick(deadline));
    }

    fn advanced(wheel: &mut TimingWheel<u8>, now: Time) -> Vec<u8> {
        let mut due = Vec::new();
        wheel.advance(now, &mut due);
        due.into_iter().map(|(token, _)| token).collect()
    }

    #[test]
    fn an_entry_is_due_at_the_end_of_its_tick_and_once() {
        let mut wheel = TimingWheel::new(at(0));
        schedule(&mut wheel, 1, at(3));
        assert_eq!(wheel.next(), Some(at(3) + TICK));
        assert!(advanced(&mut wheel, at(3)).is_empty());
        assert_eq!(advanced(&mut wheel, at(3) + TICK), [1]);
        assert_eq!(wheel.next(), None);
        assert!(advanced(&mut wheel, at(100)).is_empty());
    }

    #[test]
    fn an_entry_beyond_a_revolution_is_due_at_its_time() {
        let mut wheel = TimingWheel::new(at(0));
        schedule(&mut wheel, 1, at(60_000));
        let mut now = at(0);
        while now < at(60_000) {
            now += Duration::from_millis(7);
            let due = advanced(&mut wheel, now);
            assert_eq!(due.is_empty(), now < at(60_000) + TICK, "at {now:?}");
        }
    }

    #[test]
    fn a_deadline_in_the_past_is_due_at_the_next_tick() {
        let mut wheel = TimingWheel::new(at(1000));
        schedule(&mut wheel, 1, at(3));
        assert_eq!(advanced(&mut wheel, at(1001)), [1]);
    }

    #[test]
    fn the_entries_of_a_tick_keep_their_order() {
        let mut wheel = TimingWheel::new(at(0));
        for slot in 1..4 {
            for token in 0..5 {
                schedule(&mut wheel, token, at(slot * 20));
            }
            assert_eq!(advanced(&mut wheel, at(slot * 20) + TICK), [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn a_long_stall_loses_no_entry() {
        let mut wheel = TimingWheel::new(at(0));
        for token in 0..100 {
            schedule(&mut wheel, token, at(u64::from(token) * 20));
        }
        assert_eq!(advanced(&mut wheel, at(10_000)).len(), 100);
    }
}
