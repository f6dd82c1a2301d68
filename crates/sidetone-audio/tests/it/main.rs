//! The crate's tests, all in one binary but for those of how much memory is taken, which count what a process takes.

mod detect;
mod g711;
mod level;
mod line;
#[cfg(feature = "compressed")]
mod odd_compressed;
mod odd_wav;
mod resample;
mod resample_quality;
mod sound;
mod tone;
mod vad;
mod wav;
