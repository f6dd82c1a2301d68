use std::time::Duration;

use crate::Time;

/// After a stall of up to this long, the late slots are made up for; after a longer one the schedule starts anew.
/// Asterisk's RTP sender tolerates 80 ms of skew before it makes its timestamp jump.
const MAX_CATCH_UP: Duration = Duration::from_millis(60);

/// The most that the schedule is slewed with one slot, in nanoseconds: 0.1 ms.
const MAX_SLEW_NS: i64 = 100_000;

/// The most that is slewed in all for what came before, in nanoseconds: one slot.
const MAX_PENDING_SLEW_NS: i64 = 20_000_000;

/// The schedule of a call: when its next slot is due.
///
/// Slots follow each other at a constant distance, with three exceptions. The schedule is *slewed* to follow the other
/// side's clock, by at most 0.1 ms a slot. It *slips* when a stall was longer than 60 ms. And the call's first live audio
/// *steps* it to where that is needed, at once and then by at most 0.5 ms a slot.
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
    /// In nanoseconds.
    pending_slew: i64,
}

/// Whether a slot is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Not before [`Pacer::next`].
    NotYet,
    /// A slot is due, and late by this much.
    Now {
        /// Time since the slot was due.
        late: Duration,
    },
    /// The stall was too long to catch up: the schedule starts anew at this moment, with a slot due.
    Slipped {
        /// Slots that will never be written.
        missed: u64,
        /// How late the first of them is.
        late: Duration,
    },
}

impl Pacer {
    /// A schedule whose first slot is due at `start`.
    pub fn new(start: Time) -> Self {
        Self {
            next: start,
            pending_slew: 0,
        }
    }

    /// Whether a slot of length `slot` is due. After a slip the schedule has started anew already.
    pub fn due(&mut self, now: Time, slot: Duration) -> Due {
        if now < self.next {
            return Due::NotYet;
        }
        let late = now - self.next;
        if late <= MAX_CATCH_UP {
            return Due::Now { late };
        }
        self.next = now;
        Due::Slipped {
            missed: (late.as_nanos() / slot.as_nanos().max(1)) as u64,
            late,
        }
    }

    /// Goes on to the next slot, `slot` later: this one was written or skipped.
    pub fn advance(&mut self, slot: Duration) {
        let slew = self.pending_slew.clamp(-MAX_SLEW_NS, MAX_SLEW_NS);
        self.pending_slew -= slew;
        self.next = (self.next + slot).shifted(slew);
    }

    /// Moves the schedule by `shift` nanoseconds, at most 0.1 ms with each slot; negative is earlier.
    pub fn slew(&mut self, shift: i64) {
        self.pending_slew =
            (self.pending_slew + shift).clamp(-MAX_PENDING_SLEW_NS, MAX_PENDING_SLEW_NS);
    }

    /// Moves the schedule by `shift` nanoseconds with the next slot, and drops any slew that is pending.
    pub fn step(&mut self, shift: i64) {
        self.pending_slew = 0;
        self.next = self.next.shifted(shift);
    }

    /// Starts the schedule anew: its next slot is due at `start`.
    pub fn restart(&mut self, start: Time) {
        *self = Self::new(start);
    }

    /// When the next slot is due.
    pub fn next(&self) -> Time {
        self.next
    }
}
