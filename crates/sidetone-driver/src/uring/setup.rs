//! The ring, and the trial that shows whether it works.

use std::{
    io::{self, Write},
    mem::ManuallyDrop,
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::Arc,
    time::{Duration, Instant},
};

use io_uring::{IoUring, cqueue};
use slotmap::SecondaryMap;

use super::{
    Uring, receive_buffers::ReceiveBuffers, registration::Tag, send_buffers::SendBuffers,
    shutdown::MAX_SHUTDOWN,
};
use crate::{Driver, Token, Waker};

/// Requests that can wait to be submitted; a full queue is submitted early.
const SUBMISSIONS: u32 = 4096;

/// More than twice the calls that one thread is meant for: a completion for each receive and each send of an iteration.
/// The kernel keeps what does not fit, at a cost.
pub(super) const COMPLETIONS: u32 = 16_384;

/// The group of the receive buffers; there is only one.
pub(super) const BUFFER_GROUP: u16 = 0;

impl Uring {
    /// Opens a ring and carries a message through it: what a kernel, a container or a policy refuses shows here,
    /// whatever the kernel's version claims.
    ///
    /// # Errors
    ///
    /// When the system refuses any of that.
    pub fn new(waker: Arc<Waker>) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_clamp()
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(SUBMISSIONS)?;
        let receive_buffers = ReceiveBuffers::new(&ring, BUFFER_GROUP)?;
        let mut uring = Self {
            ring,
            receive_buffers: ManuallyDrop::new(receive_buffers),
            send_buffers: ManuallyDrop::new(SendBuffers::default()),
            registrations: Vec::new(),
            free: Vec::new(),
            registration_of: SecondaryMap::new(),
            unarmed: Vec::new(),
            is_starved: false,
            iteration: 0,
            outstanding: 0,
            borrowed: None,
            waker,
            listener: None,
        };
        uring.probe()?;
        uring.poll_waker();
        Ok(uring)
    }

    /// Sends a byte through a pair of sockets and receives it as it would a call's.
    fn probe(&mut self) -> io::Result<()> {
        let (mut near, far) = UnixStream::pair()?;
        let index = self.insert(Token::default(), far.as_fd());
        near.write_all(&[1])?;
        let has_received = self.wait_for(Tag::Receive(index), |result, flags| {
            result == 1 && cqueue::buffer_select(flags).is_some()
        });
        near.shutdown(Shutdown::Both)?;
        let has_ended = self.wait_for(Tag::Receive(index), |_, flags| !cqueue::more(flags));
        self.registrations.clear();
        self.registration_of.clear();
        self.unarmed.clear();
        if has_received && has_ended {
            Ok(())
        } else {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Takes completions until one is as wanted, and releases their buffers; false if none is in time.
    fn wait_for(&mut self, tag: Tag, is_wanted: impl Fn(i32, u32) -> bool) -> bool {
        let deadline = Instant::now() + MAX_SHUTDOWN;
        loop {
            while let Some(completion) = self.next_completion() {
                let flags = completion.flags();
                if let Some(buffer) = cqueue::buffer_select(flags) {
                    self.receive_buffers.provide(buffer);
                }
                if Tag::unpack(completion.user_data()) == tag
                    && is_wanted(completion.result(), flags)
                {
                    return true;
                }
            }
            let now = Instant::now();
            if now >= deadline || self.wait(Some(deadline - now), Duration::ZERO).is_err() {
                return false;
            }
        }
    }
}
