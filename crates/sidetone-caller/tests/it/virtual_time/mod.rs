//! Calls in virtual time: no socket, no clock, no thread.
#![allow(clippy::unwrap_used)]

mod record;
mod rules;
mod sending;
mod support;
