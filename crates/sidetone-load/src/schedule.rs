use std::time::Duration;

use crate::{noise::noise, pacing::FRAME_INTERVAL};

/// How the calls' frames are offset against each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phases {
    /// Evenly over 20 ms, as those of many calls that began at different times.
    #[default]
    Spread,
    /// All calls send at the same time, every 20 ms.
    Together,
}

/// When each call sends each frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) begin: u64,
    pub(crate) calls: usize,
    pub(crate) phases: Phases,
    /// How far a frame may be from its slot, in either direction.
    pub(crate) jitter: Duration,
}

impl Schedule {
    pub(crate) fn due(&self, call: usize, frame: u32) -> u64 {
        let phase = match self.phases {
            Phases::Together => 0,
            Phases::Spread => FRAME_INTERVAL * call as u64 / self.calls as u64,
        };
        let slot = self.begin + phase + u64::from(frame) * FRAME_INTERVAL;
        match 2 * self.jitter.as_nanos() as u64 {
            0 => slot,
            // Added on one side only, so that no frame is due before the beginning.
            spread => slot + noise(call as u64, frame.into()) % spread,
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
            assert_eq!(
                schedule.due(call, 7) - schedule.due(call, 6),
                FRAME_INTERVAL
            );
        }
    }

    #[test]
    fn calls_together_share_one_schedule() {
        let schedule = schedule(Phases::Together, Duration::ZERO);
        assert!((0..10).all(|call| schedule.due(call, 3) == 1000 + 3 * FRAME_INTERVAL));
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
        assert!(mean.abs_diff(FRAME_INTERVAL) < 2000);
    }
}
