use std::{collections::VecDeque, time::Duration};

use crate::{Rate, Time, playout::move_front};

/// The stated ceiling: no more than this and twice the cushion is ever buffered.
const CEILING: Duration = Duration::from_millis(80);
/// How much arrival jitter a start covers before any was measured, and at most. What Asterisk's frames
/// have (measured: 14.5 to 25.5 ms from one to the next) and 1 ms for whoever passes them on.
const PREFILL: (Duration, Duration) = (Duration::from_millis(12), Duration::from_millis(40));
/// Room between the latest arrival expected and the slot that needs it, in nanoseconds.
const MARGIN: i64 = 2_000_000;
/// A frame is dropped only when so much more than a whole slot is to spare, in nanoseconds: in silence, and
/// in sound.
const SPARE: (i64, i64) = (1_000_000, 12_000_000);
/// A frame whose samples all stay below this (−50 dBFS) is silence enough to be dropped unheard.
const QUIET: u16 = 104;
/// A slot whose audio is late waits for it up to so long: half of what an underrun would cost, which is a hole of
/// a slot and that much delay from then on.
const PATIENCE: Duration = Duration::from_millis(10);
/// What waits is looked at this often: whoever pushes tells nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// One slot in so long may wait. Where more are late, it is no straggler but the source that is slow.
const BETWEEN_WAITS: Duration = Duration::from_secs(1);
/// A source that had nothing for longer than this begins anew with its next frame.
const RESTART: Duration = Duration::from_millis(100);
/// How long an extreme of the arrival jitter is remembered, at least; at most twice that.
const WINDOW: Duration = Duration::from_secs(4);
/// Before a run is this old, its jitter is not known well enough to shorten its delay.
const LEARNING: Duration = Duration::from_secs(1);
/// For so many slots of a call in all a source may ask for the grid to be moved towards it, which can move
/// it by 50 ms. Asterisk's RTP clock tolerates 80 ms.
const SETTLING: u32 = 500;

/// Audio that is made while it plays: an echo, a relay, whatever a callback answers.
///
/// It starts after a small prefill, never pushes back and re-centres itself, so that its delay never
/// ratchets up: it never holds more than 80 ms and twice its cushion, whatever the drift between the source's
/// clock and the call's. A source that is fast costs a dropped frame now and then, one that is slow an
/// underrun, each counted. For a single frame that is up to 10 ms late the slot waits instead.
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
    /// What is asked for, and what the audio that plays was begun with.
    wanted_cushion: Duration,
    cushion: Duration,
    /// When sample 0 was pushed.
    origin: Time,
    /// The number of the next sample to be taken.
    pulled: u64,
    /// How late slots were complete, as against `origin`.
    lateness: Extremes,
    /// The last slot that waited for a straggler.
    waited_for: Option<Time>,
    /// The jitter of the last run.
    jitter: Duration,
    /// Slots that were played while settling.
    settled: u32,
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
    /// Adds audio that was made at `now`. Above the ceiling the oldest goes, in whole slots.
    pub fn push(&mut self, now: Time, rate: Rate, samples: &[i16]) {
        if samples.is_empty() {
            return;
        }
        let slot = rate.slot_samples();
        if self.is_stopped(now) || rate != self.rate {
            let missing = slot.saturating_sub(samples.len());
            self.stop();
            self.rate = rate;
            self.origin = now;
            self.pulled = 0;
            self.lateness = Extremes::default();
            self.cushion = self.wanted_cushion;
            self.state = State::Filling {
                until: now + self.prefill() + rate.duration(missing as u64),
            };
        }
        if let State::Running { starved, .. } = &mut self.state {
            *starved = None;
        }
        let ceiling = rate.samples_in(CEILING + 2 * self.cushion) as usize;
        if self.samples.capacity() == 0 {
            // Not in the middle of a call, when its program is late.
            self.samples
                .reserve_exact(rate.samples_in(CEILING) as usize);
        }
        let surplus = (self.samples.len() + samples.len()).saturating_sub(ceiling);
        if surplus == 0 {
            self.note_lateness(now, samples.len());
            self.samples.extend(samples);
            return;
        }
        // When the rest was complete says nothing about what comes next.
        self.lateness = Extremes::default();
        let frames = surplus.div_ceil(slot);
        let old = (frames * slot).min(self.samples.len());
        self.samples.drain(..old);
        self.samples.extend(&samples[frames * slot - old..]);
        self.pulled += (frames * slot) as u64;
        self.dropped += frames as u64;
    }

    /// Until when the slot that is due at `slot` should wait for audio that is a little late; none if it should
    /// leave.
    pub fn awaits(&mut self, now: Time, slot: Time) -> Option<Time> {
        let State::Running { starved: None, .. } = self.state else {
            return None;
        };
        if self.samples.len() >= self.rate.slot_samples() || now >= slot + PATIENCE {
            return None;
        }
        let is_next = |last: Time| last == slot || slot - last >= BETWEEN_WAITS;
        if !self.waited_for.is_none_or(is_next) {
            return None;
        }
        self.waited_for = Some(slot);
        Some(now + LOOK_AGAIN)
    }

    /// Takes the next slot, appending it to `slot`.
    pub fn pull(&mut self, now: Time, slot: &mut Vec<i16>) -> Pulled {
        if let State::Filling { until } = self.state
            && (now >= until || self.buffered() >= self.rate.slot() + self.prefill())
        {
            self.state = State::Running {
                since: now,
                starved: None,
            };
        }
        let State::Running { since, starved } = self.state else {
            return Pulled::Nothing;
        };
        if now - since >= LEARNING && !self.is_settling() {
            self.recentre(now);
        }
        let wanted = self.rate.slot_samples();
        let taken = wanted.min(self.samples.len());
        move_front(&mut self.samples, taken, slot);
        self.pulled += taken as u64;
        if taken == wanted {
            self.settled = self.settled.saturating_add(1);
            return Pulled::Audio(self.rate);
        }
        if let Some(starved) = starved {
            if now - starved > RESTART {
                self.stop();
            }
            return Pulled::Nothing;
        }
        if taken > 0 {
            slot.extend(std::iter::repeat_n(0, wanted - taken));
        }
        self.state = State::Running {
            since,
            starved: Some(now),
        };
        self.underruns += 1;
        Pulled::Underrun(self.rate)
    }

    /// Lets audio wait so much longer than its jitter asks for, so that a source which is that late now and
    /// then leaves no hole; and so much longer again where slots were missed, before sound is dropped for it.
    /// It holds from the next start on, at the latest after the source paused.
    pub fn set_cushion(&mut self, cushion: Duration) {
        self.wanted_cushion = cushion;
    }

    /// Throws away what is buffered; the next push is a new start.
    pub fn clear(&mut self) {
        self.stop();
    }

    /// How far the grid should move so that this source's audio waits no longer than its jitter asks for,
    /// in nanoseconds; negative is earlier. Only in the first seconds of a call's live audio: later on the
    /// two clocks differ by their drift, and that is corrected here, not on the grid.
    pub fn wanted_shift(&self, slot: Time) -> Option<i64> {
        let State::Running {
            since,
            starved: None,
        } = self.state
        else {
            return None;
        };
        let slack = self.slack(slot)?;
        // A cushion is there to be used: what it holds against asks for no shift.
        let shift = slack.clamp(MARGIN, self.margin()) - slack;
        let knows_enough = shift > 0 || slot - since >= LEARNING;
        (self.is_settling() && knows_enough).then_some(shift)
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

    fn is_stopped(&self, now: Time) -> bool {
        match self.state {
            State::Idle => true,
            State::Running {
                starved: Some(since),
                ..
            } => now - since > RESTART,
            State::Filling { .. } | State::Running { .. } => false,
        }
    }

    fn stop(&mut self) {
        if matches!(self.state, State::Running { .. }) {
            self.jitter = self.lateness.spread();
        }
        self.samples.clear();
        self.state = State::Idle;
    }

    fn prefill(&self) -> Duration {
        let (least, most) = PREFILL;
        self.jitter.clamp(least, most) + self.cushion
    }

    /// How long audio may lie here before its slot even if it comes as late as the latest lately, in
    /// nanoseconds.
    fn margin(&self) -> i64 {
        MARGIN + self.cushion.as_nanos() as i64
    }

    fn is_settling(&self) -> bool {
        self.settled < SETTLING
    }

    /// Takes note of when the first of the slots was complete that `pushed` more samples complete.
    fn note_lateness(&mut self, now: Time, pushed: usize) {
        let slot = self.rate.slot_samples();
        let waiting = self.samples.len();
        let begun = waiting % slot;
        if begun + pushed >= slot {
            let place = self.pulled + (waiting - begun) as u64;
            let lateness = now.nanos_since(self.origin + self.rate.duration(place));
            self.lateness.note(now, lateness);
        }
    }

    /// How long before `slot` the audio that it needs is there, even if it is as late as the latest lately.
    fn slack(&self, slot: Time) -> Option<i64> {
        let (_, latest) = self.lateness.both()?;
        Some(slot.nanos_since(self.origin + self.rate.duration(self.pulled)) - latest)
    }

    /// Drops a frame when a whole one more than needed has been lying here all the time.
    fn recentre(&mut self, now: Time) {
        let slot = self.rate.slot_samples();
        let Some(slack) = self.slack(now) else { return };
        let cushion = self.cushion.as_nanos() as i64;
        let spare = slack - self.rate.slot().as_nanos() as i64 - cushion;
        let (in_silence, in_sound) = SPARE;
        if spare < in_silence || self.samples.len() < 2 * slot {
            return;
        }
        let is_heard = |sample: &i16| sample.unsigned_abs() >= QUIET;
        let is_loud = self.samples.iter().take(slot).any(is_heard);
        if !is_loud || spare >= in_sound + cushion {
            self.samples.drain(..slot);
            self.pulled += slot as u64;
            self.dropped += 1;
        }
    }
}

/// The extremes of how late slots were complete, over the last few seconds.
#[derive(Debug, Default)]
struct Extremes {
    /// When the window ends in which extremes are noted now.
    until: Option<Time>,
    now: Option<Extreme>,
    before: Option<Extreme>,
}

/// Those of a part of that time.
#[derive(Clone, Copy, Debug)]
struct Extreme {
    least: i64,
    most: i64,
    most_but_one: i64,
}

impl Extremes {
    fn note(&mut self, at: Time, lateness: i64) {
        if self.until.is_none_or(|until| at > until) {
            self.until = Some(at + WINDOW);
            self.before = self.now.take();
        }
        let noted = Extreme {
            least: lateness,
            most: lateness,
            most_but_one: i64::MIN,
        };
        self.now = Some(self.now.map_or(noted, |now| now.and(noted)));
    }

    /// The least, and the most but one: one straggler is waited for. Of only one, that.
    fn both(&self) -> Option<(i64, i64)> {
        let all = self
            .now
            .into_iter()
            .chain(self.before)
            .reduce(Extreme::and)?;
        Some((all.least, all.most_but_one.max(all.least)))
    }

    fn spread(&self) -> Duration {
        let (least, most) = self.both().unwrap_or_default();
        Duration::from_nanos(most.abs_diff(least))
    }
}

impl Extreme {
    fn and(self, other: Self) -> Self {
        Self {
            least: self.least.min(other.least),
            most: self.most.max(other.most),
            most_but_one: self
                .most
                .min(other.most)
                .max(self.most_but_one)
                .max(other.most_but_one),
        }
    }
}
