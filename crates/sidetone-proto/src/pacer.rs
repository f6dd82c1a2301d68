use std::time::Duration;

use crate::Time;

/// After a stall of up to this long the missing slots follow; after a longer one the grid is re-based.
/// Asterisk's RTP sender tolerates 80 ms of skew before it jumps the timestamp.
const CATCH_UP: Duration = Duration::from_millis(60);

/// The most that the grid moves with one slot, in nanoseconds: 0.1 ms.
const SLEW: i64 = 100_000;

/// What is owed is bounded by a slot: the grid never chases further than that.
const MOST_OWED: i64 = 20_000_000;

/// The grid of a call: when its next slot is due.
///
/// It stands still but for three things: it is slewed, at most 0.1 ms a slot; it slips when a stall was longer than
/// 60 ms; and the call's first live audio moves it to where that is needed, at once and then by at most 0.5 ms a slot.
///
/// ```
/// use {sidetone_proto::{Due, Pacer, Time}, std::time::Duration};
///
/// let slot = Duration::from_millis(20);
/// let mut pacer = Pacer::new(Time::ZERO);
/// assert_eq!(pacer.due(Time::ZERO, slot), Due::Now { late: Duration::ZERO });
/// pacer.advance(slot);
/// assert_eq!(pacer.due(Time::ZERO, slot), Due::NotYet);
/// assert_eq!(pacer.next(), Time::ZERO + slot);
/// ```
#[derive(Debug)]
pub struct Pacer {
    next: Time,
    owed: i64,
}

/// Whether a slot is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Not before [`Pacer::next`].
    NotYet,
    /// A slot is due, and late by this much.
    Now {
        /// Time since the slot's place on the grid.
        late: Duration,
    },
    /// The stall was too long to catch up: the grid begins anew at this moment, with a slot due.
    Slipped {
        /// Slots that will never be written.
        missed: u64,
        /// How late the first of them is.
        late: Duration,
    },
}

impl Pacer {
    /// A grid whose first slot is due at `start`.
    pub fn new(start: Time) -> Self {
        Self {
            next: start,
            owed: 0,
        }
    }

    /// Whether a slot of length `slot` is due. After a slip the grid is already re-based.
    pub fn due(&mut self, now: Time, slot: Duration) -> Due {
        if now < self.next {
            return Due::NotYet;
        }
        let late = now - self.next;
        if late <= CATCH_UP {
            return Due::Now { late };
        }
        self.next = now;
        Due::Slipped {
            missed: (late.as_nanos() / slot.as_nanos().max(1)) as u64,
            late,
        }
    }

    /// The slot is written or skipped: on to the next, `slot` later.
    pub fn advance(&mut self, slot: Duration) {
        let slew = self.owed.clamp(-SLEW, SLEW);
        self.owed -= slew;
        self.next = (self.next + slot).shifted(slew);
    }

    /// Moves the grid along with the inbound rhythm, bit by bit.
    pub fn follow(&mut self, shift: i64) {
        self.owed = (self.owed + shift).clamp(-MOST_OWED, MOST_OWED);
    }

    /// Moves the next slot by `shift` nanoseconds, whatever was owed before.
    pub fn steer(&mut self, shift: i64) {
        self.owed = 0;
        self.next = self.next.shifted(shift);
    }

    /// Begins the grid anew: its next slot is due at `start`.
    pub fn restart(&mut self, start: Time) {
        *self = Self::new(start);
    }

    /// When the next slot is due.
    pub fn next(&self) -> Time {
        self.next
    }
}
