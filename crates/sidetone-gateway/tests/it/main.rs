//! All tests of this crate that use it from outside.
#![allow(clippy::unwrap_used)]

mod hooks;
