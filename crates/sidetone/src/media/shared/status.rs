//! What the media thread publishes about a call. Only the media thread writes here; the handler reads.
//!
//! | State                          | Ordering        | Why                                                       |
//! |--------------------------------|-----------------|-----------------------------------------------------------|
//! | `rate`, `codec`, `linear_rate` | relaxed         | single values; what they describe travels in the inbox    |
//! | `lagged`                       | relaxed         | a statistic                                               |
//! | `levels`                       | relaxed         | single values, for a picture                              |
//! | `queued`                       | release/acquire | stored before `Commands::unclaimed` is reduced, see below |
//! | `ended`                        | the `OnceLock`  | set after the counters: a summary has the final ones      |
//! | `counters`, `cleared`          | the mutex       | wider than a word; the media thread only tries the lock   |
//!
//! Audio moves from `Commands::unclaimed` to `queued`. The media thread stores `queued` first and subtracts
//! from `unclaimed` second; a reader loads `unclaimed` first and `queued` second. So audio in between may count
//! twice for a moment, but never not at all, and a writer never overfills the playback buffer.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use sidetone_proto::{Counters, EndReason, Heard, Rate, Time};

use crate::{
    event::Codec,
    media::{
        Side,
        levels::{Level, Levels},
    },
};

#[derive(Debug)]
pub(crate) struct Status {
    /// The code of the call's own rate. 0 while that is not known.
    rate: AtomicU8,
    codec: AtomicU8,
    /// The code of the rate of inbound audio of kind `0x10`.
    linear_rate: AtomicU8,
    /// Audio in the media thread's playout queue, in nanoseconds.
    queued: AtomicU64,
    lagged: AtomicU64,
    /// [`Level`]s of the caller and of the server.
    levels: [AtomicU64; 2],
    ended: OnceLock<(EndReason, Time)>,
    counters: Mutex<Counters>,
    /// The last generation whose clear is complete, and what was heard of the audio it cut off.
    cleared: Mutex<(u64, Heard)>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            rate: AtomicU8::new(0),
            codec: AtomicU8::new(Codec::Auto as u8),
            linear_rate: AtomicU8::new(Rate::default().code()),
            queued: AtomicU64::new(0),
            lagged: AtomicU64::new(0),
            levels: Default::default(),
            ended: OnceLock::new(),
            counters: Mutex::default(),
            cleared: Mutex::default(),
        }
    }
}

/// Either side.
impl Status {
    pub(super) fn rate(&self) -> Option<Rate> {
        Rate::from_code(self.rate.load(Ordering::Relaxed))
    }

    pub(super) fn linear_rate(&self) -> Option<Rate> {
        Rate::from_code(self.linear_rate.load(Ordering::Relaxed))
    }

    pub(super) fn codec(&self) -> Codec {
        let codec = self.codec.load(Ordering::Relaxed);
        [Codec::Slin, Codec::Ulaw, Codec::Alaw, Codec::Raw]
            .into_iter()
            .find(|known| *known as u8 == codec)
            .unwrap_or(Codec::Auto)
    }

    pub(super) fn queued(&self) -> Duration {
        Duration::from_nanos(self.queued.load(Ordering::Acquire))
    }

    pub(super) fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }

    pub(super) fn level(&self, side: Side) -> Level {
        Level::from_bits(self.levels[side as usize].load(Ordering::Relaxed))
    }

    pub(super) fn ended(&self) -> Option<(EndReason, Time)> {
        self.ended.get().copied()
    }

    pub(super) fn counters(&self) -> Counters {
        *self.counters.lock()
    }

    pub(super) fn cleared(&self, generation: u64) -> Option<Heard> {
        let (done, heard) = *self.cleared.lock();
        (done >= generation).then_some(heard)
    }
}

/// The media thread's side. Nothing here blocks.
impl Status {
    pub(crate) fn set_rate(&self, rate: Rate) {
        self.rate.store(rate.code(), Ordering::Relaxed);
    }

    pub(crate) fn set_linear_rate(&self, rate: Rate) {
        self.linear_rate.store(rate.code(), Ordering::Relaxed);
    }

    pub(crate) fn set_codec(&self, codec: Codec) {
        self.codec.store(codec as u8, Ordering::Relaxed);
    }

    pub(super) fn set_queued(&self, queued: Duration) {
        self.queued
            .store(queued.as_nanos() as u64, Ordering::Release);
    }

    pub(crate) fn set_levels(&self, levels: &Levels) {
        for side in [Side::Caller, Side::Server] {
            let bits = levels.of(side).to_bits();
            self.levels[side as usize].store(bits, Ordering::Relaxed);
        }
    }

    /// Adds frames that were dropped before the handler read them.
    pub(crate) fn add_lagged(&self, frames: u64) {
        self.lagged.fetch_add(frames, Ordering::Relaxed);
    }

    pub(crate) fn set_ended(&self, reason: EndReason, at: Time) {
        // The first end counts.
        let _ = self.ended.set((reason, at));
    }

    /// Returns false if the handler is reading the counters right now.
    pub(crate) fn try_set_counters(&self, counters: Counters) -> bool {
        match self.counters.try_lock() {
            Some(mut published) => {
                *published = counters;
                true
            }
            None => false,
        }
    }

    /// Publishes the result of a clear. Returns false if the handler is reading the previous one right now.
    pub(crate) fn try_set_cleared(&self, generation: u64, heard: Heard) -> bool {
        match self.cleared.try_lock() {
            Some(mut cleared) => {
                *cleared = (generation, heard);
                true
            }
            None => false,
        }
    }
}
