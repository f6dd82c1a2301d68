//! The Google recognizer against a stand-in with the limits of the real service. Almost everything
//! runs in virtual time over in-memory connections, so a test can last twelve minutes.
#![allow(clippy::unwrap_used)]

mod caller;
mod errors;
mod example;
mod flood;
mod limits;
mod settings;
