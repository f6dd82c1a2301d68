use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sidetone_proto::Heard;

/// What a handler and the media thread share of something that was queued. Nobody waits here for anybody.
#[derive(Debug, Default)]
pub(crate) struct Playing {
    finished: OnceLock<Heard>,
    is_opened: AtomicBool,
    is_stopped: AtomicBool,
    /// Nanoseconds of it that never came into the queue.
    voided: AtomicU64,
}

impl Playing {
    /// What was heard of it, when it is over.
    pub(crate) fn finished(&self) -> Option<Heard> {
        self.finished.get().copied()
    }

    pub(crate) fn finish(&self, mut heard: Heard) {
        heard.unheard += Duration::from_nanos(self.voided.load(Ordering::Acquire));
        // It ends once: whoever has it in his queue says so.
        let _ = self.finished.set(heard);
    }

    pub(crate) fn note_voided(&self, audio: Duration) {
        self.voided
            .fetch_add(audio.as_nanos() as u64, Ordering::AcqRel);
    }

    /// It has its place in the queue from now on.
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
