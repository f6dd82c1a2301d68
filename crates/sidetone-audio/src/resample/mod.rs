//! Resampling between any two rates, of a stream or a whole clip.
//!
//! A polyphase filter with a Kaiser-windowed sinc, 36 samples of the lower rate long. Its passband
//! ends at 0.425 of the lower rate (3.4 kHz at 8 kHz). Its stop band starts at 0.575 (4.6 kHz), as
//! G.712 requires of telephone equipment. What is between 4.0 and 4.6 kHz aliases, increasingly
//! damped, to 3.4 to 4.0 kHz. Ratios with more than 1024 phases, which no two usual rates have, are
//! interpolated between 512.
//!
//! Measured with full-scale sines over all 72 pairs of the nine AudioSocket rates
//! (`tests/it/resample_quality.rs`, which also prints each pair):
//!
//! | pairs | ripple up to 0.425 | aliases and images | delay |
//! |---|---|---|---|
//! | 8 kHz to any | ±0.0004 dB | −87.7 dB | 2.25 ms |
//! | any to 8 kHz | ±0.0004 dB | −83.5 dB | 2.25 ms, from 44.1 kHz 2.27 ms |
//! | worst of all | ±0.0005 dB | −83.5 dB | 18 samples of the lower rate, in whole input samples |
//!
//! Cost of a 20 ms frame (`cargo bench -p sidetone-audio`, one core of an EPYC VM, plain x86-64): 8
//! to 16 kHz 1.3 µs, 16 to 8 kHz 2.0 µs, 24 to 8 kHz 2.9 µs, 48 to 8 kHz 6.0 µs, and 8 to 10 µs
//! with 44.1 kHz on either side. A stream between 8 and 16 kHz takes 1.6 KiB. The coefficients (at
//! most 100 KiB for a pair of the nine rates, 288 bytes from 8 to 16 kHz) are shared by all streams
//! of a ratio.
mod filter;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use self::filter::{Filter, Ratio};
use self::stream::Stream;

/// The lowest rate that can be resampled, in Hz.
pub const MIN_RATE: u32 = 4_000;
/// The highest rate that can be resampled, in Hz.
pub const MAX_RATE: u32 = 384_000;

/// A rate that can't be resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{rate} Hz can't be resampled: give a rate between {MIN_RATE} and {MAX_RATE} Hz")]
pub struct UnsupportedRate {
    /// The rate given, in Hz.
    pub rate: u32,
}

/// Pushes the last samples out of a filter, piece by piece.
const SILENCE: [i16; 256] = [0; 256];

/// Resamples one stream.
///
/// The output depends on the input alone, not on how it is split, so frames of any length join
/// without a click. Once warm it allocates nothing. Equal rates copy bit by bit, without delay.
///
/// ```
/// use sidetone_audio::resample::Resampler;
///
/// let mut resampler = Resampler::new(16_000, 8_000)?;
/// let mut out = Vec::new();
/// for frame in [[0i16; 320]; 3] {
///     resampler.process(&frame, &mut out);
/// }
/// assert_eq!(out.len(), 3 * 160);
/// assert_eq!(resampler.delay().as_micros(), 2250);
/// # Ok::<(), sidetone_audio::resample::UnsupportedRate>(())
/// ```
#[derive(Debug, Clone)]
pub struct Resampler {
    from: u32,
    ratio: Ratio,
    /// Input samples that the first output skips.
    lead: usize,
    /// `None` if the rates are equal.
    stream: Option<Stream>,
}

impl Resampler {
    /// A stream from one rate to another, in Hz.
    ///
    /// The first stream of a ratio in this process computes the filter, in up to some milliseconds.
    /// All others share it.
    ///
    /// # Errors
    ///
    /// [`UnsupportedRate`] for a rate outside [`MIN_RATE`]`..=`[`MAX_RATE`].
    pub fn new(from: u32, to: u32) -> Result<Self, UnsupportedRate> {
        for rate in [from, to] {
            if !(MIN_RATE..=MAX_RATE).contains(&rate) {
                return Err(UnsupportedRate { rate });
            }
        }
        let ratio = Ratio::new(from, to);
        Ok(Self {
            from,
            ratio,
            lead: 0,
            stream: (from != to).then(|| Stream::new(ratio, Filter::shared(ratio))),
        })
    }

    /// A stream without delay: output sample n is the sound at the time n / `to`, as in a
    /// [resampled clip](resample_clip). So it comes [`delay`](Self::delay) later, and
    /// [`flush`](Self::flush) gives the last ones. With those, n input samples give ⌈n · to /
    /// from⌉.
    ///
    /// # Errors
    ///
    /// [`UnsupportedRate`] for a rate outside [`MIN_RATE`]`..=`[`MAX_RATE`].
    ///
    /// ```
    /// use sidetone_audio::resample::Resampler;
    ///
    /// let mut resampler = Resampler::aligned(16_000, 8_000)?;
    /// let mut out = Vec::new();
    /// resampler.process(&[500; 320], &mut out);
    /// assert_eq!(out.len(), 160 - 18);
    /// resampler.flush(&mut out);
    /// assert_eq!(out.len(), 160);
    /// # Ok::<(), sidetone_audio::resample::UnsupportedRate>(())
    /// ```
    pub fn aligned(from: u32, to: u32) -> Result<Self, UnsupportedRate> {
        let mut resampler = Self::new(from, to)?;
        resampler.align();
        Ok(resampler)
    }

    fn align(&mut self) {
        self.lead = self.ratio.delay() as usize;
        self.restart_after(&[]);
    }

    /// Restarts in the middle of a sound, after `past`: the next input continues it, and so does
    /// the next output. Only as much of `past` as [`delay`](Self::delay) matters.
    pub fn restart_after(&mut self, past: &[i16]) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        // Interleaving starts with the first row.
        let past = &past[past.len() % self.ratio.lanes()..];
        stream.restart(self.lead + past.len());
        // The first output comes after all of it.
        stream.process(past, &mut Vec::new());
    }

    /// Takes input of any length and appends the output it completes.
    ///
    /// After n input samples there are ⌈n · to / from⌉ output samples.
    pub fn process(&mut self, input: &[i16], out: &mut Vec<i16>) {
        match &mut self.stream {
            None => out.extend_from_slice(input),
            Some(stream) => stream.process(input, out),
        }
    }

    /// Ends the stream: appends what the filter still holds, [`delay`](Self::delay) of it, and
    /// starts anew.
    pub fn flush(&mut self, out: &mut Vec<i16>) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let mut rest = self.ratio.delay() as usize;
        while rest > 0 {
            let part = rest.min(SILENCE.len());
            stream.process(&SILENCE[..part], out);
            rest -= part;
        }
        stream.restart(self.lead);
    }

    /// How much later a sound comes out than it went in, besides the length of a frame.
    pub fn delay(&self) -> Duration {
        let samples = self.delay_in_samples() / f64::from(self.ratio.up);
        Duration::from_secs_f64(samples * f64::from(self.ratio.down) / f64::from(self.from))
    }

    /// [`delay`](Self::delay) in output samples, which is not an integer for every pair of rates.
    pub fn delay_in_samples(&self) -> f64 {
        match self.stream {
            None => 0.0,
            Some(_) => {
                let Ratio { up, down } = self.ratio;
                self.ratio.delay() as f64 * f64::from(up) / f64::from(down)
            }
        }
    }
}

/// The filters from one rate to some others, computed in advance. If a stream's rate becomes known
/// in the middle of it, a [`Resampler`] is made from this without computing anything or taking a
/// lock.
#[derive(Debug, Clone)]
pub struct Filters {
    from: u32,
    /// `None` if the rates are equal.
    to: Box<[(u32, Option<Arc<Filter>>)]>,
}

impl Filters {
    /// Computes the filters that this process has not used yet, some milliseconds for each pair of
    /// rates.
    ///
    /// # Errors
    ///
    /// [`UnsupportedRate`] for a rate outside [`MIN_RATE`]`..=`[`MAX_RATE`].
    pub fn new(from: u32, to: impl IntoIterator<Item = u32>) -> Result<Self, UnsupportedRate> {
        let filter = |to| {
            let stream = Resampler::new(from, to)?.stream;
            Ok((to, stream.map(Stream::into_filter)))
        };
        let to = to.into_iter().map(filter).collect::<Result<_, _>>()?;
        Ok(Self { from, to })
    }

    /// The rate of the input, in Hz.
    pub fn from(&self) -> u32 {
        self.from
    }

    /// As [`Resampler::aligned`], to one of the rates that this was made for. `None` for any other.
    pub fn aligned(&self, to: u32) -> Option<Resampler> {
        let (_, filter) = self.to.iter().find(|(rate, _)| *rate == to)?;
        let ratio = Ratio::new(self.from, to);
        let mut resampler = Resampler {
            from: self.from,
            ratio,
            lead: 0,
            stream: filter
                .as_ref()
                .map(|filter| Stream::new(ratio, Arc::clone(filter))),
        };
        resampler.align();
        Some(resampler)
    }
}

/// Resamples a whole sound: without delay, and exactly n · `to` / `from` samples long, rounded.
///
/// # Errors
///
/// [`UnsupportedRate`] for a rate outside [`MIN_RATE`]`..=`[`MAX_RATE`].
///
/// ```
/// let clip = sidetone_audio::resample::resample_clip(&[0; 441], 44_100, 8_000)?;
/// assert_eq!(clip.len(), 80);
/// # Ok::<(), sidetone_audio::resample::UnsupportedRate>(())
/// ```
pub fn resample_clip(samples: &[i16], from: u32, to: u32) -> Result<Vec<i16>, UnsupportedRate> {
    let mut resampler = Resampler::aligned(from, to)?;
    let Some(stream) = &mut resampler.stream else {
        return Ok(samples.to_vec());
    };
    let (from, to) = (u64::from(from), u64::from(to));
    let len = (samples.len() as u64 * to + from / 2) / from;
    let mut out = Vec::with_capacity(len as usize);
    stream.process(samples, &mut out);
    while out.len() < len as usize {
        stream.process(&SILENCE, &mut out);
    }
    out.truncate(len as usize);
    Ok(out)
}
