//! Streaming speech recognizers behind one trait, for live calls.
//!
//! [`transcribe`] takes the audio of a call and a [`Recognizer`], and gives [`Transcript`]s with times on
//! the call's clock. Each provider's recognizer is behind a cargo feature of the provider's name. None is
//! on by default.
//!
//! | feature | recognizer |
//! |---|---|
//! | `deepgram` | Deepgram's live transcription |
//! | `google` | Google Cloud Speech-to-Text v2 |
//! | `openai` | OpenAI's transcriptions, and the servers that implement its protocol |
//! | `vosk` | a Vosk server |

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
mod replay_buffer;
mod session;
mod timeline;
mod transcript;
#[cfg(feature = "vosk")]
pub mod vosk;
#[cfg(feature = "_websocket")]
mod websocket;

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
