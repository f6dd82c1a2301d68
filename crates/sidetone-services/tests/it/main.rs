//! The stand-ins keep the rules of the real services.

#[cfg(feature = "google")]
mod google;
#[cfg(feature = "openai")]
mod openai;
