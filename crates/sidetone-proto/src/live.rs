use std::{collections::VecDeque, time::Duration};

use crate::{Rate, Time};

/// The stated ceiling: no more than this is ever buffered.
const CEILING: Duration = Duration::from_millis(80);
/// How much arrival jitter a start must be able to cover before any was measured, and at most.
const PREFILL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(40));
/// Room between the latest arrival expected and the slot that needs it, in nanoseconds.
const MARGIN: i64 = 2_000_000;
/// A frame is dropped only when that much more than a whole slot is to spare, in nanoseconds; in sound only
/// when it is that and `LOUD_EXTRA` more.
const HYSTERESIS: i64 = 2_000_000;
const LOUD_EXTRA: i64 = 8_000_000;
/// A frame whose samples all stay below this (−50 dBFS) is silence enough to be dropped unheard.
const QUIET: u16 = 104;
/// A source that had nothing for longer than this begins anew with its next frame.
const RESTART: Duration = Duration::from_millis(100);
/// How long an extreme of the arrival jitter is remembered, at least; at most twice that.
const WINDOW: Duration = Duration::from_secs(4);
/// How long after its start a source may ask for the grid to be moved towards it.
const SETTLING: Duration = Duration::from_secs(10);

/// Audio that is made while it plays: an echo, a relay, whatever a callback answers.
///
/// It starts after a small prefill, never pushes back and re-centres itself, so that its delay never
/// ratchets up: what it holds stays below 80 ms, whatever the drift between the source's clock and the
/// call's. A source that is fast costs a dropped frame now and then, one that is slow an underrun, each
/// counted.
///
/// ```
/// use {sidetone_proto::{Live, Pulled, Rate, Time}, std::time::Duration};
///
/// let at = |millis| Time::ZERO + Duration::from_millis(millis);
/// let mut live = Live::default();
/// let mut slot = Vec::new();
/// live.push(at(0), Rate::Slin, &[1; 160]);
/// assert_eq!(live.pull(at(5), &mut slot), Pulled::Nothing, "the prefill covers 10 ms of jitter");
/// assert_eq!(live.pull(at(15), &mut slot), Pulled::Audio(Rate::Slin));
/// assert_eq!(slot, [1; 160]);
/// ```
#[derive(Debug, Default)]
pub struct Live {
    rate: Rate,
    samples: VecDeque<i16>,
    state: State,
    /// When sample 0 was pushed.
    origin: Time,
    pushed: u64,
    pulled: u64,
    last_push: usize,
    lateness: Extremes,
    dropped: u64,
    underruns: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    Filling {
        until: Time,
    },
    Running {
        since: Time,
        starved: Option<Time>,
    },
}

/// What a slot got from a live source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// A whole slot at this rate was appended.
    Audio(Rate),
    /// The source runs, but its audio did not come in time. What there was of it is appended, padded to a
    /// whole slot; nothing, if there was none.
    Underrun(Rate),
    /// The source is silent.
    Nothing,
}

impl Live {
    /// Adds audio that was made at `now`. Above the ceiling the oldest goes.
    pub fn push(&mut self, now: Time, rate: Rate, samples: &[i16]) {
        if samples.is_empty() {
            return;
        }
        let stopped = match self.state {
            State::Idle => true,
            State::Running {
                starved: Some(since),
                ..
            } => now - since > RESTART,
            _ => false,
        };
        if stopped || rate != self.rate {
            self.restart(now, rate);
        }
        self.lateness.note(
            now,
            now.nanos_since(self.origin + self.rate.duration(self.pushed)),
        );
        if let State::Running { starved, .. } = &mut self.state {
            *starved = None;
        }
        self.samples.extend(samples);
        self.pushed += samples.len() as u64;
        self.last_push = samples.len();
        let ceiling = rate.samples_in(CEILING) as usize;
        while self.samples.len() > ceiling {
            self.drop_oldest();
            self.dropped += 1;
        }
    }

    /// Takes the next slot, appending it to `slot`.
    pub fn pull(&mut self, now: Time, slot: &mut Vec<i16>) -> Pulled {
        match self.state {
            State::Idle => return Pulled::Nothing,
            State::Filling { until } if now < until => return Pulled::Nothing,
            State::Filling { .. } => {
                self.state = State::Running {
                    since: now,
                    starved: None,
                }
            }
            State::Running { .. } => {}
        }
        self.recentre(now);
        let wanted = self.rate.slot_samples();
        let taken = wanted.min(self.samples.len());
        slot.extend(self.samples.drain(..taken));
        self.pulled += taken as u64;
        if taken == wanted {
            return Pulled::Audio(self.rate);
        }
        if taken > 0 {
            slot.extend(std::iter::repeat_n(0, wanted - taken));
        }
        let State::Running { since, starved } = self.state else {
            return Pulled::Nothing;
        };
        match starved {
            Some(when) if now - when > RESTART => {
                self.state = State::Idle;
                Pulled::Nothing
            }
            Some(_) => Pulled::Nothing,
            None => {
                self.state = State::Running {
                    since,
                    starved: Some(now),
                };
                self.underruns += 1;
                Pulled::Underrun(self.rate)
            }
        }
    }

    /// Throws away what is buffered; the next push is a new start.
    pub fn clear(&mut self) {
        self.samples.clear();
        self.state = State::Idle;
    }

    /// How far the grid should move so that this source's audio waits no longer than its jitter asks for,
    /// in nanoseconds; negative is earlier. Only shortly after a start: later on the two clocks differ by
    /// their drift, and that is corrected here, not on the grid.
    pub fn wanted_shift(&self, slot: Time) -> Option<i64> {
        let State::Running {
            since,
            starved: None,
        } = self.state
        else {
            return None;
        };
        if slot - since > SETTLING {
            return None;
        }
        Some(MARGIN - self.slack(slot))
    }

    /// Whether nothing is buffered.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// How much is buffered.
    pub fn buffered(&self) -> Duration {
        self.rate.duration(self.samples.len() as u64)
    }

    /// Frames dropped so far because more was buffered than the ceiling or the jitter allows.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How often the source had nothing when a slot needed it. Its end counts as one, too.
    pub fn underruns(&self) -> u64 {
        self.underruns
    }

    fn restart(&mut self, now: Time, rate: Rate) {
        let (least, most) = PREFILL;
        let jitter = Duration::from_nanos((self.lateness.spread() + MARGIN).max(0) as u64);
        self.rate = rate;
        self.samples.clear();
        self.origin = now;
        self.pushed = 0;
        self.pulled = 0;
        self.lateness = Extremes::default();
        self.state = State::Filling {
            until: now + jitter.clamp(least, most),
        };
    }

    /// How long before `slot` the audio that it needs is there, even if it is as late as the latest lately.
    fn slack(&self, slot: Time) -> i64 {
        let needed = self.rate.slot_samples();
        let index = self.pulled + (needed - needed.min(self.last_push)) as u64;
        slot.nanos_since(self.origin + self.rate.duration(index)) - self.lateness.latest()
    }

    /// Drops a frame when a whole one more than needed has been lying here all the time.
    fn recentre(&mut self, now: Time) {
        let State::Running { since, .. } = self.state else {
            return;
        };
        let slot = self.rate.slot_samples();
        let spare = self.slack(now) - self.rate.slot().as_nanos() as i64 - MARGIN - HYSTERESIS;
        if spare < 0 || self.samples.len() < 2 * slot || now - since < SETTLING {
            return;
        }
        let quiet = self
            .samples
            .iter()
            .take(slot)
            .all(|sample| sample.unsigned_abs() < QUIET);
        if quiet || spare >= LOUD_EXTRA {
            self.drop_oldest();
            self.dropped += 1;
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self.rate.slot_samples().min(self.samples.len());
        self.samples.drain(..oldest);
        self.pulled += oldest as u64;
    }
}

/// The extremes of how late pushes were, over the last few seconds.
#[derive(Debug, Default)]
struct Extremes {
    begun: Time,
    now: Option<(i64, i64)>,
    before: Option<(i64, i64)>,
}

impl Extremes {
    fn note(&mut self, at: Time, lateness: i64) {
        if at - self.begun > WINDOW {
            self.begun = at;
            self.before = self.now.take();
        }
        let (least, most) = self.now.unwrap_or((lateness, lateness));
        self.now = Some((least.min(lateness), most.max(lateness)));
    }

    fn latest(&self) -> i64 {
        self.now
            .into_iter()
            .chain(self.before)
            .map(|(_, most)| most)
            .max()
            .unwrap_or(0)
    }

    fn spread(&self) -> i64 {
        let least = self
            .now
            .into_iter()
            .chain(self.before)
            .map(|(least, _)| least)
            .min()
            .unwrap_or(0);
        self.latest() - least
    }
}
