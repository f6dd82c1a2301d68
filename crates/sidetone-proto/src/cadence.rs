use std::time::Duration;

use crate::Time;

/// Audio this much later than the rhythm so far is a gap: the caller was muted or suppressed silence, or
/// Asterisk stood still. Ordinary jitter is 14.5 to 25.5 ms between frames (measured).
const GAP: Duration = Duration::from_millis(60);

/// The share of each arrival's deviation that moves the estimate: 1/256 leaves 0.15 ms of wobble under
/// Asterisk's jitter, and lags 1 ms behind a clock that is off by 200 ppm.
const SMOOTHING: i64 = 256;

/// The rhythm in which audio comes in: it tells drift and gaps from jitter.
///
/// ```
/// use {sidetone_proto::{Cadence, Time}, std::time::Duration};
///
/// let frame = Duration::from_millis(20);
/// let mut cadence = Cadence::default();
/// cadence.arrived(Time::ZERO + frame, frame);
/// assert_eq!(cadence.gap(Time::ZERO + frame * 2, frame), Duration::ZERO);
/// // Ten seconds of nothing, as from a caller on mute:
/// let mute = Duration::from_secs(10);
/// assert_eq!(cadence.gap(Time::ZERO + frame * 2 + mute, frame), mute);
/// ```
#[derive(Debug, Default)]
pub struct Cadence {
    /// When the last batch would have come without jitter.
    expected: Option<Time>,
}

impl Cadence {
    /// How long there was no audio before `duration` of it that was read at once at `now`; zero within a
    /// rhythm. Takes no note of it.
    pub fn gap(&self, now: Time, duration: Duration) -> Duration {
        let late = self
            .expected
            .map_or(Duration::ZERO, |last| now - (last + duration));
        if late > GAP { late } else { Duration::ZERO }
    }

    /// Takes note of `duration` of audio that was read at once at `now`, and says how far the rhythm moved,
    /// in nanoseconds: what a grid that follows it must move, too.
    pub fn arrived(&mut self, now: Time, duration: Duration) -> i64 {
        let Some(last) = self.expected else {
            self.expected = Some(now);
            return 0;
        };
        let expected = last + duration;
        let deviation = now.nanos_since(expected);
        if deviation.unsigned_abs() > GAP.as_nanos() as u64 {
            // Early is what follows a late batch that was taken for a gap: only the rhythm starts anew.
            self.expected = Some(now);
            return 0;
        }
        let shift = deviation / SMOOTHING;
        self.expected = Some(expected.shifted(shift));
        shift
    }
}
