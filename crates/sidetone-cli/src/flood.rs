//! What comes by the thousand is told by its number.

use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Lets so many of a kind through in a second, and counts the others.
#[derive(Debug)]
pub(crate) struct Limit {
    a_second: u32,
    since: Option<Instant>,
    let_through: u32,
    held_back: u64,
}

impl Limit {
    pub(crate) const fn new(a_second: u32) -> Self {
        Self {
            a_second,
            since: None,
            let_through: 0,
            held_back: 0,
        }
    }

    /// Whether `count` more of them, which come together, are told one by one; else they are counted.
    pub(crate) fn lets_through(&mut self, now: Instant, count: u64) -> bool {
        if self.since.is_none_or(|since| now - since >= SECOND) {
            self.since = Some(now);
            self.let_through = 0;
        }
        if self.let_through < self.a_second && self.held_back == 0 {
            self.let_through += 1;
            return true;
        }
        self.held_back += count;
        false
    }

    /// How many were counted, once their second is over; from then on it begins anew.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<u64> {
        let is_due = self.held_back > 0 && self.since.is_none_or(|since| now - since >= SECOND);
        is_due.then(|| self.take_all()).flatten()
    }

    /// How many were counted.
    pub(crate) fn take_all(&mut self) -> Option<u64> {
        let count = std::mem::take(&mut self.held_back);
        (count > 0).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_a_few_are_told_each_second_and_all_are_counted() {
        let mut limit = Limit::new(3);
        let began = Instant::now();
        let (mut told, mut counted) = (0, 0);
        for milli in 0..10_000 {
            let now = began + Duration::from_millis(milli);
            counted += limit.take_due(now).unwrap_or(0);
            told += u64::from(limit.lets_through(now, 1));
        }
        counted += limit.take_all().unwrap_or(0);
        assert_eq!((told, counted), (30, 9_970));
    }

    #[test]
    fn what_comes_at_a_persons_pace_is_told_one_by_one() {
        let mut limit = Limit::new(3);
        let began = Instant::now();
        for tenths in 0..100 {
            let now = began + Duration::from_millis(400) * tenths;
            assert!(limit.lets_through(now, 1));
        }
        assert_eq!(limit.take_all(), None);
    }
}
