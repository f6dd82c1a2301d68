//! The io_uring backend: a receive armed once per connection, all sends of an iteration in one system call.
//!
//! | module | what is in it |
//! |---|---|
//! | [`setup`] | the ring, and the trial that shows whether it works |
//! | [`registration`] | what the ring knows of each connection |
//! | [`submission`] | requests to the kernel |
//! | [`completion`] | what their results mean |
//! | [`receive_buffers`], [`send_buffers`] | memory that is shared with the kernel |
//! | [`shutdown`] | the end of all requests, and of that memory |
//!
//! The kernel uses memory of this process while a request is *outstanding*, that is, until its last completion. It fills
//! receive buffers while a receive is armed, and reads a send buffer until its send completes. All `unsafe` keeps two
//! invariants:
//!
//! * a request's memory stays where it is, and its descriptor stays open, while it is outstanding ([`submission`]);
//! * the buffers are freed only when no request is outstanding, and leaked otherwise ([`shutdown`]).

mod completion;
mod receive_buffers;
mod registration;
mod send_buffers;
mod setup;
mod shutdown;
mod submission;
#[cfg(test)]
mod tests;

use std::{
    io,
    mem::ManuallyDrop,
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::Arc,
    time::Duration,
};

use io_uring::IoUring;
use rustix::io::Errno;
use slotmap::SecondaryMap;

use crate::{Driver, IoBackend, IoEvent, PendingRead, ReadSource, Sent, Token, Waker};
use receive_buffers::ReceiveBuffers;
use registration::Registration;
use send_buffers::SendBuffers;

/// Completions over a ring, instead of readiness.
pub struct Uring {
    ring: IoUring,
    receive_buffers: ManuallyDrop<ReceiveBuffers>,
    send_buffers: ManuallyDrop<SendBuffers>,
    registrations: Vec<Registration>,
    /// Registrations that no connection uses.
    free: Vec<u32>,
    registration_of: SecondaryMap<Token, u32>,
    /// Registrations whose receive ended while their connection goes on: they are armed again before the next wait.
    unarmed: Vec<u32>,
    /// A receive ended because no buffer was left.
    is_starved: bool,
    /// The number of the event loop's iteration. It wraps.
    iteration: u16,
    /// Requests that have not had their last completion.
    outstanding: usize,
    /// The buffer of the last event, which the kernel gets back with the next.
    borrowed: Option<u16>,
    waker: Arc<Waker>,
    /// The descriptor of the listener while it is registered.
    listener: Option<RawFd>,
}

impl Driver for Uring {
    fn backend(&self) -> IoBackend {
        IoBackend::IoUring
    }

    fn listen(&mut self, listener: &TcpListener) -> io::Result<()> {
        self.listener = Some(listener.as_raw_fd());
        self.poll_listener();
        Ok(())
    }

    fn stop_listening(&mut self, _: &TcpListener) {
        self.listener = None;
        self.cancel_listener();
    }

    fn register(&mut self, token: Token, stream: &TcpStream) -> io::Result<()> {
        self.insert(token, stream.as_fd());
        Ok(())
    }

    fn deregister(&mut self, token: Token, stream: TcpStream) {
        let Some(index) = self.registration_of.remove(token) else {
            return;
        };
        let registration = &mut self.registrations[index as usize];
        registration.is_deregistered = true;
        if registration.is_receiving || registration.is_polling {
            if registration.send_slot.is_some() {
                // Pending bytes are sent first. If the submission failed, the connection would be lost anyway.
                let _ = self.ring.submit();
            }
            // An armed receive keeps the socket open. After the shutdown it completes for the last time.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        registration.stream = Some(stream);
        self.free_if_idle(index);
    }

    fn send(&mut self, token: Token, _: &TcpStream, wire: &[u8]) -> Sent {
        let Some(&index) = self.registration_of.get(token) else {
            return Sent::Failed(Errno::NOTCONN);
        };
        if self.registrations[index as usize].send_slot.is_some() {
            // Two outstanding sends on one socket could interleave.
            return Sent::Accepted(0);
        }
        self.submit_send(index, wire);
        Sent::Pending
    }

    fn set_write_interest(&mut self, token: Token, _: &TcpStream, wanted: bool) {
        if !wanted {
            return;
        }
        if let Some(&index) = self.registration_of.get(token) {
            self.poll_writable(index);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, min_wait: Duration) -> io::Result<()> {
        self.release_borrowed();
        self.iteration = self.iteration.wrapping_add(1);
        if std::mem::take(&mut self.is_starved) {
            self.receive_buffers.provide_more();
        }
        while let Some(index) = self.unarmed.pop() {
            self.arm_receive(index);
        }
        self.submit_and_wait_twice(timeout, min_wait)
    }

    fn next_event(&mut self) -> Option<IoEvent> {
        self.release_borrowed();
        loop {
            let completion = self.next_completion()?;
            if let Some(event) = self.handle_completion(&completion) {
                return Some(event);
            }
        }
    }

    fn read(&mut self, pending: PendingRead, _: &TcpStream) -> Result<&[u8], Errno> {
        match pending.0 {
            ReadSource::Buffer { buffer, length } if self.borrowed == Some(buffer) => {
                Ok(self.receive_buffers.bytes(buffer, length))
            }
            ReadSource::End(None) => Ok(&[]),
            ReadSource::End(Some(error)) => Err(error),
            // Too late: the kernel has the buffer again.
            ReadSource::Buffer { .. } | ReadSource::Socket { .. } => Err(Errno::AGAIN),
        }
    }
}
