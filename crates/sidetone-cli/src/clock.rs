//! Times of day, as text.

use std::sync::OnceLock;

use time::{OffsetDateTime, UtcOffset};

static ZONE: OnceLock<UtcOffset> = OnceLock::new();

/// Stores the local time zone, which can be read only while the process has a single thread. Otherwise local times are
/// UTC. The offset stays the same after a change to or from daylight saving time.
pub(crate) fn remember_zone() {
    if let Ok(zone) = UtcOffset::current_local_offset() {
        ZONE.get_or_init(|| zone);
    }
}

/// The local time, for people: `08:40:30`.
pub(crate) fn local() -> String {
    let zone = ZONE.get().copied().unwrap_or(UtcOffset::UTC);
    let (hour, minute, second) = OffsetDateTime::now_utc().to_offset(zone).to_hms();
    format!("{hour:02}:{minute:02}:{second:02}")
}

/// The time in UTC, for programs (RFC 3339): `2026-11-22T08:40:30.123Z`.
pub(crate) fn utc() -> String {
    rfc3339(OffsetDateTime::now_utc())
}

/// The time in UTC for names of files: `20261122T084030Z`.
pub(crate) fn compact_utc() -> String {
    let text = rfc3339(OffsetDateTime::now_utc());
    let seconds = text.split('.').next().unwrap_or_default();
    seconds.replace(['-', ':'], "") + "Z"
}

fn rfc3339(time: OffsetDateTime) -> String {
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second, milli) = time.to_hms_milli();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_padded_with_zeros() {
        let time = OffsetDateTime::from_unix_timestamp_nanos(1_767_323_045_006_999_999).unwrap();
        assert_eq!(rfc3339(time), "2026-01-02T03:04:05.006Z");
    }
}
