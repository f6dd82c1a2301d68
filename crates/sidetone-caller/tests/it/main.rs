//! The crate's tests, in one binary.

mod loopback;
mod virtual_time;
