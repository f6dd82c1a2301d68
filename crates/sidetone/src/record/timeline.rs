use std::time::Duration;

use sidetone_proto::{Rate, Time};

use super::track::{Counts, Track};
use crate::media::Side;

/// What is younger than this is not written yet: a little more than it takes to decide about a gap.
const WRITE_DELAY: Duration = Duration::from_millis(250);

/// Both sides of a call on one clock, without I/O: pieces with their times go in, stereo frames come out.
#[derive(Debug)]
pub(super) struct Timeline {
    hz: u32,
    start: Time,
    caller: Track,
    server: Track,
    /// Frames before this have come out, though late audio may still replace some.
    emitted: u64,
}

impl Timeline {
    pub(super) fn new(hz: u32, start: Time) -> Self {
        Self {
            hz,
            start,
            caller: Track::new(hz),
            server: Track::new(hz),
            emitted: 0,
        }
    }

    /// Takes what passed the socket at `at`.
    pub(super) fn put(&mut self, side: Side, rate: Rate, at: Time, samples: &[i16]) {
        let place = self.place(at);
        match side {
            Side::Caller => self.caller.put(place, rate, samples),
            Side::Server => self.server.put(place, rate, samples),
        }
    }

    /// Appends the frames that are due at `now`, left and right by turns, and returns the place of the first
    /// one. Where late audio has filled a gap, that is before the end of what came out last time: from
    /// there on it is replaced.
    pub(super) fn take(&mut self, now: Time, out: &mut Vec<i16>) -> u64 {
        let now = self.place(now);
        self.caller.update(now);
        self.server.update(now);
        let delay = u64::from(self.hz) * WRITE_DELAY.as_millis() as u64 / 1_000;
        self.emit(now.saturating_sub(delay), out)
    }

    /// The end: appends everything that is left, as [`take`](Self::take) does.
    pub(super) fn finish(&mut self, out: &mut Vec<i16>) -> u64 {
        self.caller.resolve_gap();
        self.server.resolve_gap();
        let end = self.caller.end().max(self.server.end()).max(self.emitted);
        self.caller.extend_to(end);
        self.server.extend_to(end);
        self.emit(end, out)
    }

    pub(super) fn counts(&self, side: Side) -> Counts {
        match side {
            Side::Caller => self.caller.counts(),
            Side::Server => self.server.counts(),
        }
    }

    fn emit(&mut self, until: u64, out: &mut Vec<i16>) -> u64 {
        let until = until.max(self.emitted);
        for track in [&mut self.caller, &mut self.server] {
            self.emitted = self.emitted.min(track.take_modified().unwrap_or(u64::MAX));
        }
        let first = self.emitted;
        let begin = out.len();
        // Silence, where neither track has anything.
        out.resize(begin + (until - first) as usize * 2, 0);
        let frames = &mut out[begin..];
        self.caller.copy(first, frames.iter_mut().step_by(2));
        self.server
            .copy(first, frames.iter_mut().skip(1).step_by(2));
        self.emitted = until;
        // Behind its end a track may still be filled, and then the other side is needed again.
        let complete = until.min(self.caller.end()).min(self.server.end());
        self.caller.discard_before(complete);
        self.server.discard_before(complete);
        first
    }

    /// The frame that belongs to this moment.
    fn place(&self, at: Time) -> u64 {
        let nanos = u128::from((at - self.start).as_nanos() as u64);
        let rounded = (nanos * u128::from(self.hz) + 500_000_000) / 1_000_000_000;
        rounded as u64
    }
}

#[cfg(test)]
mod tests;
