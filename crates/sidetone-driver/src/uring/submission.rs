//! Requests to the kernel.
//!
//! Invariant: the memory and the descriptor of a request stay valid until its last completion.
//!
//! * A receive fills buffers of the registered group, which lives while requests are outstanding.
//! * A send reads its slot of [`SendBuffers`](super::SendBuffers), which is neither moved nor changed until the send
//!   completes.
//! * A connection's descriptor is open while it is registered. After that, its
//!   [`Registration`](super::Registration) keeps its stream until nothing of it is outstanding.
//! * Polls and cancellations refer to no memory.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    time::Duration,
};

use io_uring::{opcode, squeue, types};
use rustix::{event::PollFlags, io::Errno};

use super::{
    Uring, receive_buffers,
    registration::Tag,
    setup::{BUFFER_GROUP, COMPLETIONS},
};
use crate::SEND_FLAGS;

impl Uring {
    /// Arms the receive of a connection that has none.
    pub(super) fn arm_receive(&mut self, index: u32) {
        let registration = &mut self.registrations[index as usize];
        if registration.is_deregistered || registration.is_receiving {
            return;
        }
        registration.is_receiving = true;
        let descriptor = types::Fd(registration.descriptor);
        let receive = if registration.is_flooding {
            let size = receive_buffers::SIZE as u32;
            opcode::Recv::new(descriptor, std::ptr::null_mut(), size)
                .buf_group(BUFFER_GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        } else {
            opcode::RecvMulti::new(descriptor, BUFFER_GROUP).build()
        };
        let receive = receive.user_data(Tag::Receive(index).pack());
        // SAFETY: the buffers it fills belong to the registered group, which lives while requests are outstanding. The
        // descriptor stays open until the last completion.
        unsafe { self.push(&receive) };
    }

    /// Submits a send on a connection that has none pending.
    pub(super) fn submit_send(&mut self, index: u32, wire: &[u8]) {
        let registration = &mut self.registrations[index as usize];
        if !registration.has_sent {
            registration.has_sent = true;
            self.send_buffers.add_sender(wire.len());
        }
        let (slot, bytes) = self.send_buffers.fill(wire);
        registration.send_slot = Some(slot);
        let descriptor = types::Fd(registration.descriptor);
        let send = opcode::Send::new(descriptor, bytes.as_ptr(), bytes.len() as u32)
            .flags(SEND_FLAGS.bits() as i32)
            .build()
            .user_data(Tag::Send(index).pack());
        // SAFETY: the slot's bytes are neither moved nor changed until it is released, which happens when this send's
        // completion is seen. The descriptor stays open until then.
        unsafe { self.push(&send) };
    }

    pub(super) fn poll_waker(&mut self) {
        self.poll(self.waker.as_fd().as_raw_fd(), Tag::Waker, true);
    }

    /// Polls the listener once. A multishot poll would report only new connections, and those that were left in the
    /// queue would stay there.
    pub(super) fn poll_listener(&mut self) {
        if let Some(listener) = self.listener {
            self.poll(listener, Tag::Listener, false);
        }
    }

    /// Polls a connection once for writability.
    pub(super) fn poll_writable(&mut self, index: u32) {
        let registration = &mut self.registrations[index as usize];
        if !registration.is_polling {
            registration.is_polling = true;
            let descriptor = registration.descriptor;
            self.poll(descriptor, Tag::Writable(index), false);
        }
    }

    fn poll(&mut self, descriptor: RawFd, tag: Tag, multishot: bool) {
        let events = if matches!(tag, Tag::Writable(_)) {
            PollFlags::OUT
        } else {
            PollFlags::IN
        };
        let poll = opcode::PollAdd::new(types::Fd(descriptor), u32::from(events.bits()))
            .multi(multishot)
            .build()
            .user_data(tag.pack());
        // SAFETY: a poll refers to no memory.
        unsafe { self.push(&poll) };
    }

    pub(super) fn cancel_listener(&mut self) {
        self.cancel(Tag::Listener);
    }

    pub(super) fn cancel_receive(&mut self, index: u32) {
        self.cancel(Tag::Receive(index));
    }

    fn cancel(&mut self, request: Tag) {
        let cancel = opcode::AsyncCancel::new(request.pack()).build();
        // SAFETY: a cancellation refers to no memory.
        unsafe { self.push(&cancel.user_data(Tag::Cancel.pack())) };
    }

    pub(super) fn cancel_all(&mut self) {
        let cancel = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
        // SAFETY: a cancellation refers to no memory.
        unsafe { self.push(&cancel.user_data(Tag::Cancel.pack())) };
    }

    /// Puts a request in the queue, and submits the queue if it is full.
    ///
    /// # Safety
    ///
    /// The memory and the descriptor that the request refers to must stay valid until its last completion.
    unsafe fn push(&mut self, request: &squeue::Entry) {
        self.outstanding += 1;
        // SAFETY: the caller keeps the same promise.
        while unsafe { self.ring.submission().push(request) }.is_err() {
            // This fails only while completions must be seen first, and then the queue has been taken anyway.
            let _ = self.ring.submit();
        }
    }

    /// Submits the queue and waits: for `min_wait`, and then for the first completion, at most for `timeout` in all.
    pub(super) fn submit_and_wait_twice(
        &mut self,
        timeout: Option<Duration>,
        min_wait: Duration,
    ) -> io::Result<()> {
        if !min_wait.is_zero() {
            // More completions than there can be: it returns when the time is up.
            self.submit_and_wait(COMPLETIONS as usize, Some(min_wait))?;
        }
        let is_ready = !self.ring.completion().is_empty();
        if is_ready && !min_wait.is_zero() {
            return Ok(());
        }
        let rest = timeout.map(|timeout| timeout.saturating_sub(min_wait));
        self.submit_and_wait(usize::from(!is_ready), rest)
    }

    /// Submits the queue and waits for `wanted` completions, at most for `timeout`.
    fn submit_and_wait(&mut self, wanted: usize, timeout: Option<Duration>) -> io::Result<()> {
        let result = match timeout {
            None => self.ring.submit_and_wait(wanted),
            Some(timeout) => {
                let time = types::Timespec::from(timeout);
                let arguments = types::SubmitArgs::new().timespec(&time);
                self.ring.submitter().submit_with_args(wanted, &arguments)
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether a wait only ended early: the time is up, a signal came, or completions must be seen before more can be
/// submitted.
fn is_transient(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::TIME, Errno::INTR, Errno::BUSY, Errno::AGAIN]
        .iter()
        .any(|transient| code == Some(transient.raw_os_error()))
}
