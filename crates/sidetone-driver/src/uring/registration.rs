//! What the ring knows of each connection.

use std::{
    net::TcpStream,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
};

use super::Uring;
use crate::Token;

/// What the ring knows of one connection. A registration is reused only when no completion can name it any more.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) token: Token,
    pub(super) descriptor: RawFd,
    /// A receive is armed.
    pub(super) is_receiving: bool,
    /// A poll for writability is armed.
    pub(super) is_polling: bool,
    /// It sent more in one iteration than a call does. From then on one buffer is filled in an iteration.
    pub(super) is_flooding: bool,
    /// The last iteration in which buffers were filled for it.
    pub(super) filled_in: u16,
    /// How many buffers were filled in that iteration.
    pub(super) filled: u16,
    /// It has sent something: there is a send buffer for it.
    pub(super) has_sent: bool,
    /// The send buffer of the pending send.
    pub(super) send_slot: Option<u32>,
    /// It was deregistered, and reports nothing more.
    pub(super) is_deregistered: bool,
    /// The stream of a deregistered connection. It stays open while requests are outstanding, so that its descriptor is
    /// not given to another connection.
    pub(super) stream: Option<TcpStream>,
}

/// What a completion belongs to: the 64 bits of its user data. The number is that of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Waker,
    Listener,
    Receive(u32),
    Send(u32),
    Writable(u32),
    /// A cancellation, whose completion means nothing.
    Cancel,
}

impl Tag {
    pub(super) fn pack(self) -> u64 {
        let (kind, registration) = match self {
            Self::Waker => (0, 0),
            Self::Listener => (1, 0),
            Self::Receive(registration) => (2, registration),
            Self::Send(registration) => (3, registration),
            Self::Writable(registration) => (4, registration),
            Self::Cancel => (5, 0),
        };
        kind << 32 | u64::from(registration)
    }

    pub(super) fn unpack(bits: u64) -> Self {
        let registration = bits as u32;
        match bits >> 32 {
            0 => Self::Waker,
            1 => Self::Listener,
            2 => Self::Receive(registration),
            3 => Self::Send(registration),
            4 => Self::Writable(registration),
            _ => Self::Cancel,
        }
    }
}

impl Uring {
    /// Registers a connection and arms its receive.
    pub(super) fn insert(&mut self, token: Token, descriptor: BorrowedFd<'_>) -> u32 {
        let registration = Registration {
            token,
            descriptor: descriptor.as_raw_fd(),
            is_receiving: false,
            is_polling: false,
            is_flooding: false,
            filled_in: 0,
            filled: 0,
            has_sent: false,
            send_slot: None,
            is_deregistered: false,
            stream: None,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.registrations[index as usize] = registration;
                index
            }
            None => {
                self.registrations.push(registration);
                (self.registrations.len() - 1) as u32
            }
        };
        self.registration_of.insert(token, index);
        self.unarmed.reserve(self.registrations.len());
        self.arm_receive(index);
        index
    }

    /// Frees a registration when its connection is deregistered and no completion can name it any more.
    pub(super) fn free_if_idle(&mut self, index: u32) {
        let registration = &mut self.registrations[index as usize];
        if registration.is_deregistered
            && !registration.is_receiving
            && registration.send_slot.is_none()
            && !registration.is_polling
            && registration.stream.take().is_some()
        {
            if registration.has_sent {
                self.send_buffers.remove_sender();
            }
            self.free.push(index);
        }
    }
}
