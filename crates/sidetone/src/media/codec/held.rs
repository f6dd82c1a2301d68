//! Payloads that wait until their encoding is known.

use std::{collections::VecDeque, time::Duration};

use sidetone_proto::{Rate, Time};

use super::{CallerAudio, Encoding};
use crate::media::batch::Entry;

/// Audio that is held at most; what is older is dropped. Detection takes 200 ms of sound, so that only silence can be
/// dropped here.
const MAX_HELD: Duration = Duration::from_secs(1);

/// As many bytes as that is at the highest rate.
pub(super) const MAX_HELD_BYTES: usize = 2 * 192_000;

/// As many frames as that is with a frame each millisecond. No caller sends more.
pub(super) const MAX_HELD_FRAMES: usize = 1_000;

/// Payloads that wait until their encoding is known.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldPayloads {
    pub(super) bytes: VecDeque<u8>,
    pub(super) frames: VecDeque<HeldFrame>,
    /// Frames that were dropped because of the limits above, to be reported to the handler.
    pub(super) lost: u64,
    /// Those of them that [`take_lost`](Self::take_lost) has not returned.
    uncounted: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct HeldFrame {
    /// In bytes.
    length: usize,
    offset: Duration,
    arrived: Time,
    /// When it arrived, counted from the UUID.
    age: Duration,
}

impl HeldPayloads {
    pub(super) fn push(&mut self, age: Duration, offset: Duration, now: Time, bytes: &[u8]) {
        let is_stale = |frame: &HeldFrame| now - frame.arrived > MAX_HELD;
        while self.frames.front().is_some_and(is_stale) {
            self.drop_oldest();
        }
        self.bytes.extend(bytes);
        self.frames.push_back(HeldFrame {
            length: bytes.len(),
            offset,
            arrived: now,
            age,
        });
        // This ends with the new frame held, since one message is always shorter than the limit.
        while self.bytes.len() > MAX_HELD_BYTES || self.frames.len() > MAX_HELD_FRAMES {
            self.drop_oldest();
            self.lost += 1;
            self.uncounted += 1;
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes.drain(..frame.length);
        }
    }

    /// Frames lost since the last call.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }

    /// Whether it is about to drop audio, or has.
    pub(super) fn is_full(&self) -> bool {
        if self.lost > 0 {
            return true;
        }
        let ends = self.frames.front().zip(self.frames.back());
        ends.is_some_and(|(first, last)| last.arrived - first.arrived + MAX_HELD / 10 > MAX_HELD)
    }

    /// Decodes everything into `to`. Returns the offset that the first frame was given when it arrived, and its
    /// true one.
    pub(super) fn release(
        mut self,
        encoding: Encoding,
        to: &mut CallerAudio<'_>,
    ) -> Option<(Duration, Duration)> {
        let first = *self.frames.front()?;
        if self.lost > 0 {
            to.batch.push(Entry::Lagged { frames: self.lost });
        }
        let rate = encoding.rate();
        // Taken for 8 kHz, wideband audio counted as longer than it is, and so its start as earlier.
        let begin = match rate {
            Rate::Slin => first.offset,
            _ => {
                let length = rate.duration(first.length as u64 / 2);
                first.offset.max(first.age.saturating_sub(length))
            }
        };
        let mut rest: &[u8] = self.bytes.make_contiguous();
        for frame in self.frames {
            let (bytes, behind) = rest.split_at(frame.length);
            rest = behind;
            let counted = frame.offset.saturating_sub(first.offset) * Rate::Slin.hz();
            let offset = begin + counted / rate.hz();
            to.push(encoding, offset, frame.arrived, bytes);
        }
        Some((first.offset, begin))
    }
}
