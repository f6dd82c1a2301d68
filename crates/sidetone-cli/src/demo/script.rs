//! What the caller of the demonstration does, and when.

use std::time::Duration;

use sidetone_audio::tone;

pub(super) const FILE: &str = "demo.wav";
/// The sample rate, in Hz.
pub(super) const RATE: u32 = 8_000;
/// When the caller starts to speak, after the greeting.
pub(super) const SPEAKS_AT: Duration = Duration::from_millis(2_400);
pub(super) const SPEAKS_FOR: Duration = Duration::from_millis(3_200);
pub(super) const DIGITS: &str = "42#";
pub(super) const PRESSES_AT: Duration = Duration::from_millis(5_900);
pub(super) const HANGS_UP_AT: Duration = Duration::from_millis(7_000);
/// The level from which on a frame is audible, in dBFS.
pub(super) const AUDIBLE_DBFS: f32 = -50.0;

const VOICE_SEED: u64 = 7;

/// What the caller says.
pub(super) fn voice() -> Vec<i16> {
    tone::caller_voice(RATE, SPEAKS_FOR, VOICE_SEED)
}

pub(super) fn greeting() -> Vec<i16> {
    tone::greeting(RATE)
}

pub(super) fn samples_in(time: Duration) -> usize {
    (time.as_millis() * u128::from(RATE) / 1000) as usize
}
