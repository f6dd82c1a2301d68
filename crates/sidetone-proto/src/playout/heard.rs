use std::{collections::VecDeque, time::Duration};

use super::{ticks, ticks_duration};
use crate::Rate;

/// Slots that are remembered after they were written: 240 ms at the least, of which the socket's send queue holds 200.
const MAX_SLOTS: u64 = 24;

/// How much audio the socket's send queue is assumed to hold where the kernel can't be asked.
const ASSUMED_QUEUE: Duration = Duration::from_millis(200);

/// What was heard of an item that was queued.
///
/// *Heard* is what was written and no longer waits in the socket's send queue, in whole messages, rounded to samples at
/// the call's own rate. The delay of the network and of the other side's buffer is not known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Heard {
    /// How much was heard.
    pub heard: Duration,
    /// How much was not: it was discarded, or it waited in the socket's send queue, from where it can't be taken back.
    pub unheard: Duration,
    /// How much less may have been heard. Zero, unless the kernel can't be asked what the send queue holds.
    pub uncertainty: Duration,
}

impl Heard {
    /// Nothing of `unheard`.
    pub fn nothing_of(unheard: Duration) -> Self {
        Self {
            unheard,
            ..Self::default()
        }
    }

    /// The sum of both.
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

/// The last slots that were written, and the items whose samples were in them.
#[derive(Debug, Default)]
pub(super) struct SentLog {
    /// Bytes written since the call began.
    written: u64,
    spans: VecDeque<Span>,
}

/// Samples of one item in one slot.
#[derive(Clone, Copy, Debug)]
struct Span {
    item: u64,
    rate: Rate,
    /// Samples before them in the slot.
    offset: u32,
    length: u32,
    /// Bytes written up to the end of the slot.
    end: u64,
}

/// How much of what was written has left the send queue.
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

impl SentLog {
    /// Bytes written since the call began.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Records samples in the slot that is being made.
    pub(super) fn record(&mut self, item: u64, rate: Rate, offset: usize, length: usize) {
        if self.spans.capacity() == 0 {
            self.spans.reserve_exact(MAX_SLOTS as usize + 8);
        }
        self.spans.push_back(Span {
            item,
            rate,
            offset: offset as u32,
            length: length as u32,
            end: self.written + rate.slot_bytes() as u64,
        });
    }

    /// Ends the slot that is being made.
    pub(super) fn end_slot(&mut self, rate: Rate) {
        let bytes = rate.slot_bytes() as u64;
        self.written += bytes;
        let old = self.written.saturating_sub(MAX_SLOTS * bytes);
        while self.spans.front().is_some_and(|span| span.end <= old) {
            self.spans.pop_front();
        }
    }

    /// What has been sent while `pending` bytes wait here, and `unsent` bytes in the send queue, if that is known.
    pub(super) fn sent(&self, pending: usize, unsent: Option<usize>) -> Sent {
        let waiting = pending + unsent.unwrap_or(0);
        Sent {
            up_to: self.written.saturating_sub(waiting as u64),
            is_known: unsent.is_some(),
        }
    }

    /// What was heard of an item of which `written` ticks were written and `discarded` were not.
    pub(super) fn heard(&self, item: u64, written: u64, discarded: u64, sent: Sent) -> HeardTicks {
        let waiting = self.waiting(item, sent.up_to);
        let uncertainty = if sent.is_known {
            0
        } else {
            let queue_bytes = |span: &Span| {
                let messages =
                    span.rate.samples_in(ASSUMED_QUEUE) as usize / span.rate.slot_samples();
                (messages * span.rate.slot_bytes()) as u64
            };
            let most = self.spans.back().map_or(0, queue_bytes);
            self.waiting(item, sent.up_to.saturating_sub(most)) - waiting
        };
        HeardTicks {
            heard: written.saturating_sub(waiting),
            unheard: discarded + waiting,
            uncertainty,
        }
    }

    /// Ticks of an item behind the first `sent` bytes. A message that is sent in part counts as not sent.
    fn waiting(&self, item: u64, sent: u64) -> u64 {
        let waits = |span: &&Span| span.item == item && span.end > sent;
        let waiting = |span: &Span| {
            let bytes = span.rate.slot_bytes() as u64;
            let sent_bytes = (sent + bytes).saturating_sub(span.end);
            let message = span.rate.message_samples();
            let messages = sent_bytes / (2 * message as u64 + 3);
            let heard = (messages as usize * message).saturating_sub(span.offset as usize);
            let length = span.length as usize;
            ticks(span.rate, length - heard.min(length))
        };
        self.spans.iter().filter(waits).map(waiting).sum()
    }
}
