//! The gateway as operators, dialplans and browsers meet it, with simulated callers.
#![allow(clippy::unwrap_used)]

mod access;
mod bots;
mod config;
mod control;
mod events;
mod garbage;
mod hooks;
mod kit;
mod limits;
mod listening;
mod metrics;
mod recording;
mod reload;
mod results;
mod tickets;
mod transcripts;
