use std::{sync::OnceLock, time::Instant};

use sidetone_proto::Time;

/// The time of the process's only clock, so that times of all threads compare.
pub(crate) fn now() -> Time {
    at(Instant::now())
}

fn at(instant: Instant) -> Time {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let origin = *ORIGIN.get_or_init(Instant::now);
    Time::ZERO + instant.saturating_duration_since(origin)
}
