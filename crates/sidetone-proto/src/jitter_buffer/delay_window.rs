use std::time::Duration;

use crate::Time;

/// A windowed minimum and maximum filter over the delays of frames, in nanoseconds.
///
/// It keeps the extremes of two buckets, the one that is being filled and the one before, so a delay is remembered for
/// one to two windows. The maximum is the second largest delay: a single late frame is an outlier, for which a slot
/// waits instead.
#[derive(Debug, Default)]
pub(super) struct DelayWindow {
    /// When the current bucket is full.
    until: Option<Time>,
    current: Option<Extremes>,
    previous: Option<Extremes>,
}

/// The extremes of one bucket.
#[derive(Clone, Copy, Debug)]
struct Extremes {
    min: i64,
    max: i64,
    second_max: i64,
}

impl DelayWindow {
    /// Adds the delay of a frame that came at `now`; `window` is the length of a new bucket.
    pub(super) fn insert(&mut self, now: Time, window: Duration, delay: i64) {
        if self.until.is_none_or(|until| now > until) {
            self.until = Some(now + window);
            self.previous = self.current.take();
        }
        let added = Extremes {
            min: delay,
            max: delay,
            second_max: i64::MIN,
        };
        self.current = Some(self.current.map_or(added, |current| current.merge(added)));
    }

    /// The least and the second largest delay; of a single delay, that one twice. `None` if there is none.
    pub(super) fn min_and_max(&self) -> Option<(i64, i64)> {
        let all = self
            .current
            .into_iter()
            .chain(self.previous)
            .reduce(Extremes::merge)?;
        Some((all.min, all.second_max.max(all.min)))
    }

    /// The difference of the two, which is the jitter.
    pub(super) fn spread(&self) -> Duration {
        let (min, max) = self.min_and_max().unwrap_or_default();
        Duration::from_nanos(max.abs_diff(min))
    }
}

impl Extremes {
    fn merge(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            second_max: self
                .max
                .min(other.max)
                .max(self.second_max)
                .max(other.second_max),
        }
    }
}
