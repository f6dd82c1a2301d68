//! Events on their way from the media thread to the handler.
//!
//! | State        | Written by                                | Read by                | Ordering       |
//! |--------------|-------------------------------------------|------------------------|----------------|
//! | batch, waker | media thread, server (append), handler (take all) | media thread, handler  | the mutex      |
//! | waiters      | handler (register), media thread (take)   | media thread, handler  | the mutex      |
//! | `waiting`    | media thread, handler (take all)          | anyone                 | written under the batch's mutex, read relaxed |
//! | `taken`      | handler                                   | anyone                 | relaxed        |
//!
//! `waiting` and `taken` are statistics. A reader between the two stores of a swap sees audio in neither or in both.
//!
//! The handler takes the batch and registers its waker under one lock, so it can't miss an event that arrives
//! in between. The media thread only tries the locks. On failure it keeps the events, or the flag that
//! there was progress, and retries soon.
//!
//! There is no flag beside `waiters` that it is not empty. A waiter registers first and checks its condition
//! afterwards; the media thread changes the condition first and takes the waiters afterwards. Only the lock
//! orders the two: a relaxed flag could be read before the waiter's check and the wake-up would be lost.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    task::Waker,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};

use crate::media::batch::{Batch, Entry};

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    unread: Mutex<Unread>,
    waiters: Mutex<Vec<Waker>>,
    /// Audio in the unread batch, in nanoseconds.
    waiting: AtomicU64,
    /// Audio that the handler has swapped out and not read, in nanoseconds.
    taken: AtomicU64,
}

/// Events that the handler has not taken, and whom to wake when another arrives.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    pub(crate) batch: Batch,
    pub(crate) waker: Option<Waker>,
}

/// The handler's side.
impl Inbox {
    /// Swaps the unread events with `batch`, which must have been read to its end. Returns false if there are none.
    /// The waker that `register` stores is woken by the next event.
    pub(super) fn take_batch(
        &self,
        batch: &mut Batch,
        register: impl FnOnce(&mut Option<Waker>),
    ) -> bool {
        batch.clear();
        let mut unread = self.unread.lock();
        std::mem::swap(batch, &mut unread.batch);
        store(&self.taken, batch.buffered());
        store(&self.waiting, Duration::ZERO);
        register(&mut unread.waker);
        !batch.is_empty()
    }

    /// Adds an event and wakes the handler, unless `is_over` says under the lock that it would come too late.
    pub(super) fn push_unless(&self, entry: Entry, is_over: impl FnOnce() -> bool) -> bool {
        let waker = {
            let mut unread = self.unread.lock();
            if is_over() {
                return false;
            }
            unread.batch.push(entry);
            unread.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
        true
    }

    /// The handler has so much left of the batch that it took.
    pub(super) fn set_taken(&self, audio: Duration) {
        store(&self.taken, audio);
    }

    /// Audio that has come and has not been read.
    pub(super) fn lag(&self) -> Duration {
        let nanos = self.waiting.load(Ordering::Relaxed) + self.taken.load(Ordering::Relaxed);
        Duration::from_nanos(nanos)
    }

    pub(super) fn register_waiter(&self, waker: &Waker) {
        let mut waiters = self.waiters.lock();
        if !waiters.iter().any(|waiting| waiting.will_wake(waker)) {
            waiters.push(waker.clone());
        }
    }

    pub(super) fn clear_waiters(&self) {
        let waiters = std::mem::take(&mut *self.waiters.lock());
        // Outside the lock: dropping a waker can run code of the runtime.
        drop(waiters);
    }

    pub(super) fn wake_waiters(&self) {
        // Outside the lock: a task that wakes may register again at once.
        let waiters = std::mem::take(&mut *self.waiters.lock());
        waiters.into_iter().for_each(Waker::wake);
    }
}

/// The media thread's side. Nothing here blocks.
impl Inbox {
    pub(crate) fn try_unread(&self) -> Option<MutexGuard<'_, Unread>> {
        self.unread.try_lock()
    }

    /// The unread batch holds so much audio. It is locked.
    pub(crate) fn set_waiting(&self, audio: Duration) {
        store(&self.waiting, audio);
    }

    /// Moves the waiters to `wakes`. Returns false if one is registering right now.
    pub(crate) fn try_take_waiters(&self, wakes: &mut Vec<Waker>) -> bool {
        match self.waiters.try_lock() {
            Some(mut waiters) => {
                wakes.append(&mut waiters);
                true
            }
            None => false,
        }
    }
}

fn store(nanos: &AtomicU64, audio: Duration) {
    nanos.store(audio.as_nanos() as u64, Ordering::Relaxed);
}
