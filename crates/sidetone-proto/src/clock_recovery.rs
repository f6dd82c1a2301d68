use std::time::Duration;

use crate::Time;

/// A loss of more than this is a pause, which a listener notices. It is found early.
const PAUSE: Duration = Duration::from_millis(60);
/// The proof of a pause: audio that is still as late this long after it was first late has a pause before it. What a
/// stalled network held back, on the other hand, comes in a burst.
const PAUSE_PROOF: Duration = Duration::from_millis(10);
/// The proof of anything shorter: audio that has been late or early for this long will stay so.
const SHIFT_PROOF: Duration = Duration::from_millis(500);
/// The capture range of the loop: the most that an arrival may deviate and still move the phase. Half a frame, if that
/// is less.
const CAPTURE_RANGE: Duration = Duration::from_millis(10);
/// The gain of the loop is 1 to this, once it tracks. 1/256 leaves 0.15 ms of wobble under Asterisk's jitter, and lags
/// 1 ms behind a clock that is off by 200 ppm.
const TRACKING_GAIN_DIVISOR: i64 = 256;
/// Arrivals of the acquisition. They find the phase; only what moves it after them is drift.
const ACQUISITION_ARRIVALS: i64 = 64;

/// Recovers the clock of the other side from the arrival times of its audio. It separates drift from jitter, and lost
/// audio from late audio.
///
/// The estimator is a first-order phase-locked loop. Its *phase* is the time at which the audio so far would have been
/// complete without jitter. Each arrival within the capture range, half a frame, moves the phase by a share of its
/// deviation: 1/n for the nth arrival, which is their mean, and from the 256th on 1/256, an exponential average.
///
/// An arrival outside of the capture range is an outlier and moves nothing. Either it is late, and the rest of a burst
/// follows; or audio before it was lost, and all that follows is as late. Lost audio is found 10 ms after a pause of
/// more than 60 ms, and 500 ms after a shorter loss.
///
/// ```
/// use {sidetone_proto::{Batch, ClockRecovery, Time}, std::time::Duration};
///
/// let frame = Duration::from_millis(20);
/// let mut now = Time::ZERO;
/// let mut clock = ClockRecovery::new(now);
/// let mut next_frame = |after: Duration| {
///     now += after;
///     clock.handle_arrival(now, Batch::of(frame)).missing
/// };
/// assert_eq!(next_frame(frame), Duration::ZERO);
/// // Ten seconds of nothing, as from a caller on mute:
/// let mute = Duration::from_secs(10);
/// assert_eq!(next_frame(mute + frame), Duration::ZERO, "perhaps all of it follows in a burst");
/// assert_eq!(next_frame(frame), mute);
/// assert_eq!(next_frame(frame), Duration::ZERO);
/// ```
#[derive(Debug)]
pub struct ClockRecovery {
    /// When the audio so far would have been complete without jitter.
    phase: Time,
    /// Arrivals since the loop began to acquire this phase.
    arrivals: i64,
    outliers: Option<Outliers>,
}

/// The audio that one read brought.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// How long its first frame lasts.
    pub first_frame: Duration,
    /// How long its last frame lasts.
    pub last_frame: Duration,
    /// How long all of its whole frames last.
    pub audio: Duration,
    /// The same for all bytes that were read, of which the last may be a part of a frame: what came together after a
    /// stall is late, not lost.
    pub read: Duration,
}

/// What an arrival shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// How much audio is now known to be missing before it. What was missing before the very first audio is found like
    /// a pause.
    pub missing: Duration,
    /// How far the recovered clock moved, in nanoseconds: what a schedule that follows it must move, too.
    pub shift: i64,
}

/// Consecutive outliers, all early, or all late without catching up.
#[derive(Clone, Copy, Debug)]
struct Outliers {
    since: Time,
    /// The lateness of the one nearest to the phase, in nanoseconds; negative is early.
    nearest: i64,
}

impl Batch {
    /// A single frame.
    pub fn of(frame: Duration) -> Self {
        Self {
            first_frame: frame,
            last_frame: frame,
            audio: frame,
            read: frame,
        }
    }
}

impl Outliers {
    /// Whether an arrival that is this late comes faster than real time after these, as in a burst.
    fn is_catching_up(self, late: i64, frame: Duration) -> bool {
        late < self.nearest - capture_range(frame)
    }

    /// The series with another outlier, or a new series if it does not continue the one so far.
    fn extend(series: Option<Self>, now: Time, late: i64, frame: Duration) -> Self {
        let is_early = late < 0;
        let continues = |series: &Self| match is_early {
            true => series.nearest < 0,
            false => series.nearest > 0 && !series.is_catching_up(late, frame),
        };
        match series.filter(continues) {
            Some(Self { since, nearest }) if is_early => Self {
                since,
                nearest: nearest.max(late),
            },
            Some(Self { since, nearest }) => Self {
                since,
                nearest: nearest.min(late),
            },
            None => Self {
                since: now,
                nearest: late,
            },
        }
    }
}

impl ClockRecovery {
    /// A clock whose audio may begin at `start`.
    pub fn new(start: Time) -> Self {
        Self {
            phase: start,
            arrivals: 0,
            outliers: None,
        }
    }

    /// Handles a batch of audio that was read at `now`.
    pub fn handle_arrival(&mut self, now: Time, batch: Batch) -> Arrival {
        let missing = self.find_missing(now, batch.first_frame, batch.read);
        self.phase += missing;
        let shift = self.update_phase(now, batch.last_frame, batch.audio);
        Arrival { missing, shift }
    }

    /// Whether arrivals agree on a phase, so that audio can be missed.
    pub fn is_locked(&self) -> bool {
        self.arrivals > 0
    }

    fn find_missing(&mut self, now: Time, frame: Duration, read: Duration) -> Duration {
        let late = now.nanos_since(self.phase + read);
        let is_first = self.is_first();
        if late <= capture_range(frame) && !is_first {
            return Duration::ZERO;
        }
        let nearest = self
            .outliers
            .map_or(late, |outliers| late.min(outliers.nearest))
            .max(0);
        let is_pause = nearest > nanos(PAUSE);
        let proof = match (is_pause, is_first) {
            (true, _) => PAUSE_PROOF,
            (false, true) => Duration::ZERO,
            (false, false) => SHIFT_PROOF,
        };
        let is_proved = match self.outliers {
            Some(outliers) => {
                now - outliers.since >= proof && !outliers.is_catching_up(late, frame)
            }
            None => proof.is_zero(),
        };
        if !is_proved {
            return Duration::ZERO;
        }
        self.outliers = None;
        let missing = if is_pause || is_first {
            self.arrivals = 0;
            nearest
        } else {
            // Packets are lost whole, and the phase of those around them goes on.
            let frame = nanos(frame).max(1);
            (nearest + frame / 2) / frame * frame
        };
        Duration::from_nanos(missing as u64)
    }

    /// Moves the phase on by `audio`, and towards the time at which that arrived. Returns the drift in nanoseconds.
    fn update_phase(&mut self, now: Time, frame: Duration, audio: Duration) -> i64 {
        self.phase += audio;
        let late = now.nanos_since(self.phase);
        let is_start = self.is_first() && late <= nanos(PAUSE);
        if late.abs() <= capture_range(frame) || is_start {
            self.outliers = None;
            self.arrivals += 1;
            let shift = late / self.arrivals.min(TRACKING_GAIN_DIVISOR);
            self.phase = self.phase.shifted(shift);
            let is_acquiring = self.arrivals <= ACQUISITION_ARRIVALS;
            return if is_acquiring { 0 } else { shift };
        }
        let outliers = Outliers::extend(self.outliers, now, late, frame);
        self.outliers = Some(outliers);
        if late < 0 && now - outliers.since >= SHIFT_PROOF {
            // The phase was acquired from something late, or the other side's clock jumped forward.
            self.phase = self.phase.shifted(outliers.nearest);
            self.arrivals = 0;
            self.outliers = None;
        }
        0
    }

    fn is_first(&self) -> bool {
        self.arrivals == 0 && self.outliers.is_none()
    }
}

fn capture_range(frame: Duration) -> i64 {
    nanos(CAPTURE_RANGE.min(frame / 2))
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
