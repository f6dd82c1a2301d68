//! When a message is tried again.

use std::time::Duration;

use tokio::time::Instant;

/// How failures are retried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// The pause after the first failure. Each further one doubles it.
    pub(super) first_pause: Duration,
    pub(super) longest_pause: Duration,
}

impl Schedule {
    /// When a message that failed just now for the `failures`th time is tried again: `None` if that
    /// would be after `expires`.
    ///
    /// `jitter`, from 0 to 1, spreads the pause from three quarters to five quarters, so that
    /// messages that failed together don't come back together. An endpoint may ask for a longer
    /// pause, up to the longest, but not for a shorter one.
    pub(super) fn next_attempt(
        &self,
        failures: u32,
        now: Instant,
        expires: Instant,
        asked: Option<Duration>,
        jitter: f64,
    ) -> Option<Instant> {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1));
        let pause = doubled.and_then(|factor| self.first_pause.checked_mul(factor));
        let pause = pause.map_or(self.longest_pause, |pause| pause.min(self.longest_pause));
        let pause = pause.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0);
        let at = now + pause.max(self.bounded(asked));
        (at <= expires).then_some(at)
    }

    /// The pause that an endpoint asks for, within bounds.
    pub(super) fn bounded(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or_default().min(self.longest_pause)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SCHEDULE: Schedule = Schedule {
        first_pause: SECOND,
        longest_pause: Duration::from_secs(900),
    };
    const DAY: Duration = Duration::from_secs(86_400);

    /// The pauses, in seconds, of a message that never gets through.
    fn pauses(jitter: f64) -> Vec<f64> {
        let start = Instant::now();
        let (mut now, mut pauses) = (start, Vec::new());
        while let Some(next) =
            SCHEDULE.next_attempt(pauses.len() as u32 + 1, now, start + DAY, None, jitter)
        {
            pauses.push((next - now).as_secs_f64());
            now = next;
        }
        assert!(start + DAY - now <= SCHEDULE.longest_pause.mul_f64(1.25));
        pauses
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_end_after_a_day() {
        let pauses = pauses(0.5);
        let doubled = [1., 2., 4., 8., 16., 32., 64., 128., 256., 512., 900., 900.];
        assert_eq!(pauses[..12], doubled);
        // 1 + 2 + … + 512 = 1023 s, then 94 of 900 s.
        assert_eq!(pauses.len(), 10 + 94);
    }

    #[test]
    fn jitter_spreads_a_pause_by_a_quarter() {
        assert_eq!(pauses(0.0)[..3], [0.75, 1.5, 3.0]);
        assert_eq!(pauses(1.0)[..3], [1.25, 2.5, 5.0]);
        assert_eq!(pauses(7.0)[0], 1.25);
    }

    #[test]
    fn an_endpoint_may_ask_for_a_longer_pause_within_bounds() {
        let now = Instant::now();
        let next = |failures, seconds: u64| {
            let asked = Some(Duration::from_secs(seconds));
            SCHEDULE
                .next_attempt(failures, now, now + DAY, asked, 0.5)
                .unwrap()
                - now
        };
        assert_eq!(next(1, 30), 30 * SECOND);
        assert_eq!(next(1, 0), SECOND);
        assert_eq!(next(8, 30), 128 * SECOND);
        assert_eq!(next(1, u64::MAX), 900 * SECOND);
    }

    #[test]
    fn any_number_of_failures_has_a_pause() {
        let now = Instant::now();
        for failures in [0, 1, 32, 33, 64, u32::MAX] {
            assert!(
                SCHEDULE
                    .next_attempt(failures, now, now + DAY, None, 1.0)
                    .is_some()
            );
        }
        assert_eq!(SCHEDULE.next_attempt(1, now, now, None, 0.0), None);
    }
}
