use std::{collections::VecDeque, time::Duration};

use crate::{Rate, Time, playout::move_front};

/// The stated ceiling: no more than this and twice the prebuffer is ever buffered.
const CEILING: Duration = Duration::from_millis(80);
/// A start covers the jitter that was measured before, up to this.
const MOST_PREFILL: Duration = Duration::from_millis(40);
/// Room between the latest arrival expected and the slot that needs it, in nanoseconds.
const MARGIN: i64 = 500_000;
/// A frame is cut only when so much more than a whole slot is to spare, in nanoseconds: in silence or after a gap, and
/// in sound that a source is a little too fast with, which can wait for silence.
const SPARE: (i64, i64) = (500_000, 12_000_000);
/// A frame whose samples all stay below this (−50 dBFS) is silence enough to be cut unheard.
const QUIET: u16 = 104;
/// In sound that goes on, all that is to spare is cut within this time, each frame of it at the quietest place.
const CUT_WITHIN: Duration = Duration::from_millis(1_200);
/// An underrun that comes so soon after a cut in sound shows that the cut was too bold.
const REGRET: Duration = Duration::from_secs(10);
/// By how much the patience before a cut grows at most with cuts that were too bold.
const MOST_CAUTION: u32 = 16;
/// A slot whose audio is late waits for it up to so long: half of what an underrun would cost, which is a gap of
/// a slot and that much delay from then on.
const PATIENCE: Duration = Duration::from_millis(10);
/// Where more are late than one in a second, by a little, they wait this long: what was seen of the jitter was not all.
const SHORT_PATIENCE: Duration = Duration::from_millis(3);
/// What waits is looked at this often: whoever pushes tells nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// One slot in so long may wait that long. Where more are that late, it is the source that is slow.
const BETWEEN_WAITS: Duration = Duration::from_secs(1);
/// A source that had nothing for longer than this begins anew with its next frame.
const RESTART: Duration = Duration::from_millis(100);
/// How long an extreme of the arrival jitter is remembered, at least; at most twice that.
const WINDOW: Duration = Duration::from_secs(4);
/// The same while the place is found: how calls begin says little about how they go on.
const FINDING_WINDOW: Duration = Duration::from_millis(250);
/// What comes after a gap comes late and in one go, and says nothing about what follows.
const CATCHING_UP: Duration = Duration::from_millis(200);
/// Before arrivals have been watched for so long, their jitter is not known well enough to shorten the delay.
const LEARNING: Duration = Duration::from_millis(500);
/// The first slots of a call's live audio, a second of them, find its place on the grid: they wait for whatever is
/// late, and the grid moves with them.
const FINDING: u32 = 50;
/// So many of them before the grid may move towards a source that is early.
const FIRST_LOOK: u32 = 10;
/// So much may they wait in all. Asterisk's RTP clock tolerates 80 ms.
const MOST_MOVED: Duration = Duration::from_millis(40);
/// For so many slots of a call in all a source may ask for the grid to be moved towards it.
const SETTLING: u32 = 500;
/// The most that the grid moves with one slot, in nanoseconds: while the place is found and away from frames that come
/// too late, and later towards those that lie too long.
const SHIFT: (i64, i64) = (500_000, 100_000);

/// Audio that is made while it plays: an echo, a relay, whatever a callback answers.
///
/// It starts at once, never pushes back and re-centres itself, so that its delay never ratchets up: it never
/// holds more than 80 ms and twice its prebuffer, whatever the drift between the source's clock and the call's.
/// The first live audio of a call moves the call's grid to where it is needed, and in its first second the grid
/// follows every frame that comes later than those before. From then on, a slot waits up to 10 ms for a single
/// frame that is late.
///
/// A source that is fast costs a frame that is cut out now and then, one that is slow an underrun, each counted.
/// The delay that an underrun leaves behind is cut out with the next silence or, in sound that goes on, within
/// 2 s at the quietest places, cross-faded; with a prebuffer, only in silence.
///
/// ```
/// use {sidetone_proto::{JitterBuffer, Pulled, Rate, Time}, std::time::Duration};
///
/// let at = |micros| Time::ZERO + Duration::from_micros(micros);
/// let mut live = JitterBuffer::default();
/// let mut slot = Vec::new();
/// live.push(at(0), Rate::Slin, &[1; 160]);
/// assert_eq!(live.take_start(), Some(at(500)), "the call's next slot is due then");
/// assert_eq!(live.pull(at(500), &mut slot), Pulled::Audio(Rate::Slin));
/// assert_eq!(slot, [1; 160]);
/// ```
#[derive(Debug, Default)]
pub struct JitterBuffer {
    rate: Rate,
    samples: VecDeque<i16>,
    state: State,
    /// What is asked for, and what the audio that plays was begun with.
    wanted_prebuffer: Duration,
    prebuffer: Duration,
    /// When sample 0 was pushed.
    origin: Time,
    /// The number of the next sample to be taken.
    pulled: u64,
    last_push: Time,
    /// How late slots were complete, as against `origin`, since when that is watched.
    lateness: Extremes,
    watched_since: Time,
    /// The grid has been moved to the call's first live audio.
    aligned: bool,
    /// How much slots have waited while the place was found.
    moved: Duration,
    excess: Option<Excess>,
    /// Audio came too late, and may lie here longer than it must since then.
    is_delayed: bool,
    last_cut: Option<Time>,
    caution: u32,
    /// The last slot that waited for long.
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
        starved: Option<Time>,
    },
}

/// A whole frame more than needed lies here.
#[derive(Clone, Copy, Debug)]
struct Excess {
    since: Time,
    /// The least sum of a frame's magnitudes since then.
    quietest: u64,
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

impl JitterBuffer {
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
            self.watch_from(now);
            self.prebuffer = self.wanted_prebuffer;
            self.state = State::Filling {
                until: now + self.prefill() + rate.duration(missing as u64),
            };
        }
        if let State::Running { starved } = &mut self.state
            && starved.take().is_some()
        {
            self.watch_from(now + CATCHING_UP);
        }
        self.last_push = now;
        let ceiling = rate.samples_in(CEILING + 2 * self.prebuffer) as usize;
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
        self.watch_from(now + CATCHING_UP);
        self.is_delayed = true;
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
        self.start(now);
        let State::Running { starved: None } = self.state else {
            return None;
        };
        if self.has_slot() {
            return None;
        }
        if self.is_finding() {
            let patience = self.rate.slot().min(self.may_move());
            return (now < slot + patience).then_some(now + LOOK_AGAIN);
        }
        if now >= slot + SHORT_PATIENCE {
            let is_next = |last: Time| last == slot || slot - last >= BETWEEN_WAITS;
            if now >= slot + PATIENCE || !self.waited_for.is_none_or(is_next) {
                return None;
            }
            self.waited_for = Some(slot);
        }
        Some(now + LOOK_AGAIN)
    }

    /// When the next slot should be due for the call's first live audio; said once. It begins with this slot.
    pub fn take_start(&mut self) -> Option<Time> {
        let State::Filling { until } = self.state else {
            return None;
        };
        (!std::mem::replace(&mut self.aligned, true)).then_some(until)
    }

    /// The slot that was due at `slot` has waited for audio, until `now`. If it should have been due later, and all
    /// after it, says when.
    pub fn take_wait(&mut self, now: Time, slot: Time) -> Option<Time> {
        if !self.is_finding() || !self.has_slot() {
            return None;
        }
        let latest = now.min(slot + self.may_move());
        let needed = self.last_push.shifted(MARGIN).min(latest).max(slot);
        self.moved += needed - slot;
        Some(needed)
    }

    /// Takes the next slot, appending it to `slot`.
    pub fn pull(&mut self, now: Time, slot: &mut Vec<i16>) -> Pulled {
        self.start(now);
        let State::Running { starved } = self.state else {
            return Pulled::Nothing;
        };
        if now - self.watched_since >= LEARNING && !self.is_finding() {
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
        self.state = State::Running { starved: Some(now) };
        self.underruns += 1;
        self.is_delayed = true;
        if self.last_cut.take().is_some_and(|cut| now - cut < REGRET) {
            self.caution = (2 * self.caution).clamp(2, MOST_CAUTION);
        }
        Pulled::Underrun(self.rate)
    }

    /// Lets audio wait so much longer than its jitter asks for, so that a source which is that late now and
    /// then leaves no gap; and so much longer again where slots were missed, before sound is dropped for it.
    /// It holds from the next start on, at the latest after the source paused.
    pub fn set_prebuffer(&mut self, prebuffer: Duration) {
        self.wanted_prebuffer = prebuffer;
    }

    /// Throws away what is buffered; the next push is a new start.
    pub fn clear(&mut self) {
        self.stop();
    }

    /// How far the grid should move with the next slot so that this source's audio waits no longer than its jitter
    /// asks for, in nanoseconds; negative is earlier. Only in the first seconds of a call's live audio: later on the
    /// two clocks differ by their drift, and that is corrected here, not on the grid.
    pub fn wanted_shift(&self, slot: Time) -> Option<i64> {
        let State::Running { starved: None } = self.state else {
            return None;
        };
        let slack = self.slack(slot)?;
        // A prebuffer is there to be used: what it holds against asks for no shift.
        let shift = slack.clamp(MARGIN, self.margin()) - slack;
        let (fast, slow) = SHIFT;
        let (slowest, knows_enough) = match self.is_finding() {
            true => (fast, self.settled >= FIRST_LOOK),
            false => (slow, slot - self.watched_since >= LEARNING),
        };
        let is_wanted = self.settled < SETTLING && (shift > 0 || knows_enough);
        is_wanted.then_some(shift.clamp(-slowest, fast))
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
            } => now - since > RESTART,
            State::Filling { .. } | State::Running { .. } => false,
        }
    }

    /// Begins to play once the prefill is over or there.
    fn start(&mut self, now: Time) {
        if let State::Filling { until } = self.state
            && (now >= until || self.buffered() >= self.rate.slot() + self.prefill())
        {
            self.state = State::Running { starved: None };
        }
    }

    fn stop(&mut self) {
        if matches!(self.state, State::Running { .. }) {
            self.jitter = self.lateness.spread();
        }
        self.samples.clear();
        self.state = State::Idle;
        self.excess = None;
    }

    /// Forgets when slots were complete up to `from`.
    fn watch_from(&mut self, from: Time) {
        self.lateness = Extremes::default();
        self.watched_since = from;
        self.excess = None;
    }

    fn prefill(&self) -> Duration {
        self.jitter.min(MOST_PREFILL) + Duration::from_nanos(self.margin() as u64)
    }

    /// By how much the grid may still move with slots that wait.
    fn may_move(&self) -> Duration {
        MOST_MOVED.saturating_sub(self.moved)
    }

    fn has_slot(&self) -> bool {
        self.samples.len() >= self.rate.slot_samples()
    }

    /// How long audio may lie here before its slot even if it comes as late as the latest lately, in
    /// nanoseconds.
    fn margin(&self) -> i64 {
        MARGIN + self.prebuffer.as_nanos() as i64
    }

    fn is_finding(&self) -> bool {
        self.settled < FINDING
    }

    /// Takes note of when the first of the slots was complete that `pushed` more samples complete.
    fn note_lateness(&mut self, now: Time, pushed: usize) {
        let slot = self.rate.slot_samples();
        let waiting = self.samples.len();
        let begun = waiting % slot;
        if begun + pushed >= slot && now >= self.watched_since {
            let place = self.pulled + (waiting - begun) as u64;
            let lateness = now.nanos_since(self.origin + self.rate.duration(place));
            let window = if self.is_finding() {
                FINDING_WINDOW
            } else {
                WINDOW
            };
            self.lateness.note(now, window, lateness);
        }
    }

    /// How long before `slot` the audio that it needs is there, even if it is as late as the latest lately.
    fn slack(&self, slot: Time) -> Option<i64> {
        let (_, latest) = self.lateness.both()?;
        Some(slot.nanos_since(self.origin + self.rate.duration(self.pulled)) - latest)
    }

    /// Cuts a frame out when a whole one more than needed has been lying here all the time.
    fn recentre(&mut self, now: Time) {
        let slot = self.rate.slot_samples();
        let Some(slack) = self.slack(now) else { return };
        let length = self.rate.slot().as_nanos() as i64;
        let spare = slack - length - self.prebuffer.as_nanos() as i64;
        let (in_silence, in_sound) = SPARE;
        if spare < in_silence || self.samples.len() < 2 * slot {
            self.excess = None;
            self.is_delayed = false;
            return;
        }
        let first = || self.samples.iter().take(slot);
        if first().all(|sample| sample.unsigned_abs() < QUIET) {
            return self.cut();
        }
        if !self.prebuffer.is_zero() || (spare < in_sound && !self.is_delayed) {
            return;
        }
        let level = first().map(|sample| u64::from(sample.unsigned_abs())).sum();
        let excess = self.excess.get_or_insert(Excess {
            since: now,
            quietest: u64::MAX,
        });
        let is_quietest = level < excess.quietest;
        excess.quietest = excess.quietest.min(level);
        let waited = now - excess.since;
        let frames = 1 + (spare / length) as u32;
        let patience = CUT_WITHIN * self.caution.max(1) / frames;
        if waited >= patience || (waited >= patience / 2 && is_quietest) {
            if self
                .last_cut
                .replace(now)
                .is_some_and(|cut| now - cut >= REGRET)
            {
                self.caution = 1;
            }
            self.cut();
        }
    }

    /// Cuts the first frame out, fading from it to the one behind it.
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
        self.pulled += slot as u64;
        self.dropped += 1;
        self.excess = None;
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
    fn note(&mut self, at: Time, window: Duration, lateness: i64) {
        if self.until.is_none_or(|until| at > until) {
            self.until = Some(at + window);
            self.before = self.now.take();
        }
        let noted = Extreme {
            least: lateness,
            most: lateness,
            most_but_one: i64::MIN,
        };
        self.now = Some(self.now.map_or(noted, |now| now.and(noted)));
    }

    /// The least, and the most but one: one late frame is waited for. Of only one, that.
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
