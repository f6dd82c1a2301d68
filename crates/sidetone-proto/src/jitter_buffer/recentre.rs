//! Re-centring: cuts frames out of the buffer when they wait longer than their jitter asks for.

use std::time::Duration;

use super::{JitterBuffer, RESTART_AFTER_UNDERRUN};
use crate::Time;

/// A frame is cut in silence, or after an underrun, when the surplus exceeds a whole slot by this, in nanoseconds.
const RECENTRE_SURPLUS_NS: i64 = 500_000;
/// A frame is cut in sound, without an underrun, when the surplus exceeds a whole slot by this, in nanoseconds. The
/// source is a little fast, and the cut can wait for silence.
const RECENTRE_SURPLUS_IN_SOUND_NS: i64 = 12_000_000;
/// A frame whose samples all stay below this (−50 dBFS) is silence and can be cut unheard.
const SILENCE_PEAK: u16 = 104;
/// Sound without silence loses its surplus within this time, each frame of it at the quietest place.
const RECENTRE_WITHIN: Duration = Duration::from_millis(1_200);
/// More surplus than this many frames is cut at once: one gap is better than a second of speech in shreds. Only kept bursts make
/// so much.
const MAX_CUTS_IN_SOUND: u32 = 10;
/// An underrun within this time after a cut in sound shows that the cut was a mistake.
const CUT_PROBATION: Duration = Duration::from_secs(10);
/// Each mistake doubles [`RECENTRE_WITHIN`], up to this factor.
const MAX_CUT_BACKOFF: u32 = 16;

/// A whole frame of surplus.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surplus {
    since: Time,
    /// The least sum of a frame's magnitudes since then.
    quietest: u64,
}

impl JitterBuffer {
    /// Cuts a frame out when a whole frame of surplus has been buffered for the length of the window.
    pub(super) fn recentre(&mut self, now: Time) {
        let slot = self.rate.slot_samples();
        if self.keeps_bursts && !self.may_cut_burst(now) {
            return;
        }
        let Some(delay) = self.shortest_wait(now) else {
            return;
        };
        let length = self.rate.slot().as_nanos() as i64;
        let meant = self.prebuffer + self.meant_delay;
        let surplus = delay - length - meant.as_nanos() as i64;
        if surplus < RECENTRE_SURPLUS_NS || self.samples.len() < 2 * slot {
            self.surplus = None;
            self.is_delayed = false;
            return;
        }
        let first = || self.samples.iter().take(slot);
        if first().all(|sample| sample.unsigned_abs() < SILENCE_PEAK) {
            return self.cut();
        }
        let may_cut_sound = surplus >= RECENTRE_SURPLUS_IN_SOUND_NS || self.is_delayed;
        if !self.prebuffer.is_zero() || !may_cut_sound {
            return;
        }
        let level = first().map(|sample| u64::from(sample.unsigned_abs())).sum();
        let frames = 1 + (surplus / length) as u32;
        if frames > MAX_CUTS_IN_SOUND {
            return self.jump(frames as usize - 1);
        }
        self.cut_where_quiet(now, level, frames);
    }

    /// Whether what waits first may be cut although bursts are kept: it is of no long push, and the source goes on.
    fn may_cut_burst(&self, now: Time) -> bool {
        self.next_sample >= self.uncut_until && now - self.last_push < RESTART_AFTER_UNDERRUN
    }

    /// Takes note of an underrun at `now`: the last cut in sound was a mistake if it was not long ago.
    pub(super) fn judge_last_cut(&mut self, now: Time) {
        let last = self.last_cut.take();
        if last.is_some_and(|cut| now - cut < CUT_PROBATION) {
            self.cut_backoff = (2 * self.cut_backoff).clamp(2, MAX_CUT_BACKOFF);
        }
    }

    /// Cuts the first frame, whose magnitudes sum up to `level`, if it is quiet enough for the time that `frames` of
    /// surplus have waited.
    fn cut_where_quiet(&mut self, now: Time, level: u64, frames: u32) {
        let surplus = self.surplus.get_or_insert(Surplus {
            since: now,
            quietest: u64::MAX,
        });
        let is_quietest = level < surplus.quietest;
        surplus.quietest = surplus.quietest.min(level);
        let waited = now - surplus.since;
        let max_wait = RECENTRE_WITHIN * self.cut_backoff.max(1) / frames;
        if waited >= max_wait || (waited >= max_wait / 2 && is_quietest) {
            let last = self.last_cut.replace(now);
            if last.is_some_and(|cut| now - cut >= CUT_PROBATION) {
                self.cut_backoff = 1;
            }
            self.cut();
        }
    }

    /// Cuts out the first `frames` frames at once.
    fn jump(&mut self, frames: usize) {
        let slot = self.rate.slot_samples();
        let frames = frames.min(self.samples.len() / slot - 1);
        // The last of them fades into what follows.
        let begin = (frames - 1) * slot;
        self.samples.drain(..begin);
        self.next_sample += begin as u64;
        self.dropped += frames as u64 - 1;
        self.cut();
    }

    /// Cuts the first frame out, with a cross-fade from it to the one behind it.
    fn cut(&mut self) {
        let slot = self.rate.slot_samples();
        let fade = slot / 4;
        for index in 0..fade {
            let (from, to) = (self.samples[index], self.samples[slot + index]);
            let share = (index + 1) as i32;
            let mixed = i32::from(from) * (fade as i32 - share) + i32::from(to) * share;
            self.samples[slot + index] = (mixed / fade as i32) as i16;
        }
        self.samples.drain(..slot);
        self.next_sample += slot as u64;
        self.dropped += 1;
        self.surplus = None;
    }
}
