//! The crate's tests, all in one binary but for those that want a process or the machine to themselves.

mod admission;
mod backends;
mod callbacks;
mod examples;
mod first_calls;
mod heard;
mod hearing;
mod life;
mod monitoring;
mod names;
mod playing;
mod recording;
mod summaries;
#[path = "../support/mod.rs"]
mod support;
