use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sidetone_audio::resample::{Filters, UnsupportedRate, resample_clip};

use crate::{Rate, rate::duration_of};

/// Sound prepared once, to be played by any number of calls.
///
/// There is one variant for each rate that a call can have, made when it is first asked for. A call that plays it before
/// its own rate is known needs none: it resamples slot by slot. Cloning shares.
#[derive(Clone)]
pub struct Clip {
    sounds: Arc<[Arc<Sound>]>,
    is_looped: bool,
}

/// One of the sounds that a clip plays one after the other.
pub(crate) struct Sound {
    pub(crate) samples: Arc<Vec<i16>>,
    pub(crate) filters: Arc<Filters>,
    variants: [OnceLock<Arc<Vec<i16>>>; Rate::ALL.len()],
    /// What comes before it, and after it, is itself.
    repeats: bool,
}

/// Seconds of a sound that are made twice where it repeats, as a fraction: more than any filter reaches.
const REACH: u32 = 100;

impl Clip {
    /// Mono samples at `hz` samples per second.
    ///
    /// # Errors
    ///
    /// When `hz` is not from 4 to 384 kHz.
    pub fn new(hz: u32, samples: impl Into<Vec<i16>>) -> Result<Self, UnsupportedRate> {
        let filters = filters_from(hz)?;
        let sound = Sound::new(Arc::new(samples.into()), filters, false);
        Ok(Self {
            sounds: [Arc::new(sound)].into(),
            is_looped: false,
        })
    }

    /// The clips one after the other, once each: one begins with the sample after the last one of the one before, wherever
    /// that is in a slot. They share their variants with it.
    pub fn sequence<'a>(clips: impl IntoIterator<Item = &'a Self>) -> Self {
        let sounds = clips.into_iter().flat_map(|clip| clip.sounds.iter());
        Self {
            sounds: sounds.map(Arc::clone).collect(),
            is_looped: false,
        }
    }

    /// The same without an end: behind its last sample follows its first. It plays until it is stopped. What is shorter
    /// than a millisecond is no sound, and played once.
    pub fn looped(&self) -> Self {
        let sounds = match &self.sounds[..] {
            // Made anew, so that its end and its beginning are one sound in each variant, too.
            [sound] if !sound.repeats => {
                let (samples, filters) = (Arc::clone(&sound.samples), Arc::clone(&sound.filters));
                [Arc::new(Sound::new(samples, filters, true))].into()
            }
            _ => Arc::clone(&self.sounds),
        };
        // It must come to a sample at the lowest rate, too.
        let is_long = |sound: &Arc<Sound>| sound.samples.len() >= sound.hz() as usize / 1_000;
        let is_looped = sounds.iter().any(is_long);
        Self { sounds, is_looped }
    }

    /// Whether it goes on for ever.
    pub fn is_looped(&self) -> bool {
        self.is_looped
    }

    /// How long it is, or one round of it.
    pub fn duration(&self) -> Duration {
        self.sounds.iter().map(|sound| sound.duration()).sum()
    }

    /// Whether [`prepare`](Self::prepare) has nothing to do.
    pub fn is_prepared(&self, rate: Rate) -> bool {
        self.sounds.iter().all(|sound| sound.at(rate).is_some())
    }

    /// Makes what is not made yet of its variant for `rate`, which takes about a thousandth of its duration.
    pub fn prepare(&self, rate: Rate) {
        for sound in self.sounds.iter() {
            sound.prepare(rate);
        }
    }

    pub(crate) fn sounds(&self) -> &[Arc<Sound>] {
        &self.sounds
    }
}

impl fmt::Debug for Clip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clip")
            .field("duration", &self.duration())
            .field("looped", &self.is_looped)
            .finish_non_exhaustive()
    }
}

impl Sound {
    fn new(samples: Arc<Vec<i16>>, filters: Arc<Filters>, repeats: bool) -> Self {
        Self {
            samples,
            filters,
            variants: Default::default(),
            repeats,
        }
    }

    pub(crate) fn hz(&self) -> u32 {
        self.filters.from()
    }

    fn duration(&self) -> Duration {
        duration_of(self.samples.len() as u64, u64::from(self.hz().max(1)))
    }

    /// Its variant for `rate`, if that is made.
    pub(crate) fn at(&self, rate: Rate) -> Option<&Arc<Vec<i16>>> {
        if self.hz() == rate.hz() {
            return Some(&self.samples);
        }
        self.variants[rate as usize].get()
    }

    fn prepare(&self, rate: Rate) {
        if self.at(rate).is_none() {
            self.variants[rate as usize].get_or_init(|| self.make(rate));
        }
    }

    fn make(&self, rate: Rate) -> Arc<Vec<i16>> {
        let (from, to) = (self.hz(), rate.hz());
        // The rate was tried when the sound was made; no other resampling of it can fail.
        let Some(mut resampler) = self.filters.aligned(to) else {
            return Arc::default();
        };
        if !self.repeats {
            return Arc::new(resample_clip(&self.samples, from, to).unwrap_or_default());
        }
        let (from, to) = (u64::from(from), u64::from(to));
        let length = (self.samples.len() as u64 * to + from / 2) / from;
        let reach = (from / u64::from(REACH)) as usize;
        let mut past: Vec<i16> = self
            .samples
            .iter()
            .rev()
            .copied()
            .cycle()
            .take(reach)
            .collect();
        past.reverse();
        let next: Vec<i16> = self.samples.iter().copied().cycle().take(reach).collect();
        let mut variant = Vec::with_capacity(length as usize + reach);
        resampler.restart_after(&past);
        resampler.process(&self.samples, &mut variant);
        resampler.process(&next, &mut variant);
        variant.truncate(length as usize);
        Arc::new(variant)
    }
}

/// What it takes to resample from `hz` to any rate of a call.
///
/// # Errors
///
/// When `hz` is not from 4 to 384 kHz.
pub fn filters_from(hz: u32) -> Result<Arc<Filters>, UnsupportedRate> {
    let rates = Rate::ALL.into_iter().map(Rate::hz);
    Ok(Arc::new(Filters::new(hz, rates)?))
}
