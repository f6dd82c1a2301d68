//! Spares callers the wait for a bot that is dead.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES: u32 = 3;
/// How long a bot is left alone, and how long a call that tries it may take to say how it went.
const PAUSE: Duration = Duration::from_secs(5);

/// A circuit breaker for the calls to a bot.
///
/// After three failures in a row no call is sent to the bot for 5 s. Then one call tries it; the others are still spared. When the
/// bot takes that one, calls go to it again, but the bot is [taken for dead](Self::is_dead) until one of them has
/// [succeeded](Self::succeed). If one fails before that, the bot is left alone for another 5 s.
///
/// A call that the bot took before the breaker opened says nothing of the bot any more.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    state: BreakerState,
    /// When it opened last.
    opened: Option<Instant>,
    /// Failures in a row, while it is closed.
    failures: u32,
    /// When the next call may try the bot, while it is open.
    until: Option<Instant>,
}

/// Where the calls go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerState {
    /// To the bot.
    #[default]
    Closed,
    /// Not to the bot, but for one every 5 s.
    Open,
    /// To the bot, which has taken a call again. It has not kept one yet.
    HalfOpen,
}

/// What a success or a failure changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// From now on the bot is taken for dead.
    Opened,
    /// From now on it is trusted again.
    Closed,
}

impl Breaker {
    /// A call that lasts so long with its bot has succeeded.
    pub const LASTING: Duration = PAUSE;

    /// Whether a call may try the bot. The one that is allowed first after a pause is the one that tries it.
    pub fn allows(&mut self, now: Instant) -> bool {
        let is_allowed = match self.state {
            BreakerState::Closed | BreakerState::HalfOpen => true,
            BreakerState::Open => self.until.is_none_or(|until| now >= until),
        };
        if is_allowed && self.state == BreakerState::Open {
            self.until = Some(now + PAUSE);
        }
        is_allowed
    }

    /// The bot has taken a call. That alone is no success: it may break at once.
    pub fn connect(&mut self) {
        if self.state == BreakerState::Open {
            self.state = BreakerState::HalfOpen;
        }
    }

    /// A call that the bot took at `connected` has [lasted](Self::LASTING), or came to a good end.
    pub fn succeed(&mut self, connected: Instant) -> Option<Change> {
        if self.is_outdated(Some(connected)) {
            return None;
        }
        let was_dead = self.is_dead();
        self.state = BreakerState::Closed;
        self.failures = 0;
        was_dead.then_some(Change::Closed)
    }

    /// The bot could not be reached, or broke the call that it took at `connected`.
    pub fn fail(&mut self, now: Instant, connected: Option<Instant>) -> Option<Change> {
        if self.is_outdated(connected) {
            return None;
        }
        self.failures += 1;
        let was_dead = self.is_dead();
        if !was_dead && self.failures < FAILURES {
            return None;
        }
        self.failures = 0;
        self.until = Some(now + PAUSE);
        if self.state != BreakerState::Open {
            self.opened = Some(now);
        }
        self.state = BreakerState::Open;
        (!was_dead).then_some(Change::Opened)
    }

    /// Where the calls go.
    pub const fn state(&self) -> BreakerState {
        self.state
    }

    /// Whether the bot fails its calls, as far as is known: from when it opens until a call has succeeded.
    pub const fn is_dead(&self) -> bool {
        !matches!(self.state, BreakerState::Closed)
    }

    fn is_outdated(&self, connected: Option<Instant>) -> bool {
        connected
            .zip(self.opened)
            .is_some_and(|(connected, opened)| connected < opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One that is open since `now`.
    fn open(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for change in [None, None, Some(Change::Opened)] {
            assert_eq!(breaker.fail(now, None), change);
        }
        breaker
    }

    #[test]
    fn three_failures_in_a_row_open_it_and_one_success_closes_it() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        let at = |time: u64| start + seconds(time);
        assert_eq!(breaker.fail(at(0), None), None);
        assert_eq!(breaker.fail(at(0), None), None);
        assert_eq!(breaker.succeed(at(0)), None);
        for change in [None, None, Some(Change::Opened)] {
            assert!(breaker.allows(at(1)));
            assert_eq!(breaker.fail(at(1), None), change);
        }
        assert!(breaker.is_dead() && !breaker.allows(at(5)));
        // One call tries it, and fails.
        assert!(breaker.allows(at(6)));
        assert!(!breaker.allows(at(6)));
        assert_eq!(breaker.fail(at(7), None), None);
        assert!(!breaker.allows(at(11)));
        // The bot takes the next one, and keeps it.
        assert!(breaker.allows(at(12)));
        breaker.connect();
        assert!(breaker.allows(at(12)) && breaker.allows(at(12)) && breaker.is_dead());
        assert_eq!(breaker.succeed(at(12)), Some(Change::Closed));
        assert!(!breaker.is_dead());
    }

    #[test]
    fn a_bot_that_takes_calls_and_fails_them_opens_it_too() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        for change in [None, None, Some(Change::Opened)] {
            breaker.connect();
            assert_eq!(breaker.fail(now, Some(now)), change);
        }
    }

    #[test]
    fn a_bot_that_takes_each_call_and_breaks_it_is_dead_until_it_has_kept_one() {
        let start = Instant::now();
        let mut breaker = open(start);
        let mut now = start;
        for _ in 0..1000 {
            now += PAUSE;
            assert!(breaker.allows(now));
            breaker.connect();
            assert_eq!(breaker.state(), BreakerState::HalfOpen);
            // It breaks the call after a while, perhaps after a greeting.
            let connected = now;
            now += seconds(2);
            assert!(breaker.allows(now));
            assert_eq!(breaker.fail(now, Some(connected)), None);
            assert_eq!(breaker.state(), BreakerState::Open);
            assert!(!breaker.allows(now));
        }
        now += PAUSE;
        assert!(breaker.allows(now));
        breaker.connect();
        assert_eq!(breaker.succeed(now), Some(Change::Closed));
        assert_eq!(breaker.state(), BreakerState::Closed);
        // One failure is none again.
        assert_eq!(breaker.fail(now, Some(now)), None);
    }

    #[test]
    fn calls_from_before_it_opened_neither_close_it_nor_open_it_again() {
        let start = Instant::now();
        let mut breaker = open(start + seconds(10));
        assert_eq!(breaker.succeed(start), None);
        assert!(breaker.is_dead());
        let back = start + seconds(20);
        assert!(breaker.allows(back));
        breaker.connect();
        assert_eq!(breaker.fail(back, Some(start)), None);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(breaker.succeed(back), Some(Change::Closed));
        for _ in 0..100 {
            assert_eq!(breaker.fail(back + seconds(20), Some(start)), None);
        }
        assert!(!breaker.is_dead());
    }

    #[test]
    fn a_call_that_never_says_how_it_went_keeps_nobody_away_for_ever() {
        let now = Instant::now();
        let mut breaker = open(now);
        assert!(breaker.allows(now + PAUSE));
        assert!(!breaker.allows(now + PAUSE));
        assert!(breaker.allows(now + 2 * PAUSE));
    }
}
