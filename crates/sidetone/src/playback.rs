use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use sidetone_proto::{Heard, ItemId};

use crate::{
    clip::Clip,
    error::PlayError,
    media::{CallRef, Playing, SubmitError},
};

/// Something that was queued: a clip, or an [`Utterance`](crate::Utterance).
///
/// Dropping it stops nothing; cloning it is cheap.
#[derive(Clone)]
pub struct Playback {
    shared: CallRef,
    id: ItemId,
    playing: Arc<Playing>,
}

impl Playback {
    pub(crate) fn new(shared: CallRef) -> Self {
        Self {
            id: shared.next_item(),
            playing: Arc::default(),
            shared,
        }
    }

    /// Waits until its last sample has been heard, or it is stopped or cleared, or the call is over, and says what was
    /// heard of it.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and called again.
    pub async fn finished(&self) -> Heard {
        // The end of the call is an end of the playback, too.
        let _ = wait_for(&self.shared, |_| self.is_finished().then_some(())).await;
        self.heard().unwrap_or_default()
    }

    /// Whether nothing of it is left to play, or the call is over.
    pub fn is_finished(&self) -> bool {
        self.playing.finished().is_some() || self.shared.ended().is_some()
    }

    /// What was heard of it, once it is over.
    pub fn heard(&self) -> Option<Heard> {
        self.playing.finished()
    }

    /// Takes it out of the queue, whether it plays already or waits: nothing of it leaves after the slot that is just
    /// being written. What is queued behind it follows at the next slot.
    ///
    /// The future returns what was heard and what was not, to the sample at the call's rate. It may be dropped.
    pub fn stop(&self) -> Stopping {
        self.playing.note_stopped();
        // After the end there is nothing to stop.
        let _ = self
            .shared
            .command(|commands| match self.playing.is_opened() {
                true => commands.stop(self.id),
                false => self.playing.finish(Heard::default()),
            });
        self.shared.note_stop();
        Stopping(self.clone())
    }

    /// Stops it when the guard is dropped: when a task that speaks is aborted, or a future that waits is cancelled.
    pub fn stop_on_drop(self) -> StopOnDrop {
        StopOnDrop {
            playback: self,
            is_kept: false,
        }
    }

    pub(crate) fn shared(&self) -> &CallRef {
        &self.shared
    }

    pub(crate) fn id(&self) -> ItemId {
        self.id
    }

    pub(crate) fn playing(&self) -> &Arc<Playing> {
        &self.playing
    }
}

impl fmt::Debug for Playback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Playback")
            .field("call", &self.shared.id)
            .field("finished", &self.is_finished())
            .finish()
    }
}

/// Stops a [`Playback`] when it is dropped, as [`Playback::stop`] does. What has finished by then is not affected.
///
/// ```no_run
/// # async fn example(call: sidetone::Call, hint: sidetone::Clip) -> Result<(), Box<dyn std::error::Error>> {
/// let hint = call.player(8_000)?.play_clip(&hint).await?.stop_on_drop();
/// hint.playback().finished().await; // cancelled here, the hint stops, too
/// # Ok(()) }
/// ```
#[must_use = "dropping it stops the playback"]
#[derive(Debug)]
pub struct StopOnDrop {
    playback: Playback,
    is_kept: bool,
}

impl StopOnDrop {
    /// The playback.
    pub fn playback(&self) -> &Playback {
        &self.playback
    }

    /// Gives up the guard: the playback goes on.
    pub fn keep(mut self) -> Playback {
        self.is_kept = true;
        self.playback.clone()
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if !self.is_kept {
            drop(self.playback.stop());
        }
    }
}

/// A stop under way; it has taken effect, whether it is awaited or not.
#[must_use = "it has taken effect, but only awaiting it says what was heard; drop it if nobody asks"]
#[derive(Debug)]
pub struct Stopping(Playback);

impl Future for Stopping {
    type Output = Heard;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Heard> {
        let check = |_: &CallRef| self.0.heard();
        poll_until(&self.0.shared, context, check).map(Result::unwrap_or_default)
    }
}

/// A clearing under way; it has taken effect, whether it is awaited or not.
#[must_use = "it has taken effect, but only awaiting it says what was heard; drop it if nobody asks"]
#[derive(Debug)]
pub struct Clearing {
    shared: CallRef,
    generation: u64,
}

impl Clearing {
    pub(crate) fn new(shared: CallRef) -> Self {
        let generation = shared.clear();
        Self { shared, generation }
    }
}

impl Future for Clearing {
    type Output = Result<Heard, PlayError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        poll_until(&self.shared, context, |shared| {
            shared.cleared(self.generation)
        })
    }
}

/// Queues a clip. It needs no variant: what is not made is resampled while it plays.
pub(crate) fn queue_clip(
    shared: &CallRef,
    generation: u64,
    clip: &Clip,
) -> Result<Playback, PlayError> {
    let clip = clip.shared().clone();
    let playback = Playback::new(shared.clone());
    shared.submit(generation, clip.duration(), |commands| {
        playback.playing.note_opened();
        commands.play_clip(clip, playback.id, Arc::clone(&playback.playing));
    })?;
    Ok(playback)
}

/// Queues something without audio, that is over when everything queued so far is.
pub(crate) fn queue_mark(shared: &CallRef, generation: u64) -> Result<Playback, PlayError> {
    let playback = Playback::new(shared.clone());
    shared.submit(generation, Duration::ZERO, |commands| {
        playback.playing.note_opened();
        commands.mark(playback.id, Some(Arc::clone(&playback.playing)));
    })?;
    Ok(playback)
}

/// Waits until `playback`, queued under `generation`, was heard to its end, or a clear cut it off. Fails when the end of the call
/// did.
pub(crate) async fn wait_until_whole(
    playback: &Playback,
    generation: u64,
) -> Result<(), PlayError> {
    let check = |shared: &CallRef| {
        // In this order: a clear raises the generation before it finishes anything.
        let is_finished = playback.heard().is_some();
        match shared.generation() != generation || playback.playing.is_whole() {
            true => Some(Ok(())),
            false => is_finished.then_some(Err(PlayError::Closed)),
        }
    };
    wait_for(&playback.shared, check).await?
}

/// Waits until `look` finds what it looks for, or the call is over.
pub(crate) async fn wait_for<T>(
    shared: &CallRef,
    mut check: impl FnMut(&CallRef) -> Option<T>,
) -> Result<T, PlayError> {
    poll_fn(|context| poll_until(shared, context, &mut check)).await
}

fn poll_until<T>(
    shared: &CallRef,
    context: &Context<'_>,
    mut check: impl FnMut(&CallRef) -> Option<T>,
) -> Poll<Result<T, PlayError>> {
    if let Some(found) = check(shared) {
        return Poll::Ready(Ok(found));
    }
    shared.register_waiter(context.waker());
    // What happened between the look and the registration woke nobody.
    match (check(shared), shared.ended()) {
        (Some(found), _) => Poll::Ready(Ok(found)),
        (None, Some(_)) => Poll::Ready(Err(PlayError::Closed)),
        (None, None) => Poll::Pending,
    }
}

impl From<SubmitError> for PlayError {
    fn from(why: SubmitError) -> Self {
        match why {
            SubmitError::Closed => Self::Closed,
            SubmitError::Cleared => Self::Cleared,
        }
    }
}
