//! Plays the part of Asterisk on an AudioSocket connection.
//!
//! A [`Caller`] connects to an AudioSocket server, says its UUID, sends frames on a clock of its own, and
//! dies of exactly what Asterisk dies of, so that a test or a user sees a server's mistake before a
//! telephone does. One call blocks its thread ([`Caller::call`]); any number run from one thread
//! ([`call_all`]).
//!
//! | what | where |
//! |---|---|
//! | what a caller says and does | [`Caller`], [`Voice`], [`Codec`], [`Mode`] |
//! | how Asterisk behaves, by version | [`Generation`], [`Rules`] |
//! | one call without I/O, in virtual time | [`Leg`] |
//! | what became of it | [`CallRecord`], [`Ended`], [`Why`] |
//! | judging it | [`CallRecord::echo_delays`], [`CallRecord::lateness`], [`exact_runs`] |
//!
//! The rules were measured on Asterisk 22.10.1, and read in its source where a sentence says so.
#![forbid(unsafe_code)]

mod caller;
mod codec;
mod driver;
mod ear;
mod ending;
mod error;
mod event;
mod exact;
mod generation;
mod leg;
mod noise;
mod record;
mod rhythm;
mod socket;
mod stop;
mod voice;

pub use caller::Caller;
pub use codec::Codec;
pub use driver::{call_all, call_all_until};
pub use ending::{Ended, Why};
pub use error::CallerError;
pub use event::Event;
pub use exact::{EchoDelay, Run, exact_runs};
pub use generation::{Generation, HeaderRead, Mode, OnFin, OnForbidden, OnHangup, Rules};
pub use leg::{Leg, Step};
pub use record::{CallRecord, Counts, Heard, Sent, SentDigit};
pub use rhythm::{Gap, Spread};
pub use sidetone_proto::EndedBy;
pub use stop::Stop;
pub use voice::{Voice, ramp};
