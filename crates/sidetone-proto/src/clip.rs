use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sidetone_audio::resample::{Filters, UnsupportedRate, resample_clip};

use crate::{Rate, rate::duration_of};

/// A sound that is prepared once and played by any number of calls.
///
/// A clip has a resampled variant for each rate of a call, made when it is first [prepared](Self::prepare). A call at a
/// rate without a variant resamples slot by slot. Clones share their samples.
#[derive(Clone)]
pub struct Clip {
    sounds: Arc<[Arc<Sound>]>,
    is_looped: bool,
}

/// One of the sounds of a clip, which play one after the other.
pub(crate) struct Sound {
    pub(crate) samples: Arc<Vec<i16>>,
    pub(crate) filters: Arc<Filters>,
    variants: [OnceLock<Arc<Vec<i16>>>; Rate::ALL.len()],
    /// It is looped alone: its own end comes before it, and its beginning after it.
    is_loop: bool,
}

/// A looped sound is resampled with a hundredth of a second of itself before and behind it: more than any filter
/// reaches.
const LOOP_CONTEXT_FRACTION: u32 = 100;

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

    /// The clips one after the other, once each, without a gap: each begins with the sample after the last sample of the
    /// one before. They share their variants with the sequence.
    pub fn sequence<'a>(clips: impl IntoIterator<Item = &'a Self>) -> Self {
        let sounds = clips.into_iter().flat_map(|clip| clip.sounds.iter());
        Self {
            sounds: sounds.map(Arc::clone).collect(),
            is_looped: false,
        }
    }

    /// The same clip in a loop: its last sample is followed by its first. It plays until it is stopped. A clip shorter than
    /// a millisecond is played once.
    pub fn looped(&self) -> Self {
        let sounds = match &self.sounds[..] {
            // New variants, in which the end and the beginning join without a seam, too.
            [sound] if !sound.is_loop => {
                let (samples, filters) = (Arc::clone(&sound.samples), Arc::clone(&sound.filters));
                [Arc::new(Sound::new(samples, filters, true))].into()
            }
            _ => Arc::clone(&self.sounds),
        };
        // It must have at least one sample at the lowest rate.
        let is_long = |sound: &Arc<Sound>| sound.samples.len() >= sound.hz() as usize / 1_000;
        let is_looped = sounds.iter().any(is_long);
        Self { sounds, is_looped }
    }

    /// Whether it is a loop.
    pub fn is_looped(&self) -> bool {
        self.is_looped
    }

    /// How long it is; of a loop, one round.
    pub fn duration(&self) -> Duration {
        self.sounds.iter().map(|sound| sound.duration()).sum()
    }

    /// Whether [`prepare`](Self::prepare) has nothing to do.
    pub fn is_prepared(&self, rate: Rate) -> bool {
        self.sounds.iter().all(|sound| sound.at(rate).is_some())
    }

    /// Makes its variant for `rate`, unless that is made. It takes about a thousandth of the clip's duration.
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
    fn new(samples: Arc<Vec<i16>>, filters: Arc<Filters>, is_loop: bool) -> Self {
        Self {
            samples,
            filters,
            variants: Default::default(),
            is_loop,
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
        // `filters` holds all rates of a call, so this can't fail.
        let Some(mut resampler) = self.filters.aligned(to) else {
            return Arc::default();
        };
        if !self.is_loop {
            return Arc::new(resample_clip(&self.samples, from, to).unwrap_or_default());
        }
        let (from, to) = (u64::from(from), u64::from(to));
        let length = (self.samples.len() as u64 * to + from / 2) / from;
        let context = (from / u64::from(LOOP_CONTEXT_FRACTION)) as usize;
        let mut past: Vec<i16> = self
            .samples
            .iter()
            .rev()
            .copied()
            .cycle()
            .take(context)
            .collect();
        past.reverse();
        let next: Vec<i16> = self.samples.iter().copied().cycle().take(context).collect();
        let mut variant = Vec::with_capacity(length as usize + context);
        resampler.restart_after(&past);
        resampler.process(&self.samples, &mut variant);
        resampler.process(&next, &mut variant);
        variant.truncate(length as usize);
        Arc::new(variant)
    }
}

/// The filters to resample from `hz` to any rate of a call.
///
/// # Errors
///
/// When `hz` is not from 4 to 384 kHz.
pub fn filters_from(hz: u32) -> Result<Arc<Filters>, UnsupportedRate> {
    let rates = Rate::ALL.into_iter().map(Rate::hz);
    Ok(Arc::new(Filters::new(hz, rates)?))
}
