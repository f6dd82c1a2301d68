//! What the handler asks of the media thread.
//!
//! | State             | Written by                     | Read by      | Ordering          |
//! |-------------------|--------------------------------|--------------|-------------------|
//! | queue, seal       | handler (push), media (take)   | both         | the mutex         |
//! | `is_filled`       | both, under the mutex          | media        | release/acquire   |
//! | `generation`      | handler (`clear`)              | both         | acquire-release   |
//! | `unclaimed`       | handler (+), media (-)         | handler      | acquire-release   |
//! | `end_wanted`      | handler (`fetch_max`)          | media        | acquire-release   |
//! | `preroll_until`   | handler                        | both         | release/acquire   |
//! | `capacity_wanted` | handler (set), media (reset)   | media        | release/acquire   |
//! | `is_live_noted`   | handler                        | handler      | relaxed           |
//! | `poll_requested`  | handler (set), media (reset)   | both         | acquire-release   |
//!
//! The media thread only tries the mutex. Each poll of a connection reads in this order, and each step relies
//! on the one before:
//!
//! 1. It resets `poll_requested`, so that a request after this point enqueues another poll.
//! 2. It reads `end_wanted` and `generation`. Whatever the handler queued before it asked for the end is then visible
//!    in the queue.
//! 3. It reads `preroll_until`. A tap that was added while the preroll was kept is then visible in the queue.
//! 4. It takes the queue and reads `generation` again under the lock. `submit` compares the generation under
//!    the same lock, so nothing in the queue is newer than the generation read here.
//!
//! If the lock is taken, the media thread may have missed commands that precede an end or a clear. It then
//! completes neither, and retries.
//!
//! `is_filled` spares an idle call the lock. Both sides write it under the mutex, so no push is overwritten. A stale
//! `false` only delays a command to the next poll. It can't be stale for a command that precedes an end or a clear:
//! step 2 acquires that.
//!
//! `poll_requested` bounds the media thread's mailbox: a call has at most one poll request in it.
//!
//! `is_live_noted` guards a single request and orders nothing: the queue's mutex publishes the audio.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use sidetone_proto::Time;

use crate::media::{
    commands::CommandQueue,
    tap::{Purpose, Tap, TapBuffer, Taps},
};

/// How long the preroll is kept after the handler has started, unless the handler reads an event before that.
/// A recorder or monitor created within this time has the call from its UUID on.
const PREROLL_FOR_HANDLER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Commands {
    state: Mutex<CommandState>,
    is_filled: AtomicBool,
    /// Counts the calls of `clear`. Audio queued under a lower number is discarded.
    generation: AtomicU64,
    /// Audio in the queue, in nanoseconds.
    unclaimed: AtomicU64,
    end_wanted: AtomicU8,
    /// Until when the preroll is kept, in nanoseconds. 0 when it isn't wanted any more.
    preroll_until: AtomicU64,
    /// A writer waits for space in the playback buffer.
    capacity_wanted: AtomicBool,
    /// The media thread has been asked to poll for the call's first live audio.
    is_live_noted: AtomicBool,
    /// The media thread has been asked to poll, and has not polled yet.
    poll_requested: AtomicBool,
}

#[derive(Debug, Default)]
struct CommandState {
    queue: CommandQueue,
    /// The call has ended: the media thread takes no more commands.
    is_sealed: bool,
    /// The preroll of a sealed call, for a tap that is added after the end.
    preroll: Option<Box<TapBuffer>>,
}

/// How the program wants its call to end. A later variant overrules an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum EndWanted {
    No,
    /// When everything queued has played.
    Finish,
    HangUp,
    Fail,
    Refuse,
    Shutdown,
}

/// Why something was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubmitError {
    Closed,
    Cleared,
}

impl Default for Commands {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            is_filled: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            unclaimed: AtomicU64::new(0),
            end_wanted: AtomicU8::new(EndWanted::No as u8),
            preroll_until: AtomicU64::new(u64::MAX),
            capacity_wanted: AtomicBool::new(false),
            is_live_noted: AtomicBool::new(false),
            poll_requested: AtomicBool::new(false),
        }
    }
}

/// The handler's side. It may block on the mutex, which the media thread holds for a swap.
impl Commands {
    /// Queues audio, unless the queue is sealed or `generation` has been cleared.
    pub(super) fn submit(
        &self,
        generation: u64,
        audio: Duration,
        fill: impl FnOnce(&mut CommandQueue),
    ) -> Result<(), SubmitError> {
        let mut state = self.lock_unsealed()?;
        if self.generation() != generation {
            return Err(SubmitError::Cleared);
        }
        state.queue.begin_submission(generation, audio);
        fill(&mut state.queue);
        if !audio.is_zero() {
            self.unclaimed
                .fetch_add(audio.as_nanos() as u64, Ordering::AcqRel);
        }
        self.is_filled.store(true, Ordering::Release);
        Ok(())
    }

    /// Queues a command that no clear concerns, unless the queue is sealed.
    pub(super) fn push(&self, fill: impl FnOnce(&mut CommandQueue)) -> Result<(), SubmitError> {
        let mut state = self.lock_unsealed()?;
        fill(&mut state.queue);
        self.is_filled.store(true, Ordering::Release);
        Ok(())
    }

    fn lock_unsealed(&self) -> Result<MutexGuard<'_, CommandState>, SubmitError> {
        let state = self.state.lock();
        if state.is_sealed {
            return Err(SubmitError::Closed);
        }
        Ok(state)
    }

    pub(super) fn add_tap(&self, now: Time, purpose: Purpose) -> Result<Arc<Tap>, SubmitError> {
        let from_preroll = !self.is_preroll_over(now);
        let mut state = self.state.lock();
        if state.is_sealed {
            let preroll = state.preroll.as_deref();
            let preroll = preroll.filter(|_| self.is_preroll_wanted());
            let preroll = preroll.ok_or(SubmitError::Closed)?;
            return Ok(Arc::new(Tap::completed(preroll.clone())));
        }
        let tap = Arc::new(Tap::default());
        state.queue.tap(purpose, Arc::clone(&tap), from_preroll);
        self.is_filled.store(true, Ordering::Release);
        Ok(tap)
    }

    pub(super) fn note_handler_started(&self, now: Time) {
        let until = (now + PREROLL_FOR_HANDLER).as_nanos();
        self.preroll_until.store(until, Ordering::Release);
    }

    pub(super) fn end_preroll(&self) {
        if self.is_preroll_wanted() {
            self.preroll_until.store(0, Ordering::Release);
        }
    }

    /// Frees the preroll of a sealed call.
    pub(super) fn free_preroll(&self) {
        self.state.lock().preroll = None;
    }

    /// Starts a new generation and returns it.
    pub(super) fn clear(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(super) fn want_end(&self, wanted: EndWanted) {
        self.end_wanted.fetch_max(wanted as u8, Ordering::AcqRel);
    }

    pub(super) fn want_capacity(&self) {
        self.capacity_wanted.store(true, Ordering::Release);
    }

    /// Returns true the first time it is called.
    pub(super) fn note_live(&self) -> bool {
        !self.is_live_noted.load(Ordering::Relaxed)
            && !self.is_live_noted.swap(true, Ordering::Relaxed)
    }

    /// Returns true if no poll has been requested yet.
    pub(super) fn request_poll(&self) -> bool {
        !self.poll_requested.swap(true, Ordering::AcqRel)
    }

    /// Audio that is queued here and not claimed by the media thread.
    pub(super) fn unclaimed(&self) -> Duration {
        Duration::from_nanos(self.unclaimed.load(Ordering::Acquire))
    }
}

/// Either side.
impl Commands {
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether a tap may still be added that starts with the preroll, provided that the call is not over.
    fn is_preroll_wanted(&self) -> bool {
        self.preroll_until.load(Ordering::Acquire) > 0
    }

    /// Step 3 of the order above.
    pub(crate) fn is_preroll_over(&self, now: Time) -> bool {
        now.as_nanos() >= self.preroll_until.load(Ordering::Acquire)
    }
}

/// The media thread's side. Nothing here blocks.
impl Commands {
    /// Step 1 of the order above.
    pub(crate) fn reset_poll_request(&self) {
        // The load spares a connection without a request the write to a shared cache line.
        if self.poll_requested.load(Ordering::Acquire) {
            self.poll_requested.swap(false, Ordering::AcqRel);
        }
    }

    /// Step 2 of the order above.
    pub(crate) fn end_wanted(&self) -> EndWanted {
        match self.end_wanted.load(Ordering::Acquire) {
            1 => EndWanted::Finish,
            2 => EndWanted::HangUp,
            3 => EndWanted::Fail,
            4 => EndWanted::Refuse,
            5 => EndWanted::Shutdown,
            _ => EndWanted::No,
        }
    }

    /// Step 4 of the order above: swaps the queue with `empty` and returns its generation. Returns `None` if the
    /// queue is empty or locked. The commands are applied after the lock is released.
    pub(crate) fn try_take(&self, empty: &mut CommandQueue) -> Option<u64> {
        if !self.is_filled() {
            return None;
        }
        let mut state = self.state.try_lock()?;
        self.is_filled.store(false, Ordering::Release);
        state.queue.swap_with(empty);
        Some(self.generation())
    }

    pub(crate) fn is_filled(&self) -> bool {
        self.is_filled.load(Ordering::Acquire)
    }

    /// Takes the queue for the last time and seals it. Returns false if it is locked. A tap that is added later gets
    /// the preroll that `taps` kept.
    pub(crate) fn try_seal(
        &self,
        empty: &mut CommandQueue,
        taps: &mut Taps,
        discard: impl FnOnce(&mut CommandQueue, &mut Taps),
    ) -> bool {
        let Some(mut state) = self.state.try_lock() else {
            return false;
        };
        self.is_filled.store(false, Ordering::Release);
        state.queue.swap_with(empty);
        discard(empty, taps);
        if !state.is_sealed {
            state.is_sealed = true;
            let preroll = taps.end_preroll();
            state.preroll = preroll.filter(|_| self.is_preroll_wanted());
        }
        true
    }

    /// Subtracts audio that the media thread has taken out of the queue.
    pub(super) fn claim(&self, audio: Duration) {
        if !audio.is_zero() {
            self.unclaimed
                .fetch_sub(audio.as_nanos() as u64, Ordering::AcqRel);
        }
    }

    pub(super) fn is_capacity_wanted(&self) -> bool {
        self.capacity_wanted.load(Ordering::Acquire)
    }

    /// Returns whether capacity was wanted until now.
    pub(super) fn reset_capacity_wanted(&self) -> bool {
        self.capacity_wanted.swap(false, Ordering::AcqRel)
    }
}
