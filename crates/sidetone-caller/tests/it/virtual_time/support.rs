//! One call in virtual time, with a server made of bytes.

use std::time::Duration;

use sidetone_caller::{Caller, EndCause, Leg, Step};
use sidetone_proto::Time;

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

pub(crate) fn caller() -> Caller {
    Caller::new("127.0.0.1:9092".parse().unwrap())
}

pub(crate) fn frame(kind: u8, length: usize) -> Vec<u8> {
    let [high, low] = (length as u16).to_be_bytes();
    let mut message = vec![kind, high, low];
    message.resize(3 + length, 0x55);
    message
}

pub(crate) struct Virtual {
    pub(crate) leg: Leg,
    pub(crate) now: Duration,
    /// Every message that went out, and when.
    pub(crate) sent: Vec<(Duration, Vec<u8>)>,
}

impl Virtual {
    pub(crate) fn new(caller: Caller) -> Self {
        let leg = Leg::new(caller).unwrap();
        let mut call = Self {
            leg,
            now: Duration::ZERO,
            sent: Vec::new(),
        };
        call.until(Duration::ZERO);
        call
    }

    /// Lets time pass up to and including `end`.
    pub(crate) fn until(&mut self, end: Duration) {
        let mut wire = Vec::new();
        loop {
            let now = Time::ZERO + self.now;
            match self.leg.poll(now, &mut wire) {
                Step::Write => {
                    self.leg.handle_written(now, wire.len());
                    self.sent.push((self.now, wire.clone()));
                }
                Step::Wait(Some(at)) if at <= Time::ZERO + end => self.now = at - Time::ZERO,
                Step::Wait(_) | Step::Close => break,
            }
        }
        self.now = self.now.max(end);
    }

    /// The server's bytes arrive at this time.
    pub(crate) fn server(&mut self, at: Duration, bytes: &[u8]) {
        self.until(at);
        self.leg.handle_received(Time::ZERO + at, bytes);
    }

    pub(crate) fn cause(&self) -> Option<EndCause> {
        self.leg.ended().map(|ended| ended.cause)
    }

    pub(crate) fn ended_at(&self) -> Option<Duration> {
        self.leg.ended().map(|ended| ended.at)
    }

    /// When messages of this kind went out.
    pub(crate) fn times_of(&self, kind: u8) -> Vec<Duration> {
        let of_kind = self.sent.iter().filter(|(_, message)| message[0] == kind);
        of_kind.map(|(at, _)| *at).collect()
    }
}
