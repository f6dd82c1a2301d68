use {
    crate::CallerError,
    rustix::event::{EventfdFlags, eventfd},
    std::{
        os::fd::{AsFd, BorrowedFd, OwnedFd},
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    },
};

/// Ends calls from another thread, as if their callers hung up. Clones act as one.
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
    /// A stop for any number of runs.
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

    /// Ends all calls that look at this stop, now and later.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        // Only a counter at its limit refuses this, and that one wakes as well.
        let _ = rustix::io::write(&self.shared.waker, &1u64.to_ne_bytes());
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::Acquire)
    }

    /// Readable once stopped, for ever.
    pub(crate) fn waker(&self) -> BorrowedFd<'_> {
        self.shared.waker.as_fd()
    }
}
