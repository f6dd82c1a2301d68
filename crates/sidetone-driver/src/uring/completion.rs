//! What completions mean.

use io_uring::cqueue;
use rustix::io::Errno;

use super::{Uring, registration::Tag};
use crate::{IoEvent, PendingRead, ReadSource};

/// Buffers that the kernel may fill for one connection in one iteration: 64 KiB, seconds of audio at 8 kHz. A connection
/// that sends more gets one in an iteration from then on, since each buffer holds up to thousands of short messages.
const MAX_BUFFERS_PER_ITERATION: u16 = 32;

impl Uring {
    pub(super) fn next_completion(&mut self) -> Option<cqueue::Entry> {
        let completion = self.ring.completion().next()?;
        if !cqueue::more(completion.flags()) {
            self.outstanding -= 1;
        }
        Some(completion)
    }

    /// The event of a completion, if it has one.
    pub(super) fn handle_completion(&mut self, completion: &cqueue::Entry) -> Option<IoEvent> {
        let (result, flags) = (completion.result(), completion.flags());
        match Tag::unpack(completion.user_data()) {
            Tag::Waker => {
                self.waker.reset();
                if !cqueue::more(flags) {
                    self.poll_waker();
                }
                Some(IoEvent::Woken)
            }
            Tag::Listener => {
                self.poll_listener();
                (result > 0 && self.listener.is_some()).then_some(IoEvent::Incoming)
            }
            Tag::Receive(index) => self.handle_receive(index, result, flags),
            Tag::Send(index) => self.handle_send(index, result),
            Tag::Writable(index) => self.handle_writable(index),
            Tag::Cancel => None,
        }
    }

    fn handle_receive(&mut self, index: u32, result: i32, flags: u32) -> Option<IoEvent> {
        let registration = &mut self.registrations[index as usize];
        let (token, is_deregistered) = (registration.token, registration.is_deregistered);
        let has_ended = !cqueue::more(flags);
        if has_ended {
            registration.is_receiving = false;
        }
        let source = match (to_result(result), cqueue::buffer_select(flags)) {
            (Ok(length), Some(buffer)) if length > 0 && !is_deregistered => {
                self.borrowed = Some(buffer);
                self.count_filled_buffer(index);
                Some(ReadSource::Buffer { buffer, length })
            }
            (result, Some(buffer)) => {
                self.receive_buffers.provide(buffer);
                (result == Ok(0)).then_some(ReadSource::End(None))
            }
            // All buffers were in use, by a peer that floods or in a long iteration. Nothing is lost: the bytes are still
            // in the socket.
            (Err(Errno::NOBUFS), None) => {
                self.is_starved = true;
                None
            }
            (Err(Errno::CANCELED), None) => None,
            (Ok(_), None) => Some(ReadSource::End(None)),
            (Err(error), None) => Some(ReadSource::End(Some(error))),
        };
        let is_end = matches!(source, Some(ReadSource::End(_)));
        if has_ended && !is_deregistered && !is_end {
            self.unarmed.push(index);
        }
        self.free_if_idle(index);
        source
            .filter(|_| !is_deregistered)
            .map(|source| IoEvent::Readable(token, PendingRead(source)))
    }

    fn handle_send(&mut self, index: u32, result: i32) -> Option<IoEvent> {
        let registration = &mut self.registrations[index as usize];
        let (token, is_deregistered) = (registration.token, registration.is_deregistered);
        let slot = registration.send_slot.take()?;
        let wire = self.send_buffers.bytes(slot);
        let event = match to_result(result) {
            Ok(sent) if sent >= wire.len() => IoEvent::Sent(token),
            Ok(sent) => IoEvent::PartiallySent(token, wire[sent..].to_vec()),
            Err(Errno::AGAIN | Errno::INTR) => IoEvent::PartiallySent(token, wire.to_vec()),
            Err(error) => IoEvent::Failed(token, error),
        };
        self.send_buffers.release(slot);
        self.free_if_idle(index);
        (!is_deregistered).then_some(event)
    }

    fn handle_writable(&mut self, index: u32) -> Option<IoEvent> {
        let registration = &mut self.registrations[index as usize];
        registration.is_polling = false;
        let (token, is_deregistered) = (registration.token, registration.is_deregistered);
        self.free_if_idle(index);
        (!is_deregistered).then_some(IoEvent::Writable(token))
    }

    /// Counts a buffer that was filled for a connection. A peer that floods must not make others wait: its receive is
    /// cancelled, and armed again for one buffer at a time.
    fn count_filled_buffer(&mut self, index: u32) {
        let registration = &mut self.registrations[index as usize];
        let before = if registration.filled_in == self.iteration {
            registration.filled
        } else {
            0
        };
        registration.filled_in = self.iteration;
        registration.filled = before.saturating_add(1);
        if before < MAX_BUFFERS_PER_ITERATION || registration.is_flooding {
            return;
        }
        registration.is_flooding = true;
        if registration.is_receiving {
            self.cancel_receive(index);
        }
    }

    /// Gives the buffer of the last event back to the kernel.
    pub(super) fn release_borrowed(&mut self) {
        if let Some(buffer) = self.borrowed.take() {
            self.receive_buffers.provide(buffer);
        }
    }
}

fn to_result(result: i32) -> Result<usize, Errno> {
    if result >= 0 {
        Ok(result as usize)
    } else {
        Err(Errno::from_raw_os_error(-result))
    }
}
