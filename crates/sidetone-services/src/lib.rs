//! Stand-ins for speech services, for tests: each speaks its service's protocol and refuses what the real
//! one refuses. Behind a feature each, as their protocols' crates are big.
//!
//! None of them recognises speech. What [`speak`] says, an [`Ear`] understands exactly, letter by letter and
//! with its times, so a test can judge what was lost, came twice or was put in the wrong place.

#[cfg(feature = "deepgram")]
pub mod deepgram;
#[cfg(feature = "google")]
pub mod google;
mod heard;
#[cfg(feature = "openai")]
pub mod openai;
#[cfg(feature = "vosk")]
pub mod vosk;
#[cfg(feature = "_websocket")]
#[cfg_attr(
    not(feature = "deepgram"),
    allow(dead_code, reason = "only Deepgram is told anything in the request")
)]
mod websocket;

pub use heard::{Ear, Heard, Word, speak, spoken, text};
#[cfg(feature = "_websocket")]
pub use websocket::Trouble;
