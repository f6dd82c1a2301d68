use {crate::CallRecord, std::time::Duration};

/// How times between events are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// The shortest.
    pub min: Duration,
    /// Half are at most this.
    pub p50: Duration,
    /// 99 of 100 are at most this.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// A time without audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When the last message before it came.
    pub from: Duration,
    /// How long it was.
    pub length: Duration,
}

impl Spread {
    /// The spread of these times, in any order; all zero for none.
    ///
    /// ```
    /// use {sidetone_caller::Spread, std::time::Duration};
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
    /// The times between each message of audio and the next.
    pub fn spacing(&self) -> Spread {
        Spread::of(self.heard.windows(2).map(|pair| pair[1].at - pair[0].at))
    }

    /// How long after its place on the call's own grid each message came, in nanoseconds, negative for
    /// early.
    ///
    /// The grid has the length of each message as its step, and lies where as many messages are early as
    /// late. A pause that the server does not make up for makes all that follows late.
    pub fn lateness(&self) -> Vec<i64> {
        let mut sounded = Duration::ZERO;
        let mut offsets: Vec<i64> = Vec::with_capacity(self.heard.len());
        for heard in &self.heard {
            offsets.push(heard.at.as_nanos() as i64 - sounded.as_nanos() as i64);
            sounded += heard.duration();
        }
        let mut sorted = offsets.clone();
        sorted.sort_unstable();
        let Some(middle) = sorted.get(sorted.len() / 2) else {
            return offsets;
        };
        offsets.iter().map(|offset| offset - middle).collect()
    }

    /// The times longer than `limit` in which no audio came, between the first message and the last.
    pub fn gaps(&self, limit: Duration) -> Vec<Gap> {
        let gaps = self.heard.windows(2).map(|pair| Gap {
            from: pair[0].at,
            length: pair[1].at - pair[0].at,
        });
        gaps.filter(|gap| gap.length > limit).collect()
    }
}
