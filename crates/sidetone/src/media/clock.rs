use std::{sync::OnceLock, time::Instant};

use sidetone_proto::Time;

/// The one clock of the process, so that times taken on any thread compare.
pub(crate) fn now() -> Time {
    at(Instant::now())
}

fn at(instant: Instant) -> Time {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let origin = *ORIGIN.get_or_init(Instant::now);
    Time::ZERO + instant.saturating_duration_since(origin)
}
