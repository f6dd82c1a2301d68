#![doc = include_str!("../README.md")]

mod action;
mod bot;
mod bots;
mod bus;
mod call;
mod capacity;
pub mod config;
mod event;
mod functions;
mod gateway;
mod handover;
pub mod hooks;
mod http;
mod http_client;
mod metrics;
mod pattern;
pub mod rate_limit;
pub mod recognizer;
mod recording;
mod registry;
mod rejection;
mod results;
mod route;
mod snapshot;
mod ticket;
mod totals;

pub use bus::EventSink;
pub use config::{Config, ConfigErrors};
pub use event::{EventKind, Level, Published, envelope};
pub use gateway::{Gateway, GatewayHandle, Inherited, OpenError};

/// An error with its sources, on one line.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line += &format!(": {error}");
        source = error.source();
    }
    line
}
