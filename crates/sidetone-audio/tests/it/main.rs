//! The crate's tests in one binary, except those that measure memory, since they count what the
//! whole process takes.

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
