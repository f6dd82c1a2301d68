//! The encoding of audio of kind `0x10`. Asterisk sends other codecs and rates under it than the kind stands for.

mod detection;
mod held;
mod rate_check;

use std::time::Duration;

use sidetone_audio::{detect::RateMeter, g711::Law};
use sidetone_proto::{Rate, Time};

use super::{
    batch::{Batch, Entry},
    tap::{Side, Taps},
};
use crate::event::{Codec, CodecNotice};
use detection::Detection;
use rate_check::{Assumed, COMPANDED_BYTES_PER_SECOND, RateCheck};

/// Decodes the payload of kind `0x10` to linear samples.
#[derive(Debug)]
pub(crate) struct InboundCodec {
    configured: Codec,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A codec is configured and nothing has been received.
    Initial,
    /// Decoded as configured, or as what the rate showed instead. Lasts until the payload is known to be what was
    /// configured.
    Checking(Box<RateCheck>),
    Known(Encoding),
    /// `auto` is configured: held until the encoding is known.
    Detecting(Box<Detection>),
    /// Compressed: dropped, since it can't be decoded.
    Unsupported,
    /// Not decoded. It is measured until it is known how long a byte lasts.
    Raw {
        meter: Option<Box<RateMeter>>,
        is_companded: bool,
    },
}

/// The encoding of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// Samples of two bytes, little endian. Asterisk sends those of any rate under this kind if it knows no other.
    Linear(Rate),
    /// G.711, at 8 kHz.
    Companded(Law),
}

/// Where audio from the caller goes.
pub(crate) struct CallerAudio<'a> {
    pub(crate) batch: &'a mut Batch,
    pub(crate) taps: &'a mut Taps,
}

/// The rate of the payload was found to be another than assumed so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateFound {
    pub(crate) rate: Rate,
    /// If audio was held until now: the offset that its first frame was given when it arrived, and its true one.
    pub(crate) moved: Option<(Duration, Duration)>,
}

impl InboundCodec {
    pub(crate) fn new(configured: Codec) -> Self {
        Self {
            configured,
            state: match configured {
                Codec::Auto => State::Detecting(Box::default()),
                Codec::Raw => State::Raw {
                    meter: Some(Box::default()),
                    is_companded: false,
                },
                _ => State::Initial,
            },
        }
    }

    /// Whether each byte is a sample, as far as is known.
    pub(crate) fn is_companded(&self) -> bool {
        match &self.state {
            State::Known(encoding) => encoding.is_companded(),
            State::Checking(check) => match check.assumed {
                Assumed::Encoding(encoding) => encoding.is_companded(),
                Assumed::Noise { bytes_per_second } => {
                    COMPANDED_BYTES_PER_SECOND.contains(&bytes_per_second)
                }
                Assumed::Unclear(_) => false,
            },
            State::Initial => matches!(self.configured, Codec::Ulaw | Codec::Alaw),
            State::Raw { is_companded, .. } => *is_companded,
            State::Detecting(_) | State::Unsupported => false,
        }
    }

    /// Whether payloads are passed on as they are.
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self.state, State::Raw { .. })
    }

    /// The codec of the payload if it is known, else the configured one.
    pub(crate) fn codec(&self) -> Codec {
        match &self.state {
            State::Known(encoding) => encoding.codec(),
            _ => self.configured,
        }
    }

    /// Decodes one payload that arrived at `now`, `age` after the UUID, or holds it until its encoding is known.
    pub(crate) fn receive(
        &mut self,
        age: Duration,
        now: Time,
        offset: Duration,
        bytes: &[u8],
        to: &mut CallerAudio<'_>,
    ) {
        if let (State::Initial, Some(encoding)) = (&self.state, Encoding::of(self.configured)) {
            self.state = State::Checking(Box::new(RateCheck::new(encoding, bytes.len())));
        }
        match &mut self.state {
            State::Checking(check) => check.receive(age, now, offset, bytes, to),
            State::Known(encoding) => to.push(*encoding, offset, now, bytes),
            State::Detecting(detection) => detection.receive(age, now, offset, bytes),
            State::Raw {
                meter,
                is_companded,
            } => {
                if let Some(measuring) = meter {
                    measuring.push(age, bytes.len());
                    if let Some(rate) = measuring.bytes_per_second() {
                        *is_companded = COMPANDED_BYTES_PER_SECOND.contains(&rate);
                        *meter = None;
                    }
                }
                to.push_raw(Rate::Slin, offset, now, bytes);
            }
            State::Initial | State::Unsupported => {}
        }
    }

    /// Checks whether the encoding is known by now. To be called after all payloads of one read.
    pub(crate) fn decide(&mut self, age: Duration, to: &mut CallerAudio<'_>) -> Option<RateFound> {
        match &mut self.state {
            State::Checking(check) => {
                let (found, is_known) = check.decide(self.configured, to);
                if is_known && let Assumed::Encoding(encoding) = check.assumed {
                    self.state = State::Known(encoding);
                }
                found
            }
            State::Detecting(detection) => {
                let (state, found) = detection.decide(age, to)?;
                self.state = state;
                found
            }
            State::Initial | State::Known(_) | State::Unsupported | State::Raw { .. } => None,
        }
    }

    /// Frames dropped since the last call because more arrived than is held.
    pub(crate) fn take_lost(&mut self) -> u64 {
        match &mut self.state {
            State::Detecting(detection) => detection.held.take_lost(),
            State::Checking(check) => match &mut check.assumed {
                Assumed::Unclear(held) => held.take_lost(),
                Assumed::Encoding(_) | Assumed::Noise { .. } => 0,
            },
            State::Initial | State::Known(_) | State::Unsupported | State::Raw { .. } => 0,
        }
    }

    /// Decodes what is held as what was configured. To be called at the end of the call, when no more can be learned.
    pub(crate) fn release(&mut self, to: &mut CallerAudio<'_>) {
        if let State::Checking(check) = &mut self.state
            && let (Assumed::Unclear(held), Some(encoding)) =
                (&mut check.assumed, Encoding::of(self.configured))
        {
            std::mem::take(held).release(encoding, to);
        }
    }
}

impl Encoding {
    /// The encoding of a configured codec. `None` for `auto` and `raw`.
    fn of(codec: Codec) -> Option<Self> {
        match codec {
            Codec::Slin => Some(Self::Linear(Rate::Slin)),
            Codec::Ulaw => Some(Self::Companded(Law::Ulaw)),
            Codec::Alaw => Some(Self::Companded(Law::Alaw)),
            Codec::Auto | Codec::Raw => None,
        }
    }

    fn codec(self) -> Codec {
        match self {
            Self::Linear(_) => Codec::Slin,
            Self::Companded(Law::Ulaw) => Codec::Ulaw,
            Self::Companded(Law::Alaw) => Codec::Alaw,
        }
    }

    fn rate(self) -> Rate {
        match self {
            Self::Linear(rate) => rate,
            Self::Companded(_) => Rate::Slin,
        }
    }

    fn is_companded(self) -> bool {
        matches!(self, Self::Companded(_))
    }
}

impl CallerAudio<'_> {
    /// Appends little endian samples. Half a sample at the end is dropped.
    pub(crate) fn push_linear(
        &mut self,
        rate: Rate,
        offset: Duration,
        arrived: Time,
        bytes: &[u8],
    ) {
        self.push(Encoding::Linear(rate), offset, arrived, bytes);
    }

    /// Appends a payload as it came: two bytes to a sample, and the last alone if their number is odd.
    pub(crate) fn push_raw(&mut self, rate: Rate, offset: Duration, arrived: Time, bytes: &[u8]) {
        self.push_with(rate, offset, arrived, |samples| {
            let rest = decode_linear(bytes, samples);
            samples.extend(rest.map(i16::from));
            rest.is_some()
        });
    }

    fn push(&mut self, encoding: Encoding, offset: Duration, arrived: Time, bytes: &[u8]) {
        self.push_with(encoding.rate(), offset, arrived, |samples| {
            match encoding {
                Encoding::Linear(_) => _ = decode_linear(bytes, samples),
                Encoding::Companded(law) => law.decode(bytes, samples),
            }
            false
        });
    }

    fn push_with(
        &mut self,
        rate: Rate,
        offset: Duration,
        arrived: Time,
        fill: impl FnOnce(&mut Vec<i16>) -> bool,
    ) {
        let before = self.batch.samples_len();
        self.batch.push_audio(rate, offset, arrived, fill);
        let samples = self.batch.samples_from(before);
        self.taps.put(Side::Caller, rate, arrived, offset, samples);
    }

    fn notify(&mut self, notice: Option<CodecNotice>) {
        if let Some(notice) = notice {
            self.batch.push(Entry::Codec(notice));
        }
    }
}

/// Appends little endian samples. Returns the byte that is left over.
fn decode_linear(bytes: &[u8], samples: &mut Vec<i16>) -> Option<u8> {
    let (pairs, rest) = bytes.as_chunks();
    samples.extend(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
    rest.first().copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{
        held::{HeldPayloads, MAX_HELD_BYTES, MAX_HELD_FRAMES},
        *,
    };

    /// The result of a second and a half of the same message, `each_ms` times a millisecond, and the number of lost
    /// frames.
    fn flooded(set: Codec, message: &[u8], each_ms: u64) -> (InboundCodec, Batch, u64) {
        let mut codec = InboundCodec::new(set);
        let (mut batch, mut taps) = (Batch::default(), Taps::default());
        let mut to = CallerAudio {
            batch: &mut batch,
            taps: &mut taps,
        };
        let mut lost = 0;
        for at in (0..1_500).map(Duration::from_millis) {
            for _ in 0..each_ms {
                codec.receive(at, Time::ZERO + at, at, message, &mut to);
            }
            lost += codec.take_lost();
            codec.decide(at, &mut to);
        }
        (codec, batch, lost)
    }

    fn held(codec: InboundCodec) -> HeldPayloads {
        match codec.state {
            State::Detecting(detection) => detection.held,
            state => panic!("{state:?}"),
        }
    }

    #[test]
    fn a_flood_is_held_up_to_a_limit_and_the_rest_is_counted() {
        for (message, each_ms) in [(&[0xFF; 2][..], 200), (&[0xFF; 60_000], 1)] {
            let (codec, batch, lost) = flooded(Codec::Auto, message, each_ms);
            let held = held(codec);
            assert!(held.frames.len() <= MAX_HELD_FRAMES && held.bytes.len() <= MAX_HELD_BYTES);
            assert!(held.bytes.capacity() <= 4 * MAX_HELD_BYTES);
            assert_eq!(lost, 1_500 * each_ms - held.frames.len() as u64);
            assert!(batch.is_empty(), "nothing is delivered yet");
        }
    }

    #[test]
    fn lost_frames_are_reported_before_the_held_ones() {
        let (codec, mut batch, lost) = flooded(Codec::Auto, &[0xFF; 2], 200);
        let mut to = CallerAudio {
            batch: &mut batch,
            taps: &mut Taps::default(),
        };
        held(codec).release(Encoding::Companded(Law::Ulaw), &mut to);
        let first = batch.take().unwrap().0;
        let is_lagged = matches!(first, Entry::Lagged { frames } if frames == lost);
        assert!(is_lagged, "{first:?}, and {lost} were lost");
        assert!(matches!(batch.take(), Some((Entry::Audio(_), [_, _]))));
    }

    #[test]
    fn a_flood_of_long_frames_is_not_held_for_ever() {
        let (codec, mut batch, lost) = flooded(Codec::Slin, &[1; 640], 20);
        assert!(lost < 1_000, "{lost}");
        let State::Checking(check) = codec.state else {
            panic!("{:?}", codec.state);
        };
        assert!(!matches!(check.assumed, Assumed::Unclear(_)));
        let is_lagged = |entry| matches!(entry, Entry::Lagged { .. });
        assert!(std::iter::from_fn(|| batch.take().map(|it| it.0)).any(is_lagged));
    }

    #[test]
    fn one_second_of_any_audio_is_held_completely() {
        // A frame each millisecond, and slin192.
        for (length, gap) in [(16, 1), (7_680, 20)] {
            let mut held = HeldPayloads::default();
            for at in (1..=1_000).step_by(gap).map(Duration::from_millis) {
                held.push(at, at, Time::ZERO + at, &vec![0; length]);
            }
            assert_eq!((held.frames.len(), held.lost), (1_000 / gap, 0));
        }
    }
}
