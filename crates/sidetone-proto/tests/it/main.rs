//! The crate's tests, all in one binary but for those that count what a process allocates.

mod call_life;
mod clock_recovery;
mod decoder;
mod heard;
mod jitter_buffer;
mod pacing;
mod partial_writes;
mod playout;
mod rates;
mod received;
#[path = "../support/mod.rs"]
mod support;
