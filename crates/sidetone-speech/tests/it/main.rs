//! The crate's tests: each recognizer against a stand-in for its service, and the session they
//! share.

#[cfg(all(feature = "deepgram", feature = "vosk"))]
mod answers;
#[cfg(feature = "deepgram")]
mod deepgram;
#[cfg(feature = "google")]
mod google;
#[cfg(feature = "openai")]
mod openai;
mod session;
#[cfg(any(feature = "deepgram", feature = "vosk"))]
mod support;
#[cfg(feature = "vosk")]
mod vosk;
