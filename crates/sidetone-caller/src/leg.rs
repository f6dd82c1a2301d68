use std::{io, time::Duration};

use sidetone_proto::{Kind, Rate, Time};

use crate::{
    CallRecord, Caller, CallerError, EndCause, Ended, Event, Mode, OnFin,
    receiver::{ReadState, Receiver},
    record::Recorder,
};

/// One call as Asterisk handles it, without I/O: bytes and the time go in, whole messages and the next
/// deadline come out.
///
/// Its driver passes on everything that the socket has *before* it polls, so that nothing counts as late that has
/// already arrived. Each message from [`poll`](Self::poll) goes into one write, and the driver reports the result with
/// [`handle_written`](Self::handle_written) or [`handle_error`](Self::handle_error) before it polls again.
///
/// ```
/// use std::time::Duration;
///
/// use sidetone_caller::{Caller, EndCause, Leg, Step};
/// use sidetone_proto::Time;
///
/// let start = Time::ZERO;
/// let mut leg = Leg::new(Caller::new("127.0.0.1:9092".parse()?))?;
/// let mut wire = Vec::new();
/// assert_eq!(leg.poll(start, &mut wire), Step::Write);
/// assert_eq!(wire[..3], [0x01, 0, 16]);
/// leg.handle_written(start, wire.len());
///
/// // A header whose payload does not follow:
/// leg.handle_received(start, &[0x10, 0x01, 0x40]);
/// let late = Duration::from_millis(5);
/// assert_eq!(leg.poll(start, &mut wire), Step::Wait(Some(start + late)));
/// assert_eq!(leg.poll(start + late, &mut wire), Step::Close);
/// assert_eq!(leg.ended().map(|ended| ended.cause), Some(EndCause::LatePayload { got: 0, of: 320 }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Leg {
    caller: Caller,
    /// When it was first polled.
    opened: Option<Time>,
    /// When the UUID was sent: the origin of all times.
    begun: Option<Time>,
    receiver: Receiver,
    recorder: Recorder,
    writing: Writing,
    /// The slot of the next frame.
    slot: u64,
    /// How many frames the voice has made.
    frames_made: u64,
    /// How many digits were due.
    digits_due: usize,
    /// When a byte last came.
    last_byte: Time,
    /// When a message was last sent or received.
    last_message: Time,
    /// The message that is being received was not whole when it was looked at.
    in_pieces: bool,
    ended: Option<Ended>,
    has_unread: bool,
}

/// What the driver of a [`Leg`] does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write everything in the buffer with one call, report the result with [`Leg::handle_written`] or
    /// [`Leg::handle_error`], and poll again.
    Write,
    /// Wait until this time or until the socket is readable; without a time, only for the latter.
    Wait(Option<Time>),
    /// Close the socket: the call is over.
    Close,
}

/// The message that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Writing {
    message: Outgoing,
    length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outgoing {
    Nothing,
    Uuid,
    Frame,
    Digit(char),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    End(EndCause),
    Digit(char),
    Frame(u64),
}

const HEADER: usize = 3;

impl Leg {
    /// A call whose connection is established when it is first polled.
    ///
    /// # Errors
    /// [`CallerError::InvalidDigit`] or [`CallerError::InvalidFrame`] when the caller's digits or frames can't be sent.
    pub fn new(caller: Caller) -> Result<Self, CallerError> {
        caller.check()?;
        Ok(Self {
            recorder: Recorder::new(&caller),
            caller,
            opened: None,
            begun: None,
            receiver: Receiver::default(),
            writing: Writing {
                message: Outgoing::Nothing,
                length: 0,
            },
            slot: 0,
            frames_made: 0,
            digits_due: 0,
            last_byte: Time::ZERO,
            last_message: Time::ZERO,
            in_pieces: false,
            ended: None,
            has_unread: false,
        })
    }

    /// Returns what to do at `now`. After [`Step::Write`], `wire` holds the message and nothing else.
    pub fn poll(&mut self, now: Time, wire: &mut Vec<u8>) -> Step {
        if !self.in_pieces && self.receiver.state() != ReadState::Message {
            self.in_pieces = true;
            self.recorder.message_in_pieces();
        }
        loop {
            if self.ended.is_some() {
                return Step::Close;
            }
            let Some(begun) = self.begun else {
                return self.poll_uuid(now, wire);
            };
            let Some((at, due)) = self.next_due(begun, now) else {
                return Step::Wait(self.next_read_change(begun, now));
            };
            if now < at {
                let change = self.next_read_change(begun, now);
                return Step::Wait(Some(change.map_or(at, |change| change.min(at))));
            }
            wire.clear();
            let message = match due {
                Due::End(cause) => {
                    self.end(now, cause);
                    continue;
                }
                Due::Digit(digit) => {
                    self.digits_due += 1;
                    if !self.caller.rules.dtmf {
                        continue;
                    }
                    wire.extend_from_slice(&[Kind::Dtmf.code(), 0, 1, digit as u8]);
                    Outgoing::Digit(digit)
                }
                Due::Frame(slot) => {
                    self.slot = slot + 1;
                    self.encode_frame(wire);
                    if wire.len() == HEADER {
                        continue;
                    }
                    Outgoing::Frame
                }
            };
            return self.write(message, wire);
        }
    }

    /// The socket took `count` bytes of the message to write; 0 when it would block. Fewer than all end the call, as
    /// Asterisk does.
    pub fn handle_written(&mut self, now: Time, count: usize) {
        let Writing { message, length } = self.writing;
        self.writing.message = Outgoing::Nothing;
        self.last_message = now;
        if message == Outgoing::Uuid {
            self.begun = Some(now);
        }
        if count < length {
            let (written, of) = (count, length);
            return self.end(now, EndCause::ShortWrite { written, of });
        }
        let at = self.at(now);
        match message {
            Outgoing::Nothing => {}
            Outgoing::Uuid => self.caller.observer.notify(Event::Connected {
                address: self.caller.address,
                uuid: self.caller.uuid,
            }),
            Outgoing::Frame => {
                let bytes = length - HEADER;
                let samples = self.recorder.frame_sent(at);
                self.caller
                    .observer
                    .notify(Event::Sent { at, bytes, samples });
            }
            Outgoing::Digit(digit) => {
                self.recorder.digit_sent(at, digit);
                self.caller.observer.notify(Event::Digit { at, digit });
            }
        }
    }

    /// The socket had these bytes.
    pub fn handle_received(&mut self, now: Time, mut bytes: &[u8]) {
        if bytes.is_empty() || self.ended.is_some() {
            return;
        }
        self.last_byte = now;
        let at = self.at(now);
        let mut end = None;
        while let Some(message) = self.receiver.next_message(&self.caller.rules, &mut bytes) {
            match message {
                Ok(audio) => {
                    self.last_message = now;
                    self.in_pieces = false;
                    let samples = self.recorder.frame_received(at, audio);
                    let rate = audio.rate;
                    self.caller
                        .observer
                        .notify(Event::Heard { at, rate, samples });
                }
                Err(cause) => {
                    end = Some(cause);
                    break;
                }
            }
        }
        if let Some(cause) = end {
            self.has_unread = !bytes.is_empty();
            self.end(now, cause);
        }
    }

    /// The server shut down its side of the connection.
    pub fn handle_fin(&mut self, now: Time) {
        let OnFin::HangUp = self.caller.rules.remote_fin;
        let cause = match self.receiver.state() {
            ReadState::Payload { got, of } => EndCause::CutPayload { got, of },
            ReadState::Message | ReadState::Header { .. } => EndCause::ServerClosed,
        };
        self.end(now, cause);
    }

    /// Reading or writing failed.
    pub fn handle_error(&mut self, now: Time, error: io::ErrorKind) {
        self.end(
            now,
            match error {
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => EndCause::ServerReset,
                other => EndCause::ConnectionFailed(other),
            },
        );
    }

    /// The caller hangs up.
    pub fn hang_up(&mut self, now: Time) {
        let cause = self.hang_up_cause();
        self.end(now, cause);
    }

    /// Whether Asterisk reads its socket at this time.
    pub fn wants_to_read(&self, now: Time) -> bool {
        self.begun
            .is_some_and(|begun| !self.is_read_paused(now - begun))
    }

    /// Whether polling at `now` would end the call because something did not come in time. The driver then reads the
    /// socket once more before it polls.
    pub fn is_timing_out(&self, now: Time) -> bool {
        let next = self.begun.and_then(|begun| self.next_due(begun, now));
        matches!(
            next,
            Some((at, Due::End(EndCause::LatePayload { .. } | EndCause::Silence))) if at <= now
        )
    }

    /// How the call ended, if it did.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Whether bytes of the server were left unread, so that closing resets the connection.
    pub fn has_unread(&self) -> bool {
        self.has_unread
    }

    /// Returns the record of the call. Hangs up at `now` if the call is not over.
    pub fn into_record(mut self, now: Time) -> CallRecord {
        self.hang_up(now);
        let at = self.at(now);
        let cause = EndCause::HungUp;
        self.recorder
            .finish(self.ended.unwrap_or(Ended { at, cause }))
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    fn poll_uuid(&mut self, now: Time, wire: &mut Vec<u8>) -> Step {
        let due = *self.opened.get_or_insert(now) + self.caller.uuid_after;
        if now < due {
            return Step::Wait(Some(due));
        }
        wire.clear();
        wire.extend_from_slice(&[Kind::Uuid.code(), 0, 16]);
        wire.extend_from_slice(self.caller.uuid.as_bytes());
        self.write(Outgoing::Uuid, wire)
    }

    fn write(&mut self, message: Outgoing, wire: &[u8]) -> Step {
        let length = wire.len();
        self.writing = Writing { message, length };
        Step::Write
    }

    /// Appends the next frame of the voice with its header; only a header when the voice makes none.
    fn encode_frame(&mut self, wire: &mut Vec<u8>) {
        let codec = self.caller.codec;
        let kind = if self.caller.rules.wideband {
            codec.kind()
        } else {
            Kind::Audio(Rate::Slin)
        };
        wire.extend_from_slice(&[kind.code(), 0, 0]);
        let samples = codec.frame_samples(self.caller.ptime);
        self.caller
            .voice
            .encode_frame(self.frames_made, samples, codec, wire);
        self.frames_made += 1;
        wire.truncate(HEADER + usize::from(u16::MAX));
        let length = (wire.len() - HEADER) as u16;
        wire[1..HEADER].copy_from_slice(&length.to_be_bytes());
        self.recorder.frame_encoded(&wire[HEADER..]);
    }

    /// What is due next, and when. Asterisk has one thread for a call: while it waits for the rest of a message,
    /// nothing else happens.
    fn next_due(&self, begun: Time, now: Time) -> Option<(Time, Due)> {
        let caller = &self.caller;
        let hang_up = caller
            .hang_up_after
            .map(|after| (begun + after, Due::End(self.hang_up_cause())));
        let is_reading = !self.is_read_paused(now - begun);
        let [mut timeout, mut digit, mut frame] = [None; 3];
        match self.receiver.state() {
            ReadState::Header { .. } => {}
            ReadState::Payload { got, of } => {
                let cause = EndCause::LatePayload { got, of };
                timeout = Some((self.last_byte + caller.rules.payload_wait, Due::End(cause)));
            }
            ReadState::Message => {
                timeout = match (caller.mode, caller.rules.app_silence) {
                    (Mode::Application, Some(limit)) => {
                        Some((self.last_message + limit, Due::End(EndCause::Silence)))
                    }
                    _ => None,
                };
                digit = caller
                    .digits
                    .get(self.digits_due)
                    .map(|(at, digit)| (begun + *at, Due::Digit(*digit)));
                frame = caller
                    .next_frame(self.slot)
                    .map(|(slot, due)| (begun + due, Due::Frame(slot)));
            }
        }
        let timeout = timeout.filter(|_| is_reading);
        // The first of equals is taken, so a hang-up comes before what it makes pointless.
        let candidates = [hang_up, digit, frame, timeout].into_iter().flatten();
        candidates.min_by_key(|(at, _)| *at)
    }

    fn hang_up_cause(&self) -> EndCause {
        match self.receiver.state() {
            ReadState::Header { got } => EndCause::Frozen { got },
            ReadState::Message | ReadState::Payload { .. } => EndCause::HungUp,
        }
    }

    fn is_read_paused(&self, at: Duration) -> bool {
        let mut pauses = self.caller.read_pauses.iter();
        pauses.any(|pause| pause.contains(&at))
    }

    /// When reading next stops or starts.
    fn next_read_change(&self, begun: Time, now: Time) -> Option<Time> {
        let pauses = self.caller.read_pauses.iter();
        let changes = pauses.flat_map(|pause| [pause.start, pause.end]);
        changes
            .map(|change| begun + change)
            .filter(|change| *change > now)
            .min()
    }

    fn at(&self, now: Time) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| now - begun)
    }

    fn end(&mut self, now: Time, cause: EndCause) {
        if self.ended.is_none() {
            let at = self.at(now);
            let ended = Ended { at, cause };
            self.ended = Some(ended);
            self.caller.observer.notify(Event::Ended(ended));
        }
    }
}
