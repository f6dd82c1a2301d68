use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::{Arc, atomic::Ordering},
    task::Waker,
    time::Duration,
};

use rustix::io::Errno;
use sidetone_driver::{Sent, unsent_bytes};
use sidetone_proto::{
    CallMachine, EndReason, Heard, Io, ItemId, Notice, PeerErrors, Phase, Rate, Received, Time,
};
use uuid::Uuid;

use super::{
    CallRef, CallShared, EndWanted, MediaHandle, MediaShared, Token,
    batch::{Batch, Entry},
    closing::Closing,
    codec::{CallerAudio, InboundCodec},
    commands::{CommandQueue, Destination},
    listener,
    playing::Playing,
    tap::{Side, Taps},
};
use crate::{error::CallError, event::Mark, stats::CallSummary};

/// The handler sees its call's counters this fresh.
const PUBLISH_EVERY: u32 = 10;

/// Digits and reports of trouble that may wait unread. They are never dropped, and no person presses so many
/// tokens, but what connects may be no Asterisk.
const UNREAD: usize = 4096;

/// One accepted connection: a call machine, its socket, and the way to its handler.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// The wheel entry that counts; all others of this connection are stale.
    pub(crate) tick: Option<u64>,
    pub(crate) waits_for_room: bool,
    peer: SocketAddr,
    machine: CallMachine,
    inbound: InboundCodec,
    link: Option<CallRef>,
    /// It is a call that nobody has been told of.
    is_unannounced: bool,
    rejected: Option<Uuid>,
    /// What could not be handed over because the handler was just taking the rest.
    pending: Batch,
    generation: u64,
    clearing: Option<Clearing>,
    playing: Vec<(ItemId, Arc<Playing>)>,
    taps: Taps,
    slots_unpublished: u32,
    /// Something happened that those who wait for progress have not been told.
    progress: bool,
    kernel_rate: Rate,
    farewell: Farewell,
}

/// A clearing of which has not been told what was heard.
#[derive(Clone, Copy, Debug, Default)]
struct Clearing {
    heard: Heard,
    /// The queue has said its part.
    is_told: bool,
    /// All that was queued before it has been seen.
    is_complete: bool,
}

/// What has been said about the end of the call, each of which may have to wait for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    Unsaid,
    Published,
    Said,
}

/// What a media thread lends a connection for the time it works on it.
pub(crate) struct Context<'a> {
    pub(crate) token: Token,
    pub(crate) handle: &'a MediaHandle,
    pub(crate) shared: &'a MediaShared,
    pub(crate) tools: &'a mut Scratch,
}

impl Context<'_> {
    /// A lock was taken: this connection is looked at again soon, once, however many locks it was.
    fn look_again(&mut self) {
        let again = &mut self.tools.again;
        if again.last() != Some(&self.token) {
            again.push(self.token);
        }
    }
}

/// Bytes of room for what is to be sent: [as many slots](super::batch::ROOM) at 96 kHz as a call has buffers for, with their
/// headers.
const WIRE: usize = 16 * 1024;

/// Buffers that every connection of a thread uses in turn.
pub(crate) struct Scratch {
    /// What is to be sent.
    pub(crate) wire: Vec<u8>,
    pcm: Vec<i16>,
    batch: Batch,
    outbox: CommandQueue,
    /// Whom to wake at the end of the turn.
    pub(crate) wakes: Vec<Waker>,
    /// Connections that found a lock taken and want to be looked at again soon.
    pub(crate) again: Vec<Token>,
}

impl Scratch {
    /// With room for a turn that is late: it would take memory for that just then.
    pub(crate) fn new() -> Self {
        Self {
            wire: Vec::with_capacity(WIRE),
            pcm: Vec::with_capacity(WIRE / size_of::<i16>()),
            batch: Batch::default(),
            outbox: CommandQueue::default(),
            wakes: Vec::new(),
            again: Vec::new(),
        }
    }
}

impl Connection {
    pub(crate) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        now: Time,
        shared: &MediaShared,
    ) -> Self {
        Self {
            stream,
            tick: None,
            waits_for_room: false,
            peer,
            machine: CallMachine::new(now, shared.config.call.clone()),
            inbound: InboundCodec::new(shared.config.codec),
            link: None,
            is_unannounced: false,
            rejected: None,
            pending: Batch::default(),
            generation: 0,
            clearing: None,
            playing: Vec::new(),
            taps: Taps::default(),
            slots_unpublished: 0,
            progress: false,
            kernel_rate: Rate::default(),
            farewell: Farewell::Unsaid,
        }
    }

    pub(crate) fn deadline(&self) -> Time {
        self.machine.deadline()
    }

    pub(crate) fn wants_writable(&self) -> bool {
        self.machine.wants_writable()
    }

    /// Takes what was read: bytes, the end of the stream as none, or that it broke.
    pub(crate) fn take_in(
        &mut self,
        now: Time,
        read: Result<&[u8], Errno>,
        context: &mut Context<'_>,
    ) {
        match read {
            Ok([]) => self.machine.end_of_stream(),
            Ok(bytes) => self.receive(now, bytes, context),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => self.broken(error, context),
        }
        if self.deliver(context) > UNREAD {
            self.machine.hang_up(now, EndReason::Flooded);
        }
    }

    /// Does what the handler asked and puts what is due on the wire.
    pub(crate) fn prepare(&mut self, now: Time, context: &mut Context<'_>) {
        self.obey(now, context);
        let tools = &mut *context.tools;
        tools.wire.clear();
        let (link, taps, batch) = (&self.link, &mut self.taps, &mut tools.batch);
        let mut slots = 0;
        self.machine.poll_slot(
            now,
            &mut tools.wire,
            &mut tools.pcm,
            &mut |notice| match notice {
                Notice::Slot { rate, samples } => {
                    slots += 1;
                    taps.put(Side::Server, rate, now, samples);
                }
                Notice::Underrun => batch.push(Entry::Underrun),
                Notice::NoAudio { offset, duration } => {
                    batch.push(Entry::NoAudio { offset, duration });
                }
                // They are told when it is known what was sent.
                Notice::Ended { .. } | Notice::Cleared(_) | Notice::Drained => {}
            },
        );
        if let Some(link) = link {
            if let Some(at) = link.take_max_duration_warning(now) {
                let reason = EndReason::MaxDuration;
                batch.push(Entry::Closing { reason, at });
                self.progress = true;
            }
            link.set_queued(Duration::ZERO, self.machine.playout().queued());
            self.slots_unpublished += slots;
            if self.slots_unpublished >= PUBLISH_EVERY
                && link.try_set_counters(self.machine.counters())
            {
                self.slots_unpublished = 0;
            }
        }
        self.progress |= self
            .link
            .as_ref()
            .is_some_and(|link| link.has_wanted_room());
    }

    /// Puts what was left over on the wire: it goes before anything else.
    pub(crate) fn prepare_unsent(&mut self, context: &mut Context<'_>) {
        context.tools.wire.clear();
        self.machine.poll_unsent(&mut context.tools.wire);
    }

    /// Takes note of what became of the wire.
    pub(crate) fn note_sent(&mut self, sent: Sent, context: &mut Context<'_>) {
        match sent {
            Sent::Now(sent) => self.machine.transmitted(&context.tools.wire, sent),
            Sent::Later => self.machine.handed_over(context.tools.wire.len()),
            Sent::Failed(error) => self.broken(error, context),
        }
    }

    /// Takes note of what became of what was handed over: `rest` of it has not been sent.
    pub(crate) fn note_sent_later(
        &mut self,
        rest: Result<&[u8], Errno>,
        context: &mut Context<'_>,
    ) {
        match rest {
            Ok(rest) => self.machine.transmitted(rest, 0),
            Err(error) => {
                self.broken(error, context);
                self.deliver(context);
            }
        }
        if self.machine.wants_confirmation() {
            self.tell(context);
        }
    }

    /// Says what came of it all. Returns whether the connection lives on.
    pub(crate) fn conclude(&mut self, now: Time, context: &mut Context<'_>) -> bool {
        self.announce(context);
        self.tell(context);
        let open = self.settle(now);
        let farewell = self.say_farewell(now, context);
        open || !farewell
    }

    /// Tells the handler what happened.
    fn tell(&mut self, context: &mut Context<'_>) {
        if self.machine.wants_confirmation() {
            self.confirm(context);
        }
        self.publish_clearing(context);
        self.deliver(context);
        self.wake_waiters(context);
    }

    /// Asks what was sent, and so heard, of what has left the queue.
    fn confirm(&mut self, context: &mut Context<'_>) {
        let held = unsent_bytes(&self.stream).ok();
        let (playing, clearing) = (&mut self.playing, &mut self.clearing);
        let (batch, progress) = (&mut context.tools.batch, &mut self.progress);
        self.machine.confirm(held, &mut |notice| match notice {
            Notice::Ended {
                item,
                is_whole,
                heard,
            } => {
                *progress = true;
                match playing.iter().position(|(id, _)| *id == item) {
                    Some(index) => playing.swap_remove(index).1.finish(heard),
                    None if is_whole => batch.push(Entry::Mark(Mark(item.0))),
                    None => {}
                }
            }
            Notice::Cleared(heard) => {
                if let Some(clearing) = clearing {
                    clearing.heard = clearing.heard.and(heard);
                    clearing.is_told = true;
                }
            }
            Notice::Drained => batch.push(Entry::Drained),
            Notice::Slot { .. } | Notice::Underrun | Notice::NoAudio { .. } => {}
        });
    }

    fn publish_clearing(&mut self, context: &mut Context<'_>) {
        if let Some(clearing) = self.clearing
            && let Some(link) = &self.link
            && clearing.is_told
            && clearing.is_complete
        {
            if link.try_set_cleared(self.generation, clearing.heard) {
                self.clearing = None;
                self.progress = true;
            } else {
                context.look_again();
            }
        }
    }

    /// Ends the call; the next turn says so.
    pub(crate) fn hang_up(&mut self, now: Time, reason: EndReason) {
        self.machine.hang_up(now, reason);
    }

    /// Whether the UUID came: it is a call, or was rejected.
    pub(crate) fn is_answered(&self) -> bool {
        self.link.is_some() || self.rejected.is_some()
    }

    fn receive(&mut self, now: Time, bytes: &[u8], context: &mut Context<'_>) {
        let began = self.link.as_ref().map(|link| link.began);
        let (inbound, batch) = (&mut self.inbound, &mut context.tools.batch);
        let age = now - began.unwrap_or(now);
        let mut audio = CallerAudio {
            batch,
            taps: &mut self.taps,
        };
        let (mut identified, mut has_audio) = (None, false);
        self.machine
            .receive(now, bytes, &mut |received| match received {
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
                    audio.put_linear(rate, offset, now, bytes);
                }
                Received::Dtmf { digit, .. } => audio.batch.push(Entry::Dtmf(digit)),
                Received::PeerErrors(errors) => push_trouble(errors, audio.batch),
                Received::Malformed { kind, length } => {
                    audio
                        .batch
                        .push(Entry::Trouble(CallError::UnexpectedPayload {
                            kind,
                            length,
                        }));
                }
                _ => {}
            });
        if let Some(link) = &self.link {
            link.note_lagged(inbound.take_lost());
        }
        if let Some(found) = self.inbound.decide(age, &mut audio) {
            self.machine.set_linear_rate(found.rate, found.moved);
            if let Some(link) = &self.link {
                link.set_linear_rate(found.rate);
            }
        }
        self.machine.set_companded(self.inbound.is_companded());
        if let Some(link) = &self.link {
            link.set_codec(self.inbound.codec());
        }
        if let Some(id) = identified {
            self.identify(id, now, context);
        }
        if self.machine.rate() != self.kernel_rate {
            self.kernel_rate = self.machine.rate();
            listener::limit_kernel_buffer(&self.stream, self.kernel_rate);
        }
        // The first audio tells it, whatever it is.
        if has_audio && let Some(link) = &self.link {
            link.set_rate(self.kernel_rate);
        }
    }

    /// The UUID came: it becomes a call, or is rejected.
    fn identify(&mut self, id: Uuid, now: Time, context: &mut Context<'_>) {
        let shared = context.shared;
        let refusal = if shared.draining.load(Ordering::Acquire) {
            Some(EndReason::Shutdown)
        } else if !shared.config.networks.contains(self.peer.ip()) {
            Some(EndReason::NotAllowed)
        } else {
            let full = shared.running.fetch_add(1, Ordering::AcqRel) >= shared.config.max_calls;
            if full {
                shared.running.fetch_sub(1, Ordering::AcqRel);
            }
            full.then_some(EndReason::Full)
        };
        if let Some(reason) = refusal {
            self.machine.hang_up(now, reason);
            self.taps.end_beginning();
            self.rejected = Some(id);
            shared.answered.fetch_add(1, Ordering::AcqRel);
            shared.tally.rejected.fetch_add(1, Ordering::Relaxed);
            return;
        }
        shared.tally.calls.fetch_add(1, Ordering::Relaxed);
        let MediaShared { config, .. } = shared;
        let (receive, playback) = (config.receive_buffer, config.playback_buffer);
        let closing = Closing::new(config.call.max_duration, config.max_duration_warning);
        let link = Arc::new(CallShared::new(
            id,
            self.peer,
            now,
            receive,
            playback,
            closing,
            context.handle.clone(),
            context.token,
        ));
        link.set_codec(self.inbound.codec());
        self.link = Some(link);
        self.is_unannounced = true;
    }

    /// Tells of a new call, whose first slot has been prepared. Before that, a handler that is quick would get audio into
    /// a slot that leaves with the UUID's arrival, which Dial mostly drops: its bridge is not ready yet.
    fn announce(&mut self, context: &Context<'_>) {
        if let Some(link) = &self.link
            && self.is_unannounced
        {
            self.is_unannounced = false;
            // In this order: a call that counts as answered has been announced.
            context.shared.arrivals.arrived(Arc::clone(link));
            context.shared.answered.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Does what the handler asked since the last look.
    fn obey(&mut self, now: Time, context: &mut Context<'_>) {
        // Not a copy of it: counting references for each slot costs more than it looks like.
        let Self {
            link: Some(link),
            machine,
            clearing,
            ..
        } = self
        else {
            return;
        };
        link.note_attention();
        machine.set_max_duration(link.max_duration());
        // In this order: whatever was queued before the end was wanted is in the outbox, and nothing in the
        // outbox is newer than the clearing that is obeyed.
        let (end_wanted, seen) = (link.end_wanted(), link.generation());
        let is_beginning_over = self.taps.keeps_beginning() && link.is_beginning_over(now);
        let outbox = &mut context.tools.outbox;
        let taken = link.try_take_outbox(outbox);
        let is_contended = taken.is_none() && link.has_outbox();
        let generation = taken.unwrap_or(seen);
        if generation != self.generation {
            self.generation = generation;
            machine.playout().clear();
            machine.live().clear();
            link.set_queued(Duration::ZERO, Duration::ZERO);
            clearing.get_or_insert_default().is_told = false;
        }
        if taken.is_some() {
            let mut destination = Destination {
                machine,
                playing: &mut self.playing,
                taps: &mut self.taps,
            };
            let emptied = outbox.empty_into(now, generation, &mut destination);
            link.set_queued(emptied.audio, machine.playout().queued());
            if let Some(clearing) = clearing {
                clearing.heard.unheard += emptied.voided;
            }
        }
        if is_beginning_over && !is_contended {
            self.taps.end_beginning();
        }
        // A clearing is done, and an end is after the last sound, only when all that was queued is known.
        if is_contended {
            context.look_again();
        }
        if let Some(clearing) = clearing {
            clearing.is_complete = !is_contended;
        }
        match end_wanted {
            EndWanted::No => {}
            EndWanted::Finish if is_contended => {}
            EndWanted::Finish => machine.finish(EndReason::Finished),
            EndWanted::HangUp => machine.hang_up(now, EndReason::HungUp),
            EndWanted::Fail => machine.hang_up(now, EndReason::HandlerFailed),
            EndWanted::Refuse => machine.hang_up(now, EndReason::Refused),
            EndWanted::Shutdown => machine.hang_up(now, EndReason::Shutdown),
        }
    }

    fn broken(&mut self, error: Errno, context: &mut Context<'_>) {
        let reason = match error {
            Errno::CONNRESET | Errno::PIPE => EndReason::ConnectionReset,
            Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH => EndReason::PeerGone,
            _ => EndReason::ConnectionFailed,
        };
        self.machine.broken(reason);
        if self.machine.phase() == Phase::Closed(reason) {
            let error = CallError::from(io::Error::from(error));
            context.tools.batch.push(Entry::Trouble(error));
        }
    }

    /// Hands this turn's events to the handler, and notes whom to wake. Says how many it has not read that are
    /// never dropped.
    fn deliver(&mut self, context: &mut Context<'_>) -> usize {
        let batch = &mut context.tools.batch;
        let Some(link) = &self.link else {
            batch.clear();
            return 0;
        };
        if batch.is_empty() && self.pending.is_empty() {
            return 0;
        }
        match link.try_inbox() {
            Some(mut inbox) => {
                if !self.pending.is_empty() {
                    inbox.batch.append(&mut self.pending);
                }
                inbox.batch.append(batch);
                link.note_lagged(inbox.batch.drop_oldest(link.receive_buffer));
                context.tools.wakes.extend(inbox.waker.take());
                inbox.batch.kept()
            }
            None => {
                self.pending.append(batch);
                link.note_lagged(self.pending.drop_oldest(link.receive_buffer));
                context.look_again();
                self.pending.kept()
            }
        }
    }

    fn wake_waiters(&mut self, context: &mut Context<'_>) {
        if self.progress
            && let Some(link) = &self.link
        {
            self.progress = !link.try_take_waiters(&mut context.tools.wakes);
            if self.progress {
                context.look_again();
            }
        }
    }

    /// Does to the socket what the machine says; false when it is to be closed.
    fn settle(&mut self, now: Time) -> bool {
        loop {
            match self.machine.poll_io(now) {
                Io::Nothing => return true,
                Io::ShutdownWrite => {
                    // It fails only when the connection is gone already, which the next read tells.
                    let _ = self.stream.shutdown(std::net::Shutdown::Write);
                }
                Io::Close => return false,
            }
        }
    }

    /// Tells whoever should know that the call is over, counters first. True when nothing is left to say.
    fn say_farewell(&mut self, now: Time, context: &mut Context<'_>) -> bool {
        let reason = match self.machine.phase() {
            Phase::HangingUp { reason, .. }
            | Phase::Lingering { reason, .. }
            | Phase::Closed(reason) => reason,
            _ => return false,
        };
        if self.farewell == Farewell::Said {
            return true;
        }
        // The report of what was sent leads back here.
        if self.machine.awaits_last_sent() {
            return false;
        }
        let Some(link) = self.link.clone() else {
            self.say_farewell_to_nobody(reason, context);
            self.farewell = Farewell::Said;
            return true;
        };
        if self.farewell == Farewell::Unsaid {
            self.inbound.release(&mut CallerAudio {
                batch: &mut context.tools.batch,
                taps: &mut self.taps,
            });
            let playing = &self.playing;
            let told = link.try_set_counters(self.machine.counters())
                && link.try_seal_outbox(
                    &mut context.tools.outbox,
                    &mut self.taps,
                    |outbox, taps| outbox.give_up(playing, taps),
                )
                && self.taps.try_end();
            if !told {
                context.look_again();
                return false;
            }
            // Nothing is known of what was under way, and it counts as not sent.
            self.machine.playout().stop_all();
            self.confirm(context);
            for (_, playing) in self.playing.drain(..) {
                playing.finish(Heard::default());
            }
            context.shared.running.fetch_sub(1, Ordering::AcqRel);
            link.set_ended(reason, now);
            context.tools.batch.push(Entry::Ended(reason));
            self.farewell = Farewell::Published;
        }
        self.deliver(context);
        let waiters_told = link.try_take_waiters(&mut context.tools.wakes);
        if self.pending.is_empty() && waiters_told {
            self.farewell = Farewell::Said;
            return true;
        }
        context.look_again();
        false
    }

    fn say_farewell_to_nobody(&self, reason: EndReason, context: &Context<'_>) {
        match self.rejected {
            Some(id) => context.shared.arrivals.rejected(CallSummary::rejected(
                id,
                self.peer,
                self.inbound.codec(),
                reason,
            )),
            None => {
                let tally = &context.shared.tally;
                if let EndReason::OtherProtocol(protocol) = reason {
                    let those = &tally.other_protocols[protocol as usize];
                    those.fetch_add(1, Ordering::Relaxed);
                }
                // In this order: those are among these.
                tally.without_identity.fetch_add(1, Ordering::Release);
            }
        }
    }
}

fn push_trouble(errors: PeerErrors, batch: &mut Batch) {
    if errors.frame_forwarding() {
        batch.push(Entry::Trouble(CallError::FrameForwarding));
    }
    if errors.memory() {
        batch.push(Entry::Trouble(CallError::Memory));
    }
}
