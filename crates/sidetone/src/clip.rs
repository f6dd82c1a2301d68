use std::{
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sidetone_audio::{
    resample::{UnsupportedRate, resample_clip},
    sound::{FileName, Loaded, SoundError},
};
use sidetone_proto::Rate;

/// Sound prepared once and shared by every call that plays it.
///
/// There is one variant for each rate that a call can have, made when a call first needs it. Cloning shares.
///
/// ```
/// use sidetone::Clip;
///
/// let beep: Vec<i16> = (0..8000).map(|i| if i / 10 % 2 == 0 { 3000 } else { -3000 }).collect();
/// let clip = Clip::from_samples(8000, beep)?;
/// assert_eq!(clip.duration().as_secs(), 1);
/// # Ok::<(), sidetone::ClipError>(())
/// ```
#[derive(Clone)]
pub struct Clip(Arc<Inner>);

struct Inner {
    samples: Arc<Vec<i16>>,
    hz: u32,
    variants: [OnceLock<Arc<Vec<i16>>>; Rate::ALL.len()],
}

/// Why a sound can't be played.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClipError {
    /// The file can't be read, or is no sound that is supported.
    #[error(transparent)]
    Sound(#[from] SoundError),
    /// The rate is out of range.
    #[error(transparent)]
    Rate(#[from] UnsupportedRate),
}

impl Clip {
    /// Reads a sound file. This blocks: call it before serving, or from `spawn_blocking`.
    ///
    /// What is missing in the file, or is in it besides the sound, is logged as a warning;
    /// [`Loaded`] tells it.
    ///
    /// # Errors
    ///
    /// When the file can't be read, is no sound of a supported kind, or its rate is not from 4 to 384 kHz.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ClipError> {
        let path = path.as_ref();
        let Loaded { sound, flaws, .. } = Loaded::open(path)?;
        for flaw in flaws {
            tracing::warn!("{}: {flaw}", FileName::new(path));
        }
        Self::from_samples(sound.rate, sound.samples)
    }

    /// Mono samples at `hz` samples per second. A vector of them is kept as it is, without a copy.
    ///
    /// # Errors
    ///
    /// When `hz` is not from 4 to 384 kHz.
    pub fn from_samples(hz: u32, samples: impl Into<Vec<i16>>) -> Result<Self, ClipError> {
        resample_clip(&[], hz, Rate::Slin.hz())?;
        let variants = Default::default();
        Ok(Self(Arc::new(Inner {
            samples: Arc::new(samples.into()),
            hz,
            variants,
        })))
    }

    /// How long it is.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(
            (self.0.samples.len() as u128 * 1_000_000_000 / u128::from(self.0.hz.max(1))) as u64,
        )
    }

    /// Makes the variant for `rate` now, off the async threads, so that the first call that plays it does
    /// not have to.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the work going on; its result is kept.
    pub async fn prepare(&self, rate: Rate) {
        if self.is_prepared(rate) {
            return;
        }
        let clip = self.clone();
        // If it panics, the variant is made by whoever plays it, and panics there.
        let _ = tokio::task::spawn_blocking(move || drop(clip.at(rate))).await;
    }

    pub(crate) fn is_prepared(&self, rate: Rate) -> bool {
        self.0.hz == rate.hz() || self.0.variants[rate as usize].get().is_some()
    }

    pub(crate) fn at(&self, rate: Rate) -> Arc<Vec<i16>> {
        if self.0.hz == rate.hz() {
            return Arc::clone(&self.0.samples);
        }
        let make = || match resample_clip(&self.0.samples, self.0.hz, rate.hz()) {
            Ok(samples) => Arc::new(samples),
            // The rate was tried when the clip was made; no other call of this can fail.
            Err(_) => Arc::default(),
        };
        Arc::clone(self.0.variants[rate as usize].get_or_init(make))
    }
}

impl fmt::Debug for Clip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clip")
            .field("hz", &self.0.hz)
            .field("duration", &self.duration())
            .finish()
    }
}
