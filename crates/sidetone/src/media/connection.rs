//! One accepted connection on its media thread. The event loop drives it:
//!
//! 1. [`handle_received`](Connection::handle_received) with what was read.
//! 2. [`poll_transmit`](Connection::poll_transmit) at each deadline and whenever the handler requests a poll; the
//!    event loop sends the bytes and passes the outcome to
//!    [`handle_send_result`](Connection::handle_send_result), and later to
//!    [`handle_send_completion`](Connection::handle_send_completion) if the driver took them over.
//! 3. [`poll_close`](Connection::poll_close) after each `poll_transmit`. It returns false when the connection is to be
//!    dropped; otherwise [`deadline`](Connection::deadline) says when to poll next.
//!
//! None of these blocks.

mod admission;
mod apply;
mod close;
mod context;
mod report;

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustix::io::Errno;
use sidetone_driver::Sent;
use sidetone_proto::{
    CallMachine, EndReason, ItemId, Notice, PeerErrors, Phase, Rate, Received, Time,
};
use uuid::Uuid;

use super::{
    CallRef, Excess, MediaShared, NewConnection, Token, Waiting,
    batch::{Batch, Entry},
    codec::{CallerAudio, InboundCodec},
    listener,
    playing::Playing,
    tap::{Side, Taps},
};
use crate::error::CallError;
use apply::PendingClear;
use close::EndReport;
pub(crate) use context::{Context, Scratch};

/// Slots between two publications of a call's counters.
const SLOTS_PER_COUNTER_UPDATE: u32 = 10;

/// Digits and errors that may wait unread. They are never dropped. No caller presses so many keys, but the peer may
/// not be an Asterisk.
const MAX_UNREAD: usize = 4096;

/// How long a connection that is rejected, since its address connects too often, may stay without saying its UUID.
/// Asterisk says it at once, and is hung up then as with any other rejection.
const EXCESS_IDENTITY_TIMEOUT: Duration = Duration::from_secs(1);

/// One accepted connection: a call machine, its socket, and the state it shares with its handler.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// The tick of the timing wheel entry that counts. All other entries of this connection are stale.
    pub(crate) tick: Option<u64>,
    /// The driver reports when the socket takes more bytes.
    pub(crate) has_write_interest: bool,
    peer: SocketAddr,
    machine: CallMachine,
    inbound: InboundCodec,
    /// `None` until the UUID has been received, and if the call was rejected.
    call: Option<CallRef>,
    /// The call has been created and the server does not know of it yet.
    is_unannounced: bool,
    rejected: Option<Uuid>,
    /// Its address connects too often.
    excess: Option<Excess>,
    /// `None` once the UUID has been received.
    waiting: Option<Waiting>,
    /// Events that could not be delivered because the handler held the lock.
    undelivered: Batch,
    generation: u64,
    pending_clear: Option<PendingClear>,
    playing: Vec<(ItemId, Arc<Playing>)>,
    taps: Taps,
    slots_since_update: u32,
    /// Something happened that the registered waiters have not been woken for.
    has_progress: bool,
    /// The rate that the limit on unsent bytes is set for.
    unsent_limit_rate: Rate,
    end_report: EndReport,
}

impl Connection {
    pub(super) fn new(new: NewConnection, now: Time, shared: &MediaShared) -> Self {
        let mut config = shared.config.call.clone();
        if new.excess.is_some() {
            config.identity_timeout = config.identity_timeout.min(EXCESS_IDENTITY_TIMEOUT);
        }
        Self {
            stream: new.stream,
            tick: None,
            has_write_interest: false,
            peer: new.peer,
            machine: CallMachine::new(now, config),
            inbound: InboundCodec::new(shared.config.codec),
            call: None,
            is_unannounced: false,
            rejected: None,
            excess: new.excess,
            waiting: Some(new.waiting),
            undelivered: Batch::default(),
            generation: 0,
            pending_clear: None,
            playing: Vec::new(),
            taps: Taps::default(),
            slots_since_update: 0,
            has_progress: false,
            unsent_limit_rate: Rate::default(),
            end_report: EndReport::Pending,
        }
    }

    /// The event loop knows it by this.
    pub(crate) fn set_token(&self, token: Token) {
        if let Some(waiting) = &self.waiting {
            waiting.set_token(token);
        }
    }

    /// When to poll next at the latest.
    pub(crate) fn deadline(&self) -> Time {
        self.machine.poll_timeout()
    }

    pub(crate) fn wants_writable(&self) -> bool {
        self.machine.wants_writable()
    }

    /// Whether the UUID has been received, so that this is a call or a rejected one.
    pub(crate) fn is_identified(&self) -> bool {
        self.call.is_some() || self.rejected.is_some()
    }

    /// Ends the call. The next [`poll_transmit`](Self::poll_transmit) sends the hang-up.
    pub(crate) fn hang_up(&mut self, now: Time, reason: EndReason) {
        self.machine.hang_up(now, reason);
    }
}

/// What comes in.
impl Connection {
    /// Handles the outcome of a read: bytes, none at the end of the stream, or an error.
    pub(crate) fn handle_received(
        &mut self,
        now: Time,
        read: Result<&[u8], Errno>,
        context: &mut Context<'_>,
    ) {
        match read {
            Ok([]) => self.machine.handle_end_of_stream(),
            Ok(bytes) => self.handle_bytes(now, bytes, context),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => self.handle_io_error(error, context),
        }
        if self.deliver_events(context) > MAX_UNREAD {
            self.machine.hang_up(now, EndReason::Flooded);
        }
    }

    fn handle_bytes(&mut self, now: Time, bytes: &[u8], context: &mut Context<'_>) {
        let age = self
            .call
            .as_ref()
            .map_or(Duration::ZERO, |call| now - call.began);
        let inbound = &mut self.inbound;
        let mut audio = CallerAudio {
            batch: &mut context.scratch.batch,
            taps: &mut self.taps,
        };
        let (mut identified, mut has_audio) = (None, false);
        self.machine
            .handle_received(now, bytes, &mut |received| match received {
                Received::Identified(id) => identified = Some(id),
                Received::Audio {
                    rate: Rate::Slin,
                    bytes,
                    offset,
                } => {
                    has_audio = true;
                    inbound.receive(age, now, offset, bytes, &mut audio);
                }
                Received::Audio {
                    rate,
                    bytes,
                    offset,
                } => {
                    has_audio = true;
                    match inbound.is_raw() {
                        true => audio.push_raw(rate, offset, now, bytes),
                        false => audio.push_linear(rate, offset, now, bytes),
                    }
                }
                Received::Dtmf { digit, .. } => audio.batch.push(Entry::Dtmf(digit)),
                Received::PeerErrors(errors) => push_peer_errors(errors, audio.batch),
                Received::Malformed { kind, length } => {
                    audio
                        .batch
                        .push(Entry::Error(CallError::UnexpectedPayload { kind, length }));
                }
                _ => {}
            });
        self.update_codec(age, context);
        if let Some(id) = identified {
            self.handle_identified(id, now, context);
        }
        self.update_rate(has_audio);
    }

    /// Passes on what the bytes just received tell about the codec.
    fn update_codec(&mut self, age: Duration, context: &mut Context<'_>) {
        let mut audio = CallerAudio {
            batch: &mut context.scratch.batch,
            taps: &mut self.taps,
        };
        if let Some(call) = &self.call {
            call.status.add_lagged(self.inbound.take_lost());
        }
        if let Some(found) = self.inbound.decide(age, &mut audio) {
            self.machine.set_linear_rate(found.rate, found.moved);
            if let Some(call) = &self.call {
                call.status.set_linear_rate(found.rate);
            }
        }
        self.machine.set_companded(self.inbound.is_companded());
        if let Some(call) = &self.call {
            call.status.set_codec(self.inbound.codec());
        }
    }

    fn update_rate(&mut self, has_audio: bool) {
        let rate = self.machine.rate();
        if rate != self.unsent_limit_rate {
            self.unsent_limit_rate = rate;
            listener::limit_unsent(&self.stream, rate);
        }
        // The first audio determines the rate, also if it is the default one.
        if has_audio && let Some(call) = &self.call {
            call.status.set_rate(rate);
        }
    }

    fn handle_io_error(&mut self, error: Errno, context: &mut Context<'_>) {
        let reason = match error {
            Errno::CONNRESET | Errno::PIPE => EndReason::ConnectionReset,
            Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH => EndReason::PeerGone,
            _ => EndReason::ConnectionFailed,
        };
        self.machine.handle_connection_lost(reason);
        if self.machine.phase() == Phase::Closed(reason) {
            let error = CallError::from(io::Error::from(error));
            context.scratch.batch.push(Entry::Error(error));
        }
    }
}

/// What goes out.
impl Connection {
    /// Applies the handler's commands and fills the transmit buffer with what is due.
    pub(crate) fn poll_transmit(&mut self, now: Time, context: &mut Context<'_>) {
        self.apply_commands(now, context);
        let lateness = context.handle.lateness();
        let scratch = &mut *context.scratch;
        scratch.transmit.clear();
        let (taps, batch) = (&mut self.taps, &mut scratch.batch);
        let age = self.call.as_ref().map(|call| now - call.began);
        let offset = age.unwrap_or_default();
        let mut slots = 0;
        self.machine.poll_transmit(
            now,
            &mut scratch.transmit,
            &mut scratch.pcm,
            &mut |notice| match notice {
                Notice::Slot {
                    rate,
                    samples,
                    late,
                } => {
                    slots += 1;
                    lateness.record(late);
                    taps.put(Side::Server, rate, now, offset, samples);
                }
                Notice::Underrun => batch.push(Entry::Underrun),
                Notice::NoAudio { offset, duration } => {
                    batch.push(Entry::NoAudio { offset, duration });
                }
                // `poll_confirmed` reports these, once it is known what was sent.
                Notice::Ended { .. } | Notice::Cleared(_) | Notice::Drained => {}
            },
        );
        if let Some(call) = &self.call {
            if let Some(at) = call.closing.take_warning(call.began, now) {
                let reason = EndReason::MaxDuration;
                batch.push(Entry::Closing { reason, at });
                self.has_progress = true;
            }
            call.set_queued(Duration::ZERO, self.machine.playout().queued());
            call.status.set_levels(self.taps.levels());
            self.slots_since_update += slots;
            if self.slots_since_update >= SLOTS_PER_COUNTER_UPDATE
                && call.status.try_set_counters(self.machine.counters())
            {
                self.slots_since_update = 0;
            }
            self.has_progress |= call.take_capacity_request();
        }
    }

    /// Fills the transmit buffer with what an earlier send left over. It precedes everything else.
    pub(crate) fn poll_unsent(&mut self, context: &mut Context<'_>) {
        context.scratch.transmit.clear();
        self.machine.poll_unsent(&mut context.scratch.transmit);
    }

    /// Handles what the driver said when it was given the transmit buffer.
    pub(crate) fn handle_send_result(&mut self, sent: Sent, context: &mut Context<'_>) {
        match sent {
            Sent::Accepted(sent) => self
                .machine
                .handle_transmitted(&context.scratch.transmit, sent),
            Sent::Pending => self
                .machine
                .handle_send_pending(context.scratch.transmit.len()),
            Sent::Failed(error) => self.handle_io_error(error, context),
        }
    }

    /// Handles the completion of a send that the driver had taken over: `rest` has not been sent.
    pub(crate) fn handle_send_completion(
        &mut self,
        rest: Result<&[u8], Errno>,
        context: &mut Context<'_>,
    ) {
        match rest {
            Ok(rest) => self.machine.handle_transmitted(rest, 0),
            Err(error) => {
                self.handle_io_error(error, context);
                self.deliver_events(context);
            }
        }
        if self.machine.wants_poll_heard() {
            self.report_progress(context);
        }
    }
}

fn push_peer_errors(errors: PeerErrors, batch: &mut Batch) {
    if errors.frame_forwarding() {
        batch.push(Entry::Error(CallError::FrameForwarding));
    }
    if errors.memory() {
        batch.push(Entry::Error(CallError::Memory));
    }
}
