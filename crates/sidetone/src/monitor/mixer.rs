use std::{ops::Range, time::Duration};

use sidetone_audio::resample::Resampler;
use sidetone_proto::{Rate, Time};

use crate::media::Side;

/// What is younger than this is not mixed yet, since late audio may still come.
const MIX_DELAY: Duration = Duration::from_millis(100);

/// How much is mixed at a time: few wake-ups, and a delay of less than 200 ms in all.
const MIX_INTERVAL: Duration = Duration::from_millis(40);

/// Audio that is this much later than the audio before it ended has a gap before it. Less is jitter.
const MIN_GAP: Duration = Duration::from_millis(60);

/// Where late audio has filled all of a gap but this much, nothing was missing: less than a frame is jitter.
const MIN_FILL: Duration = Duration::from_millis(20);

/// A side is ahead of its time by this much at most; what comes even faster is left out.
const MAX_AHEAD: Duration = Duration::from_millis(60);

/// A reader that is this late goes on with the present.
const MAX_BEHIND: Duration = Duration::from_secs(5);

/// Both sides of a call as one stream, without I/O: pieces with their times go in, mixed samples come out when they are due.
///
/// Places are counted in samples of the stream since its beginning.
#[derive(Debug)]
pub(super) struct Mixer {
    rate: Rate,
    start: Time,
    caller: Track,
    server: Track,
}

/// One side.
#[derive(Debug, Default)]
struct Track {
    /// What has been placed from `begin` on, without gaps.
    samples: Vec<i16>,
    /// What is before this has come out.
    begin: u64,
    has_begun: bool,
    /// The last silence that was put where nothing had come. Late audio takes its place.
    gap: Range<u64>,
    converter: Option<(Rate, Resampler)>,
    converted: Vec<i16>,
}

impl Mixer {
    pub(super) fn new(rate: Rate, start: Time) -> Self {
        Self {
            rate,
            start,
            caller: Track::default(),
            server: Track::default(),
        }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// When to take next.
    pub(super) fn due(&self) -> Time {
        self.start + self.rate.duration(self.begin()) + MIX_DELAY + MIX_INTERVAL
    }

    /// Takes what passed the socket at `at`. What passed before the stream's beginning is not part of it.
    pub(super) fn put(&mut self, side: Side, rate: Rate, at: Time, samples: &[i16]) {
        if at < self.start {
            return;
        }
        let place = self.rate.samples_in(at - self.start);
        let track = match side {
            Side::Caller => &mut self.caller,
            Side::Server => &mut self.server,
        };
        track.put(self.rate, place, rate, samples);
    }

    /// If nobody has taken for long, goes on with the present.
    pub(super) fn catch_up(&mut self, now: Time) {
        let due = self.due_end(now);
        if due > self.begin() + self.rate.samples_in(MAX_BEHIND) {
            self.caller.discard_before(due);
            self.server.discard_before(due);
        }
    }

    /// Appends the samples that are due at `now`, as whole slots.
    pub(super) fn take(&mut self, now: Time, out: &mut Vec<i16>) {
        self.mix(self.due_end(now), out);
    }

    /// The end: appends everything that is left.
    pub(super) fn finish(&mut self, out: &mut Vec<i16>) {
        self.mix(self.caller.end().max(self.server.end()), out);
    }

    /// The end of what is due at `now`.
    fn due_end(&self, now: Time) -> u64 {
        let slot = self.rate.slot_samples() as u64;
        let age = (now - self.start).saturating_sub(MIX_DELAY);
        self.rate.samples_in(age) / slot * slot
    }

    fn begin(&self) -> u64 {
        self.caller.begin
    }

    fn mix(&mut self, until: u64, out: &mut Vec<i16>) {
        let length = until.saturating_sub(self.begin()) as usize;
        let begin = out.len();
        out.resize(begin + length, 0);
        for track in [&mut self.caller, &mut self.server] {
            for (mixed, sample) in out[begin..].iter_mut().zip(&track.samples) {
                *mixed = mixed.saturating_add(*sample);
            }
            track.discard_before(until);
        }
    }
}

impl Track {
    /// Takes a piece that came at `place`.
    fn put(&mut self, to: Rate, place: u64, rate: Rate, samples: &[i16]) {
        let converted = std::mem::take(&mut self.converted);
        let mut converted = self.convert(to, rate, samples, converted);
        let piece = match rate == to {
            true => samples,
            false => converted.as_slice(),
        };
        self.place(to, place, piece);
        converted.clear();
        self.converted = converted;
    }

    fn place(&mut self, rate: Rate, place: u64, piece: &[i16]) {
        let late = place as i64 - self.end() as i64;
        // The first piece is put exactly where it belongs.
        let min_gap = match std::mem::replace(&mut self.has_begun, true) {
            true => rate.samples_in(MIN_GAP) as i64,
            false => 0,
        };
        if late > min_gap {
            self.gap = self.end()..place;
            self.samples.resize(self.samples.len() + late as usize, 0);
        } else if late < 0 {
            self.close_gap(late.unsigned_abs(), rate.samples_in(MIN_FILL));
        }
        let end = place + rate.samples_in(MAX_AHEAD) + piece.len() as u64;
        let room = end.saturating_sub(self.end()).min(piece.len() as u64);
        self.samples.extend_from_slice(&piece[..room as usize]);
    }

    /// Moves what follows the last gap forward by up to `length`, so far as the gap has not come out. Less than `min_fill` of
    /// it does not stay.
    fn close_gap(&mut self, length: u64, min_fill: u64) {
        let begin = self.gap.start.max(self.begin);
        let gap = self.gap.end.saturating_sub(begin);
        let removed = match gap.saturating_sub(length) < min_fill {
            true => gap,
            false => length,
        };
        let first = (begin - self.begin) as usize;
        self.samples.drain(first..first + removed as usize);
        self.gap.end -= removed;
    }

    /// The place behind the last sample.
    fn end(&self) -> u64 {
        self.begin + self.samples.len() as u64
    }

    fn discard_before(&mut self, place: u64) {
        let length = place.saturating_sub(self.begin) as usize;
        self.samples.drain(..length.min(self.samples.len()));
        self.begin = self.begin.max(place);
    }

    /// Appends `samples` at the rate `to` to `out`, if theirs is another.
    fn convert(&mut self, to: Rate, rate: Rate, samples: &[i16], mut out: Vec<i16>) -> Vec<i16> {
        if rate == to {
            return out;
        }
        if self
            .converter
            .as_ref()
            .is_none_or(|(from, _)| *from != rate)
        {
            // All nine rates can be resampled.
            let converter = Resampler::new(rate.hz(), to.hz()).ok();
            self.converter = converter.map(|converter| (rate, converter));
        }
        if let Some((_, converter)) = &mut self.converter {
            converter.process(samples, &mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests;
