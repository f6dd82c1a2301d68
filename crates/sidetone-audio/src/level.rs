//! How loud a sound is, in decibels below full scale.
//!
//! 0 dBFS is the loudest possible sample, and for power a full-scale square wave. A full-scale sine
//! has a peak of 0 and an RMS of −3.01 dBFS. (This is ITU-T's dBov; AES17 puts the sine at 0.) No
//! level is below [`FLOOR_DBFS`], so that every level can be drawn, and written as JSON.

use std::time::Duration;

/// The level of digital silence. The lowest peak above it, a single step, is −90.3 dBFS.
pub const FLOOR_DBFS: f32 = -96.0;

/// The peak level, in dBFS.
///
/// ```
/// use sidetone_audio::level::{FLOOR_DBFS, peak_dbfs, rms_dbfs};
///
/// assert_eq!(peak_dbfs(&[0, i16::MIN, 5]), 0.0);
/// assert_eq!(rms_dbfs(&[0; 160]), FLOOR_DBFS);
/// ```
pub fn peak_dbfs(samples: &[i16]) -> f32 {
    amplitude_dbfs(peak(samples))
}

/// The largest distance from zero, at most 32768.
///
/// ```
/// assert_eq!(sidetone_audio::level::peak(&[3, -7, 5]), 7);
/// ```
pub fn peak(samples: &[i16]) -> u16 {
    // Two extremes instead of one distance: every processor has an instruction for eight of these.
    let (low, high) = samples
        .iter()
        .fold((0, 0), |(low, high): (i16, i16), &sample| {
            (low.min(sample), high.max(sample))
        });
    low.unsigned_abs().max(high.unsigned_abs())
}

/// The level of an amplitude of which 32768 is full scale, in dBFS.
///
/// ```
/// assert_eq!(sidetone_audio::level::amplitude_dbfs(32_768), 0.0);
/// ```
pub fn amplitude_dbfs(amplitude: u16) -> f32 {
    decibels(f64::from(amplitude) / FULL_SCALE)
}

/// The level of the mean power, in dBFS.
pub fn rms_dbfs(samples: &[i16]) -> f32 {
    let power: u64 = samples
        .iter()
        .map(|&sample| u64::from(sample.unsigned_abs()).pow(2))
        .sum();
    decibels((power as f64 / samples.len().max(1) as f64).sqrt() / FULL_SCALE)
}

const FULL_SCALE: f64 = 32_768.0;

fn decibels(ratio: f64) -> f32 {
    ((20.0 * ratio.log10()) as f32).max(FLOOR_DBFS)
}

/// A level meter for display: it rises at once and falls slowly.
///
/// ```
/// use sidetone_audio::level::{FLOOR_DBFS, Meter};
///
/// let mut meter = Meter::new(8000);
/// meter.push(&[i16::MIN; 160]);
/// assert_eq!(meter.dbfs(), 0.0);
/// meter.push(&[0; 8000]);
/// assert_eq!(meter.dbfs(), -24.0);
/// ```
#[derive(Debug, Clone)]
pub struct Meter {
    rate: u32,
    dbfs: f32,
}

/// Slow enough to read, fast enough to fall between words.
const FALL_DB_PER_SECOND: f32 = 24.0;

impl Meter {
    /// A meter at rest, for samples at this rate in Hz.
    pub fn new(rate: u32) -> Self {
        Self {
            rate,
            dbfs: FLOOR_DBFS,
        }
    }

    /// Takes samples, usually one frame, and shows their RMS if it is above the level shown.
    pub fn push(&mut self, samples: &[i16]) {
        let time = Duration::from_secs(samples.len() as u64) / self.rate.max(1);
        let fallen = self.dbfs - FALL_DB_PER_SECOND * time.as_secs_f32();
        self.dbfs = rms_dbfs(samples).max(fallen);
    }

    /// The level shown, in dBFS.
    pub fn dbfs(&self) -> f32 {
        self.dbfs
    }
}
