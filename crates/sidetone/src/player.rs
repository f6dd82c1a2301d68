use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use sidetone_audio::resample::{Resampler, UnsupportedRate};
use sidetone_proto::{Cleared, Mark, Rate};

use crate::{
    clip::Clip,
    error::PlayError,
    media::{ClipOrder, NotSubmitted, SharedLink},
};

/// Pieces from this length on are handed over whole instead of being copied under the lock.
const HAND_OVER: usize = 2048;

/// Queues audio at a fixed rate, to be played at normal speed however fast it comes.
///
/// It resamples to the call's rate on the thread that calls it. Several players of one call queue behind
/// each other. A remainder shorter than 20 ms waits for the next write, and is padded with silence only
/// when its slot is due.
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
    link: SharedLink,
    hz: u32,
    resampler: Option<(Rate, Resampler)>,
    /// The number of clearings when the resampler was last used: what it holds from before is void.
    generation: u64,
    resampled: Vec<i16>,
}

impl Player {
    pub(crate) fn new(link: SharedLink, hz: u32) -> Result<Self, UnsupportedRate> {
        Resampler::new(hz, Rate::Slin.hz())?;
        let generation = link.generation();
        Ok(Self {
            link,
            hz,
            resampler: None,
            generation,
            resampled: Vec::new(),
        })
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
        let generation = self.link.generation();
        self.write_under(generation, samples).await
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
        let generation = self.link.generation();
        let mut rest = samples;
        while !rest.is_empty() {
            let written = self.write_under(generation, rest).await?;
            rest = &rest[written..];
        }
        Ok(())
    }

    /// Queues all of `samples` if there is room for them now, else none.
    ///
    /// # Errors
    ///
    /// [`PlayError::Full`] when there is not, [`PlayError::Closed`] after the end of the call.
    pub fn try_play(&mut self, samples: &[i16]) -> Result<(), PlayError> {
        if self.room() < samples.len() as u64 {
            return Err(PlayError::Full);
        }
        self.queue(self.link.generation(), samples)
    }

    /// Queues a clip and returns a handle to it. If the variant for this call's rate is not made yet, it is
    /// made first, off the async threads.
    ///
    /// # Errors
    ///
    /// [`PlayError::Cleared`] when `clear()` is called meanwhile, [`PlayError::Closed`] after the end of the call.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it has queued nothing.
    pub async fn play_clip(&mut self, clip: &Clip) -> Result<Playback, PlayError> {
        let generation = self.link.generation();
        clip.prepare(self.link.rate()).await;
        self.flush(generation)?;
        queue_clip(&self.link, generation, clip)
    }

    /// Queues a mark behind everything queued so far. [`Event::MarkReached`](crate::Event::MarkReached)
    /// says when all that has been written. A mark that is cleared is never reached.
    ///
    /// # Errors
    ///
    /// [`PlayError::Closed`] after the end of the call.
    pub fn mark(&mut self) -> Result<Mark, PlayError> {
        let generation = self.link.generation();
        self.flush(generation)?;
        let mark = self.link.next_mark();
        self.link
            .submit(generation, Duration::ZERO, |outbox| outbox.mark(mark))?;
        Ok(mark)
    }

    /// From now on a playback starts only when `cushion` of audio is queued, or a [`mark`](Self::mark) is,
    /// or nothing more came for as long as the cushion is. It keeps speech whole that is synthesised in
    /// uneven pieces, at the price of starting that much later. It holds for the whole call.
    ///
    /// # Errors
    ///
    /// [`PlayError::Closed`] after the end of the call.
    pub fn set_cushion(&mut self, cushion: Duration) -> Result<(), PlayError> {
        Ok(self.link.order(|outbox| outbox.cushion(cushion))?)
    }

    /// Waits until nothing is queued on this call any more: it was played, or cleared.
    ///
    /// # Errors
    ///
    /// [`PlayError::Closed`] when the call ends before.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and called again.
    pub async fn drained(&mut self) -> Result<(), PlayError> {
        let generation = self.link.generation();
        self.flush(generation)?;
        wait_for(&self.link, |link| link.buffered().is_zero().then_some(())).await
    }

    /// How much audio is queued on this call and not yet written.
    pub fn buffered(&self) -> Duration {
        self.link.buffered()
    }

    /// Throws everything queued on this call away, at once: nothing of it leaves after the slot that is just
    /// being written. Audio queued after this call plays as usual.
    ///
    /// The future says what was thrown away and how much of the current playback was written; it may be
    /// dropped.
    pub fn clear(&self) -> Clearing {
        Clearing::new(self.link.clone())
    }

    /// The rate of the samples it takes.
    pub fn hz(&self) -> u32 {
        self.hz
    }

    async fn write_under(&mut self, generation: u64, samples: &[i16]) -> Result<usize, PlayError> {
        if samples.is_empty() {
            return Ok(0);
        }
        let least = self
            .duration_of(samples.len() as u64)
            .min(Duration::from_millis(20));
        wait_for(&self.link, |link| {
            if link.generation() != generation {
                return Some(Err(PlayError::Cleared));
            }
            if link.buffered() + least <= link.playback_buffer {
                return Some(Ok(()));
            }
            link.want_room();
            None
        })
        .await??;
        // Another player may have taken the room meanwhile, but a write always gets on.
        let fitting = samples.len().min((self.room() as usize).max(1));
        self.queue(generation, &samples[..fitting])?;
        Ok(fitting)
    }

    /// How many samples of this player's rate fit into the playback buffer.
    fn room(&self) -> u64 {
        let room = self
            .link
            .playback_buffer
            .saturating_sub(self.link.buffered());
        (room.as_nanos() * u128::from(self.hz) / 1_000_000_000) as u64
    }

    fn duration_of(&self, samples: u64) -> Duration {
        Duration::from_nanos(samples * 1_000_000_000 / u64::from(self.hz.max(1)))
    }

    fn queue(&mut self, generation: u64, samples: &[i16]) -> Result<(), PlayError> {
        let rate = self.link.rate();
        if self.hz == rate.hz() {
            return submit(&self.link, generation, rate, samples, None);
        }
        if generation != self.generation
            || self.resampler.as_ref().is_none_or(|(to, _)| *to != rate)
        {
            self.generation = generation;
            self.resampler = Resampler::new(self.hz, rate.hz())
                .ok()
                .map(|resampler| (rate, resampler));
        }
        let Some((_, resampler)) = &mut self.resampler else {
            return Ok(());
        };
        self.resampled.clear();
        resampler.process(samples, &mut self.resampled);
        let owned =
            (self.resampled.len() >= HAND_OVER).then(|| std::mem::take(&mut self.resampled));
        submit(&self.link, generation, rate, &self.resampled, owned)
    }

    /// Queues what the resampler still holds, for nothing is known to follow.
    fn flush(&mut self, generation: u64) -> Result<(), PlayError> {
        let Some((rate, mut resampler)) = self.resampler.take() else {
            return Ok(());
        };
        if generation != self.generation {
            return Ok(());
        }
        self.resampled.clear();
        resampler.flush(&mut self.resampled);
        submit(&self.link, generation, rate, &self.resampled, None)
    }
}

fn submit(
    link: &SharedLink,
    generation: u64,
    rate: Rate,
    samples: &[i16],
    owned: Option<Vec<i16>>,
) -> Result<(), PlayError> {
    let owned = owned.or_else(|| (samples.len() >= HAND_OVER).then(|| samples.to_vec()));
    let length = owned.as_ref().map_or(samples.len(), Vec::len);
    Ok(link.submit(
        generation,
        rate.duration(length as u64),
        |outbox| match owned {
            Some(owned) => outbox.play_owned(rate, owned),
            None => outbox.play(rate, samples),
        },
    )?)
}

pub(crate) fn queue_clip(
    link: &SharedLink,
    generation: u64,
    clip: &Clip,
) -> Result<Playback, PlayError> {
    let rate = link.rate();
    let samples = clip.at(rate);
    let (end, done) = (link.next_mark(), Arc::new(AtomicBool::new(false)));
    let audio = rate.duration(samples.len() as u64);
    let order = ClipOrder {
        rate,
        samples,
        end,
        done: Arc::clone(&done),
    };
    link.submit(generation, audio, |outbox| outbox.play_clip(order))?;
    Ok(Playback {
        link: link.clone(),
        end,
        done,
    })
}

impl Drop for Player {
    fn drop(&mut self) {
        // The last 2 ms of a sound are still in the resampler. After the end they are heard by nobody.
        let _ = self.flush(self.link.generation());
    }
}

impl fmt::Debug for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Player")
            .field("call", &self.link.id)
            .field("hz", &self.hz)
            .finish_non_exhaustive()
    }
}

/// A clip that was queued.
#[derive(Clone)]
pub struct Playback {
    link: SharedLink,
    end: Mark,
    done: Arc<AtomicBool>,
}

impl Playback {
    /// Waits until its last sample is written, or it is stopped or cleared, or the call is over.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and called again.
    pub async fn finished(&self) {
        // The end of the call is an end of the playback, too.
        let _ = wait_for(&self.link, |_| self.is_finished().then_some(())).await;
    }

    /// Whether nothing of it is left to play.
    pub fn is_finished(&self) -> bool {
        self.done.load(Ordering::Acquire) || self.link.ended().is_some()
    }

    /// Takes it out of the queue, whether it plays already or waits. What is queued behind it follows at the
    /// next slot.
    pub fn stop(&self) {
        // After a clearing or the end there is nothing to stop.
        let _ = self
            .link
            .submit(self.link.generation(), Duration::ZERO, |outbox| {
                outbox.remove(self.end)
            });
    }
}

impl fmt::Debug for Playback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Playback")
            .field("call", &self.link.id)
            .field("finished", &self.is_finished())
            .finish()
    }
}

/// A clearing under way; it has taken effect, whether it is awaited or not.
#[must_use = "it has taken effect, but only awaiting it says what was thrown away; drop it if nobody asks"]
#[derive(Debug)]
pub struct Clearing {
    link: SharedLink,
    generation: u64,
}

impl Clearing {
    pub(crate) fn new(link: SharedLink) -> Self {
        let generation = link.clear();
        Self { link, generation }
    }
}

impl Future for Clearing {
    type Output = Result<Cleared, PlayError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        poll_progress(&self.link, context, |link| link.cleared(self.generation))
    }
}

/// Waits until `look` finds what it looks for, or the call is over.
pub(crate) async fn wait_for<T>(
    link: &SharedLink,
    mut look: impl FnMut(&SharedLink) -> Option<T>,
) -> Result<T, PlayError> {
    poll_fn(|context| poll_progress(link, context, &mut look)).await
}

fn poll_progress<T>(
    link: &SharedLink,
    context: &Context<'_>,
    mut look: impl FnMut(&SharedLink) -> Option<T>,
) -> Poll<Result<T, PlayError>> {
    if let Some(found) = look(link) {
        return Poll::Ready(Ok(found));
    }
    link.wait(context.waker());
    // What happened between the look and the registration woke nobody.
    match (look(link), link.ended()) {
        (Some(found), _) => Poll::Ready(Ok(found)),
        (None, Some(_)) => Poll::Ready(Err(PlayError::Closed)),
        (None, None) => Poll::Pending,
    }
}

impl From<NotSubmitted> for PlayError {
    fn from(why: NotSubmitted) -> Self {
        match why {
            NotSubmitted::Closed => Self::Closed,
            NotSubmitted::Cleared => Self::Cleared,
        }
    }
}
