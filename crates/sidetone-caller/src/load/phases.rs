use {super::grid::STEP, crate::noise::noise, std::time::Duration};

/// How the frames of the calls lie to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phases {
    /// Spread evenly over 20 ms: what many calls come to that began at any time.
    #[default]
    Spread,
    /// All calls send at the same time, every 20 ms.
    Together,
}

/// When each call sends each frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) begin: u64,
    pub(super) calls: usize,
    pub(super) phases: Phases,
    /// How far a frame may be from its place, either way.
    pub(super) jitter: Duration,
}

impl Schedule {
    pub(super) fn due(&self, call: usize, frame: u32) -> u64 {
        let phase = match self.phases {
            Phases::Together => 0,
            Phases::Spread => STEP * call as u64 / self.calls as u64,
        };
        let place = self.begin + phase + u64::from(frame) * STEP;
        match 2 * self.jitter.as_nanos() as u64 {
            0 => place,
            // Late by up to twice as much is early and late by as much, and no frame leaves before the beginning.
            spread => place + noise(call as u64, frame.into()) % spread,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(phases: Phases, jitter: Duration) -> Schedule {
        Schedule {
            begin: 1000,
            calls: 10,
            phases,
            jitter,
        }
    }

    #[test]
    fn spread_calls_divide_the_slot_among_them() {
        let schedule = schedule(Phases::Spread, Duration::ZERO);
        for call in 0..10 {
            assert_eq!(schedule.due(call, 0), 1000 + call as u64 * 2_000_000);
            assert_eq!(schedule.due(call, 7) - schedule.due(call, 6), STEP);
        }
    }

    #[test]
    fn calls_together_share_one_grid() {
        let schedule = schedule(Phases::Together, Duration::ZERO);
        assert!((0..10).all(|call| schedule.due(call, 3) == 1000 + 3 * STEP));
    }

    #[test]
    fn jitter_is_uniform_and_does_not_add_up() {
        let jitter = Duration::from_micros(2_750);
        let schedule = schedule(Phases::Spread, jitter);
        let gaps: Vec<u64> = (0..5000)
            .map(|frame| schedule.due(4, frame + 1) - schedule.due(4, frame))
            .collect();
        let (shortest, longest) = (gaps.iter().min(), gaps.iter().max());
        assert!(shortest.is_some_and(|gap| (14_500_000..15_500_000).contains(gap)));
        assert!(longest.is_some_and(|gap| (24_500_000..=25_500_000).contains(gap)));
        let mean = gaps.iter().sum::<u64>() / 5000;
        assert!(mean.abs_diff(STEP) < 2000);
    }
}
