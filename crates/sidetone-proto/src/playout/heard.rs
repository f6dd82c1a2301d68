use std::{collections::VecDeque, time::Duration};

use super::{ticks, ticks_duration};
use crate::Rate;

/// How many slots may lie between one that is written and one that our own socket's queue still holds: 240 ms at the
/// least, where it holds 200.
const SLOTS: u64 = 24;

/// How much may wait in our own socket's queue where the kernel can't be asked.
const UNKNOWN: Duration = Duration::from_millis(200);

/// What was heard of something that was queued.
///
/// *Heard* is what was written and no longer waits in our own socket's queue, in whole messages, at the call's own rate;
/// as a number of samples, to the nearest. When the network and the other side's own buffer have let it through is not
/// known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Heard {
    /// How much was heard.
    pub heard: Duration,
    /// How much was not: it was thrown away, or waited in our own socket's queue when this was asked for, from where it
    /// can't be taken back.
    pub unheard: Duration,
    /// By how much less may have been heard: zero, unless the kernel can't be asked what its queue holds.
    pub uncertainty: Duration,
}

impl Heard {
    /// Of so much, nothing.
    pub fn nothing_of(unheard: Duration) -> Self {
        Self {
            unheard,
            ..Self::default()
        }
    }

    /// Of two things together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            heard: self.heard + other.heard,
            unheard: self.unheard + other.unheard,
            uncertainty: self.uncertainty + other.uncertainty,
        }
    }
}

/// The same in ticks, so that sums are exact.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeardTicks {
    pub(super) heard: u64,
    pub(super) unheard: u64,
    pub(super) uncertainty: u64,
}

impl HeardTicks {
    pub(super) fn add(&mut self, other: Self) {
        self.heard += other.heard;
        self.unheard += other.unheard;
        self.uncertainty += other.uncertainty;
    }

    pub(super) fn durations(self) -> Heard {
        Heard {
            heard: ticks_duration(self.heard),
            unheard: ticks_duration(self.unheard),
            uncertainty: ticks_duration(self.uncertainty),
        }
    }
}

/// The last slots that were written, and whose samples were in them.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// Bytes written since the call began.
    written: u64,
    stretches: VecDeque<Stretch>,
}

/// Samples of one item in one slot.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    item: u64,
    rate: Rate,
    /// Where they begin in the slot.
    offset: u32,
    length: u32,
    /// Bytes written when the slot was.
    end: u64,
}

/// How much of what was written is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Bytes since the call began.
    up_to: u64,
    is_known: bool,
}

impl Sent {
    pub(super) fn has(self, end: u64) -> bool {
        end <= self.up_to
    }
}

impl Trail {
    /// Bytes written since the call began.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Takes note of samples in the slot that is being made.
    pub(super) fn note(&mut self, item: u64, rate: Rate, offset: usize, length: usize) {
        if self.stretches.capacity() == 0 {
            self.stretches.reserve_exact(SLOTS as usize + 8);
        }
        self.stretches.push_back(Stretch {
            item,
            rate,
            offset: offset as u32,
            length: length as u32,
            end: self.written + rate.slot_bytes() as u64,
        });
    }

    /// The slot is made, whatever is in it.
    pub(super) fn end_slot(&mut self, rate: Rate) {
        let bytes = rate.slot_bytes() as u64;
        self.written += bytes;
        let old = self.written.saturating_sub(SLOTS * bytes);
        while self
            .stretches
            .front()
            .is_some_and(|stretch| stretch.end <= old)
        {
            self.stretches.pop_front();
        }
    }

    /// With so many bytes here, and so many that the kernel holds, if that is known.
    pub(super) fn sent(&self, rest: usize, held: Option<usize>) -> Sent {
        let unsent = rest + held.unwrap_or(0);
        Sent {
            up_to: self.written.saturating_sub(unsent as u64),
            is_known: held.is_some(),
        }
    }

    /// What was heard of an item of which `written` ticks were written and `unheard` thrown away.
    pub(super) fn heard(&self, item: u64, written: u64, unheard: u64, sent: Sent) -> HeardTicks {
        let waiting = self.waiting(item, sent.up_to);
        let uncertainty = if sent.is_known {
            0
        } else {
            let held = |stretch: &Stretch| {
                let messages =
                    stretch.rate.samples_in(UNKNOWN) as usize / stretch.rate.slot_samples();
                (messages * stretch.rate.slot_bytes()) as u64
            };
            let most = self.stretches.back().map_or(0, held);
            self.waiting(item, sent.up_to.saturating_sub(most)) - waiting
        };
        HeardTicks {
            heard: written.saturating_sub(waiting),
            unheard: unheard + waiting,
            uncertainty,
        }
    }

    /// Ticks of an item that lie behind so many bytes. Half a message is none.
    fn waiting(&self, item: u64, sent: u64) -> u64 {
        let waits = |stretch: &&Stretch| stretch.item == item && stretch.end > sent;
        let waiting = |stretch: &Stretch| {
            let bytes = stretch.rate.slot_bytes() as u64;
            let gone = (sent + bytes).saturating_sub(stretch.end);
            let message = stretch.rate.message_samples();
            let messages = gone / (2 * message as u64 + 3);
            let heard = (messages as usize * message).saturating_sub(stretch.offset as usize);
            let length = stretch.length as usize;
            ticks(stretch.rate, length - heard.min(length))
        };
        self.stretches.iter().filter(waits).map(waiting).sum()
    }
}
