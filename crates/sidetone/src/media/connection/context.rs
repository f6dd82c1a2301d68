use std::task::Waker;

use crate::media::{MediaHandle, MediaShared, Token, batch::Batch, commands::CommandQueue};

/// Bytes of capacity of the transmit buffer: [`RESERVED_SLOTS`](crate::media::batch::RESERVED_SLOTS) at 96 kHz, with
/// their headers.
const TRANSMIT_BYTES: usize = 16 * 1024;

/// What the event loop lends a connection while it works on it.
pub(crate) struct Context<'a> {
    pub(crate) token: Token,
    pub(crate) handle: &'a MediaHandle,
    pub(crate) shared: &'a MediaShared,
    pub(crate) scratch: &'a mut Scratch,
}

impl Context<'_> {
    /// The handler held a lock: this connection is polled again soon, once, however many locks it was.
    pub(super) fn schedule_retry(&mut self) {
        let retries = &mut self.scratch.retries;
        if retries.last() != Some(&self.token) {
            retries.push(self.token);
        }
    }
}

/// Buffers that all connections of a thread use in turn.
pub(crate) struct Scratch {
    /// Bytes to be sent.
    pub(crate) transmit: Vec<u8>,
    pub(super) pcm: Vec<i16>,
    pub(super) batch: Batch,
    pub(super) commands: CommandQueue,
    /// Handlers to wake at the end of the event-loop iteration.
    pub(crate) wakes: Vec<Waker>,
    /// Connections that found a lock taken and are to be polled again soon.
    pub(crate) retries: Vec<Token>,
}

impl Scratch {
    /// With capacity for a late iteration, which is no time to allocate.
    pub(crate) fn new() -> Self {
        Self {
            transmit: Vec::with_capacity(TRANSMIT_BYTES),
            pcm: Vec::with_capacity(TRANSMIT_BYTES / size_of::<i16>()),
            batch: Batch::default(),
            commands: CommandQueue::default(),
            wakes: Vec::new(),
            retries: Vec::new(),
        }
    }
}
