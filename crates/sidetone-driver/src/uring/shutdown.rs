//! The end of all requests, and of the memory that is shared with the kernel.
//!
//! Invariant: the buffers are freed only when no request is outstanding. Otherwise they are leaked, since the kernel may
//! still write to them.
#![allow(unsafe_code)]

use std::{
    mem::ManuallyDrop,
    time::{Duration, Instant},
};

use super::Uring;
use crate::Driver;

/// How long to wait for outstanding requests before their memory is leaked.
pub(super) const MAX_SHUTDOWN: Duration = Duration::from_secs(1);

impl Uring {
    /// Cancels all requests and waits for their completions; false if some are still outstanding.
    pub(super) fn cancel_and_wait(&mut self) -> bool {
        self.cancel_all();
        let deadline = Instant::now() + MAX_SHUTDOWN;
        while self.outstanding > 0 && Instant::now() < deadline {
            if self.wait(Some(MAX_SHUTDOWN), Duration::ZERO).is_err() {
                break;
            }
            while self.next_completion().is_some() {}
        }
        self.outstanding == 0
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if self.cancel_and_wait() {
            // SAFETY: no request is outstanding, so the kernel uses neither any more. Nothing here uses them after this.
            unsafe {
                ManuallyDrop::drop(&mut self.receive_buffers);
                ManuallyDrop::drop(&mut self.send_buffers);
            }
        }
    }
}
