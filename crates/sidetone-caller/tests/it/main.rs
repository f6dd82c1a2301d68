//! The crate's tests, all in one binary but for those of loads, which want the machine to themselves.

mod loopback;
mod virtual_time;
