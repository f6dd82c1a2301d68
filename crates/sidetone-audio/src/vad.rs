//! Voice activity: when somebody speaks.
//!
//! A small neural network (the crate `earshot`, model included) scores each 16 ms of sound. This
//! module turns the scores into decisions that do not flicker, and keeps the audio just before each
//! start.
//!
//! The network was trained on wideband sound. On an 8 kHz line it tells speech from silence, and
//! from noise up to about −45 dBFS. Steady hiss above −40 dBFS and a dial tone pass for speech
//! (measured with white noise, and 350 + 440 Hz).

use std::fmt;
use std::time::Duration;

use earshot::Detector;

use crate::resample::{Resampler, UnsupportedRate, resample_clip};

/// The start or the end of speech. Times are offsets into the audio pushed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoiceEvent {
    /// Speech started at `at`. Reported [`Timing::onset`] later.
    SpeechStarted {
        /// Where the speech starts.
        at: Duration,
    },
    /// Speech ended at `at`. Reported [`Timing::hangover`] later.
    SpeechEnded {
        /// Where the speech ends.
        at: Duration,
    },
}

/// How long speech and pauses must last to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Shorter speech counts as a click or a cough.
    pub onset: Duration,
    /// A shorter pause is part of the speech.
    pub hangover: Duration,
    /// How much of the latest audio is kept, so that the first syllable is not lost.
    pub pre_roll: Duration,
}

impl Default for Timing {
    /// 48 ms of onset, 400 ms of hangover, 300 ms of pre-roll.
    fn default() -> Self {
        Self {
            onset: Duration::from_millis(48),
            hangover: Duration::from_millis(400),
            pre_roll: Duration::from_millis(300),
        }
    }
}

/// The network's input: 16 ms at 16 kHz.
const FRAME: usize = 256;
const FRAME_RATE: u32 = 16_000;
const FRAME_TIME: Duration = Duration::from_millis(16);
/// A score above this starts speech.
const START_SCORE: f32 = 0.5;
/// A score up to this ends speech.
const STOP_SCORE: f32 = 0.35;
/// Longer silence changes no decision.
const MAX_SILENCE: Duration = Duration::from_secs(60);
/// How many samples are resampled at a time, which bounds memory.
const CHUNK: usize = 512;

/// Detects speech in one stream.
///
/// It takes about 12 KiB and, once warm, allocates nothing. A frame of 20 ms costs 17 µs. That is
/// too much for a media thread with a thousand calls, so run it in the application.
///
/// ```
/// use std::time::Duration;
/// use sidetone_audio::tone::caller_voice;
/// use sidetone_audio::vad::{VoiceDetector, VoiceEvent};
///
/// let mut detector = VoiceDetector::new(8000)?;
/// let mut starts = 0;
/// for frame in caller_voice(8000, Duration::from_secs(3), 7).chunks(160) {
///     for event in detector.push(frame) {
///         if let VoiceEvent::SpeechStarted { .. } = event {
///             starts += 1;
///         }
///     }
/// }
/// assert!(starts > 0);
/// # Ok::<(), sidetone_audio::resample::UnsupportedRate>(())
/// ```
///
/// The rate of a call may be unknown until its first audio, and may change later. A default detector
/// needs no rate, and [`push_at`](Self::push_at) takes samples at any rate. Speech that goes on across
/// a change stays one speech, and the times of events go on.
///
/// ```
/// use std::time::Duration;
/// use sidetone_audio::tone::caller_voice;
/// use sidetone_audio::vad::VoiceDetector;
///
/// let mut detector = VoiceDetector::default();
/// // Nothing has come yet, so the rate is unknown.
/// detector.push_silence(Duration::from_millis(500)).for_each(drop);
/// for rate in [8000, 16_000] {
///     let voice = caller_voice(rate, Duration::from_secs(1), 7);
///     for frame in voice.chunks(rate as usize / 50) {
///         for event in detector.push_at(rate, frame)? {
///             println!("{event:?}");
///         }
///     }
/// }
/// # Ok::<(), sidetone_audio::resample::UnsupportedRate>(())
/// ```
pub struct VoiceDetector {
    timing: Timing,
    rate: u32,
    /// `None` if `rate` is the network's.
    resampler: Option<Resampler>,
    network: Box<Detector>,
    /// Resampled audio, less than a whole frame.
    resampled: Vec<i16>,
    /// Frames scored.
    frames: u32,
    speaking: bool,
    /// How many frames in a row contradict `speaking`.
    contradicting: u32,
    events: Vec<VoiceEvent>,
    recent: Vec<i16>,
    /// The pre-roll in samples.
    pre_roll_len: usize,
}

impl VoiceDetector {
    /// A detector for samples at this rate in Hz, with the default [`Timing`].
    ///
    /// # Errors
    ///
    /// [`UnsupportedRate`] for a rate that can't be resampled.
    pub fn new(rate: u32) -> Result<Self, UnsupportedRate> {
        Self::with_timing(rate, Timing::default())
    }

    /// A detector with another timing.
    ///
    /// # Errors
    ///
    /// [`UnsupportedRate`] for a rate that can't be resampled.
    pub fn with_timing(rate: u32, timing: Timing) -> Result<Self, UnsupportedRate> {
        let mut detector = Self::with_unknown_rate(timing);
        detector.set_rate(rate)?;
        Ok(detector)
    }

    /// A detector with another timing, for a stream whose rate is not known yet. Set the rate with
    /// [`push_at`](Self::push_at) or [`set_rate`](Self::set_rate) before the first samples; until then
    /// it is 16 kHz.
    pub fn with_unknown_rate(timing: Timing) -> Self {
        Self {
            timing,
            rate: FRAME_RATE,
            resampler: None,
            network: Detector::default_boxed(),
            resampled: Vec::new(),
            frames: 0,
            speaking: false,
            contradicting: 0,
            events: Vec::new(),
            recent: Vec::new(),
            pre_roll_len: pre_roll_len(timing, FRAME_RATE),
        }
    }

    /// Sets the rate of the samples that follow, in Hz. The sound goes on: whether somebody speaks, the
    /// times of events and the pre-roll are kept. The pre-roll is resampled, so it is always at the
    /// current rate.
    ///
    /// # Errors
    ///
    /// [`UnsupportedRate`] for a rate that can't be resampled; then nothing changes.
    pub fn set_rate(&mut self, rate: u32) -> Result<(), UnsupportedRate> {
        if rate == self.rate {
            return Ok(());
        }
        let recent = resample_clip(self.pre_roll(), self.rate, rate)?;
        self.resampler = match rate {
            FRAME_RATE => None,
            _ => {
                let mut resampler = Resampler::new(rate, FRAME_RATE)?;
                resampler.restart_after(&recent);
                Some(resampler)
            }
        };
        self.recent = recent;
        self.rate = rate;
        self.pre_roll_len = pre_roll_len(self.timing, rate);
        Ok(())
    }

    /// Takes any number of samples at `rate` in Hz, which may differ from the last one, and returns the
    /// events they cause. It is [`set_rate`](Self::set_rate) and [`push`](Self::push) in one.
    ///
    /// # Errors
    ///
    /// [`UnsupportedRate`] for a rate that can't be resampled; then nothing was pushed.
    pub fn push_at<'a>(
        &'a mut self,
        rate: u32,
        samples: &[i16],
    ) -> Result<impl Iterator<Item = VoiceEvent> + use<'a>, UnsupportedRate> {
        self.set_rate(rate)?;
        Ok(self.push(samples))
    }

    /// Takes any number of samples, and returns the events they cause.
    pub fn push<'a>(&'a mut self, samples: &[i16]) -> impl Iterator<Item = VoiceEvent> + use<'a> {
        self.events.clear();
        for chunk in samples.chunks(CHUNK) {
            self.keep_recent(chunk);
            match &mut self.resampler {
                Some(resampler) => resampler.process(chunk, &mut self.resampled),
                None => self.resampled.extend_from_slice(chunk),
            }
            self.score_frames();
        }
        self.events.drain(..)
    }

    /// Takes a gap of this length as silence, up to a minute of it, and returns the events it
    /// causes. A muted phone sends nothing, so without this its last words would never end.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sidetone_audio::tone::caller_voice;
    /// use sidetone_audio::vad::{VoiceDetector, VoiceEvent};
    ///
    /// let mut detector = VoiceDetector::new(8000)?;
    /// detector.push(&caller_voice(8000, Duration::from_secs(3), 7)).for_each(drop);
    /// let ends = detector.push_silence(Duration::from_secs(1)).any(|event| {
    ///     matches!(event, VoiceEvent::SpeechEnded { .. })
    /// });
    /// assert!(ends && !detector.is_speaking());
    /// # Ok::<(), sidetone_audio::resample::UnsupportedRate>(())
    /// ```
    pub fn push_silence(&mut self, duration: Duration) -> impl Iterator<Item = VoiceEvent> {
        let seconds = duration.min(MAX_SILENCE).as_secs_f64();
        let samples = (seconds * f64::from(self.rate)).round() as usize;
        self.push(&vec![0; samples])
    }

    /// Whether somebody speaks, as far as is known.
    pub fn is_speaking(&self) -> bool {
        self.speaking
    }

    /// The latest samples pushed, [`Timing::pre_roll`] of them. After a
    /// [`VoiceEvent::SpeechStarted`] they hold the start of the speech and a little before it.
    pub fn pre_roll(&self) -> &[i16] {
        &self.recent[self.recent.len().saturating_sub(self.pre_roll_len)..]
    }

    /// Keeps up to twice the pre-roll, so that samples are moved once for many frames.
    fn keep_recent(&mut self, chunk: &[i16]) {
        if self.recent.len() + chunk.len() > 2 * self.pre_roll_len + CHUNK {
            let old = self.recent.len().saturating_sub(self.pre_roll_len);
            self.recent.drain(..old);
        }
        self.recent.extend_from_slice(chunk);
    }

    fn score_frames(&mut self) {
        let (frames, rest) = self.resampled.as_chunks::<FRAME>();
        let rest = rest.len();
        for frame in frames {
            let score = self.network.predict_i16(frame);
            let contradicts = match self.speaking {
                false => score > START_SCORE,
                true => score <= STOP_SCORE,
            };
            self.frames += 1;
            self.contradicting = if contradicts {
                self.contradicting + 1
            } else {
                0
            };
            let needed = match self.speaking {
                false => self.timing.onset,
                true => self.timing.hangover,
            };
            if contradicts && FRAME_TIME * self.contradicting >= needed {
                let since = FRAME_TIME * (self.frames - self.contradicting);
                let delay = self
                    .resampler
                    .as_ref()
                    .map_or(Duration::ZERO, Resampler::delay);
                let at = since.saturating_sub(delay);
                self.events.push(match self.speaking {
                    false => VoiceEvent::SpeechStarted { at },
                    true => VoiceEvent::SpeechEnded { at },
                });
                self.speaking = !self.speaking;
                self.contradicting = 0;
            }
        }
        let used = self.resampled.len() - rest;
        self.resampled.drain(..used);
    }
}

fn pre_roll_len(timing: Timing, rate: u32) -> usize {
    (timing.pre_roll.as_secs_f64() * f64::from(rate)).round() as usize
}

/// A detector with the default [`Timing`], for a stream whose rate is not known yet.
impl Default for VoiceDetector {
    fn default() -> Self {
        Self::with_unknown_rate(Timing::default())
    }
}

impl fmt::Debug for VoiceDetector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VoiceDetector")
            .field("timing", &self.timing)
            .field("speaking", &self.speaking)
            .field("pushed", &(FRAME_TIME * self.frames))
            .finish_non_exhaustive()
    }
}
