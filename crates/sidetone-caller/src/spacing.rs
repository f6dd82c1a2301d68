use std::time::Duration;

use crate::CallRecord;

/// The distribution of durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// The shortest.
    pub min: Duration,
    /// The median.
    pub p50: Duration,
    /// The 99th percentile.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// A time without audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When the last message before it was received.
    pub from: Duration,
    /// How long it was.
    pub length: Duration,
}

impl Spread {
    /// The distribution of these durations, in any order; all zero when there is none.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use sidetone_caller::Spread;
    ///
    /// let spread = Spread::of((1..=200).map(Duration::from_millis));
    /// assert_eq!(spread.p50.as_millis(), 100);
    /// assert_eq!(spread.p99.as_millis(), 198);
    /// ```
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort_unstable();
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).copied().unwrap_or_default()
        };
        Self {
            min: at(0),
            p50: at(50),
            p99: at(99),
            max: at(100),
        }
    }
}

impl CallRecord {
    /// The durations between each message of audio and the next.
    pub fn spacing(&self) -> Spread {
        Spread::of(self.heard.windows(2).map(|pair| pair[1].at - pair[0].at))
    }

    /// How late each message came in the server's schedule, in nanoseconds; negative for early.
    ///
    /// In the schedule, each message is due when the audio of the ones before it has played, and as many messages are
    /// early as late. After a pause that the server does not make up for, all messages are late.
    pub fn lateness(&self) -> Vec<i64> {
        let mut played = Duration::ZERO;
        let mut offsets: Vec<i64> = Vec::with_capacity(self.heard.len());
        for heard in &self.heard {
            offsets.push(heard.at.as_nanos() as i64 - played.as_nanos() as i64);
            played += heard.duration();
        }
        let mut sorted = offsets.clone();
        sorted.sort_unstable();
        let Some(middle) = sorted.get(sorted.len() / 2) else {
            return offsets;
        };
        offsets.iter().map(|offset| offset - middle).collect()
    }

    /// The times of more than `limit` without audio, between the first message and the last.
    pub fn gaps(&self, limit: Duration) -> Vec<Gap> {
        let gaps = self.heard.windows(2).map(|pair| Gap {
            from: pair[0].at,
            length: pair[1].at - pair[0].at,
        });
        gaps.filter(|gap| gap.length > limit).collect()
    }
}
