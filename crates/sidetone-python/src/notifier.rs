use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::event::{EventfdFlags, eventfd};

/// Tells an event loop, through a descriptor that becomes readable, that there is something to do.
pub(crate) struct Notifier {
    event: OwnedFd,
    /// It is readable, or about to be. A thread that finds it so has nothing to do.
    is_notified: AtomicBool,
}

impl Notifier {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self {
            event,
            is_notified: AtomicBool::new(false),
        })
    }

    /// What the event loop watches.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Makes it readable. From any thread, and it never waits.
    pub(crate) fn notify(&self) {
        if !self.is_notified.swap(true, Ordering::AcqRel) {
            // It would fail only if it had been written to 2^64 - 1 times.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Makes it unreadable. What is to be done is looked for after this, so that nothing is missed.
    pub(crate) fn reset(&self) {
        // It is empty if the loop looked without having been told.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        // Not a store: it could take effect after the look, and a notification between the two would be lost.
        self.is_notified.swap(false, Ordering::AcqRel);
    }
}
