use std::time::Duration;

use crate::Time;

/// Audio that is missing for longer than this left a pause that anybody notices.
const PAUSE: Duration = Duration::from_millis(60);
/// What a freeze held back comes in one go: audio that is still as late when this much time has passed since
/// it was first seen to be has a pause before it, not a backlog behind it.
const BACKLOG: Duration = Duration::from_millis(10);
/// How long audio must be late or early all the time to be so for good, when it is by less than a pause.
const PROOF: Duration = Duration::from_millis(500);
/// The most that an arrival may be off and still be in the rhythm; half a frame, if that is less.
const JITTER: Duration = Duration::from_millis(10);
/// The share of each arrival's deviation that moves the estimate: 1/256 leaves 0.15 ms of wobble under
/// Asterisk's jitter, and lags 1 ms behind a clock that is off by 200 ppm.
const SMOOTHING: i64 = 256;
/// So many arrivals find the phase of a new rhythm; only what moves after them is drift.
const FINDING: i64 = 64;

/// The rhythm in which audio comes in: it tells drift from jitter, and lost audio from late audio.
///
/// An arrival within half a frame of the rhythm moves it a little. One that is further off doesn't: it is
/// late, and the rest of a backlog follows; or what was before it is lost, and all that follow are as late.
/// So lost audio shows 10 ms after a pause of more than 60 ms, and 500 ms after a shorter loss.
///
/// ```
/// use {sidetone_proto::{ClockRecovery, Time}, std::time::Duration};
///
/// let frame = Duration::from_millis(20);
/// let mut now = Time::ZERO;
/// let mut cadence = ClockRecovery::new(now);
/// let mut next_frame = |after: Duration| {
///     now += after;
///     let missing = cadence.missing(now, frame, frame);
///     cadence.arrived(now, frame, frame);
///     missing
/// };
/// assert_eq!(next_frame(frame), Duration::ZERO);
/// // Ten seconds of nothing, as from a caller on mute:
/// let mute = Duration::from_secs(10);
/// assert_eq!(next_frame(mute + frame), Duration::ZERO, "perhaps all of it follows at once");
/// assert_eq!(next_frame(frame), mute);
/// assert_eq!(next_frame(frame), Duration::ZERO);
/// ```
#[derive(Debug)]
pub struct ClockRecovery {
    /// When the audio so far would all have been here without jitter.
    expected: Time,
    /// Arrivals in this rhythm.
    arrivals: i64,
    off: Option<Off>,
}

/// Arrivals in a row that were off the rhythm, all early, or all late without catching up.
#[derive(Clone, Copy, Debug)]
struct Off {
    since: Time,
    /// By how much the one nearest to the rhythm was late, in nanoseconds; negative is early.
    least: i64,
}

impl Off {
    /// Whether an arrival that is this late comes faster than real time after these: it is backlog.
    fn is_catching_up(self, late: i64, frame: Duration) -> bool {
        late < self.least - jitter(frame)
    }
}

impl ClockRecovery {
    /// A rhythm that starts when audio could come for the first time.
    pub fn new(start: Time) -> Self {
        Self {
            expected: start,
            arrivals: 0,
            off: None,
        }
    }

    /// How much audio is now known to be missing before `batch` of it, in frames that last `frame`, which
    /// was read at once at `now`.
    ///
    /// To be asked before [`arrived`](Self::arrived); `batch` may be an estimate. What was missing before
    /// the very first audio is found like a pause.
    pub fn missing(&mut self, now: Time, frame: Duration, batch: Duration) -> Duration {
        let late = now.nanos_since(self.expected + batch);
        let is_first = self.is_first();
        if late <= jitter(frame) && !is_first {
            return Duration::ZERO;
        }
        let least = self.off.map_or(late, |off| late.min(off.least)).max(0);
        let is_pause = least > nanos(PAUSE);
        let proof = match (is_pause, is_first) {
            (true, _) => BACKLOG,
            (false, true) => Duration::ZERO,
            (false, false) => PROOF,
        };
        let has_proof = match self.off {
            Some(off) => now - off.since >= proof && !off.is_catching_up(late, frame),
            None => proof == Duration::ZERO,
        };
        if !has_proof {
            return Duration::ZERO;
        }
        let missing = if is_pause || is_first {
            self.arrivals = 0;
            least
        } else {
            // Packets are lost whole, and the ones around them were in a rhythm that goes on.
            let frame = nanos(frame).max(1);
            (least + frame / 2) / frame * frame
        };
        self.expected = self.expected.shifted(missing);
        self.off = None;
        Duration::from_nanos(missing as u64)
    }

    /// Takes note of `batch` of audio that was read at once at `now`, in frames that last `frame`, and says
    /// how far the rhythm moved, in nanoseconds: what a grid that follows it must move, too.
    pub fn arrived(&mut self, now: Time, frame: Duration, batch: Duration) -> i64 {
        self.expected += batch;
        let late = now.nanos_since(self.expected);
        let begins = self.is_first() && late <= nanos(PAUSE);
        if late.abs() <= jitter(frame) || begins {
            self.off = None;
            self.arrivals += 1;
            let shift = late / self.arrivals.min(SMOOTHING);
            self.expected = self.expected.shifted(shift);
            return if self.arrivals > FINDING { shift } else { 0 };
        }
        let off = match self.off {
            Some(off) if off.least < 0 && late < 0 => Off {
                since: off.since,
                least: off.least.max(late),
            },
            Some(off) if late > 0 && off.least > 0 && !off.is_catching_up(late, frame) => Off {
                since: off.since,
                least: off.least.min(late),
            },
            _ => Off {
                since: now,
                least: late,
            },
        };
        self.off = Some(off);
        if late < 0 && now - off.since >= PROOF {
            // The rhythm was begun by something late, or the other side leapt forward.
            self.expected = self.expected.shifted(off.least);
            self.arrivals = 0;
            self.off = None;
        }
        0
    }

    /// Whether audio has come in a rhythm, so that what is missing was missed.
    pub fn has_begun(&self) -> bool {
        self.arrivals > 0
    }

    fn is_first(&self) -> bool {
        self.arrivals == 0 && self.off.is_none()
    }
}

fn jitter(frame: Duration) -> i64 {
    nanos(JITTER.min(frame / 2))
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
