//! A real Asterisk for the tests of Sidetone, fetched and run without root.

pub mod ami;
pub mod ari;
mod asterisk;
mod conf;
pub mod fetch;
pub mod phone;
mod ports;
mod process;

pub use asterisk::{Asterisk, Options, StartError};
