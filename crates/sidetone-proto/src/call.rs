//! The state machine of one call.
//!
//! # Driving a call
//!
//! [`CallMachine`] does no I/O. The following invariants tie it to its socket:
//!
//! * **Time.** `now` never goes back from one call to the next.
//! * **Input.** The caller must pass every byte that was read to [`CallMachine::handle_received`], in order; the end of
//!   the stream to [`CallMachine::handle_end_of_stream`]; and an error of the socket to
//!   [`CallMachine::handle_connection_lost`].
//! * **Timeout.** After every `handle_*` call, and after every change to [`CallMachine::playout`] or
//!   [`CallMachine::jitter_buffer`], the caller must ask [`CallMachine::poll_timeout`] again: it may be earlier than
//!   before. When it has passed, the caller must poll.
//! * **Polling.** To poll is to call [`CallMachine::poll_transmit`], to send what it appended, then to call
//!   [`CallMachine::poll_heard`] if [`CallMachine::wants_poll_heard`], and then [`CallMachine::poll_socket_action`]. After
//!   [`SocketAction::Close`] the machine is done.
//! * **Sending.** The caller must send what a poll appended in one piece and before anything else, and report it exactly
//!   once: to [`CallMachine::handle_transmitted`] when it is known how much of it the socket took, or to
//!   [`CallMachine::handle_send_pending`] first when it is not known yet.
//! * **Partial sends.** While [`CallMachine::wants_writable`], the caller must wait for the socket to take more, and then
//!   send what [`CallMachine::poll_unsent`] appends by the same rule.

use std::time::Duration;

use crate::{ClockRecovery, Decoder, JitterBuffer, Pacer, Playout, Rate, Time, Unsent};

mod closing;
mod config;
mod counters;
mod end;
mod event;
mod inbound;
mod other_protocol;
mod outbound;

pub use config::CallConfig;
pub use counters::Counters;
pub use end::{EndReason, EndedBy};
pub use event::{Notice, Phase, Received, SocketAction};
pub use other_protocol::OtherProtocol;

/// The state machine of one call.
///
/// The caller must poll it when its [timeout](Self::poll_timeout) has passed, and ask for that timeout after every
/// `handle_*` call:
///
/// | event | call |
/// |---|---|
/// | bytes were read | [`handle_received`](Self::handle_received) |
/// | the stream has ended | [`handle_end_of_stream`](Self::handle_end_of_stream) |
/// | the socket failed | [`handle_connection_lost`](Self::handle_connection_lost) |
/// | the timeout has passed | [`poll_transmit`](Self::poll_transmit), send, [`poll_heard`](Self::poll_heard) if [wanted](Self::wants_poll_heard), [`poll_socket_action`](Self::poll_socket_action) |
/// | the socket is writable, if [wanted](Self::wants_writable) | [`poll_unsent`](Self::poll_unsent), send |
/// | after each send | [`handle_transmitted`](Self::handle_transmitted), or [`handle_send_pending`](Self::handle_send_pending) and that later |
///
/// What a poll appends must be sent in one piece and before anything else. `now` never goes back.
///
/// ```
/// use sidetone_proto::{CallConfig, CallMachine, Received, Time};
///
/// let mut call = CallMachine::new(Time::ZERO, CallConfig::default());
/// let mut id = None;
/// call.handle_received(Time::ZERO, b"\x01\x00\x100123456789abcdef", &mut |received| {
///     if let Received::Identified(uuid) = received {
///         id = Some(uuid);
///     }
/// });
/// assert!(id.is_some());
///
/// let (mut wire, mut pcm) = (Vec::new(), Vec::new());
/// call.poll_transmit(Time::ZERO, &mut wire, &mut pcm, &mut |_| {});
/// assert_eq!(wire.len(), 323, "a silent frame, from the UUID on");
/// call.handle_transmitted(&wire, wire.len());
/// ```
#[derive(Debug)]
pub struct CallMachine {
    config: CallConfig,
    phase: Phase,
    accepted: Time,
    /// Something was received.
    has_received: bool,
    /// When the UUID came: the origin of the call's clock.
    started: Option<Time>,
    last_inbound: Time,
    last_audio: Time,
    /// How much of the time since the last audio has been reported to be without audio.
    reported_no_audio: Duration,
    decoder: Decoder,
    clock_recovery: ClockRecovery,
    /// The place of the next inbound sample on the call's clock.
    position: Duration,
    companded: bool,
    /// The rate of linear samples that come under kind `0x10`.
    linear_rate: Rate,
    rate: Rate,
    pacer: Pacer,
    /// Until when the slot that is due waits for live audio.
    slot_waits_until: Option<Time>,
    playout: Playout,
    jitter_buffer: JitterBuffer,
    unsent: Unsent,
    counters: Counters,
}

impl CallMachine {
    /// A connection that was accepted at `now`.
    pub fn new(now: Time, config: CallConfig) -> Self {
        Self {
            config,
            phase: Phase::Opening,
            accepted: now,
            has_received: false,
            started: None,
            last_inbound: now,
            last_audio: now,
            reported_no_audio: Duration::ZERO,
            decoder: Decoder::new(),
            clock_recovery: ClockRecovery::new(now),
            position: Duration::ZERO,
            companded: false,
            linear_rate: Rate::default(),
            rate: Rate::default(),
            pacer: Pacer::new(now),
            slot_waits_until: None,
            playout: Playout::default(),
            jitter_buffer: JitterBuffer::default(),
            unsent: Unsent::default(),
            counters: Counters::default(),
        }
    }

    /// When the caller must poll next, at the latest: [`poll_transmit`](Self::poll_transmit), then
    /// [`poll_socket_action`](Self::poll_socket_action). [`Time::ZERO`] means at once.
    pub fn poll_timeout(&self) -> Time {
        match self.phase {
            Phase::Opening => self.accepted + self.config.identity_timeout,
            Phase::Running | Phase::Finishing(_) => {
                self.slot_waits_until.unwrap_or(self.pacer.next())
            }
            Phase::HangingUp { .. } if self.unsent.is_clear() => Time::ZERO,
            Phase::HangingUp { until, .. } | Phase::Lingering { until, .. } => until,
            Phase::Closed(_) => Time::ZERO,
        }
    }

    /// Replaces [`CallConfig::max_duration`]: ends the call this long after its UUID, or never for that reason.
    pub fn set_max_duration(&mut self, duration: Option<Duration>) {
        self.config.max_duration = duration;
    }

    /// The playout queue.
    pub fn playout(&mut self) -> &mut Playout {
        &mut self.playout
    }

    /// The jitter buffer of the live audio, which plays whenever nothing is queued. What comes in while queued audio
    /// plays is dropped, so that its delay doesn't grow.
    pub fn jitter_buffer(&mut self) -> &mut JitterBuffer {
        &mut self.jitter_buffer
    }

    /// The rate at which audio goes out: 8 kHz until audio of a wideband kind comes in, then that.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Whether anything was received. A peer that closes without a byte is a health check or a port scan.
    pub fn has_received(&self) -> bool {
        self.has_received
    }

    /// Where the call is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The time since the UUID came.
    pub fn age(&self, now: Time) -> Duration {
        self.started.map_or(Duration::ZERO, |started| now - started)
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        Counters {
            live_dropped: self.jitter_buffer.dropped(),
            underruns: self.jitter_buffer.underruns(),
            ..self.counters
        }
    }
}
