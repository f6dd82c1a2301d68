use std::{fmt, path::Path, time::Duration};

use sidetone_audio::{
    resample::UnsupportedRate,
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
/// assert_eq!(Clip::sequence([&clip, &clip]).duration().as_secs(), 2);
/// # Ok::<(), sidetone::ClipError>(())
/// ```
#[derive(Clone)]
pub struct Clip(sidetone_proto::Clip);

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
        Ok(Self(sidetone_proto::Clip::new(hz, samples)?))
    }

    /// The clips one after the other, once each, without a gap: one begins with the sample after the last one of the one
    /// before, wherever that is in a frame. They may have different rates, and share their variants with it.
    pub fn sequence<'a>(clips: impl IntoIterator<Item = &'a Self>) -> Self {
        let clips = clips.into_iter().map(|clip| &clip.0);
        Self(sidetone_proto::Clip::sequence(clips))
    }

    /// The same without an end and without a gap: behind its last sample follows its first. It plays until it is
    /// [stopped](crate::Playback::stop) or cleared; a call that [finishes](crate::Call::finish) ends with the round that
    /// plays then. What is shorter than a millisecond is played once.
    ///
    /// ```no_run
    /// # async fn example(call: sidetone::Call, music: sidetone::Clip) -> Result<(), Box<dyn std::error::Error>> {
    /// let playing = call.player(8_000)?.play_clip(&music.looped()).await?;
    /// // … until there is somebody to talk to:
    /// playing.stop().await;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn looped(&self) -> Self {
        Self(self.0.looped())
    }

    /// How long it is, or one round of it.
    pub fn duration(&self) -> Duration {
        self.0.duration()
    }

    /// Makes the variant for `rate` now, off the async threads, so that the first call that plays it does
    /// not have to.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the work going on; its result is kept.
    pub async fn prepare(&self, rate: Rate) {
        if self.0.is_prepared(rate) {
            return;
        }
        let clip = self.0.clone();
        // Without the variant, the clip is resampled while it plays.
        let _ = tokio::task::spawn_blocking(move || clip.prepare(rate)).await;
    }

    pub(crate) fn shared(&self) -> &sidetone_proto::Clip {
        &self.0
    }
}

impl fmt::Debug for Clip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
