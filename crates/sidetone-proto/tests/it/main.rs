//! The crate's tests, all in one binary but for those that count what a process allocates.

mod cadence;
mod call_life;
mod decoder;
mod heard;
mod live;
mod pacing;
mod partial_writes;
mod playout;
mod rates;
mod received;
#[path = "../support/mod.rs"]
mod support;
