use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use sidetone_proto::{EndReason, Time};

use crate::event::ClosingNotice;

/// When a call is ended from this side, whatever its handler does.
///
/// Each field stands for itself, and is read a slot late at worst.
#[derive(Debug)]
pub(crate) struct Closing {
    /// When a shutdown ends the call, in nanoseconds; [`NEVER`] while there is none.
    shutdown_at: AtomicU64,
    /// How long after its beginning the call ends, in nanoseconds; [`NEVER`] without a limit.
    max_duration: AtomicU64,
    /// How long before that it is reported.
    warning: Duration,
    /// It has been reported that the call is about to reach its longest duration.
    is_warned: AtomicBool,
}

const NEVER: u64 = u64::MAX;

impl Closing {
    pub(super) fn new(max_duration: Option<Duration>, warning: Duration) -> Self {
        Self {
            shutdown_at: AtomicU64::new(NEVER),
            max_duration: AtomicU64::new(max_duration.map_or(NEVER, nanos)),
            warning,
            is_warned: AtomicBool::new(false),
        }
    }

    pub(crate) fn set_max_duration(&self, duration: Duration) {
        self.max_duration.store(nanos(duration), Ordering::Relaxed);
    }

    pub(super) fn max_duration(&self) -> Option<Duration> {
        let nanos = self.max_duration.load(Ordering::Relaxed);
        (nanos != NEVER).then(|| Duration::from_nanos(nanos))
    }

    pub(super) fn set_shutdown(&self, at: Time) {
        self.shutdown_at.store(at.as_nanos(), Ordering::Release);
    }

    /// When the call that `began` then reaches its longest duration, once: when that is near.
    pub(super) fn take_warning(&self, began: Time, now: Time) -> Option<Time> {
        let ends_at = began + self.max_duration()?;
        let is_due = ends_at - now <= self.warning && !self.is_warned.load(Ordering::Relaxed);
        is_due.then(|| {
            self.is_warned.store(true, Ordering::Release);
            ends_at
        })
    }

    /// The first end of which there is a report.
    pub(super) fn notice(&self, began: Time, now: Time) -> Option<ClosingNotice> {
        let shutdown_at = self.shutdown_at.load(Ordering::Acquire);
        let shutdown = (shutdown_at != NEVER)
            .then(|| ClosingNotice::new(EndReason::Shutdown, Time::from_nanos(shutdown_at), now));
        let is_warned = self.is_warned.load(Ordering::Acquire);
        let longest = self.max_duration().filter(|_| is_warned);
        let longest =
            longest.map(|most| ClosingNotice::new(EndReason::MaxDuration, began + most, now));
        [shutdown, longest]
            .into_iter()
            .flatten()
            .min_by_key(|notice| notice.remaining)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_longest_duration_is_reported_once_and_before_its_end() {
        let closing = Closing::new(Some(seconds(60)), seconds(10));
        let began = Time::ZERO + seconds(5);
        assert_eq!(closing.take_warning(began, began + seconds(49)), None);
        assert_eq!(closing.notice(began, began + seconds(49)), None);
        let now = began + seconds(50);
        assert_eq!(closing.take_warning(began, now), Some(began + seconds(60)));
        assert_eq!(closing.take_warning(began, now + seconds(1)), None);
        let told = closing.notice(began, now + seconds(1));
        let told = told.map(|notice| (notice.reason, notice.remaining));
        assert_eq!(told, Some((EndReason::MaxDuration, seconds(9))));
    }

    #[test]
    fn the_first_of_two_ends_counts() {
        let closing = Closing::new(None, seconds(10));
        let (began, now) = (Time::ZERO, Time::ZERO + seconds(100));
        closing.set_shutdown(now + seconds(30));
        let reason = |closing: &Closing| closing.notice(began, now).map(|notice| notice.reason);
        assert_eq!(reason(&closing), Some(EndReason::Shutdown));
        closing.set_max_duration(seconds(105));
        assert_eq!(reason(&closing), Some(EndReason::Shutdown), "not reported");
        assert!(closing.take_warning(began, now).is_some());
        assert_eq!(reason(&closing), Some(EndReason::MaxDuration));
    }

    #[test]
    fn a_limit_beyond_all_time_is_none() {
        let closing = Closing::new(Some(Duration::MAX), seconds(10));
        assert_eq!(closing.max_duration(), None);
    }
}
