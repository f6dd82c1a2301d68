//! The `sidetone` command as its users see it: command lines, output and exit codes.
#![allow(clippy::unwrap_used)]

mod blocked;
mod calls;
mod codecs;
mod demo;
mod disks;
mod errors;
mod kit;
mod notices;
mod schema;
mod serve;
mod serve_limits;
mod shutdown;
mod signals;
mod sounds;
mod transcribe;
