use std::{fmt, time::Duration};

use sidetone_audio::resample::UnsupportedRate;

use crate::{
    clip::Clip,
    error::PlayError,
    event::Mark,
    media::CallRef,
    playback::{Clearing, Playback, queue_clip, queue_mark, wait_until_whole},
    playout_writer::PlayoutWriter,
};

/// Queues audio at a fixed rate, to be played at normal speed however fast it comes.
///
/// It resamples to the call's rate on the thread that calls it; what it queues before that rate is known is resampled when
/// it is due. Several players of one call queue behind each other. A remainder shorter than 20 ms waits for the next write,
/// and is padded with silence only when its slot is due.
///
/// What players write is one utterance until a mark or a clip is queued, [`drained`](Self::drained) or `clear` is called, a
/// player is dropped, or nothing came for a second after the last of it: as far as that goes back a
/// [clearing](Self::clear) says what was heard, and only at its end it counts as [drained](crate::Event::PlaybackDrained). Where
/// that must be clear, as with a voice model's, use an [`Utterance`](crate::Utterance).
///
/// A player doesn't keep its call alive: after the end every method answers [`PlayError::Closed`].
///
/// ```no_run
/// # async fn example(call: sidetone::Call, speech: Vec<i16>) -> Result<(), Box<dyn std::error::Error>> {
/// let mut player = call.player(24_000)?;
/// player.play(&speech).await?;   // returns when it is queued; minutes fit
/// player.drained().await?;       // returns when it has been heard
/// # Ok(()) }
/// ```
pub struct Player {
    writer: PlayoutWriter,
}

impl Player {
    pub(crate) fn new(shared: CallRef, hz: u32) -> Result<Self, UnsupportedRate> {
        let writer = PlayoutWriter::new(shared, hz)?;
        Ok(Self { writer })
    }

    /// Waits until there is room and queues as many of `samples` as fit. Returns how many: at least one,
    /// unless `samples` is empty.
    ///
    /// # Errors
    ///
    /// [`PlayError::Cleared`] when `clear()` is called while this waits; nothing is queued then.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it has queued nothing.
    pub async fn write(&mut self, samples: &[i16]) -> Result<usize, PlayError> {
        let generation = self.shared().generation();
        self.writer.write(generation, None, samples).await
    }

    /// Queues all of `samples`, waiting for room as often as needed.
    ///
    /// # Errors
    ///
    /// [`PlayError::Cleared`] when `clear()` is called meanwhile; what was queued before is thrown away with
    /// the rest, and nothing more is queued.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it may have queued a part; use [`write`](Self::write) to know how much.
    pub async fn play(&mut self, samples: &[i16]) -> Result<(), PlayError> {
        let generation = self.shared().generation();
        self.writer.play(generation, None, samples).await
    }

    /// Queues all of `samples` if there is room for them now, else none.
    ///
    /// # Errors
    ///
    /// [`PlayError::Full`] when there is not, [`PlayError::Closed`] after the end of the call.
    pub fn try_play(&mut self, samples: &[i16]) -> Result<(), PlayError> {
        let generation = self.shared().generation();
        self.writer.try_play(generation, None, samples)
    }

    /// Queues a clip and returns a handle to it. If the variant for this call's rate is not made yet, it is
    /// made first, off the async threads. That rate is known with the caller's first audio; before that, the variant for 8 kHz
    /// is made, and on a call of another rate the clip is resampled while it plays, unless it was
    /// [prepared](Clip::prepare).
    ///
    /// # Errors
    ///
    /// [`PlayError::Cleared`] when `clear()` is called meanwhile, [`PlayError::Closed`] after the end of the call.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it has queued nothing.
    pub async fn play_clip(&mut self, clip: &Clip) -> Result<Playback, PlayError> {
        let generation = self.shared().generation();
        // Of a rate that is not known, the most usual is expected.
        clip.prepare(self.shared().rate()).await;
        self.writer.flush(generation, None)?;
        queue_clip(self.shared(), generation, clip)
    }

    /// Queues a mark behind everything queued so far. [`Event::MarkReached`](crate::Event::MarkReached)
    /// says when all that has been heard. A mark that is cleared is never reached.
    ///
    /// # Errors
    ///
    /// [`PlayError::Closed`] after the end of the call.
    pub fn mark(&mut self) -> Result<Mark, PlayError> {
        let generation = self.shared().generation();
        self.writer.flush(generation, None)?;
        let id = self.shared().next_item();
        self.shared()
            .submit(generation, Duration::ZERO, |commands| {
                commands.mark(id, None)
            })?;
        Ok(Mark(id.0))
    }

    /// From now on what players write starts, and starts again after a pause, only when `prebuffer` of it is queued, or
    /// something else is behind it, or nothing more came for as long as the prebuffer is. It keeps speech whole that is
    /// synthesised in uneven pieces, at the price of starting that much later. It holds for the whole call, but for
    /// [utterances](crate::Utterance), which have their own.
    ///
    /// # Errors
    ///
    /// [`PlayError::Closed`] after the end of the call.
    pub fn set_prebuffer(&mut self, prebuffer: Duration) -> Result<(), PlayError> {
        Ok(self
            .shared()
            .command(|commands| commands.prebuffer(prebuffer))?)
    }

    /// Waits until everything queued on this call so far has been heard to its end, or was stopped or cleared.
    ///
    /// # Errors
    ///
    /// [`PlayError::Closed`] when the call ends before.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and called again.
    pub async fn drained(&mut self) -> Result<(), PlayError> {
        let generation = self.shared().generation();
        self.writer.flush(generation, None)?;
        let end = match queue_mark(self.shared(), generation) {
            Err(PlayError::Cleared) => return Ok(()),
            end => end?,
        };
        wait_until_whole(&end, generation).await
    }

    /// How much audio is queued on this call and not yet written.
    pub fn buffered(&self) -> Duration {
        self.shared().buffered()
    }

    /// Throws everything queued on this call away, at once: nothing of it leaves after the slot that is just
    /// being written. Audio queued after this call plays as usual.
    ///
    /// The future says what was heard of all that this cut off, from the beginning of each: nothing, if none of it had
    /// begun. It may be dropped.
    pub fn clear(&self) -> Clearing {
        Clearing::new(self.shared().clone())
    }

    /// The rate of the samples it takes.
    pub fn hz(&self) -> u32 {
        self.writer.hz
    }

    fn shared(&self) -> &CallRef {
        &self.writer.shared
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // The last 2 ms of a sound are still in the resampler. After the end they are heard by nobody.
        let _ = self.writer.flush(self.shared().generation(), None);
        let _ = self.shared().command(|commands| commands.end_anonymous());
    }
}

impl fmt::Debug for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Player")
            .field("call", &self.shared().id)
            .field("hz", &self.hz())
            .finish_non_exhaustive()
    }
}
