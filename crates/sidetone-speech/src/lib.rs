//! Streaming speech recognizers behind one trait, for live calls.
//!
//! [`transcribe`] takes the audio of a call and a [`Recognizer`], and gives [`Transcript`]s with times on the
//! call's own clock. Each service is an engine behind a cargo feature of its name; none is on by default.

mod audio;
#[cfg(feature = "deepgram")]
pub mod deepgram;
mod error;
#[cfg(feature = "google")]
pub mod google;
mod losses;
#[cfg(feature = "openai")]
pub mod openai;
mod recognizer;
mod session;
mod tape;
mod timeline;
#[cfg(any(feature = "_websocket", feature = "openai"))]
mod tls;
mod transcript;
#[cfg(feature = "vosk")]
pub mod vosk;
#[cfg(feature = "_websocket")]
mod websocket;
#[cfg(any(feature = "_websocket", feature = "google", feature = "openai"))]
mod words;

pub use audio::Audio;
pub use error::SpeechError;
pub use recognizer::{Format, Recognizer};
pub use session::{SpeechEvent, SpeechEvents, SpeechInput, Transcripts, transcribe};
pub use transcript::{Transcript, Word};

pub use sidetone_audio::g711::Law;

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
