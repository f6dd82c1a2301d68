//! Plays the part of Asterisk on an AudioSocket connection.
//!
//! A [`Caller`] connects to an AudioSocket server, sends its UUID and then frames on a clock of its own. It ends the call
//! for exactly the reasons for which Asterisk does, so a test finds a server's mistakes without a telephone. One call
//! blocks its thread ([`Caller::call`]); any number of calls run on one thread ([`call_all`]).
//!
//! | subject | items |
//! |---|---|
//! | what a caller sends and does | [`Caller`], [`Voice`], [`Codec`], [`Mode`] |
//! | how Asterisk behaves, by version | [`Generation`], [`Rules`] |
//! | one call without I/O, in virtual time | [`Leg`] |
//! | the result of a call | [`CallRecord`], [`Ended`], [`EndCause`] |
//! | checks of the result | [`CallRecord::echo_delays`], [`CallRecord::lateness`], [`exact_runs`] |
//!
//! The rules were measured on Asterisk 22.10.1, or read in its source where a sentence says so. The crate `sidetone-load`
//! places thousands of calls to measure a server.
#![forbid(unsafe_code)]

mod caller;
mod codec;
mod end;
mod error;
mod event;
mod event_loop;
mod generation;
mod leg;
mod noise;
mod receiver;
mod record;
mod runs;
mod socket;
mod spacing;
mod stop;
mod voice;

pub use caller::Caller;
pub use codec::Codec;
pub use end::{EndCause, Ended};
pub use error::CallerError;
pub use event::Event;
pub use event_loop::{call_all, call_all_until};
pub use generation::{Generation, HeaderRead, Mode, OnFin, OnForbidden, OnHangup, Rules};
pub use leg::{Leg, Step};
pub use record::{CallRecord, Counts, Heard, Sent, SentDigit};
pub use runs::{EchoDelay, Run, exact_runs};
pub use sidetone_proto::EndedBy;
pub use spacing::{Gap, Spread};
pub use stop::Stop;
pub use voice::{Voice, ramp};

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
