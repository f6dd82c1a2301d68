//! The result of reading a sound: its samples so far, and the flaws found.

use std::io;

use super::{Flaw, Loaded, Sound, SoundError, error::FileName};
use crate::resample::{MAX_RATE, MIN_RATE, resample_clip};

/// The most samples of a sound: 512 MiB, which are 9 hours at 8 kHz or 90 minutes at 48 kHz.
pub(super) const MAX_SAMPLES: usize = 1 << 28;

/// Why a sound can't be read. The file's name is added later.
#[derive(Debug)]
pub(super) enum ReadError {
    Io(io::Error),
    Unsupported(String),
    Contradictory(String),
    TooLong,
    /// Of no known format.
    NotSound,
    #[cfg(not(feature = "compressed"))]
    NotBuiltIn(&'static str),
    /// Headerless, and not what its extension says.
    Misnamed {
        holds: &'static str,
        extensions: &'static str,
    },
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl ReadError {
    pub(super) fn with_name(self, name: FileName) -> SoundError {
        match self {
            Self::Io(source) => SoundError::Unreadable { name, source },
            Self::Unsupported(encoding) => SoundError::Unsupported { name, encoding },
            Self::Contradictory(fields) => SoundError::Contradictory { name, fields },
            Self::TooLong => SoundError::TooLong { name },
            Self::NotSound => SoundError::NotSound { name },
            #[cfg(not(feature = "compressed"))]
            Self::NotBuiltIn(format) => SoundError::NotBuiltIn { name, format },
            Self::Misnamed { holds, extensions } => SoundError::Misnamed {
                name,
                holds,
                extensions,
            },
        }
    }
}

/// Collects the samples of all parts of a sound, at the rate of the first.
#[derive(Debug)]
pub(super) struct Collector {
    samples: Vec<i16>,
    rate: u32,
    /// Where the current part begins, and its rate.
    part_at: usize,
    part_rate: u32,
    max: usize,
    pub(super) flaws: Vec<Flaw>,
}

impl Collector {
    pub(super) fn new() -> Self {
        Self::up_to(MAX_SAMPLES)
    }

    pub(super) fn up_to(max: usize) -> Self {
        Self {
            samples: Vec::new(),
            rate: 0,
            part_at: 0,
            part_rate: 0,
            max,
            flaws: Vec::new(),
        }
    }

    /// Begins a part of about this many samples, which may have another rate.
    pub(super) fn begin(&mut self, rate: u32, about: u64) -> Result<(), ReadError> {
        if !(MIN_RATE..=MAX_RATE).contains(&rate) {
            return Err(ReadError::Unsupported(format!("sound at {rate} Hz")));
        }
        if self.rate == 0 {
            self.rate = rate;
        }
        if rate != self.part_rate {
            self.resample_part();
            self.part_rate = rate;
        }
        let about = usize::try_from(about).unwrap_or(usize::MAX);
        if about > self.max.saturating_sub(self.samples.len()) {
            return Err(ReadError::TooLong);
        }
        // A header may claim more than follows, but no more than the limit is reserved.
        self.samples.reserve_exact(about);
        Ok(())
    }

    pub(super) fn add(&mut self, samples: impl Iterator<Item = i16>) -> Result<(), ReadError> {
        self.samples.extend(samples);
        match self.samples.len() > self.max {
            true => Err(ReadError::TooLong),
            false => Ok(()),
        }
    }

    /// Samples so far.
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// Resamples the part that ends here to the common rate.
    fn resample_part(&mut self) {
        if self.part_rate != self.rate && self.samples.len() > self.part_at {
            let part = self.samples.split_off(self.part_at);
            // Both rates were checked when their parts began.
            let part = resample_clip(&part, self.part_rate, self.rate).unwrap_or_default();
            self.samples.extend(part);
        }
        self.part_at = self.samples.len();
    }

    pub(super) fn finish(mut self) -> Loaded {
        self.resample_part();
        self.samples.shrink_to_fit();
        Loaded {
            sound: Sound {
                samples: self.samples,
                rate: self.rate,
            },
            flaws: self.flaws,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn decoding_stops_at_the_limit() {
        let mut collector = Collector::up_to(1000);
        collector.begin(8000, 0).unwrap();
        collector.add([0; 900].into_iter()).unwrap();
        let error = collector.add([0; 101].into_iter()).unwrap_err();
        assert!(matches!(error, ReadError::TooLong), "{error:?}");
        let error = Collector::up_to(1000).begin(8000, 1001).unwrap_err();
        assert!(matches!(error, ReadError::TooLong), "{error:?}");
    }
}
