//! Calls in virtual time: no socket, no clock, no thread.
#![allow(clippy::unwrap_used)]

mod judging;
mod line;
mod rules;
mod speaking;
