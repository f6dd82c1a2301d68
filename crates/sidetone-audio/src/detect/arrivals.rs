//! The byte rate of a stream, from the arrival times of its bytes.
//!
//! Bytes that arrive together are one burst, whatever messages they came in, and a burst covers the
//! time since the last one. So late frames that come at once, pairs of short frames, and frames of
//! any length give the same rate. Gaps and large bursts are outliers, and left out.

use std::time::Duration;

/// Messages closer than this arrived together: half of 10 ms, the shortest frame in use, less its
/// jitter.
const BURST_GAP: Duration = Duration::from_millis(4);
/// Bursts kept.
const MAX_BURSTS: usize = 32;
/// The seconds and the bursts after which any rate is certain.
const SURE_AFTER: f64 = 0.5;
const SURE_BURSTS: usize = 20;
/// The same where the possible rates are far from each other.
const EARLY_AFTER: f64 = 0.1;
const EARLY_BURSTS: usize = 4;
/// How far a burst may be off the median rate: 20 ms frames are 14.5 to 25.5 ms apart in practice.
const TOLERANCE: f64 = 1.7;

/// Measures the byte rate of a stream, in a fraction of a microsecond per message.
///
/// ```
/// use std::time::Duration;
/// use sidetone_audio::detect::RateMeter;
///
/// let mut meter = RateMeter::default();
/// for frame in 0..50 {
///     meter.push(Duration::from_millis(20) * frame, 160);
/// }
/// assert_eq!(meter.bytes_per_second(), Some(8000));
/// ```
#[derive(Debug, Clone)]
pub struct RateMeter {
    bursts: [Burst; MAX_BURSTS],
    /// Bursts completed so far.
    count: usize,
    now: Option<Open>,
}

/// Bytes, and the seconds they cover.
#[derive(Debug, Clone, Copy, Default)]
struct Burst {
    bytes: f64,
    seconds: f64,
}

impl Burst {
    fn rate(self) -> f64 {
        self.bytes / self.seconds
    }
}

/// The burst that may still grow.
#[derive(Debug, Clone, Copy)]
struct Open {
    /// When the burst before it began, unless this is the first.
    before: Option<Duration>,
    began: Duration,
    latest: Duration,
    bytes: usize,
}

impl Open {
    fn burst(self) -> Option<Burst> {
        Some(Burst {
            bytes: self.bytes as f64,
            seconds: (self.began - self.before?).as_secs_f64(),
        })
    }
}

/// A rate that most bursts agree on.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByteRate {
    pub(super) bytes_per_second: f64,
    /// The seconds and the number of bursts it was measured over.
    pub(super) seconds: f64,
    pub(super) bursts: usize,
}

impl Default for RateMeter {
    fn default() -> Self {
        Self {
            bursts: [Burst::default(); MAX_BURSTS],
            count: 0,
            now: None,
        }
    }
}

impl RateMeter {
    /// Takes a message of `bytes` bytes that arrived at `at`, on any clock of the call. Returns how
    /// many bytes have arrived together with it so far.
    pub fn push(&mut self, at: Duration, bytes: usize) -> usize {
        match &mut self.now {
            Some(now) if at.saturating_sub(now.latest) < BURST_GAP => {
                now.latest = now.latest.max(at);
                now.bytes += bytes;
                now.bytes
            }
            now => {
                let last = now.replace(Open {
                    before: now.map(|last| last.began),
                    began: at,
                    latest: at,
                    bytes,
                });
                if let Some(burst) = last.and_then(Open::burst) {
                    self.bursts[self.count % MAX_BURSTS] = burst;
                    self.count += 1;
                }
                bytes
            }
        }
    }

    /// The rate in bytes per second, to the nearest 50, once twenty bursts and half a second agree
    /// on it.
    pub fn bytes_per_second(&self) -> Option<u32> {
        let rate = self.rate()?;
        let is_sure = rate.seconds > SURE_AFTER && rate.bursts >= SURE_BURSTS;
        is_sure.then(|| nominal(rate.bytes_per_second))
    }

    /// The rate in bytes per second, to the nearest 50, once four bursts and a tenth of a second
    /// agree on it. That is accurate enough to tell rates apart of which one is at least 1.5 times
    /// the other.
    pub fn early_bytes_per_second(&self) -> Option<u32> {
        let rate = self.rate()?;
        let is_near = rate.seconds >= EARLY_AFTER && rate.bursts >= EARLY_BURSTS;
        is_near.then(|| nominal(rate.bytes_per_second))
    }

    pub(super) fn rate(&self) -> Option<ByteRate> {
        let done = &self.bursts[..self.count.min(MAX_BURSTS)];
        // The open burst counts as it is, since most bursts are one message. One that took longer
        // than any other may be a backlog that has come in part, and would look like a slower rate.
        let longest = done.iter().map(|burst| burst.seconds).fold(0.0, f64::max);
        let is_plausible = |burst: &Burst| done.is_empty() || burst.seconds <= longest * TOLERANCE;
        let open = self.now.and_then(Open::burst).filter(is_plausible);
        let bursts = done.iter().chain(&open);
        let mut rates = [0.0; MAX_BURSTS + 1];
        let mut total = 0;
        for (rate, burst) in rates.iter_mut().zip(bursts.clone()) {
            *rate = burst.rate();
            total += 1;
        }
        if total < 2 {
            return None;
        }
        let rates = &mut rates[..total];
        rates.sort_by(f64::total_cmp);
        let usual = rates[total / 2];
        let agreeing =
            bursts.filter(|burst| (usual / TOLERANCE..usual * TOLERANCE).contains(&burst.rate()));
        let (mut count, mut sum) = (0, Burst::default());
        for burst in agreeing {
            count += 1;
            sum.bytes += burst.bytes;
            sum.seconds += burst.seconds;
        }
        (count * 3 >= total * 2).then_some(ByteRate {
            bytes_per_second: sum.rate(),
            seconds: sum.seconds,
            bursts: count,
        })
    }
}

/// Rounds a measured rate to the rate it stands for.
pub(super) fn nominal(bytes_per_second: f64) -> u32 {
    (bytes_per_second / 50.0).round() as u32 * 50
}
