//! The AudioSocket wire and the rules of a call, without I/O.
//!
//! Everything here is sans-I/O: bytes and the [`Time`] go in; bytes, events and the next timeout come out. There is no
//! socket, no clock, no thread and no `unsafe`, so every rule has a deterministic test.
//!
//! | module | what is in it |
//! |---|---|
//! | [`Kind`], [`Rate`] | the first byte of a message, and the nine sample rates it can name |
//! | [`Decoder`], [`Message`] | bytes, cut anywhere, become borrowed messages |
//! | [`Outbound`] | the only two messages a server may write |
//! | [`Playout`], [`Clip`] | the playout queue: clips, marks, utterances, and what was heard of them |
//! | [`JitterBuffer`] | live audio, made while it plays: prefill, re-centring, underruns |
//! | [`Pacer`], [`ClockRecovery`] | the 20 ms schedule, and the other side's clock, which it follows |
//! | [`CallMachine`] | the state of one call, and how to drive it |
//!
//! Facts about Asterisk were measured on release 22.10 unless a sentence says otherwise.
#![forbid(unsafe_code)]

mod call;
mod clip;
mod clock_recovery;
mod decoder;
mod encoder;
mod jitter_buffer;
mod kind;
mod message;
mod pacer;
mod playout;
mod rate;
mod time;
mod transmit;

pub use call::{
    CallConfig, CallMachine, Counters, EndReason, EndedBy, Notice, OtherProtocol, Phase, Received,
    SocketAction,
};
pub use clip::{Clip, filters_from};
pub use clock_recovery::{Arrival, Batch, ClockRecovery};
pub use decoder::{Decoded, Decoder};
pub use encoder::{HANGUP, Outbound, OutboundAudio, PayloadError, encode_samples};
pub use jitter_buffer::{JitterBuffer, Pulled};
pub use kind::{Kind, PeerErrors};
pub use message::{AudioPayload, Message};
pub use pacer::{Due, Pacer};
pub use playout::{Format, Heard, ItemId, Playout};
pub use rate::Rate;
pub use time::Time;
pub use transmit::Unsent;

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
