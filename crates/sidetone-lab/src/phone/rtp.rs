//! RTP (RFC 3550), its digits (RFC 4733) and the session description that offers them.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sidetone_audio::g711::Law;

use super::PhoneOptions;

/// The payload type we give to RFC 4733 events.
const EVENT: u8 = 101;

/// The keys in the order of their event numbers.
const KEYS: &str = "0123456789*#ABCD";

/// How long a key is held, and how long it is quiet afterwards, in samples: 100 ms.
const HELD: u32 = 800;

/// Samples per millisecond.
const RATE: u32 = 8;

/// How often the receiving thread looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// One RTP packet that came.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When it came.
    pub at: Instant,
    /// Its sequence number.
    pub sequence: u16,
    /// Its timestamp, in samples of 8 kHz.
    pub timestamp: u32,
    /// Whether the marker bit is set, as it is at the start of a talk spurt.
    pub marker: bool,
    /// Its payload type: 0 is µ-law, 8 A-law.
    pub payload_type: u8,
    /// What it holds: one byte a sample.
    pub payload: Vec<u8>,
}

impl Packet {
    /// Whether it holds sound, and not a key or something unheard of.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        [Law::Ulaw, Law::Alaw]
            .iter()
            .any(|law| payload_type(*law).0 == self.payload_type)
    }
}

/// The two threads of a call's sound: one sends on its own clock, the other notes what comes and when. Threads of their own, since a
/// busy runtime would blur both.
#[derive(Debug)]
pub(super) struct Media {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    to_say: VecDeque<Utterance>,
    heard: Vec<Packet>,
    muted: bool,
    over: bool,
}

#[derive(Debug)]
enum Utterance {
    Sound(VecDeque<i16>),
    Key(u8),
    /// Nothing is sent from here to the next one.
    Mute,
}

impl Media {
    pub(super) fn start(socket: UdpSocket, options: PhoneOptions) -> std::io::Result<Self> {
        let shared = Arc::new(Mutex::new(Shared::default()));
        socket.set_read_timeout(Some(LOOK))?;
        let (receiver, heard) = (socket.try_clone()?, Arc::clone(&shared));
        std::thread::Builder::new()
            .name("phone receiver".into())
            .spawn(move || listen(&receiver, &heard))?;
        if !options.muted {
            let said = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("phone sender".into())
                .spawn(move || Sender::new(socket, &options).talk(&said))?;
        }
        Ok(Self { shared })
    }

    pub(super) fn say(&self, samples: &[i16]) {
        let mut shared = lock(&self.shared);
        if let Some(Utterance::Sound(last)) = shared.to_say.back_mut() {
            last.extend(samples);
        } else {
            shared
                .to_say
                .push_back(Utterance::Sound(samples.iter().copied().collect()));
        }
    }

    pub(super) fn press(&self, keys: &str) {
        let events = keys.bytes().filter_map(|key| {
            KEYS.bytes()
                .position(|known| known == key.to_ascii_uppercase())
        });
        let mut shared = lock(&self.shared);
        shared.to_say.extend(
            events
                .filter_map(|event| u8::try_from(event).ok())
                .map(Utterance::Key),
        );
    }

    pub(super) fn mute(&self) {
        lock(&self.shared).to_say.push_back(Utterance::Mute);
    }

    pub(super) fn is_quiet(&self) -> bool {
        lock(&self.shared).to_say.is_empty()
    }

    pub(super) fn heard(&self) -> Vec<Packet> {
        lock(&self.shared).heard.clone()
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        lock(&self.shared).over = true;
    }
}

/// What we can do, for the INVITE.
pub(super) fn offer(port: u16, options: &PhoneOptions) -> String {
    let (number, name) = payload_type(options.law);
    format!(
        "v=0\r\no=phone 1 1 IN IP4 127.0.0.1\r\ns=phone\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP {number} {EVENT}\r\na=rtpmap:{number} {name}/8000\r\n\
         a=rtpmap:{EVENT} telephone-event/8000\r\na=fmtp:{EVENT} 0-15\r\na=ptime:{ptime}\r\na=sendrecv\r\n",
        ptime = options.ptime,
    )
}

/// Where the answer wants our sound.
pub(super) fn port(answer: &str) -> Option<u16> {
    answer.lines().find_map(|line| {
        line.strip_prefix("m=audio ")?
            .split(' ')
            .next()?
            .parse()
            .ok()
    })
}

fn payload_type(law: Law) -> (u8, &'static str) {
    match law {
        Law::Ulaw => (0, "PCMU"),
        Law::Alaw => (8, "PCMA"),
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(socket: &UdpSocket, shared: &Mutex<Shared>) {
    let mut datagram = [0; 2048];
    while !lock(shared).over {
        // Nothing came for a while, or nobody listens at the other end yet: both pass.
        let Ok(length) = socket.recv(&mut datagram) else {
            continue;
        };
        let at = Instant::now();
        lock(shared).heard.extend(parse(&datagram[..length], at));
    }
}

fn parse(datagram: &[u8], at: Instant) -> Option<Packet> {
    let (header, payload) = datagram.split_first_chunk::<12>()?;
    let [flags, kind, s1, s2, t1, t2, t3, t4, ..] = *header;
    // Version 2 and nothing that would lengthen the header, which Asterisk doesn't send unless asked to.
    (flags == 0x80).then(|| Packet {
        at,
        sequence: u16::from_be_bytes([s1, s2]),
        timestamp: u32::from_be_bytes([t1, t2, t3, t4]),
        marker: kind & 0x80 != 0,
        payload_type: kind & 0x7f,
        payload: payload.to_vec(),
    })
}

/// The sending side: one packet every `ptime`.
struct Sender {
    socket: UdpSocket,
    law: Law,
    /// Samples in a packet.
    samples: u32,
    loss: Loss,
    sequence: u16,
    timestamp: u32,
    first: bool,
}

impl Sender {
    fn new(socket: UdpSocket, options: &PhoneOptions) -> Self {
        let loss = Loss {
            share: options.loss,
            state: options.seed,
        };
        Self {
            socket,
            law: options.law,
            samples: options.ptime * RATE,
            loss,
            sequence: 0,
            timestamp: 0,
            first: true,
        }
    }

    fn talk(&mut self, shared: &Mutex<Shared>) {
        let begin = Instant::now();
        // The key being held, and for how many samples already; past HELD it has been let go.
        let mut key: Option<(u8, u32)> = None;
        let mut sent: u64 = 0;
        while !lock(shared).over {
            let held = key
                .take()
                .or_else(|| next_key(shared).map(|event| (event, 0)));
            if let Some((event, before)) = held {
                let after = before + self.samples;
                self.hold(event, before, after);
                if after < 2 * HELD {
                    key = Some((event, after));
                } else {
                    lock(shared).to_say.pop_front();
                }
            } else {
                match next_sound(shared, self.samples) {
                    Some(samples) => self.sound(&samples),
                    None => self.pause(),
                }
            }
            sent += u64::from(self.samples / RATE);
            // Late is late: the next packet goes at its own time again.
            sleep((begin + Duration::from_millis(sent)).saturating_duration_since(Instant::now()));
        }
    }

    fn sound(&mut self, samples: &[i16]) {
        let mut codes = Vec::with_capacity(samples.len());
        self.law.encode(samples, &mut codes);
        let marker = std::mem::take(&mut self.first);
        self.send(marker, payload_type(self.law).0, self.timestamp, &codes);
        self.timestamp = self.timestamp.wrapping_add(self.samples);
    }

    /// One packet's time of nothing; what comes after it begins a talk spurt.
    fn pause(&mut self) {
        self.first = true;
        self.timestamp = self.timestamp.wrapping_add(self.samples);
    }

    /// One packet's time of a key: all packets of an event bear the timestamp of its beginning, and its end is said three times.
    fn hold(&mut self, event: u8, before: u32, after: u32) {
        let begin = self.timestamp.wrapping_sub(before);
        let duration = u16::try_from(after.min(HELD))
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        let payload = |end: bool| {
            [
                event,
                if end { 0x8a } else { 0x0a },
                duration[0],
                duration[1],
            ]
        };
        if after < HELD {
            self.send(before == 0, EVENT, begin, &payload(false));
        } else if before < HELD {
            for _ in 0..3 {
                self.send(false, EVENT, begin, &payload(true));
            }
        } else {
            let silence = vec![0; self.samples as usize];
            self.sound(&silence);
            return;
        }
        self.timestamp = self.timestamp.wrapping_add(self.samples);
    }

    fn send(&mut self, marker: bool, kind: u8, timestamp: u32, payload: &[u8]) {
        let mut packet = vec![0x80, kind | if marker { 0x80 } else { 0 }];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(b"lab.");
        packet.extend(payload);
        self.sequence = self.sequence.wrapping_add(1);
        if !self.loss.strikes() {
            // Nobody listening any more is no news: SIP says so.
            let _ = self.socket.send(&packet);
        }
    }
}

/// The key to press, if one is next. It stays in the queue until it has been let go, so that "quiet" means that too.
fn next_key(shared: &Mutex<Shared>) -> Option<u8> {
    match lock(shared).to_say.front() {
        Some(Utterance::Key(event)) => Some(*event),
        _ => None,
    }
}

/// The next packet's samples, filled up with silence; none while it is muted.
fn next_sound(shared: &Mutex<Shared>, count: u32) -> Option<Vec<i16>> {
    let count = count as usize;
    let mut shared = lock(shared);
    if let Some(Utterance::Mute) = shared.to_say.front() {
        shared.to_say.pop_front();
        shared.muted = true;
    }
    let mut samples = Vec::with_capacity(count);
    if let Some(Utterance::Sound(sound)) = shared.to_say.front_mut() {
        samples.extend(sound.drain(..count.min(sound.len())));
        if sound.is_empty() {
            shared.to_say.pop_front();
        }
        shared.muted = false;
    }
    samples.resize(count, 0);
    (!shared.muted).then_some(samples)
}

/// Decides which packets get lost, by the SplitMix64 sequence of the seed.
struct Loss {
    share: f64,
    state: u64,
}

impl Loss {
    fn strikes(&mut self) -> bool {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // The upper 32 bits as a fraction of their range.
        let fraction =
            f64::from(u32::try_from(mixed >> 32).unwrap_or_default()) / f64::from(u32::MAX);
        fraction < self.share
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn loss_takes_its_share_and_the_same_packets_for_the_same_seed() {
        let lost = |seed| {
            let mut loss = Loss {
                share: 0.02,
                state: seed,
            };
            (0..10_000).filter(|_| loss.strikes()).collect::<Vec<u32>>()
        };
        assert!((150..250).contains(&lost(7).len()));
        assert_eq!(lost(7), lost(7));
        assert_ne!(lost(7), lost(8));
        assert!((0..10_000).all(|_| {
            !Loss {
                share: 0.0,
                state: 7,
            }
            .strikes()
        }));
    }

    /// What a sender sends of these utterances, packet by packet.
    fn spoken(ptime: u32, speak: impl FnOnce(&Media)) -> Vec<Packet> {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(receiver.local_addr().unwrap()).unwrap();
        let media = Media {
            shared: Arc::default(),
        };
        speak(&media);
        let shared = Arc::clone(&media.shared);
        let options = PhoneOptions {
            ptime,
            ..PhoneOptions::default()
        };
        let talking = std::thread::spawn(move || Sender::new(socket, &options).talk(&shared));
        let mut packets = Vec::new();
        while !media.is_quiet() {
            let mut datagram = [0; 2048];
            let length = receiver.recv(&mut datagram).unwrap();
            packets.extend(parse(&datagram[..length], Instant::now()));
        }
        drop(media);
        talking.join().unwrap();
        packets
    }

    #[test]
    fn a_key_is_one_event_of_100_ms_with_one_timestamp_and_a_threefold_end() {
        for ptime in [10, 20, 30] {
            let packets = spoken(ptime, |media| {
                media.say(&vec![0; (ptime * RATE) as usize]);
                media.press("#");
            });
            let events: Vec<&Packet> = packets
                .iter()
                .filter(|packet| packet.payload_type == EVENT)
                .collect();
            assert!(
                events
                    .iter()
                    .all(|event| event.timestamp == ptime * RATE && event.payload[0] == 11)
            );
            assert!(events[0].marker && events.iter().skip(1).all(|event| !event.marker));
            let ends: Vec<_> = events
                .iter()
                .filter(|event| event.payload[1] & 0x80 != 0)
                .collect();
            assert_eq!(ends.len(), 3);
            assert!(
                ends.iter().all(|end| end.payload[2..] == [3, 32]),
                "800 samples"
            );
            let after = &packets[packets
                .iter()
                .rposition(|packet| packet.payload_type == EVENT)
                .unwrap()
                + 1];
            assert_eq!(after.timestamp % (ptime * RATE), 0);
            assert!(
                after.timestamp >= ptime * RATE + HELD,
                "sound goes on after the key"
            );
        }
    }

    #[test]
    fn packets_have_the_length_of_ptime_and_run_on_without_a_gap() {
        let packets = spoken(30, |media| media.say(&[1000; 720]));
        assert!(packets.len() >= 2);
        assert!(packets.iter().all(|packet| packet.payload.len() == 240));
        assert!(
            packets
                .windows(2)
                .all(|two| two[1].timestamp == two[0].timestamp + 240
                    && two[1].sequence == two[0].sequence + 1)
        );
    }
}
