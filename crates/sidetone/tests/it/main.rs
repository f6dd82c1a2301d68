//! The crate's tests, all in one binary but for those that want a process or the machine to themselves.

mod admission;
mod backends;
mod callbacks;
mod closing;
mod connection_limits;
mod examples;
mod figures;
mod first_calls;
mod halves;
mod handlers;
mod heard;
mod hearing;
mod ivr;
mod life;
mod mistakes;
mod monitoring;
mod names;
mod playing;
mod poller;
mod recording;
mod summaries;
#[path = "../support/mod.rs"]
mod support;
