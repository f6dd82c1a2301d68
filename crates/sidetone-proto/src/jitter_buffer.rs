use std::{collections::VecDeque, time::Duration};

use crate::{Rate, Time, playout::move_front};

mod delay_window;
mod recentre;

use delay_window::DelayWindow;
use recentre::Surplus;

/// The maximum delay: no more than this and twice the prebuffer is ever buffered.
const MAX_BUFFERED: Duration = Duration::from_millis(80);
/// The maximum delay where bursts are kept.
const MAX_BURST: Duration = Duration::from_secs(600);
/// The most jitter that a prefill covers.
const MAX_PREFILL_JITTER: Duration = Duration::from_millis(40);
/// The target delay without a prebuffer: the time, in nanoseconds, between the arrival of a frame that is as late as any
/// expected and the slot that needs it.
const SAFETY_MARGIN_NS: i64 = 500_000;

/// How long the delays of arrivals are remembered, at least; at most twice that.
const DELAY_WINDOW: Duration = Duration::from_secs(4);
/// The same during acquisition: the beginning of a call does not predict the rest of it.
const ACQUISITION_DELAY_WINDOW: Duration = Duration::from_millis(250);
/// Delays must have been measured for so long before they may shorten the delay of the audio.
const MIN_MEASUREMENT: Duration = Duration::from_millis(500);
/// After an underrun or an overflow, frames arrive late and in a burst for this long. Their delays do not
/// predict those that follow, so they are not measured.
const BURST_DURATION: Duration = Duration::from_millis(200);

/// Slots of the acquisition, one second: the first slots of a call's live audio wait for whatever is late, and the
/// schedule moves with them.
const ACQUISITION_SLOTS: u32 = 50;
/// Slots of the acquisition that must have been played before the schedule may move towards a source that is early.
const MIN_SLOTS_BEFORE_EARLIER: u32 = 10;
/// The most that slots wait during the acquisition, all together. Asterisk's RTP clock tolerates 80 ms.
const MAX_ACQUISITION_WAIT: Duration = Duration::from_millis(40);
/// Slots of a call, in all, during which the source may move the schedule.
const STEERING_SLOTS: u32 = 500;
/// The most that the schedule moves with one slot, in nanoseconds: during the acquisition, and away from frames that
/// come too late.
const MAX_FAST_SHIFT_NS: i64 = 500_000;
/// The same after the acquisition, towards frames that wait too long.
const MAX_SLOW_SHIFT_NS: i64 = 100_000;

/// The longest that a slot waits for a late frame after the acquisition: half of what an underrun would cost, which is a
/// gap of a slot and that much delay from then on.
const MAX_WAIT: Duration = Duration::from_millis(10);
/// One slot in so long may wait for [`MAX_WAIT`]. Where more frames are that late, the source is slow.
const MIN_TIME_BETWEEN_LONG_WAITS: Duration = Duration::from_secs(1);
/// How long any other slot waits: the jitter measured so far may not be all of it.
const SHORT_WAIT: Duration = Duration::from_millis(3);
/// How often a waiting slot is checked: a push does not wake the media thread.
const WAIT_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A source that has had nothing for longer than this starts anew with its next frame, prefill included.
const RESTART_AFTER_UNDERRUN: Duration = Duration::from_millis(100);

/// A jitter buffer for live audio, which is made while it plays: an echo, a relay, the answers of a callback.
///
/// It never pushes back, and its delay does not grow: it never holds more than its maximum delay, 80 ms and twice the
/// prebuffer, whatever the drift between the source's clock and the call's. When more comes, the oldest frames go.
///
/// # Delay
///
/// Each frame's *delay* is measured against the source's own pace: when it was complete, less when it would have been
/// complete if the source had kept exact time since its first sample. A windowed minimum and maximum filter keeps the
/// extremes of the last seconds; their difference is the *jitter*.
///
/// The *target delay* is how long a frame as late as the latest of them should wait for its slot: 0.5 ms and the
/// prebuffer. Playout starts after a *prefill* of the jitter measured before plus the target delay.
///
/// # Re-centring
///
/// The first live audio of a call moves the call's schedule to where the audio is needed. In the first second, the
/// acquisition, the schedule follows every frame that is later than those before. From then on, a slot waits up to
/// 10 ms for a single *late frame*.
///
/// A source that is fast costs a frame that is cut out now and then; a source that is slow costs an *underrun*. Both
/// are counted. The delay that an underrun leaves behind is cut out in the next silence or, in sound without silence,
/// within 2 s at the quietest places, cross-faded. With a prebuffer it is cut only in silence.
///
/// # Bursts
///
/// If bursts are [kept](Self::keep_bursts), what comes at once is played whole, whatever its length, and the delay grows by
/// it. A surplus is cut only if it lasts while the source goes on. What a push that is longer than the maximum delay leaves
/// behind is no surplus, for such a push is an announcement: none of it is cut, and what follows waits for its turn.
///
/// ```
/// use {sidetone_proto::{JitterBuffer, Pulled, Rate, Time}, std::time::Duration};
///
/// let at = |micros| Time::ZERO + Duration::from_micros(micros);
/// let mut buffer = JitterBuffer::default();
/// let mut slot = Vec::new();
/// buffer.push(at(0), Rate::Slin, &[1; 160]);
/// assert_eq!(buffer.poll_start(), Some(at(500)), "the call's next slot is due then");
/// assert_eq!(buffer.pull(at(500), &mut slot), Pulled::Audio(Rate::Slin));
/// assert_eq!(slot, [1; 160]);
/// ```
#[derive(Debug, Default)]
pub struct JitterBuffer {
    rate: Rate,
    samples: VecDeque<i16>,
    state: State,
    keeps_bursts: bool,
    /// Samples before this number are of a long push, and not cut.
    uncut_until: u64,
    /// What a long push lets frames wait, beyond their target delay.
    meant_delay: Duration,
    /// The prebuffer of the next start.
    next_prebuffer: Duration,
    /// The prebuffer of the audio that plays.
    prebuffer: Duration,
    /// When sample 0 was pushed.
    origin: Time,
    /// The number of the next sample to be played.
    next_sample: u64,
    last_push: Time,
    delays: DelayWindow,
    /// Since when delays are measured. It may lie ahead.
    measured_since: Time,
    /// The jitter of the last run, which the next prefill covers.
    last_jitter: Duration,
    /// The call's first start has been reported.
    has_started: bool,
    /// How long slots have waited during the acquisition, all together.
    acquisition_wait: Duration,
    /// Slots that were played in all; it saturates.
    slots_played: u32,
    /// The last slot that waited for longer than [`SHORT_WAIT`].
    last_long_wait: Option<Time>,
    /// A whole frame of surplus is buffered and waits for its cut.
    surplus: Option<Surplus>,
    /// There was an underrun or an overflow, so the delay may have grown.
    is_delayed: bool,
    last_cut: Option<Time>,
    /// The factor by which the next cut in sound takes longer; 0 counts as 1.
    cut_backoff: u32,
    dropped: u64,
    underruns: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    Prefilling {
        until: Time,
    },
    Playing {
        underrun_since: Option<Time>,
    },
}

/// What a slot got from a [`JitterBuffer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// A whole slot at this rate was appended.
    Audio(Rate),
    /// The source runs, but its audio did not come in time. What there was of it is appended, padded to a whole slot;
    /// nothing, if there was none.
    Underrun(Rate),
    /// There is no live audio.
    Nothing,
}

impl JitterBuffer {
    /// Adds audio that was made at `now`. Above the maximum delay the oldest audio is dropped, in whole slots; if bursts are
    /// kept, nothing is, until ten minutes wait. Then the push is dropped.
    pub fn push(&mut self, now: Time, rate: Rate, samples: &[i16]) {
        if samples.is_empty() {
            return;
        }
        if self.is_stopped(now) || rate != self.rate {
            self.restart(now, rate, samples.len());
        }
        if let State::Playing { underrun_since } = &mut self.state
            && underrun_since.take().is_some()
        {
            self.measure_from(now + BURST_DURATION);
        }
        self.last_push = now;
        if self.samples.capacity() == 0 {
            // In one step, not bit by bit in the middle of a call when its program is late.
            let capacity = rate.samples_in(MAX_BUFFERED) as usize;
            self.samples.reserve_exact(capacity);
        }
        let max_samples = rate.samples_in(self.max_delay()) as usize;
        if self.keeps_bursts {
            return self.push_whole(now, samples, max_samples);
        }
        let excess = (self.samples.len() + samples.len()).saturating_sub(max_samples);
        if excess == 0 {
            self.measure_delay(now, samples.len());
            self.samples.extend(samples);
        } else {
            self.push_over(now, samples, excess);
        }
    }

    /// Until when the slot that is due at `slot` waits for a late frame; `None` if it leaves now.
    pub fn poll_wait(&mut self, now: Time, slot: Time) -> Option<Time> {
        self.start_if_filled(now);
        let State::Playing {
            underrun_since: None,
        } = self.state
        else {
            return None;
        };
        if self.has_slot() {
            return None;
        }
        if self.is_acquiring() {
            let wait = self.rate.slot().min(self.acquisition_wait_left());
            return (now < slot + wait).then_some(now + WAIT_POLL_INTERVAL);
        }
        if now >= slot + SHORT_WAIT {
            let may_wait_long =
                |last: Time| last == slot || slot - last >= MIN_TIME_BETWEEN_LONG_WAITS;
            if now >= slot + MAX_WAIT || !self.last_long_wait.is_none_or(may_wait_long) {
                return None;
            }
            self.last_long_wait = Some(slot);
        }
        Some(now + WAIT_POLL_INTERVAL)
    }

    /// When the next slot should be due for the call's first live audio, which begins with that slot. It is returned
    /// once.
    pub fn poll_start(&mut self) -> Option<Time> {
        let State::Prefilling { until } = self.state else {
            return None;
        };
        (!std::mem::replace(&mut self.has_started, true)).then_some(until)
    }

    /// When the slot that was due at `slot`, and has waited until `now`, should have been due: the schedule moves
    /// there. `None` if it stays.
    pub fn poll_reschedule(&mut self, now: Time, slot: Time) -> Option<Time> {
        if !self.is_acquiring() || !self.has_slot() {
            return None;
        }
        let latest = now.min(slot + self.acquisition_wait_left());
        let needed = self.last_push.shifted(SAFETY_MARGIN_NS);
        let needed = needed.min(latest).max(slot);
        self.acquisition_wait += needed - slot;
        Some(needed)
    }

    /// Appends the audio of the next slot to `slot`.
    pub fn pull(&mut self, now: Time, slot: &mut Vec<i16>) -> Pulled {
        self.start_if_filled(now);
        let State::Playing { underrun_since } = self.state else {
            return Pulled::Nothing;
        };
        let is_measured = now - self.measured_since >= MIN_MEASUREMENT;
        if is_measured && !self.is_acquiring() {
            self.recentre(now);
        }
        let wanted = self.rate.slot_samples();
        let taken = wanted.min(self.samples.len());
        move_front(&mut self.samples, taken, slot);
        self.next_sample += taken as u64;
        if taken == wanted {
            self.slots_played = self.slots_played.saturating_add(1);
            return Pulled::Audio(self.rate);
        }
        if let Some(since) = underrun_since {
            if now - since > RESTART_AFTER_UNDERRUN {
                self.stop();
            }
            return Pulled::Nothing;
        }
        if taken > 0 {
            slot.extend(std::iter::repeat_n(0, wanted - taken));
        }
        self.handle_underrun(now);
        Pulled::Underrun(self.rate)
    }

    /// Raises the target delay by `prebuffer`, so that a source which is that late now and then leaves no gap, and the
    /// maximum delay by twice that. It holds from the next start on, which is at the latest after the source paused.
    pub fn set_prebuffer(&mut self, prebuffer: Duration) {
        self.next_prebuffer = prebuffer;
    }

    /// Plays what comes at once whole from now on, up to ten minutes of it, instead of keeping the delay short.
    pub fn keep_bursts(&mut self) {
        self.keeps_bursts = true;
    }

    /// Counts frames that were dropped before they came here.
    pub fn add_dropped(&mut self, frames: u64) {
        self.dropped += frames;
    }

    /// Discards what is buffered; the next push is a new start.
    pub fn clear(&mut self) {
        self.stop();
    }

    /// How far the schedule should move with the slot due at `slot` so that frames wait for their target delay and no
    /// longer, in nanoseconds; negative is earlier. `None` where it stays: after the first seconds of a call's live
    /// audio the two clocks differ by their drift alone, and that is corrected here, not in the schedule.
    pub fn requested_shift(&self, slot: Time) -> Option<i64> {
        let State::Playing {
            underrun_since: None,
        } = self.state
        else {
            return None;
        };
        if self.buffered() > self.max_delay() {
            return None;
        }
        let delay = self.shortest_wait(slot)?;
        // A prebuffer is there to be used: when it shrinks, the schedule stays.
        let shift = delay.clamp(SAFETY_MARGIN_NS, self.target_delay()) - delay;
        let (max_earlier, may_be_earlier) = if self.is_acquiring() {
            let is_measured = self.slots_played >= MIN_SLOTS_BEFORE_EARLIER;
            (MAX_FAST_SHIFT_NS, is_measured)
        } else {
            let is_measured = slot - self.measured_since >= MIN_MEASUREMENT;
            (MAX_SLOW_SHIFT_NS, is_measured)
        };
        let is_wanted = self.slots_played < STEERING_SLOTS && (shift > 0 || may_be_earlier);
        is_wanted.then_some(shift.clamp(-max_earlier, MAX_FAST_SHIFT_NS))
    }

    /// Whether nothing is buffered.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// How much is buffered.
    pub fn buffered(&self) -> Duration {
        self.rate.duration(self.samples.len() as u64)
    }

    /// Frames dropped so far, because they exceeded the maximum delay or were surplus.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Underruns so far. The end of the source counts as one, too.
    pub fn underruns(&self) -> u64 {
        self.underruns
    }
}

/// Starts and stops.
impl JitterBuffer {
    fn is_stopped(&self, now: Time) -> bool {
        match self.state {
            State::Idle => true,
            State::Playing {
                underrun_since: Some(since),
            } => now - since > RESTART_AFTER_UNDERRUN,
            State::Prefilling { .. } | State::Playing { .. } => false,
        }
    }

    /// Begins to prefill with a push of `pushed` samples.
    fn restart(&mut self, now: Time, rate: Rate, pushed: usize) {
        let missing = rate.slot_samples().saturating_sub(pushed);
        if self.keeps_bursts {
            let lost = self.samples.len().div_ceil(self.rate.slot_samples());
            self.dropped += lost as u64;
        }
        self.stop();
        self.rate = rate;
        self.origin = now;
        self.next_sample = 0;
        self.uncut_until = 0;
        self.meant_delay = Duration::ZERO;
        self.measure_from(now);
        self.prebuffer = self.next_prebuffer;
        self.state = State::Prefilling {
            until: now + self.prefill() + rate.duration(missing as u64),
        };
    }

    /// Begins to play when the prefill is over or complete.
    fn start_if_filled(&mut self, now: Time) {
        if let State::Prefilling { until } = self.state
            && (now >= until || self.buffered() >= self.rate.slot() + self.prefill())
        {
            self.state = State::Playing {
                underrun_since: None,
            };
        }
    }

    fn stop(&mut self) {
        if matches!(self.state, State::Playing { .. }) {
            self.last_jitter = self.delays.spread();
        }
        self.samples.clear();
        self.free_burst();
        self.state = State::Idle;
        self.surplus = None;
    }

    fn handle_underrun(&mut self, now: Time) {
        self.state = State::Playing {
            underrun_since: Some(now),
        };
        self.underruns += 1;
        self.is_delayed = true;
        self.meant_delay = Duration::ZERO;
        self.free_burst();
        self.judge_last_cut(now);
    }

    /// Adds samples, `excess` more than the maximum delay allows, and drops the oldest.
    fn push_over(&mut self, now: Time, samples: &[i16], excess: usize) {
        self.measure_from(now + BURST_DURATION);
        self.is_delayed = true;
        let slot = self.rate.slot_samples();
        let frames = excess.div_ceil(slot);
        let old = (frames * slot).min(self.samples.len());
        self.samples.drain(..old);
        self.samples.extend(&samples[frames * slot - old..]);
        self.next_sample += (frames * slot) as u64;
        self.dropped += frames as u64;
    }

    /// Adds samples, however many wait already.
    fn push_whole(&mut self, now: Time, samples: &[i16], max_samples: usize) {
        let total = self.samples.len() + samples.len();
        if total > self.rate.samples_in(MAX_BURST) as usize {
            self.dropped += samples.len().div_ceil(self.rate.slot_samples()) as u64;
            return;
        }
        if samples.len() > max_samples {
            // It says nothing about delays.
            self.measure_from(now + BURST_DURATION);
            self.uncut_until = self.next_sample + total as u64;
            self.meant_delay = self.rate.duration(total as u64);
        } else {
            self.measure_delay(now, samples.len());
        }
        self.samples.extend(samples);
    }

    /// Gives the memory of a burst back.
    fn free_burst(&mut self) {
        let usual = self.rate.samples_in(self.max_delay()) as usize;
        if self.samples.capacity() > 2 * usual {
            self.samples.shrink_to(usual);
        }
    }

    fn prefill(&self) -> Duration {
        let target = Duration::from_nanos(self.target_delay() as u64);
        self.last_jitter.min(MAX_PREFILL_JITTER) + target
    }

    /// How long a frame as late as any expected waits for its slot, in nanoseconds.
    fn target_delay(&self) -> i64 {
        SAFETY_MARGIN_NS + self.prebuffer.as_nanos() as i64
    }

    fn max_delay(&self) -> Duration {
        MAX_BUFFERED + 2 * self.prebuffer
    }

    fn has_slot(&self) -> bool {
        self.samples.len() >= self.rate.slot_samples()
    }

    fn is_acquiring(&self) -> bool {
        self.slots_played < ACQUISITION_SLOTS
    }

    fn acquisition_wait_left(&self) -> Duration {
        MAX_ACQUISITION_WAIT.saturating_sub(self.acquisition_wait)
    }
}

/// Delays.
impl JitterBuffer {
    /// Forgets the delays so far, and those up to `from`.
    fn measure_from(&mut self, from: Time) {
        self.delays = DelayWindow::default();
        self.measured_since = from;
        self.surplus = None;
    }

    /// Measures the delay of the first of the frames that `pushed` more samples complete.
    fn measure_delay(&mut self, now: Time, pushed: usize) {
        let slot = self.rate.slot_samples();
        let waiting = self.samples.len();
        let begun = waiting % slot;
        if begun + pushed >= slot && now >= self.measured_since {
            let place = self.next_sample + (waiting - begun) as u64;
            let delay = now.nanos_since(self.origin + self.rate.duration(place));
            let window = if self.is_acquiring() {
                ACQUISITION_DELAY_WINDOW
            } else {
                DELAY_WINDOW
            };
            self.delays.insert(now, window, delay);
        }
    }

    /// How long the frame for `slot` would wait if it were as late as the latest of the window, in nanoseconds.
    fn shortest_wait(&self, slot: Time) -> Option<i64> {
        let (_, latest) = self.delays.min_and_max()?;
        let place = self.origin + self.rate.duration(self.next_sample);
        Some(slot.nanos_since(place) - latest)
    }
}
