//! From any rate to any other, as a stream or a whole clip.
//!
//! A polyphase filter of windowed-sinc (Kaiser) shape, 36 samples of the lower rate long. It lets
//! through what lies below 0.425 of the lower rate (3.4 kHz at 8 kHz) and stops, as G.712 asks of
//! telephone equipment, what lies above 0.575 of it (4.6 kHz); what is between 4.0 and 4.6 kHz
//! lands, more and more damped, between 3.4 and 4.0 kHz. Ratios of more than 1024 phases, which no
//! two usual rates have, are interpolated between 512.
//!
//! Measured from outside with full-scale sines over all 72 pairs of the nine AudioSocket rates
//! (`tests/resample_quality.rs`, which also prints each pair):
//!
//! | pairs | ripple up to 0.425 | aliases and images | delay |
//! |---|---|---|---|
//! | 8 kHz to any | ±0.0004 dB | −87.7 dB | 2.25 ms |
//! | any to 8 kHz | ±0.0004 dB | −83.5 dB | 2.25 ms, from 44.1 kHz 2.27 ms |
//! | worst of all | ±0.0005 dB | −83.5 dB | 18 samples of the lower rate, in whole input samples |
//!
//! Cost of a 20 ms frame (`cargo bench -p sidetone-audio`, one core of an EPYC VM, plain x86-64):
//! 8 to 16 kHz 1.3 µs, 16 to 8 kHz 2.0 µs, 24 to 8 kHz 2.9 µs, 48 to 8 kHz 6.0 µs, and 8 to 10 µs
//! with 44.1 kHz on either side. Memory of a stream: 1.6 KiB between 8 and 16 kHz; the coefficients
//! (at most 100 KiB for a pair of the nine rates, 288 bytes from 8 to 16 kHz) are shared by all
//! streams of a ratio.
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

/// A rate that is no sound's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{rate} Hz can't be resampled: give a rate between {MIN_RATE} and {MAX_RATE} Hz")]
pub struct UnsupportedRate {
    /// The rate that was asked for, in Hz.
    pub rate: u32,
}

/// What pushes the last samples out of a filter, in pieces.
const SILENCE: [i16; 256] = [0; 256];

/// Resamples one stream.
///
/// The output depends on the input alone, not on how it is cut, so frames of any length join
/// without a click. After the first calls nothing is allocated. Equal rates copy, bit by bit and
/// without delay.
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
    /// Input samples that the first output waits for, besides its own.
    lead: usize,
    /// `None` where there is nothing to do.
    stream: Option<Stream>,
}

impl Resampler {
    /// A stream from one rate to another, in Hz.
    ///
    /// The first of a ratio in this process computes its filter (up to some milliseconds); all
    /// others share it.
    ///
    /// # Errors
    ///
    /// A rate outside [`MIN_RATE`]`..=`[`MAX_RATE`].
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

    /// A stream that is not late: its n-th output sample is the sound of the frame n / `to`, as in a
    /// [resampled clip](resample_clip). So it comes when [`delay`](Self::delay) more of the input has come,
    /// and [`flush`](Self::flush) brings the last ones. With those, n input samples give ⌈n · to / from⌉.
    ///
    /// # Errors
    ///
    /// A rate outside [`MIN_RATE`]`..=`[`MAX_RATE`].
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

    /// Begins anew in the middle of a sound, of which `past` came before: the next input is what follows
    /// it, and so is the next output. More of the past than [`delay`](Self::delay) changes nothing.
    pub fn restart_after(&mut self, past: &[i16]) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        // What is dealt out to rows begins with the first of them.
        let past = &past[past.len() % self.ratio.lanes()..];
        stream.restart(self.lead + past.len());
        // All of it comes before the first output.
        stream.process(past, &mut Vec::new());
    }

    /// Takes input of any length and appends the output that is complete.
    ///
    /// After n input samples ⌈n · to / from⌉ output samples have come.
    pub fn process(&mut self, input: &[i16], out: &mut Vec<i16>) {
        match &mut self.stream {
            None => out.extend_from_slice(input),
            Some(stream) => stream.process(input, out),
        }
    }

    /// Ends the stream: appends what is still on its way through the filter ([`delay`](Self::delay)
    /// of it), and begins anew.
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

    /// How much later a sound comes out than it went in, besides its being cut into frames.
    pub fn delay(&self) -> Duration {
        let samples = self.delay_in_samples() / f64::from(self.ratio.up);
        Duration::from_secs_f64(samples * f64::from(self.ratio.down) / f64::from(self.from))
    }

    /// [`delay`](Self::delay) in output samples; not a whole number for every pair of rates.
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

/// What is needed to resample from one rate to some others, computed beforehand: where a stream's rate turns out in the
/// middle of it, a [`Resampler`] is made of this without computing anything and without waiting for anybody.
#[derive(Debug, Clone)]
pub struct Filters {
    from: u32,
    /// None where there is nothing to do.
    to: Box<[(u32, Option<Arc<Filter>>)]>,
}

impl Filters {
    /// Computes what this process has not used yet, some milliseconds for each pair of rates.
    ///
    /// # Errors
    ///
    /// A rate outside [`MIN_RATE`]`..=`[`MAX_RATE`].
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

    /// As [`Resampler::aligned`], to one of the rates that this was made for; `None` for another.
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

/// Resamples a whole sound: not delayed, and exactly n · `to` / `from` samples long, rounded.
///
/// # Errors
///
/// A rate outside [`MIN_RATE`]`..=`[`MAX_RATE`].
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
