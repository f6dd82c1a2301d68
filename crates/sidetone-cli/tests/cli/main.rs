//! The `sidetone` command as its users have it: what they type, what they read, which exit code comes.
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
mod shutdown;
mod signals;
mod sounds;
mod transcribe;
