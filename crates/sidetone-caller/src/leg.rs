use {
    crate::{
        CallRecord, Caller, CallerError, Ended, Event, Mode, OnFin, Why,
        ear::{Awaits, Ear},
        record::Recorder,
    },
    sidetone_proto::{Kind, Rate, Time},
    std::{io, time::Duration},
};

/// One call as Asterisk handles it, without I/O: bytes and the time go in, whole messages and the next
/// deadline come out.
///
/// Whoever drives it passes on what the socket says *before* polling, so that nothing that has already
/// arrived counts as late; every message that [`poll`](Self::poll) hands out goes into one write, whose
/// result comes back through [`written`](Self::written) or [`failed`](Self::failed).
///
/// ```
/// use {sidetone_caller::{Caller, Leg, Step, Why}, sidetone_proto::Time, std::time::Duration};
///
/// let start = Time::ZERO;
/// let mut leg = Leg::new(Caller::new("127.0.0.1:9092".parse()?))?;
/// let mut wire = Vec::new();
/// assert_eq!(leg.poll(start, &mut wire), Step::Write);
/// assert_eq!(wire[..3], [0x01, 0, 16]);
/// leg.written(start, wire.len());
///
/// // A header whose payload does not follow:
/// leg.received(start, &[0x10, 0x01, 0x40]);
/// let late = Duration::from_millis(5);
/// assert_eq!(leg.poll(start, &mut wire), Step::Wait(Some(start + late)));
/// assert_eq!(leg.poll(start + late, &mut wire), Step::Close);
/// assert_eq!(leg.ended().map(|ended| ended.why), Some(Why::LatePayload { got: 0, of: 320 }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Leg {
    caller: Caller,
    /// When it was first polled.
    opened: Option<Time>,
    /// When the UUID was sent: the origin of all times.
    begun: Option<Time>,
    ear: Ear,
    recorder: Recorder,
    writing: Writing,
    /// The next frame of the caller's clock, and of the voice.
    slot: u64,
    spoken: u64,
    pressed: usize,
    /// When a byte last came.
    progress: Time,
    /// When a message last went or came.
    activity: Time,
    /// The message that is coming was looked at before it was whole.
    in_pieces: bool,
    ended: Option<Ended>,
    leaves_unread: bool,
}

/// What the driver of a [`Leg`] does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One write of everything in the buffer, then [`Leg::written`] or [`Leg::failed`], then poll again.
    Write,
    /// Nothing until this time, or until the socket has something; without a time only the latter.
    Wait(Option<Time>),
    /// Close the socket: the call is over.
    Close,
}

/// The message that was handed out and whose write has not been reported yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Writing {
    what: What,
    length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Nothing,
    Uuid,
    Frame,
    Digit(char),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    End(Why),
    Digit(char),
    Frame(u64),
}

const HEADER: usize = 3;

impl Leg {
    /// A call whose connection stands when it is first polled.
    ///
    /// # Errors
    /// When the caller's digits or frames can't be sent.
    pub fn new(caller: Caller) -> Result<Self, CallerError> {
        caller.check()?;
        Ok(Self {
            recorder: Recorder::new(&caller),
            caller,
            opened: None,
            begun: None,
            ear: Ear::default(),
            writing: Writing {
                what: What::Nothing,
                length: 0,
            },
            slot: 0,
            spoken: 0,
            pressed: 0,
            progress: Time::ZERO,
            activity: Time::ZERO,
            in_pieces: false,
            ended: None,
            leaves_unread: false,
        })
    }

    /// What to do at `now`. After [`Step::Write`] the message is all there is in `wire`.
    pub fn poll(&mut self, now: Time, wire: &mut Vec<u8>) -> Step {
        if !self.in_pieces && self.ear.awaits() != Awaits::Message {
            self.in_pieces = true;
            self.recorder.in_pieces();
        }
        loop {
            if self.ended.is_some() {
                return Step::Close;
            }
            let Some(begun) = self.begun else {
                return self.introduce(now, wire);
            };
            let Some((at, due)) = self.next(begun, now) else {
                return Step::Wait(self.next_ear_change(begun, now));
            };
            if now < at {
                let change = self.next_ear_change(begun, now);
                return Step::Wait(Some(change.map_or(at, |change| change.min(at))));
            }
            wire.clear();
            let what = match due {
                Due::End(why) => {
                    self.end(now, why);
                    continue;
                }
                Due::Digit(digit) => {
                    self.pressed += 1;
                    if !self.caller.rules.dtmf {
                        continue;
                    }
                    wire.extend_from_slice(&[Kind::Dtmf.code(), 0, 1, digit as u8]);
                    What::Digit(digit)
                }
                Due::Frame(slot) => {
                    self.slot = slot + 1;
                    self.speak(wire);
                    if wire.len() == HEADER {
                        continue;
                    }
                    What::Frame
                }
            };
            return self.write(what, wire);
        }
    }

    /// The socket took `count` bytes of the message that was handed out; none when it would block.
    pub fn written(&mut self, now: Time, count: usize) {
        let Writing { what, length } = self.writing;
        self.writing.what = What::Nothing;
        self.activity = now;
        if what == What::Uuid {
            self.begun = Some(now);
        }
        if count < length {
            let (written, of) = (count, length);
            return self.end(now, Why::ShortWrite { written, of });
        }
        let at = self.at(now);
        match what {
            What::Nothing => {}
            What::Uuid => self.caller.observer.tell(Event::Connected {
                address: self.caller.address,
                uuid: self.caller.uuid,
            }),
            What::Frame => {
                let bytes = length - HEADER;
                let samples = self.recorder.said(at);
                self.caller
                    .observer
                    .tell(Event::Said { at, bytes, samples });
            }
            What::Digit(digit) => {
                self.recorder.pressed(at, digit);
                self.caller.observer.tell(Event::Digit { at, digit });
            }
        }
    }

    /// These bytes came.
    pub fn received(&mut self, now: Time, mut bytes: &[u8]) {
        if bytes.is_empty() || self.ended.is_some() {
            return;
        }
        self.progress = now;
        let at = self.at(now);
        let mut why = None;
        while let Some(heard) = self.ear.hear(&self.caller.rules, &mut bytes) {
            match heard {
                Ok(audio) => {
                    self.activity = now;
                    self.in_pieces = false;
                    let samples = self.recorder.heard(at, audio);
                    let rate = audio.rate;
                    self.caller
                        .observer
                        .tell(Event::Heard { at, rate, samples });
                }
                Err(end) => {
                    why = Some(end);
                    break;
                }
            }
        }
        if let Some(why) = why {
            self.leaves_unread = !bytes.is_empty();
            self.end(now, why);
        }
    }

    /// The server's stream ended.
    pub fn closed(&mut self, now: Time) {
        let OnFin::HangUp = self.caller.rules.remote_fin;
        let why = match self.ear.awaits() {
            Awaits::Payload { got, of } => Why::CutPayload { got, of },
            Awaits::Message | Awaits::Header { .. } => Why::ServerClosed,
        };
        self.end(now, why);
    }

    /// Reading or writing failed.
    pub fn failed(&mut self, now: Time, error: io::ErrorKind) {
        self.end(
            now,
            match error {
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Why::ServerReset,
                other => Why::ConnectionFailed(other),
            },
        );
    }

    /// The caller hangs up.
    pub fn hang_up(&mut self, now: Time) {
        let why = self.hang_up_reason();
        self.end(now, why);
    }

    /// Whether Asterisk reads its socket at this time.
    pub fn wants_to_read(&self, now: Time) -> bool {
        self.begun.is_some_and(|begun| !self.is_deaf(now - begun))
    }

    /// Whether polling at `now` would end the call over something that did not come: a last look at the
    /// socket shows whether it did.
    pub fn is_dying(&self, now: Time) -> bool {
        let next = self.begun.and_then(|begun| self.next(begun, now));
        matches!(next, Some((at, Due::End(Why::LatePayload { .. } | Why::Silence))) if at <= now)
    }

    /// How the call ended, if it did.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Whether bytes of the server were left unread: closing then resets the connection.
    pub fn leaves_unread(&self) -> bool {
        self.leaves_unread
    }

    /// What was heard and said. A call that is still up is hung up by this at `now`.
    pub fn into_record(mut self, now: Time) -> CallRecord {
        self.hang_up(now);
        let at = self.at(now);
        let why = Why::HungUp;
        self.recorder
            .finish(self.ended.unwrap_or(Ended { at, why }))
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    fn introduce(&mut self, now: Time, wire: &mut Vec<u8>) -> Step {
        let due = *self.opened.get_or_insert(now) + self.caller.uuid_after;
        if now < due {
            return Step::Wait(Some(due));
        }
        wire.clear();
        wire.extend_from_slice(&[Kind::Uuid.code(), 0, 16]);
        wire.extend_from_slice(self.caller.uuid.as_bytes());
        self.write(What::Uuid, wire)
    }

    fn write(&mut self, what: What, wire: &[u8]) -> Step {
        let length = wire.len();
        self.writing = Writing { what, length };
        Step::Write
    }

    /// The next frame of the voice, header and all; a bare header when the voice says nothing.
    fn speak(&mut self, wire: &mut Vec<u8>) {
        let codec = self.caller.codec;
        let kind = if self.caller.rules.wideband {
            codec.kind()
        } else {
            Kind::Audio(Rate::Slin)
        };
        wire.extend_from_slice(&[kind.code(), 0, 0]);
        let samples = codec.frame_samples(self.caller.ptime);
        self.caller.voice.speak(self.spoken, samples, codec, wire);
        self.spoken += 1;
        wire.truncate(HEADER + usize::from(u16::MAX));
        let length = (wire.len() - HEADER) as u16;
        wire[1..HEADER].copy_from_slice(&length.to_be_bytes());
        self.recorder.speaking(&wire[HEADER..]);
    }

    /// What is due next, and when. Asterisk has one thread for a call: while it waits inside a message,
    /// nothing else happens.
    fn next(&self, begun: Time, now: Time) -> Option<(Time, Due)> {
        let caller = &self.caller;
        let hang_up = caller
            .hang_up_after
            .map(|after| (begun + after, Due::End(self.hang_up_reason())));
        let listening = !self.is_deaf(now - begun);
        let [mut death, mut digit, mut frame] = [None; 3];
        match self.ear.awaits() {
            Awaits::Header { .. } => {}
            Awaits::Payload { got, of } => {
                let why = Why::LatePayload { got, of };
                death = Some((self.progress + caller.rules.payload_wait, Due::End(why)));
            }
            Awaits::Message => {
                death = match (caller.mode, caller.rules.app_silence) {
                    (Mode::Application, Some(limit)) => {
                        Some((self.activity + limit, Due::End(Why::Silence)))
                    }
                    _ => None,
                };
                let pressed = caller.digits.get(self.pressed);
                digit = pressed.map(|(at, digit)| (begun + *at, Due::Digit(*digit)));
                let spoken = caller.next_frame(self.slot);
                frame = spoken.map(|(slot, due)| (begun + due, Due::Frame(slot)));
            }
        }
        let death = death.filter(|_| listening);
        // The first of equals is kept, so a hang-up stands before what it makes pointless.
        let candidates = [hang_up, digit, frame, death].into_iter().flatten();
        candidates.min_by_key(|(at, _)| *at)
    }

    fn hang_up_reason(&self) -> Why {
        match self.ear.awaits() {
            Awaits::Header { got } => Why::Frozen { got },
            Awaits::Message | Awaits::Payload { .. } => Why::HungUp,
        }
    }

    fn is_deaf(&self, at: Duration) -> bool {
        self.caller.deaf.iter().any(|deaf| deaf.contains(&at))
    }

    /// When reading next stops or starts.
    fn next_ear_change(&self, begun: Time, now: Time) -> Option<Time> {
        let ends = self
            .caller
            .deaf
            .iter()
            .flat_map(|deaf| [deaf.start, deaf.end]);
        ends.map(|end| begun + end).filter(|end| *end > now).min()
    }

    fn at(&self, now: Time) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| now - begun)
    }

    fn end(&mut self, now: Time, why: Why) {
        if self.ended.is_none() {
            let at = self.at(now);
            let ended = Ended { at, why };
            self.ended = Some(ended);
            self.caller.observer.tell(Event::Ended(ended));
        }
    }
}
