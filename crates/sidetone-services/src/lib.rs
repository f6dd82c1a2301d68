//! Stand-ins for speech services, for tests. Each speaks its service's protocol and refuses what
//! the real service refuses. Each is behind a feature, as the protocols' crates are big.
//!
//! None of them recognizes speech. [`synthesize`] turns letters into tones, and [`ToneDecoder`]
//! decodes them exactly, with their times, so a test can tell what was lost, repeated or misplaced.

#[cfg(feature = "deepgram")]
pub mod deepgram;
#[cfg(feature = "google")]
pub mod google;
#[cfg(feature = "openai")]
pub mod openai;
#[cfg(feature = "realtime")]
pub mod realtime;
mod tone_speech;
#[cfg(feature = "vosk")]
pub mod vosk;
#[cfg(feature = "_websocket")]
#[cfg_attr(
    not(feature = "deepgram"),
    allow(dead_code, reason = "only Deepgram uses all of it")
)]
mod websocket;

pub use tone_speech::{Recognized, ToneDecoder, Word, synthesize, text, word_times};
#[cfg(feature = "_websocket")]
pub use websocket::Fault;
