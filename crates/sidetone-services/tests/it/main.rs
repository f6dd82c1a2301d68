//! The stand-ins refuse what the real services refuse.

#[cfg(feature = "google")]
mod google;
#[cfg(feature = "openai")]
mod openai;
#[cfg(feature = "realtime")]
mod realtime;
