use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::event::{EventfdFlags, eventfd};

use crate::CallerError;

/// Ends calls from another thread, as if their callers hung up. All clones of a stop are the same stop.
#[derive(Clone, Debug)]
pub struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stopped: AtomicBool,
    waker: OwnedFd,
}

impl Stop {
    /// A stop for any number of calls.
    ///
    /// # Errors
    /// [`CallerError::System`] when no descriptor is left.
    pub fn new() -> Result<Self, CallerError> {
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|source| CallerError::system("make a stop handle", source))?;
        let stopped = AtomicBool::new(false);
        let shared = Arc::new(Shared { stopped, waker });
        Ok(Self { shared })
    }

    /// Ends all calls that were given this stop, and those that will be.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        // This fails only when the counter is at its limit, and then the waiting thread wakes up as well.
        let _ = rustix::io::write(&self.shared.waker, &1u64.to_ne_bytes());
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::Acquire)
    }

    /// Readable from the stop on.
    pub(crate) fn waker(&self) -> BorrowedFd<'_> {
        self.shared.waker.as_fd()
    }
}
