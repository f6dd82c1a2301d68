//! Limits how many events of a kind are reported one by one. The others are counted.

use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Lets some events of a kind pass each second, and counts the others.
#[derive(Debug)]
pub struct RateLimit {
    per_second: u32,
    /// When the current second began.
    since: Option<Instant>,
    passed: u32,
    suppressed: u64,
}

impl RateLimit {
    /// Lets so many events pass each second.
    pub const fn new(per_second: u32) -> Self {
        Self {
            per_second,
            since: None,
            passed: 0,
            suppressed: 0,
        }
    }

    /// Whether an event may be reported. If not, `count` is added to the suppressed ones.
    pub fn allows(&mut self, now: Instant, count: u64) -> bool {
        if self.since.is_none_or(|since| now - since >= SECOND) {
            self.since = Some(now);
            self.passed = 0;
        }
        if self.passed < self.per_second && self.suppressed == 0 {
            self.passed += 1;
            return true;
        }
        self.suppressed += count;
        false
    }

    /// How many were suppressed, once their second is over. Counting starts again.
    pub fn take_due(&mut self, now: Instant) -> Option<u64> {
        let is_due = self.suppressed > 0 && self.since.is_none_or(|since| now - since >= SECOND);
        is_due.then(|| self.take()).flatten()
    }

    /// How many were suppressed. Counting starts again.
    pub fn take(&mut self) -> Option<u64> {
        let count = std::mem::take(&mut self.suppressed);
        (count > 0).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_events_pass_each_second_and_the_others_are_counted() {
        let mut limit = RateLimit::new(3);
        let began = Instant::now();
        let (mut passed, mut suppressed) = (0, 0);
        for milli in 0..10_000 {
            let now = began + Duration::from_millis(milli);
            suppressed += limit.take_due(now).unwrap_or(0);
            passed += u64::from(limit.allows(now, 1));
        }
        suppressed += limit.take().unwrap_or(0);
        assert_eq!((passed, suppressed), (30, 9_970));
    }

    #[test]
    fn events_at_a_persons_pace_all_pass() {
        let mut limit = RateLimit::new(3);
        let began = Instant::now();
        for number in 0..100 {
            let now = began + Duration::from_millis(400) * number;
            assert!(limit.allows(now, 1));
        }
        assert_eq!(limit.take(), None);
    }
}
