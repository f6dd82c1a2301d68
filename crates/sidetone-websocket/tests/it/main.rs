//! The crate's tests, against servers on loopback.
#![allow(clippy::unwrap_used)]

mod connect;
mod connection;
mod support;
mod tls;
