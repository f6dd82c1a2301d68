use std::{
    ops::{Add, AddAssign, Sub},
    time::Duration,
};

/// A moment on a monotonic clock, in nanoseconds since an origin that the owner of the clock chooses.
///
/// This crate never reads a clock. Its caller passes the time in: a media thread the real one, a test a virtual one.
///
/// ```
/// use {sidetone_proto::Time, std::time::Duration};
///
/// let start = Time::ZERO;
/// let later = start + Duration::from_millis(20);
/// assert_eq!(later - start, Duration::from_millis(20));
/// assert_eq!(start - later, Duration::ZERO, "differences saturate");
/// assert!(later + Duration::MAX > later, "sums, too: that far away is never");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The moment `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// `self - other` in nanoseconds, negative when `other` is later.
    pub const fn nanos_since(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0) as i64
    }

    /// This moment moved by `nanos`, which may be negative.
    #[must_use]
    pub const fn shifted(self, nanos: i64) -> Self {
        Self(self.0.saturating_add_signed(nanos))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub for Time {
    type Output = Duration;

    fn sub(self, rhs: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(rhs.0))
    }
}
