use std::{fmt, time::Duration};

use sidetone_audio::resample::UnsupportedRate;
use sidetone_proto::Heard;

use crate::{
    error::PlayError,
    media::CallRef,
    playback::{Playback, Stopping},
    playout_writer::{PlayoutWriter, UtteranceRef},
};

/// Speech that comes in pieces: what a voice model says, sentence after sentence, faster or slower than it is heard.
///
/// It takes its place in the queue with its first piece and keeps it until it is [ended](Self::end), whatever is queued
/// meanwhile and however often it has nothing to play. What was heard of it counts from its beginning on. It doesn't keep
/// its call alive.
///
/// Dropped before it is ended, it is stopped.
///
/// ```no_run
/// # async fn synthesise() -> Option<Vec<i16>> { None }
/// # async fn example(call: sidetone::Call) -> Result<(), Box<dyn std::error::Error>> {
/// let mut utterance = call.utterance(24_000)?;
/// while let Some(piece) = synthesise().await {
///     utterance.play(&piece).await?;
/// }
/// let heard = utterance.end().finished().await;
/// println!("{:?} of it were heard, {:?} not", heard.heard, heard.unheard);
/// # Ok(()) }
/// ```
pub struct Utterance {
    writer: PlayoutWriter,
    playback: Playback,
    prebuffer: Duration,
    /// The number of clearings at its first piece.
    generation: Option<u64>,
    is_ended: bool,
}

impl Utterance {
    pub(crate) fn new(shared: CallRef, hz: u32) -> Result<Self, UnsupportedRate> {
        Ok(Self {
            writer: PlayoutWriter::new(shared.clone(), hz)?,
            playback: Playback::new(shared),
            prebuffer: Duration::ZERO,
            generation: None,
            is_ended: false,
        })
    }

    /// It starts, and starts again when it has had nothing to play, only when so much of it is queued, or it is ended, or
    /// nothing more came for as long as that. It keeps uneven speech whole, at the price of starting that much later. None
    /// unless set, before the first piece.
    pub fn set_prebuffer(&mut self, prebuffer: Duration) {
        self.prebuffer = prebuffer;
    }

    /// Waits until there is room and queues as many of `samples` as fit. Returns how many: at least one,
    /// unless `samples` is empty.
    ///
    /// # Errors
    ///
    /// [`PlayError::Cleared`] when it was stopped, or `clear()` was called since its first piece; nothing is queued then.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it has queued nothing.
    pub async fn write(&mut self, samples: &[i16]) -> Result<usize, PlayError> {
        let (generation, writer, utterance) = self.parts();
        writer.write(generation, Some(&utterance), samples).await
    }

    /// Queues all of `samples`, waiting for room as often as needed.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it may have queued a part; use [`write`](Self::write) to know how much.
    pub async fn play(&mut self, samples: &[i16]) -> Result<(), PlayError> {
        let (generation, writer, utterance) = self.parts();
        writer.play(generation, Some(&utterance), samples).await
    }

    /// Queues all of `samples` if there is room for them now, else none.
    ///
    /// # Errors
    ///
    /// [`PlayError::Full`] when there is not; else as [`write`](Self::write).
    pub fn try_play(&mut self, samples: &[i16]) -> Result<(), PlayError> {
        let (generation, writer, utterance) = self.parts();
        writer.try_play(generation, Some(&utterance), samples)
    }

    /// Nothing more comes: what is queued of it plays to its end, and what is behind it follows.
    pub fn end(mut self) -> Playback {
        self.is_ended = true;
        let (generation, writer, utterance) = self.parts();
        // After a clearing, a stop or the end of the call there is nothing to be ended.
        let _ = writer.flush(generation, Some(&utterance));
        let id = self.playback.id();
        let _ = self.playback.shared().command(|commands| {
            let playing = self.playback.playing();
            match playing.is_opened() {
                true => commands.end(id),
                // It never had a piece.
                false => playing.finish(Heard::default()),
            }
        });
        self.playback.clone()
    }

    /// Takes it out of the queue; see [`Playback::stop`].
    pub fn stop(self) -> Stopping {
        self.playback.stop()
    }

    /// A handle to it, to await or stop it from elsewhere while it is written.
    pub fn playback(&self) -> Playback {
        self.playback.clone()
    }

    /// The rate of the samples it takes.
    pub fn hz(&self) -> u32 {
        self.writer.hz
    }

    fn parts(&mut self) -> (u64, &mut PlayoutWriter, UtteranceRef<'_>) {
        let shared = &self.writer.shared;
        let generation = match self.playback.playing().is_opened() {
            true => self.generation,
            false => None,
        };
        let generation = generation.unwrap_or_else(|| shared.generation());
        self.generation = Some(generation);
        let utterance = UtteranceRef {
            playback: &self.playback,
            prebuffer: self.prebuffer,
        };
        (generation, &mut self.writer, utterance)
    }
}

impl Drop for Utterance {
    fn drop(&mut self) {
        if !self.is_ended {
            drop(self.playback.stop());
        }
    }
}

impl fmt::Debug for Utterance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Utterance")
            .field("call", &self.writer.shared.id)
            .field("hz", &self.writer.hz)
            .finish_non_exhaustive()
    }
}
