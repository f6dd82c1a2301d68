//! The voice gateway.

pub mod hooks;
