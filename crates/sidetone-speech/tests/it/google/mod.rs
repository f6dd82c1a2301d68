//! The Google engine against a service that has the limits of the real one. Everything runs in virtual time over
//! connections in memory, so twelve minutes are twelve minutes.
#![allow(clippy::unwrap_used)]

mod errors;
mod example;
mod flood;
mod kit;
mod limits;
mod settings;
