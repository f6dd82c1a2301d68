//! How loud each side of a call is, at next to no cost for the media thread.
//!
//! The media thread keeps the loudest recent frame of each side, and when that was. The reader of a level computes how far
//! it has fallen since. So a frame costs its peak and a comparison, and nobody who does not look pays for logarithms.

use sidetone_audio::level::{FLOOR_DBFS, amplitude_dbfs};
use sidetone_proto::Time;

use super::tap::Side;

/// A level falls to a third, more exactly by the factor e, in 300 ms. In decibels that is a straight line.
const FALL_DB_PER_SECOND: f32 = 28.953;

/// The same as a power of two, in 1/1024 per 1024 nanoseconds and shifted by 32: log2(e) * 1024 * 1024 ns / 300 ms.
const FALL_PER_UNIT: u64 = 21_657_736;

/// Peaks are kept with a time in units of 2^10 ns: 48 bits hold nine years of uptime.
const TIME_SHIFT: u32 = 10;

/// The level of one side in one word: the peak in the lower 16 bits, and when that was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Level(u64);

/// The levels of both sides.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Levels {
    caller: Level,
    server: Level,
}

impl Levels {
    /// Takes the peak of a frame.
    pub(super) fn put(&mut self, side: Side, at: Time, peak: u16) {
        let level = match side {
            Side::Caller => &mut self.caller,
            Side::Server => &mut self.server,
        };
        level.put(at, peak);
    }

    pub(super) fn of(&self, side: Side) -> Level {
        match side {
            Side::Caller => self.caller,
            Side::Server => self.server,
        }
    }
}

impl Level {
    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// What it has fallen to by `now`, in dBFS.
    pub(crate) fn dbfs(self, now: Time) -> f32 {
        let at = Time::from_nanos((self.0 >> 16) << TIME_SHIFT);
        let fallen = FALL_DB_PER_SECOND * (now - at).as_secs_f32();
        (amplitude_dbfs(self.peak()) - fallen).max(FLOOR_DBFS)
    }

    fn peak(self) -> u16 {
        self.0 as u16
    }

    /// Keeps the louder of `peak` and what this has fallen to.
    fn put(&mut self, at: Time, peak: u16) {
        if peak == 0 {
            return;
        }
        let at = (at.as_nanos() >> TIME_SHIFT) & (u64::MAX >> 16);
        let elapsed = at.saturating_sub(self.0 >> 16);
        let fallen = (elapsed.min(1 << 30) * FALL_PER_UNIT) >> 32;
        if self.peak() == 0 || log2(peak) + fallen >= log2(self.peak()) {
            self.0 = at << 16 | u64::from(peak);
        }
    }
}

/// The logarithm in 1/1024, at most half a decibel too low.
fn log2(peak: u16) -> u64 {
    let exponent = peak.ilog2();
    let mantissa = (u32::from(peak) << 10 >> exponent) - 1024;
    u64::from(exponent << 10 | mantissa)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(milliseconds: u64) -> Time {
        Time::ZERO + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_level_rises_at_once_and_falls_to_a_third_in_300_ms() {
        let mut level = Level::default();
        assert_eq!(level.dbfs(at(5)), FLOOR_DBFS, "nothing came yet");
        level.put(at(1_000), 16_384);
        assert!((level.dbfs(at(1_000)) + 6.02).abs() < 0.05);
        let third = level.dbfs(at(1_300));
        assert!((third + 6.02 + 8.69).abs() < 0.05, "{third}");
        // What is quieter than it has fallen to changes nothing, silence neither.
        level.put(at(1_100), 8_192);
        level.put(at(1_120), 0);
        assert_eq!(level.dbfs(at(1_300)), third);
        level.put(at(1_300), 8_192);
        assert!((level.dbfs(at(1_300)) + 12.04).abs() < 0.05);
        assert_eq!(level.dbfs(at(60_000)), FLOOR_DBFS);
    }

    #[test]
    fn it_follows_the_definition_within_a_decibel_whatever_comes() {
        let (mut level, mut exact) = (Level::default(), FLOOR_DBFS);
        let mut random = 1_u64;
        for frame in 0..20_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let peak = ((random >> 33) as u16 >> (random >> 60)).min(32_768);
            level.put(at(20 * frame), peak);
            exact -= FALL_DB_PER_SECOND * 0.02;
            exact = exact.max(amplitude_dbfs(peak));
            let shown = level.dbfs(at(20 * frame));
            assert!((shown - exact).abs() < 1.0, "{frame}: {shown}, not {exact}");
        }
    }

    #[test]
    fn the_loudest_and_the_latest_fit_in_the_word() {
        let mut level = Level::default();
        let late = Time::ZERO + Duration::from_secs(8 * 365 * 86_400);
        level.put(late, 32_768);
        assert_eq!(level.dbfs(late), 0.0);
        assert_eq!(Level::from_bits(level.to_bits()), level);
        let mut quiet = Level::default();
        quiet.put(late, 1);
        assert!((quiet.dbfs(late) + 90.3).abs() < 0.05);
        quiet.put(late + Duration::from_secs(86_400), 1);
        assert!(quiet.dbfs(late + Duration::from_secs(86_400)) > -90.4);
    }
}
