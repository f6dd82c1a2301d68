use std::time::Duration;

use uuid::Uuid;

use crate::{
    ClockRecovery, Decoder, Due, Heard, ItemId, JitterBuffer, Kind, Message, Outbound, Pacer,
    PeerErrors, Playout, Pulled, Rate, Time, Unsent, encode_samples,
};

mod counters;
mod end;
mod other_protocol;

pub use counters::Counters;
pub use end::{EndReason, EndedBy};
pub use other_protocol::OtherProtocol;

/// At most this many slots are written in one turn when some are missing.
const SLOTS_A_TURN: usize = 2;

/// The lengths of the pieces in which a stretch without audio is reported: in its first second, and later.
const NO_AUDIO: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How long a call that was ended here may take to go: its last bytes, then the other side's end of stream.
const LINGER: Duration = Duration::from_secs(1);

/// The limits of a call.
///
/// ```
/// let config = sidetone_proto::CallConfig::default();
/// assert_eq!(config.identity_timeout.as_secs(), 60);
/// assert_eq!(config.idle_timeout, None);
/// ```
#[derive(Clone, Debug)]
pub struct CallConfig {
    /// How long a connection may stay without a UUID.
    ///
    /// It is long because Asterisk's channel driver connects when the channel is *requested* and says the
    /// UUID when it is *called*: with ARI create and dial, seconds or minutes lie between.
    pub identity_timeout: Duration,
    /// Ends a call after so long without inbound audio or digits. Off unless set: silence from Asterisk is
    /// legal, a muted caller or a phone with silence suppression sends nothing.
    pub idle_timeout: Option<Duration>,
    /// Ends a call so long after its UUID.
    pub max_duration: Option<Duration>,
}

impl Default for CallConfig {
    fn default() -> Self {
        Self {
            identity_timeout: Duration::from_secs(60),
            idle_timeout: None,
            max_duration: None,
        }
    }
}

/// The state machine of one call.
///
/// Whoever drives it gives it what was read ([`receive`](Self::receive), [`end_of_stream`](Self::end_of_stream)),
/// asks it to write whenever its [`deadline`](Self::deadline) has come ([`poll_slot`](Self::poll_slot)) or a
/// full socket takes more ([`poll_unsent`](Self::poll_unsent)), says how much of that went out
/// ([`transmitted`](Self::transmitted)), and does to the socket what [`poll_io`](Self::poll_io) says.
///
/// ```
/// use sidetone_proto::{CallConfig, CallMachine, Received, Time};
///
/// let mut call = CallMachine::new(Time::ZERO, CallConfig::default());
/// let mut id = None;
/// call.receive(Time::ZERO, b"\x01\x00\x100123456789abcdef", &mut |received| {
///     if let Received::Identified(uuid) = received {
///         id = Some(uuid);
///     }
/// });
/// assert!(id.is_some());
///
/// let (mut wire, mut pcm) = (Vec::new(), Vec::new());
/// call.poll_slot(Time::ZERO, &mut wire, &mut pcm, &mut |_| {});
/// assert_eq!(wire.len(), 323, "a silent frame, from the UUID on");
/// call.transmitted(&wire, wire.len());
/// ```
#[derive(Debug)]
pub struct CallMachine {
    config: CallConfig,
    phase: Phase,
    opened: Time,
    /// Something came in.
    has_heard: bool,
    /// When the UUID came: the origin of the call's clock.
    began: Option<Time>,
    last_inbound: Time,
    last_audio: Time,
    /// How much of the time since then has been told to be without audio.
    told_silent: Duration,
    decoder: Decoder,
    cadence: ClockRecovery,
    /// The place of the next inbound sample on the call's clock.
    position: Duration,
    companded: bool,
    /// The rate of linear samples that come under kind `0x10`.
    linear_rate: Rate,
    rate: Rate,
    pacer: Pacer,
    /// Until when the slot that is due waits for live audio.
    waits_until: Option<Time>,
    playout: Playout,
    live: JitterBuffer,
    unsent: Unsent,
    counters: Counters,
}

/// Where a call is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Connected; the UUID has not come.
    Opening,
    /// Audio flows.
    Running,
    /// It will be hung up when all queued audio is written.
    Finishing(EndReason),
    /// The hang-up message is on its way out.
    HangingUp {
        /// Why.
        reason: EndReason,
        /// When to give up on it.
        until: Time,
        /// The message has been handed to the socket's owner.
        said: bool,
    },
    /// Our side is shut; what still comes in is discarded, for closing with unread audio would reset the
    /// connection.
    Lingering {
        /// Why.
        reason: EndReason,
        /// When to stop waiting for the other side's end of stream.
        until: Time,
    },
    /// Over.
    Closed(EndReason),
}

/// What came in.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Received<'a> {
    /// The call said which one it is; its grid begins.
    Identified(Uuid),
    /// Audio, never empty.
    Audio {
        /// The rate that its kind names.
        rate: Rate,
        /// The bytes as they came, companded or not.
        bytes: &'a [u8],
        /// The place of its first sample on the call's clock, which begins with the UUID. Audio that was
        /// lost is counted in as soon as [`ClockRecovery`] can tell it from late audio, so the first frames after
        /// a pause may still stand at its beginning. It never goes back.
        offset: Duration,
    },
    /// A digit, with its place on the call's clock.
    Dtmf {
        /// One of `0-9 * # A-D`.
        digit: char,
        /// When it came.
        offset: Duration,
    },
    /// The other side reports trouble. If the hang-up bit is set, the call ends.
    PeerErrors(PeerErrors),
    /// A message that can't be what its kind says; it was skipped.
    Malformed {
        /// The kind.
        kind: Kind,
        /// Bytes of payload.
        length: u16,
    },
}

/// What happened to what was to be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// A slot leaves.
    Slot {
        /// Its rate.
        rate: Rate,
        /// Its samples.
        samples: &'a [i16],
    },
    /// Something queued is over.
    Ended {
        /// What it was.
        item: ItemId,
        /// It was heard to its end, as against stopped or cleared.
        is_whole: bool,
        /// What was heard of it.
        heard: Heard,
    },
    /// Everything queued was thrown away; this much was heard of what was cut off.
    Cleared(Heard),
    /// Everything queued has been heard to its end.
    Drained,
    /// A live source had nothing in time.
    Underrun,
    /// For this stretch of the call's clock no audio has come: the caller is muted, on hold, or its phone suppresses
    /// silence. It is told while it lasts, 100 ms at a time for a second, and from then on a second at a time.
    /// Should audio come late after all, it is told with its own place, which may lie in a stretch that was told.
    NoAudio {
        /// Where it begins.
        offset: Duration,
        /// How long it is.
        duration: Duration,
    },
}

/// What is to be done to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// Nothing.
    Nothing,
    /// Shut the writing side down, once.
    ShutdownWrite,
    /// Close it: the call is over.
    Close,
}

impl CallMachine {
    /// A connection that was accepted at `now`.
    pub fn new(now: Time, config: CallConfig) -> Self {
        Self {
            config,
            phase: Phase::Opening,
            opened: now,
            has_heard: false,
            began: None,
            last_inbound: now,
            last_audio: now,
            told_silent: Duration::ZERO,
            decoder: Decoder::new(),
            cadence: ClockRecovery::new(now),
            position: Duration::ZERO,
            companded: false,
            linear_rate: Rate::default(),
            rate: Rate::default(),
            pacer: Pacer::new(now),
            waits_until: None,
            playout: Playout::default(),
            live: JitterBuffer::default(),
            unsent: Unsent::default(),
            counters: Counters::default(),
        }
    }

    /// Takes bytes that were read at `now`, in order and however they were cut.
    ///
    /// | what comes | what happens |
    /// |---|---|
    /// | the first bytes are those of [another protocol](OtherProtocol) | ends the connection |
    /// | UUID | the grid begins, a slot is due at once |
    /// | a second UUID | ignored, counted |
    /// | audio or DTMF before the UUID | dropped, counted: there is no call yet |
    /// | audio of length 0 | ignored, counted |
    /// | audio of any other length up to 65535 | one frame |
    /// | unknown kind | its payload is skipped, counted |
    /// | a known kind of impossible length | skipped, reported, counted; as the UUID it ends the call |
    /// | error | reported; with the hang-up bit it ends the call |
    /// | hang-up | ends the call |
    /// | anything after the end | discarded, counted in bytes |
    pub fn receive(&mut self, now: Time, bytes: &[u8], sink: &mut dyn FnMut(Received<'_>)) {
        if !std::mem::replace(&mut self.has_heard, true)
            && let Some(protocol) = OtherProtocol::of(bytes)
        {
            self.phase = Phase::Closed(EndReason::OtherProtocol(protocol));
        }
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut rest = bytes;
        let mut frame = Duration::ZERO;
        let mut batch = Duration::ZERO;
        loop {
            if self.is_over() {
                self.counters.bytes_after_end += rest.len() as u64;
                break;
            }
            let decoded = decoder.decode(rest);
            rest = &rest[decoded.consumed..];
            let Some(message) = decoded.message else {
                break;
            };
            match message {
                Message::Audio(audio) if audio.bytes.is_empty() => self.counters.empty_audio += 1,
                Message::Audio(audio) if self.began.is_some() => {
                    frame = self.duration_of(audio.rate, audio.bytes.len());
                    if batch == Duration::ZERO {
                        // What came in one piece after a stall is late, not lost.
                        let behind = self.duration_of(audio.rate, rest.len());
                        self.note_gap(now, frame, frame + behind);
                    }
                    batch += frame;
                    self.count_audio(audio.rate, audio.bytes.len());
                    let offset = self.position;
                    self.position += frame;
                    sink(Received::Audio {
                        rate: audio.rate,
                        bytes: audio.bytes,
                        offset,
                    });
                }
                message => self.receive_control(now, message, sink),
            }
        }
        // Most reads end with a message: then there is nothing to keep, and to look is cheaper than to copy.
        if decoder.is_mid_message() || decoder.memory() > 0 {
            self.decoder = decoder;
        }
        if batch > Duration::ZERO {
            self.last_inbound = now;
            self.last_audio = now;
            self.told_silent = Duration::ZERO;
            let shift = self.cadence.arrived(now, frame, batch);
            self.pacer.follow(shift);
        }
    }

    /// The other side closed its direction. Asterisk does so whenever a call ends.
    pub fn end_of_stream(&mut self) {
        self.playout.stop_all();
        self.phase = Phase::Closed(match self.phase {
            Phase::Opening => EndReason::NoIdentity,
            Phase::Running => EndReason::CallerHungUp,
            Phase::Finishing(_) => EndReason::CallerHungUp,
            Phase::HangingUp { reason, .. }
            | Phase::Lingering { reason, .. }
            | Phase::Closed(reason) => reason,
        });
    }

    /// The connection broke. After our own hang-up that is a normal end, and a reset is one of the caller's: in `Dial`
    /// Asterisk may close with our audio unread when the caller hangs up, and then its host resets the connection.
    pub fn broken(&mut self, reason: EndReason) {
        self.playout.stop_all();
        self.phase = Phase::Closed(match self.phase {
            Phase::HangingUp { reason, .. }
            | Phase::Lingering { reason, .. }
            | Phase::Closed(reason) => reason,
            _ if reason == EndReason::ConnectionReset && self.counters.frames_in > 0 => {
                self.counters.reset = true;
                EndReason::CallerHungUp
            }
            _ => reason,
        });
    }

    /// Ends the call: nothing queued is played any more, the hang-up message goes out at once.
    pub fn hang_up(&mut self, now: Time, reason: EndReason) {
        if matches!(
            self.phase,
            Phase::Opening | Phase::Running | Phase::Finishing(_)
        ) {
            self.begin_hangup(now, reason);
        }
    }

    /// Ends the call when everything queued has been played: the hang-up message takes the place of the
    /// slot after the last.
    pub fn finish(&mut self, reason: EndReason) {
        if self.phase == Phase::Running {
            self.phase = Phase::Finishing(reason);
        }
    }

    /// Appends what is due at `now` to `wire`: nothing, one or two slots, or the hang-up message.
    ///
    /// `pcm` is room to work in. Whatever is appended must be written before anything else and reported to
    /// [`transmitted`](Self::transmitted). While bytes of an earlier message are unsent, slots pass unused.
    pub fn poll_slot(
        &mut self,
        now: Time,
        wire: &mut Vec<u8>,
        pcm: &mut Vec<i16>,
        notices: &mut dyn FnMut(Notice<'_>),
    ) {
        self.check_limits(now);
        self.note_silence(now, notices);
        self.align(now);
        for _ in 0..SLOTS_A_TURN {
            if !matches!(self.phase, Phase::Running | Phase::Finishing(_)) || self.began.is_none() {
                break;
            }
            let has_waited = self.waits_until.is_some();
            self.waits_until = self.wait_for_audio(now);
            if self.waits_until.is_some() {
                break;
            }
            if has_waited && let Some(place) = self.live.take_wait(now, self.pacer.next()) {
                self.pacer.restart(place);
            }
            match self.pacer.due(now, self.rate.slot()) {
                Due::NotYet => break,
                Due::Now { late } => self.counters.note_lateness(late),
                Due::Slipped { missed, late } => {
                    self.counters.note_lateness(late);
                    self.counters.slips += 1;
                    self.counters.slots_missed += missed;
                }
            }
            if !self.unsent.is_clear() {
                self.counters.slots_skipped += 1;
                self.pacer.advance(self.rate.slot());
                continue;
            }
            if let Phase::Finishing(reason) = self.phase {
                self.playout.end_all();
                if self.is_finished() {
                    self.begin_hangup(now, reason);
                    break;
                }
            }
            let rate = self.make_slot(now, pcm, notices);
            encode_samples(rate, pcm, wire);
            self.counters.frames_out += (pcm.len() / rate.message_samples()) as u64;
            self.pacer.advance(rate.slot());
            if let Some(shift) = self.live.wanted_shift(self.pacer.next()) {
                self.pacer.steer(shift);
            }
        }
        if let Phase::HangingUp { said, .. } = &mut self.phase
            && !*said
            && self.unsent.is_clear()
        {
            *said = true;
            Outbound::Hangup.encode(wire);
        }
    }

    /// Appends the bytes that an earlier write left over. They go out as soon as the socket takes them.
    pub fn poll_unsent(&mut self, wire: &mut Vec<u8>) {
        wire.extend_from_slice(self.unsent.rest());
    }

    /// The kernel took the first `sent` bytes of `wire`, which a poll has filled.
    pub fn transmitted(&mut self, wire: &[u8], sent: usize) {
        if sent < wire.len() {
            self.counters.short_writes += 1;
        }
        self.unsent.keep(wire, sent);
    }

    /// Whoever sends has taken so many bytes over, and will report to [`transmitted`](Self::transmitted) with what
    /// was not sent. Until then slots pass unused.
    pub fn handed_over(&mut self, bytes: usize) {
        self.unsent.hand_over(bytes);
    }

    /// Whether there is something for [`confirm`](Self::confirm) to tell, and it is known what was sent.
    pub fn wants_confirmation(&self) -> bool {
        self.playout.has_news() && !self.unsent.is_under_way()
    }

    /// Whether the last of what was played is under way together with the hang-up, so that it will soon be known
    /// what was heard of it.
    pub fn awaits_last_sent(&self) -> bool {
        let is_hanging_up = matches!(self.phase, Phase::HangingUp { .. });
        is_hanging_up && self.playout.has_news() && self.unsent.is_under_way()
    }

    /// Tells what was heard of what has been played, stopped or cleared: `held` bytes of what was written are in the
    /// kernel and not sent, or that can't be known. While some of it has not been heard, it is to be called again after
    /// the next slot. What is under way counts as not sent.
    pub fn confirm(&mut self, held: Option<usize>, notices: &mut dyn FnMut(Notice<'_>)) {
        self.playout.confirm(self.unsent.length(), held, notices);
    }

    /// Whether to ask the kernel when the socket takes more.
    pub fn wants_writable(&self) -> bool {
        !self.unsent.rest().is_empty()
    }

    /// What to do to the socket now.
    pub fn poll_io(&mut self, now: Time) -> Io {
        match self.phase {
            Phase::HangingUp {
                reason, said: true, ..
            } if self.unsent.is_clear() => {
                self.phase = Phase::Lingering {
                    reason,
                    until: now + LINGER,
                };
                Io::ShutdownWrite
            }
            Phase::HangingUp { reason, until, .. } | Phase::Lingering { reason, until }
                if now >= until =>
            {
                self.phase = Phase::Closed(reason);
                Io::Close
            }
            Phase::Closed(_) => Io::Close,
            _ => Io::Nothing,
        }
    }

    /// When [`poll_slot`](Self::poll_slot) and [`poll_io`](Self::poll_io) are to be called next, at the
    /// latest.
    pub fn deadline(&self) -> Time {
        match self.phase {
            Phase::Opening => self.opened + self.config.identity_timeout,
            Phase::Running | Phase::Finishing(_) => self.waits_until.unwrap_or(self.pacer.next()),
            Phase::HangingUp { .. } if self.unsent.is_clear() => Time::ZERO,
            Phase::HangingUp { until, .. } | Phase::Lingering { until, .. } => until,
            Phase::Closed(_) => Time::ZERO,
        }
    }

    /// Inbound `0x10` carries one byte a sample instead of two (µ-law or A-law), or no longer does.
    ///
    /// A change after audio came in forgets the gaps so far: they were measured with the wrong ruler.
    pub fn set_companded(&mut self, companded: bool) {
        if companded != self.companded {
            self.forget_gaps();
        }
        self.companded = companded;
    }

    /// Inbound `0x10` carries linear samples of this rate, not of the 8 kHz that it says: so Asterisk sends them up to
    /// the releases that know other kinds.
    ///
    /// If audio that has come already is of the new rate, too, `moved` is the place on the call's clock that its first
    /// frame was given, and the one where it belongs.
    ///
    /// A change forgets the gaps so far, as [`set_companded`](Self::set_companded) does.
    pub fn set_linear_rate(&mut self, rate: Rate, moved: Option<(Duration, Duration)>) {
        if rate == self.linear_rate {
            return;
        }
        if let Some((from, to)) = moved {
            let counted = self.position.saturating_sub(from) * self.linear_rate.hz();
            self.position = to + counted / rate.hz();
        }
        self.linear_rate = rate;
        self.forget_gaps();
    }

    /// Ends the call so long after its UUID, or not for that: from now on, in place of the limit that it began with.
    pub fn set_max_duration(&mut self, duration: Option<Duration>) {
        self.config.max_duration = duration;
    }

    /// The queued audio.
    pub fn playout(&mut self) -> &mut Playout {
        &mut self.playout
    }

    /// The live audio. It plays whenever nothing is queued; what comes in while queued audio plays is
    /// dropped, so that its delay doesn't grow.
    pub fn live(&mut self) -> &mut JitterBuffer {
        &mut self.live
    }

    /// The rate at which audio goes out: 8 kHz until audio of a wideband kind comes in, then that.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Where the call is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The time since the UUID came.
    pub fn age(&self, now: Time) -> Duration {
        self.began.map_or(Duration::ZERO, |began| now - began)
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        Counters {
            live_dropped: self.live.dropped(),
            underruns: self.live.underruns(),
            ..self.counters
        }
    }

    fn receive_control(
        &mut self,
        now: Time,
        message: Message<'_>,
        sink: &mut dyn FnMut(Received<'_>),
    ) {
        match message {
            Message::Uuid(_) if self.began.is_some() => self.counters.second_uuids += 1,
            Message::Uuid(uuid) => {
                self.began = Some(now);
                self.last_inbound = now;
                self.last_audio = now;
                self.pacer = Pacer::new(now);
                self.cadence = ClockRecovery::new(now);
                self.phase = match self.phase {
                    Phase::Opening => Phase::Running,
                    other => other,
                };
                sink(Received::Identified(uuid));
            }
            Message::Audio(_) => self.counters.before_uuid += 1,
            Message::Dtmf(_) if self.began.is_none() => self.counters.before_uuid += 1,
            Message::Dtmf(digit) => {
                self.counters.digits += 1;
                self.last_inbound = now;
                sink(Received::Dtmf {
                    digit,
                    offset: self.age(now),
                });
            }
            Message::Error(errors) => {
                self.counters.peer_errors += 1;
                sink(Received::PeerErrors(errors));
                if errors.hangup() {
                    self.linger(now, EndReason::HangupMessage);
                }
            }
            Message::Unknown { .. } => self.counters.unknown += 1,
            Message::Malformed { kind, length } => {
                self.counters.malformed += 1;
                sink(Received::Malformed { kind, length });
                if kind == Kind::Uuid && self.began.is_none() {
                    self.hang_up(now, EndReason::MalformedIdentity);
                }
            }
            Message::Hangup => self.linger(now, EndReason::HangupMessage),
        }
    }

    fn begin_hangup(&mut self, now: Time, reason: EndReason) {
        self.playout.stop_all();
        self.live.clear();
        self.phase = Phase::HangingUp {
            reason,
            until: now + LINGER,
            said: false,
        };
    }

    /// The other side said that the call is over: there is nothing to say any more.
    fn linger(&mut self, now: Time, reason: EndReason) {
        self.playout.stop_all();
        self.live.clear();
        self.phase = Phase::HangingUp {
            reason,
            until: now + LINGER,
            said: true,
        };
    }

    fn count_audio(&mut self, rate: Rate, length: usize) {
        self.counters.frames_in += 1;
        if rate != Rate::Slin {
            self.rate = rate;
        }
        let is_bytes = self.companded && rate == Rate::Slin;
        if !is_bytes && !length.is_multiple_of(2) {
            self.counters.odd_lengths += 1;
        }
    }

    /// They were measured with the wrong ruler.
    fn forget_gaps(&mut self) {
        if let Some(began) = self.began {
            self.cadence = ClockRecovery::new(began + self.position);
            self.counters.gaps = 0;
            self.counters.gap_time = Duration::ZERO;
        }
    }

    /// Looks whether audio is missing before a batch that was read at `now`.
    fn note_gap(&mut self, now: Time, frame: Duration, batch: Duration) {
        let had_begun = self.cadence.has_begun();
        let missing = self.cadence.missing(now, frame, batch);
        self.position += missing;
        if missing > Duration::ZERO && had_begun {
            self.counters.gaps += 1;
            self.counters.gap_time += missing;
        }
    }

    fn duration_of(&self, rate: Rate, bytes: usize) -> Duration {
        let samples = if self.companded && rate == Rate::Slin {
            bytes
        } else {
            bytes / 2
        };
        let rate = match rate {
            Rate::Slin => self.linear_rate,
            wideband => wideband,
        };
        rate.duration(samples as u64)
    }

    /// Looks how long no audio has come.
    fn note_silence(&mut self, now: Time, notices: &mut dyn FnMut(Notice<'_>)) {
        if self.phase != Phase::Running {
            return;
        }
        let (short, long) = NO_AUDIO;
        let silent = (now - self.last_audio).saturating_sub(self.rate.slot());
        loop {
            let duration = if self.told_silent < long { short } else { long };
            if silent < self.told_silent + duration {
                return;
            }
            let offset = self.position + self.told_silent;
            self.told_silent += duration;
            notices(Notice::NoAudio { offset, duration });
        }
    }

    /// Moves the grid to the call's first live audio, which begins in silence: nothing that plays is moved with it.
    fn align(&mut self, now: Time) {
        if self.phase == Phase::Running
            && self.unsent.is_clear()
            && self.playout.is_empty()
            && let Some(start) = self.live.take_start()
        {
            self.pacer.restart(start.max(now));
        }
    }

    /// Until when the next slot waits for live audio, if it is due and has none.
    fn wait_for_audio(&mut self, now: Time) -> Option<Time> {
        let slot = self.pacer.next();
        let needs_it = self.phase == Phase::Running
            && now >= slot
            && self.unsent.is_clear()
            && self.playout.is_silent();
        needs_it.then(|| self.live.awaits(now, slot)).flatten()
    }

    /// Fills `pcm` with the next slot and says at which rate it is.
    fn make_slot(
        &mut self,
        now: Time,
        pcm: &mut Vec<i16>,
        notices: &mut dyn FnMut(Notice<'_>),
    ) -> Rate {
        pcm.clear();
        let queued = self.playout.pull(now, self.rate, pcm);
        let rate = match queued {
            Some(rate) => {
                self.live.clear();
                rate
            }
            // By the slot's own time: one that is written late does not make its audio early.
            None => match self.live.pull(self.pacer.next().min(now), pcm) {
                Pulled::Audio(rate) => rate,
                Pulled::Underrun(rate) => {
                    notices(Notice::Underrun);
                    rate
                }
                Pulled::Nothing => self.rate,
            },
        };
        if pcm.is_empty() {
            self.counters.silent_slots += 1;
            pcm.resize(rate.slot_samples(), 0);
        }
        if queued.is_none() {
            self.playout.note_other_slot(rate);
        }
        notices(Notice::Slot { rate, samples: pcm });
        rate
    }

    fn check_limits(&mut self, now: Time) {
        match self.phase {
            Phase::Opening if now >= self.opened + self.config.identity_timeout => {
                self.hang_up(now, EndReason::IdentityTimeout);
            }
            Phase::Running | Phase::Finishing(_) => {
                if self
                    .config
                    .max_duration
                    .is_some_and(|most| self.age(now) >= most)
                {
                    self.hang_up(now, EndReason::MaxDuration);
                } else if self
                    .config
                    .idle_timeout
                    .is_some_and(|most| now - self.last_inbound >= most)
                {
                    self.hang_up(now, EndReason::IdleTimeout);
                }
            }
            _ => {}
        }
    }

    fn is_finished(&self) -> bool {
        self.playout.is_empty() && self.live.is_empty()
    }

    fn is_over(&self) -> bool {
        matches!(
            self.phase,
            Phase::HangingUp { .. } | Phase::Lingering { .. } | Phase::Closed(_)
        )
    }
}
