use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes a thread from its driver's wait. Any number of wakes before the thread looks count as one.
#[derive(Debug)]
pub struct Waker {
    descriptor: OwnedFd,
    woken: AtomicBool,
}

impl Waker {
    /// A waker that has not been woken.
    ///
    /// # Errors
    ///
    /// When the system has no descriptor for it.
    pub fn new() -> io::Result<Self> {
        let descriptor = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self {
            descriptor,
            woken: AtomicBool::new(false),
        })
    }

    /// Ends the current wait, or the next one. May be called from any thread.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            // The counter can't overflow, since it is written once per reset.
            let _ = rustix::io::write(&self.descriptor, &1u64.to_ne_bytes());
        }
    }

    /// Must be called before the thread looks for its work: a wake after that is a new one.
    pub(crate) fn reset(&self) {
        let _ = rustix::io::read(&self.descriptor, &mut [0u8; 8]);
        // Not a store: it could take effect after the look for work, and a wake between the two would be lost.
        self.woken.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
