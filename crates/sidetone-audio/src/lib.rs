//! Telephone sound: G.711, resampling, sound files, levels, voice activity.
//!
//! Everywhere in this crate a *sample* is a mono `i16` (Asterisk's *slin*), a *rate* is samples per
//! second as `u32`, and nothing here knows of sockets, clocks or threads.
//!
//! | module | what it does |
//! |---|---|
//! | [`g711`] | µ-law and A-law, both ways |
//! | [`detect`] | what an unnamed stream is: slin, µ-law, A-law or neither |
//! | [`resample`] | any rate to any rate, as a stream or a whole clip |
//! | [`sound`] | reads sound files |
//! | [`level`] | how loud, in dBFS |
//! | [`tone`] | what the demonstration sounds of |
//! | [`vad`] | when somebody speaks |
//! | [`wav`] | writes a WAV file that survives the death of its writer |
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
