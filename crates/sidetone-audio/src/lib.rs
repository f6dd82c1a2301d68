//! Telephone sound: G.711, resampling, sound files, levels, voice activity.
//!
//! Everywhere in this crate a *sample* is a mono `i16` (Asterisk's *slin*) and a *rate* is samples
//! per second as `u32`. Nothing here uses sockets, clocks or threads.
//!
//! | module | what it does |
//! |---|---|
//! | [`g711`] | µ-law and A-law, both ways |
//! | [`detect`] | which codec an unnamed stream has: slin, µ-law, A-law or neither |
//! | [`resample`] | resampling between any two rates, of a stream or a whole clip |
//! | [`sound`] | reads sound files |
//! | [`level`] | levels in dBFS |
//! | [`tone`] | the demonstration's sounds |
//! | [`vad`] | voice activity: when somebody speaks |
//! | [`wav`] | writes a WAV file that survives the end of the process |
#![forbid(unsafe_code)]

pub mod detect;
pub mod g711;
pub mod level;
pub mod resample;
pub mod sound;
pub mod tone;
pub mod vad;
pub mod wav;

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
