//! AudioSocket server for Asterisk: put programs on phone calls.
//!
//! Asterisk connects over TCP and sends the call's UUID. Then both sides exchange 20 ms frames of audio. This library does the
//! timing: queued audio leaves in real time. A handler that is slow, blocked or panicking delays no other call.
//!
//! This bot plays a file, then echoes until the caller presses `#`:
//!
//! ```no_run
//! use std::error::Error;
//!
//! use sidetone::{Call, Clip, Event, Server};
//!
//! async fn bot(mut call: Call, hello: Clip) -> Result<(), Box<dyn Error + Send + Sync>> {
//!     // The rate of samples that you write yourself; a clip has its own.
//!     let mut player = call.player(8_000)?;
//!     player.play_clip(&hello).await?; // ready when it is queued
//!     player.drained().await?; // ready when it has been heard
//!     let mut live = call.live();
//!     while let Some(event) = call.next().await {
//!         match event {
//!             Event::Audio(frame) => live.push(frame.samples()),
//!             Event::Dtmf('#') => break,
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn Error>> {
//!     let hello = Clip::open("hello.wav")?;
//!     let server = Server::builder().bind("127.0.0.1:9092").await?;
//!     server.serve(move |call| bot(call, hello.clone())).await?;
//!     Ok(())
//! }
//! ```
//!
//! Returning from the handler hangs up, once everything queued has been heard. [`Call::hang_up`] ends the call at once. If the caller
//! hangs up first, everything that plays fails with [`PlayError::Closed`]; `?` passes that on, and it is not logged as a failure.
//! Events wait while a handler awaits something else: every digit, and the latest 250 ms of audio.
//!
//! # Where to go from here
//!
//! - [`Server`] and [`ServerBuilder`]: listening, limits, shutting down.
//! - [`Handler`]: what a handler can be, state that all calls share, and how a handler ends.
//! - [`Call`]: its events, and what it can play: a [`Player`] for audio at any rate, an [`Utterance`] for speech that comes
//!   in pieces and may be interrupted, a [`Clip`] shared by many calls, a [`LiveAudio`] for
//!   an echo, or a relay from another call.
//! - [`Heard`]: how much of an item the caller heard; [`Playback`], [`Call::clear`] and the end of an utterance return it.
//! - [`callback`]: the same with callbacks, for programs without an async runtime.
//! - [`ivr`]: prompts that the caller can interrupt, digits, spoken messages, a bridge between two calls.
//! - [`record`]: both sides of a call in a WAV file.
//! - [`Monitor`]: what either side of a call says, frame by frame; [`MonoMix`]: one stream of it, to listen in.
//! - [`vad`]: when the caller speaks.
//!
//! # Samples
//!
//! A sample is an `i16`, mono. A call's [`Rate`] is 8 kHz unless Asterisk sends a wideband kind. A [`Player`] takes any rate
//! from 4 to 384 kHz and resamples.

mod admission;
mod call;
pub mod callback;
mod clip;
mod error;
mod event;
mod handler;
mod io_backend;
pub mod ivr;
mod live;
mod media;
mod monitor;
mod playback;
mod player;
mod playout_writer;
pub mod record;
mod server;
mod stats;
mod utterance;

pub use admission::{Admission, CallInfo, NetworkError, Networks};
pub use call::{Call, CallHandle, CallReader, CallWriter, Chunk, EventStream};
pub use clip::{Clip, ClipError};
pub use error::{CallError, HandlerError, PlayError, ServeError};
pub use event::{ClosingNotice, Codec, CodecNotice, Event, Frame, Mark, OwnedEvent, OwnedFrame};
pub use handler::{Handler, IntoOutcome, Outcome};
pub use io_backend::IoBackend;
pub use live::LiveAudio;
pub use media::{Side, Sides};
pub use monitor::{Monitor, MonoMix};
pub use playback::{Clearing, Playback, StopOnDrop, Stopping};
pub use player::Player;
pub use server::{Serve, Server, ServerBuilder, ServerHandle, Tuning};
pub use sidetone_audio::{
    resample::UnsupportedRate,
    sound::{FileName, SoundError},
    vad,
};
pub use sidetone_proto::{Counters, EndReason, EndedBy, Heard, Kind, OtherProtocol, Rate};
pub use stats::{CallStats, CallSummary, LatenessHistogram, OtherProtocols, ServerStats};
pub use utterance::Utterance;
pub use uuid::Uuid;

/// The code in the READMEs, the project's and this crate's, compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
#[doc = include_str!("../README.md")]
struct Readme;
