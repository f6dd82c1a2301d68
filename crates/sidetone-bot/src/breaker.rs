//! Spares callers the wait for a bot that is dead.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES: u32 = 3;
/// How long a bot is left alone, and how long a call that tries it may take to say how it went.
const PAUSE: Duration = Duration::from_secs(5);

/// A circuit breaker for the calls to a bot.
///
/// After three failures in a row no call is sent to the bot for 5 s. Then one call tries it; the others are still spared. When the
/// bot takes that one, calls go to it again, and the next failure is enough until it has spoken or ended a call; else it is left alone
/// for another 5 s.
#[derive(Clone, Debug, Default)]
pub struct Breaker(State);

#[derive(Clone, Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// What a success or a failure changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// From now on calls are spared.
    Opened,
    /// From now on calls go to the bot again.
    Closed,
}

impl Breaker {
    /// Whether a call may try the bot. The one that is allowed first after a pause is the one that tries it.
    pub fn allows(&mut self, now: Instant) -> bool {
        match self.0 {
            State::Closed { .. } => true,
            State::Open { until } if now >= until => {
                self.0 = State::Open { until: now + PAUSE };
                true
            }
            State::Open { .. } => false,
        }
    }

    /// The bot has taken a call. That alone is no success: it may fail at once.
    pub fn connect(&mut self) -> Option<Change> {
        if !self.is_open() {
            return None;
        }
        // If it fails now, nothing has changed.
        self.0 = State::Closed {
            failures: FAILURES - 1,
        };
        Some(Change::Closed)
    }

    /// The bot has spoken, or ended a call.
    pub fn succeed(&mut self) -> Option<Change> {
        let was_open = self.is_open();
        self.0 = State::default();
        was_open.then_some(Change::Closed)
    }

    /// The bot could not be reached, or broke.
    pub fn fail(&mut self, now: Instant) -> Option<Change> {
        let until = now + PAUSE;
        match &mut self.0 {
            State::Closed { failures } => {
                *failures += 1;
                if *failures < FAILURES {
                    return None;
                }
                self.0 = State::Open { until };
                Some(Change::Opened)
            }
            State::Open { until: old } => {
                *old = until;
                None
            }
        }
    }

    /// Whether calls are spared.
    pub const fn is_open(&self) -> bool {
        matches!(self.0, State::Open { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_open_it_and_one_success_closes_it() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(breaker.fail(at(0)), None);
        assert_eq!(breaker.fail(at(0)), None);
        assert_eq!(breaker.succeed(), None);
        for change in [None, None, Some(Change::Opened)] {
            assert!(breaker.allows(at(1)));
            assert_eq!(breaker.fail(at(1)), change);
        }
        assert!(breaker.is_open() && !breaker.allows(at(5)));
        // One call tries it, and fails.
        assert!(breaker.allows(at(6)));
        assert!(!breaker.allows(at(6)));
        assert_eq!(breaker.fail(at(7)), None);
        assert!(!breaker.allows(at(11)));
        // The bot takes the next one.
        assert!(breaker.allows(at(12)));
        assert_eq!(breaker.connect(), Some(Change::Closed));
        assert!(breaker.allows(at(12)) && breaker.allows(at(12)) && !breaker.is_open());
    }

    #[test]
    fn a_bot_that_takes_calls_and_fails_them_opens_it_too() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        for change in [None, None, Some(Change::Opened)] {
            assert_eq!(breaker.connect(), None);
            assert_eq!(breaker.fail(now), change);
        }
    }

    #[test]
    fn a_bot_that_takes_the_call_that_tries_it_and_fails_it_is_left_alone_at_once() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        for _ in 0..FAILURES {
            breaker.fail(now);
        }
        assert!(breaker.allows(now + PAUSE));
        assert_eq!(breaker.connect(), Some(Change::Closed));
        assert_eq!(breaker.fail(now + PAUSE), Some(Change::Opened));
        // One that speaks is trusted again.
        assert!(breaker.allows(now + 2 * PAUSE));
        assert_eq!(breaker.connect(), Some(Change::Closed));
        assert_eq!(breaker.succeed(), None);
        assert_eq!(breaker.fail(now + 2 * PAUSE), None);
    }

    #[test]
    fn a_call_that_never_says_how_it_went_keeps_nobody_away_for_ever() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        for _ in 0..FAILURES {
            breaker.fail(now);
        }
        assert!(breaker.allows(now + PAUSE));
        assert!(!breaker.allows(now + PAUSE));
        assert!(breaker.allows(now + 2 * PAUSE));
    }
}
