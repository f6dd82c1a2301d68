//! A real Asterisk for the tests of Sidetone, fetched and run without root.
//!
//! - [`fetch`] gets Asterisk, and any further package, from the Debian mirror this machine already uses;
//! - [`Asterisk`] runs an instance of it on loopback, with the dialplan in `conf/`, and ends it;
//! - [`ami`] places calls and hears what becomes of them, [`ari`] steers channels and bridges from outside the dialplan;
//! - [`Recognizer`] understands English: a Vosk server, for what is to be written down;
//! - [`bots`] are voice bots, made with the frameworks that callers' bots are made with, and the judge of OpenAI's messages;
//! - [`python`] is the Python module as others get it: a wheel, in virtual environments, and its examples;
//! - [`Prometheus`] scrapes what the test serves, and is asked what it knows;
//! - [`Browser`] is a Chromium that opens pages, clicks, and takes pictures;
//! - [`systemd_analyze`] says what is wrong with units of systemd;
//! - [`phone`] is a SIP phone that keeps every RTP packet it hears.
//!
//! The lines in `conf/recipes` are those that the documentation shows; here they run as they stand, but for the server's address
//! and the phone that the transcribed call rings.
//!
//! `cargo run -p sidetone-lab` runs one instance by hand. The tests are `tests/end_to_end`.

pub mod ami;
pub mod ari;
mod asterisk;
mod binary;
pub mod bots;
pub mod browser;
mod conf;
pub mod fetch;
mod http;
pub mod phone;
mod ports;
mod process;
pub mod prometheus;
pub mod python;
mod recognizer;
mod systemd;

pub use asterisk::{Asterisk, Options, StartError};
pub use binary::sidetone;
pub use browser::Browser;
pub use prometheus::Prometheus;
pub use recognizer::Recognizer;
pub use systemd::{debians_systemd_analyze, systemd_analyze};
