//! A call in virtual time: the state machine, a socket that takes as much as a test allows, and what the other side sees
//! of it.
#![allow(clippy::unwrap_used)]
// Each test binary has its own copy of this module and uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::time::Duration;

use sidetone_proto::{
    CallConfig, CallMachine, EndReason, ItemId, Kind, Notice, Phase, Rate, Received, SocketAction,
    Time,
};

pub const SLOT: Duration = Duration::from_millis(20);
pub const ID: [u8; 16] = *b"0123456789abcdef";

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

pub fn at(millis: u64) -> Time {
    Time::ZERO + ms(millis)
}

/// A message of the other side.
pub fn message(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub fn uuid_message() -> Vec<u8> {
    message(0x01, &ID)
}

/// A frame of 20 ms at 8 kHz.
pub fn frame(samples: &[i16]) -> Vec<u8> {
    audio(Rate::Slin, samples)
}

pub fn audio(rate: Rate, samples: &[i16]) -> Vec<u8> {
    let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
    message(rate.code(), &bytes)
}

/// Loud samples that differ from each other, and are never 0.
pub fn ramp(from: usize, samples: usize) -> Vec<i16> {
    (from..from + samples)
        .map(|n| (n % 30_000) as i16 + 1_000)
        .collect()
}

/// Numbers that look random and are the same each time.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Between `-most` and `most` nanoseconds.
    pub fn jitter(&mut self, most: Duration) -> i64 {
        let most = most.as_nanos() as u64;
        self.below(2 * most + 1) as i64 - most as i64
    }
}

/// What the call reported.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Identified,
    Audio {
        rate: Rate,
        bytes: Vec<u8>,
        offset: Duration,
    },
    Dtmf {
        digit: char,
        offset: Duration,
    },
    PeerErrors(u8),
    Malformed {
        kind: Kind,
        length: u16,
    },
    Ended {
        item: ItemId,
        is_whole: bool,
        heard: Duration,
        unheard: Duration,
    },
    Cleared {
        heard: Duration,
        unheard: Duration,
    },
    Drained,
    Underrun,
}

/// One message as the other side got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Audio(Rate, Vec<i16>),
    Hangup,
}

pub struct World {
    pub now: Time,
    pub call: CallMachine,
    pub events: Vec<Event>,
    /// Bytes that the socket will still take; `None` is any number.
    pub socket_space: Option<usize>,
    /// Bytes in the send queue: the last of the wire.
    pub unsent: usize,
    /// All that the kernel took.
    pub wire: Vec<u8>,
    /// When each write was, and how much of it was taken.
    pub writes: Vec<(Time, usize)>,
    /// When each slot left, as the call reported it.
    pub slots: Vec<(Time, Rate, Vec<i16>)>,
    /// Spans of the call's clock that were reported to be without audio.
    pub silent: Vec<(Duration, Duration)>,
    pub shut: Option<Time>,
    pub closed: Option<Time>,
}

impl World {
    /// A connection that is accepted at time 0 and sends nothing.
    pub fn silent(config: CallConfig) -> Self {
        Self {
            now: Time::ZERO,
            call: CallMachine::new(Time::ZERO, config),
            events: Vec::new(),
            socket_space: None,
            unsent: 0,
            wire: Vec::new(),
            writes: Vec::new(),
            slots: Vec::new(),
            silent: Vec::new(),
            shut: None,
            closed: None,
        }
    }

    /// A call whose UUID came at time 0.
    pub fn new() -> Self {
        let mut world = Self::silent(CallConfig::default());
        world.receive(&uuid_message());
        world.events.clear();
        world
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        let events = &mut self.events;
        self.call.handle_received(self.now, bytes, &mut |received| {
            events.push(match received {
                Received::Identified(id) => {
                    assert_eq!(id.as_bytes(), &ID);
                    Event::Identified
                }
                Received::Audio {
                    rate,
                    bytes,
                    offset,
                } => Event::Audio {
                    rate,
                    bytes: bytes.to_vec(),
                    offset,
                },
                Received::Dtmf { digit, offset } => Event::Dtmf { digit, offset },
                Received::PeerErrors(errors) => Event::PeerErrors(errors.0),
                Received::Malformed { kind, length } => Event::Malformed { kind, length },
                other => panic!("{other:?} has no test"),
            });
        });
    }

    /// Polls as a media thread does: first what is unsent, then what is due, then what the socket needs.
    pub fn poll(&mut self) {
        if self.closed.is_some() {
            return;
        }
        let mut wire = Vec::new();
        if self.call.wants_writable() && self.socket_space != Some(0) {
            self.call.poll_unsent(&mut wire);
            self.write(&wire);
            wire.clear();
        }
        let (now, events, slots) = (self.now, &mut self.events, &mut self.slots);
        let silent = &mut self.silent;
        let mut pcm = Vec::new();
        self.call
            .poll_transmit(now, &mut wire, &mut pcm, &mut |notice| match notice {
                Notice::Slot { rate, samples, .. } => slots.push((now, rate, samples.to_vec())),
                Notice::Underrun => events.push(Event::Underrun),
                Notice::NoAudio { offset, duration } => silent.push((offset, duration)),
                other => panic!("{other:?} before anything was sent"),
            });
        if !wire.is_empty() {
            self.write(&wire);
        }
        self.report_heard();
        match self.call.poll_socket_action(now) {
            SocketAction::Nothing => {}
            SocketAction::ShutdownWrite => {
                assert_eq!(self.shut.replace(now), None, "shut down once")
            }
            SocketAction::Close => self.closed = Some(now),
        }
    }

    pub fn report_heard(&mut self) {
        if !self.call.wants_poll_heard() {
            return;
        }
        let events = &mut self.events;
        self.call.poll_heard(Some(self.unsent), &mut |notice| {
            events.push(match notice {
                Notice::Ended {
                    item,
                    is_whole,
                    heard,
                } => Event::Ended {
                    item,
                    is_whole,
                    heard: heard.heard,
                    unheard: heard.unheard,
                },
                Notice::Cleared(cleared) => Event::Cleared {
                    heard: cleared.heard,
                    unheard: cleared.unheard,
                },
                Notice::Drained => Event::Drained,
                other => panic!("{other:?} is not asked for"),
            });
        });
    }

    /// Clears the queue. Returns how much was heard of it and how much not.
    pub fn clear(&mut self) -> (Duration, Duration) {
        self.call.playout().clear();
        self.report_heard();
        let reported = self.events.iter().rev().find_map(|event| match event {
            Event::Cleared { heard, unheard } => Some((*heard, *unheard)),
            _ => None,
        });
        reported.unwrap()
    }

    /// Takes an item out of the queue.
    pub fn stop(&mut self, item: ItemId) {
        self.call.playout().stop(item);
        self.report_heard();
    }

    /// The marks and other items that came to their end, in order.
    pub fn ended(&self) -> Vec<u64> {
        let ended = self.events.iter().filter_map(|event| match event {
            Event::Ended {
                item,
                is_whole: true,
                ..
            } => Some(item.0),
            _ => None,
        });
        ended.collect()
    }

    fn write(&mut self, wire: &[u8]) {
        assert_eq!(self.shut, None, "nothing is written after the shutdown");
        let taken = self
            .socket_space
            .map_or(wire.len(), |space| space.min(wire.len()));
        if let Some(space) = &mut self.socket_space {
            *space -= taken;
        }
        self.wire.extend_from_slice(&wire[..taken]);
        self.writes.push((self.now, taken));
        self.call.handle_transmitted(wire, taken);
    }

    /// Runs to `until`, with a poll at each timeout on the way.
    pub fn run_to(&mut self, until: Time) {
        while self.closed.is_none() && self.call.poll_timeout() <= until {
            self.now = self.now.max(self.call.poll_timeout());
            self.poll();
        }
        self.now = self.now.max(until);
    }

    pub fn run(&mut self, duration: Duration) {
        self.run_to(self.now + duration);
    }

    /// Time passes without polls.
    pub fn stall(&mut self, duration: Duration) {
        self.now += duration;
    }

    pub fn reason(&self) -> Option<EndReason> {
        match self.call.phase() {
            Phase::Opening | Phase::Running => None,
            Phase::Finishing(reason)
            | Phase::HangingUp { reason, .. }
            | Phase::Lingering { reason, .. }
            | Phase::Closed(reason) => Some(reason),
        }
    }

    /// The messages that the other side has received whole. It panics on what would make Asterisk drop the call.
    pub fn heard(&self) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut rest = self.wire.as_slice();
        while let [kind, high, low, more @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some(payload) = more.get(..length) else {
                break;
            };
            heard.push(match kind {
                0x00 => {
                    assert_eq!(length, 0);
                    Heard::Hangup
                }
                _ => {
                    let rate = Rate::from_code(*kind).expect("only audio and hang-up go out");
                    assert!(length > 0 && length.is_multiple_of(2));
                    let samples = payload
                        .chunks(2)
                        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
                    Heard::Audio(rate, samples.collect())
                }
            });
            rest = &more[length..];
        }
        heard
    }

    /// The samples that the other side has received, without the silence at both ends.
    pub fn sound(&self) -> Vec<i16> {
        let all: Vec<i16> = self
            .heard()
            .into_iter()
            .flat_map(|heard| match heard {
                Heard::Audio(_, samples) => samples,
                Heard::Hangup => Vec::new(),
            })
            .collect();
        let begin = all.iter().position(|&s| s != 0).unwrap_or(all.len());
        let end = all.iter().rposition(|&s| s != 0).map_or(begin, |at| at + 1);
        all[begin..end].to_vec()
    }
}

/// The same cases in each run.
pub fn cases(cases: u32) -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        cases,
        rng_seed: proptest::test_runner::RngSeed::Fixed(20),
        failure_persistence: None,
        ..Default::default()
    }
}
