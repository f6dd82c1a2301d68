use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sidetone_proto::{Heard, ItemId};

/// The state of one queued item (clip, utterance or mark) that the handler and the media thread share. Lock-free.
#[derive(Debug, Default)]
pub(crate) struct Playing {
    finished: OnceLock<Heard>,
    /// It was heard to its end, rather than cut off. Set before `finished`.
    is_whole: AtomicBool,
    is_opened: AtomicBool,
    is_stopped: AtomicBool,
    /// Nanoseconds of it that were discarded before they reached the playout queue.
    discarded: AtomicU64,
}

impl Playing {
    /// What was heard of it. `None` until it is finished.
    pub(crate) fn finished(&self) -> Option<Heard> {
        self.finished.get().copied()
    }

    pub(crate) fn finish(&self, mut heard: Heard) {
        heard.unheard += Duration::from_nanos(self.discarded.load(Ordering::Acquire));
        // The command queue or the playout queue owns it and finishes it, so the first result is the only one.
        let _ = self.finished.set(heard);
    }

    /// It was heard to its end. To be called before [`finish`](Self::finish).
    pub(crate) fn note_whole(&self) {
        self.is_whole.store(true, Ordering::Release);
    }

    /// Whether it is finished because it was heard to its end. Read it after [`finished`](Self::finished).
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole.load(Ordering::Acquire)
    }

    /// Adds audio that was discarded before it reached the playout queue.
    pub(crate) fn add_discarded(&self, audio: Duration) {
        self.discarded
            .fetch_add(audio.as_nanos() as u64, Ordering::AcqRel);
    }

    /// It has been queued.
    pub(crate) fn note_opened(&self) {
        self.is_opened.store(true, Ordering::Release);
    }

    pub(crate) fn is_opened(&self) -> bool {
        self.is_opened.load(Ordering::Acquire)
    }

    pub(crate) fn note_stopped(&self) {
        self.is_stopped.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }
}

/// Numbers the items of a call.
#[derive(Debug, Default)]
pub(crate) struct NextItem(AtomicU64);

impl NextItem {
    pub(crate) fn next(&self) -> ItemId {
        ItemId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
