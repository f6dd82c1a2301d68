use std::{collections::VecDeque, mem, ops::Range, time::Duration};

use sidetone_audio::{
    detect::{self, Detector, RateMeter, Verdict},
    g711::Law,
};
use sidetone_proto::{Rate, Time};

use super::{
    batch::{Batch, Entry},
    tap::{Side, Taps},
};
use crate::event::{Codec, CodecNotice};

/// While it is not known what comes no more than this is held back; what is older goes. Sound is decided upon
/// after 200 ms of it, so that only silence can be lost here.
const HELD: Duration = Duration::from_secs(1);

/// The same in bytes, of the highest rate there is, and in frames of a millisecond: a caller sends no more in that time.
const HELD_BYTES: usize = 2 * 192_000;
const HELD_FRAMES: usize = 1_000;

/// The byte rates that linear samples at 8 kHz come at, whatever the jitter.
const LINEAR: Range<u32> = 12_800..19_600;

/// The same before the rate is sure: above it, it may be that of 12 kHz.
const LINEAR_EARLY: u32 = 18_000;

/// And samples of a byte each.
const COMPANDED: Range<u32> = 6_400..9_800;

/// Bytes of linear samples at 8 kHz in the usual frame of 20 ms. A longer one may be of a higher rate.
const USUAL: usize = 320;

/// Sound that nothing is decided upon for so long is told of.
const UNDECIDED: Duration = Duration::from_millis(1_500);

/// Turns the payload of kind `0x10` into linear samples.
#[derive(Debug)]
pub(crate) struct InboundCodec {
    /// What the server was told to expect.
    set: Codec,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing has come.
    Expected,
    /// Taken for what was set, or for what it was found to be against that, and looked at until it is known to be what
    /// was set. What it sounds like is not looked at: the rate alone tells the most from each other, and costs next to
    /// nothing.
    Watched(Box<Watch>),
    Known(Carried),
    Undecided(Box<Undecided>),
    /// Compressed: nothing that an application could hear.
    Unsupported,
}

/// What the payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carried {
    /// Samples of two bytes. Asterisk sends those of all rates under this kind where it knows no other.
    Linear(Rate),
    Companded(Law),
}

/// A stream whose byte rate is not known yet, or is not the one that was to be expected.
#[derive(Debug)]
struct Watch {
    meter: RateMeter,
    taken_for: TakenFor,
}

#[derive(Clone, Debug)]
enum TakenFor {
    /// Frames of this length have one rate or another; they are held back until that is clear.
    Either(Held),
    This(Carried),
    /// Something else than was set, at so many bytes a second: noise, which nobody gets to hear.
    Noise(u32),
}

/// A stream that `auto` has not decided upon.
#[derive(Debug, Default)]
struct Undecided {
    detector: Detector,
    held: Held,
    is_told: bool,
}

/// Payloads that wait until it is known what they are.
#[derive(Clone, Debug, Default)]
struct Held {
    bytes: VecDeque<u8>,
    frames: VecDeque<HeldFrame>,
    /// Frames that went because more came than is held back, of which the handler has not been told.
    lost: u64,
    /// Those of them that have not been counted.
    uncounted: u64,
}

#[derive(Clone, Copy, Debug)]
struct HeldFrame {
    /// In bytes.
    length: usize,
    offset: Duration,
    arrived: Time,
    /// When it came, from the UUID on.
    age: Duration,
}

/// Where audio from the caller goes.
pub(crate) struct CallerAudio<'a> {
    pub(crate) batch: &'a mut Batch,
    pub(crate) taps: &'a mut Taps,
}

/// The rate of what comes, once it is not what the kind says, or is so again. If audio was held back until that was
/// known, the place on the call's clock that its first frame was given, and the one where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateFound {
    pub(crate) rate: Rate,
    pub(crate) moved: Option<(Duration, Duration)>,
}

impl InboundCodec {
    pub(crate) fn new(codec: Codec) -> Self {
        Self {
            set: codec,
            state: match codec {
                Codec::Auto => State::Undecided(Box::default()),
                _ => State::Expected,
            },
        }
    }

    /// Whether each byte is a sample, as far as that is known.
    pub(crate) fn is_companded(&self) -> bool {
        match &self.state {
            State::Known(carried) => matches!(carried, Carried::Companded(_)),
            State::Watched(watch) => match watch.taken_for {
                TakenFor::This(carried) => matches!(carried, Carried::Companded(_)),
                TakenFor::Noise(bytes_per_second) => COMPANDED.contains(&bytes_per_second),
                TakenFor::Either(_) => false,
            },
            State::Expected => matches!(self.set, Codec::Ulaw | Codec::Alaw),
            State::Undecided(_) | State::Unsupported => false,
        }
    }

    /// What this call's codec is, as far as it is known, else what was set.
    pub(crate) fn codec(&self) -> Codec {
        match &self.state {
            State::Known(carried) => carried.codec(),
            _ => self.set,
        }
    }

    /// Takes one payload that came at `now`, `age` after the UUID, and hands over what it gives.
    pub(crate) fn receive(
        &mut self,
        age: Duration,
        now: Time,
        offset: Duration,
        bytes: &[u8],
        to: &mut CallerAudio<'_>,
    ) {
        if let (State::Expected, Some(carried)) = (&self.state, Carried::set(self.set)) {
            self.state = State::Watched(Box::new(Watch::new(carried, bytes.len())));
        }
        match &mut self.state {
            State::Watched(watch) => watch.receive(age, now, offset, bytes, to),
            State::Known(carried) => to.put(*carried, offset, now, bytes),
            State::Undecided(undecided) => {
                undecided.held.hold(age, offset, now, bytes);
                undecided.detector.push(age, bytes);
            }
            State::Expected | State::Unsupported => {}
        }
    }

    /// Looks, when all that was read at once has been taken, whether it is known what it is.
    pub(crate) fn decide(&mut self, age: Duration, to: &mut CallerAudio<'_>) -> Option<RateFound> {
        match &mut self.state {
            State::Watched(watch) => {
                let (found, is_sure) = watch.decide(self.set, to);
                if is_sure && let TakenFor::This(carried) = watch.taken_for {
                    self.state = State::Known(carried);
                }
                found
            }
            State::Undecided(undecided) => {
                let (decided, found) = undecided.decide(age, to)?;
                self.state = decided;
                found
            }
            _ => None,
        }
    }

    /// Frames that were dropped since the last time because more came than is held back.
    pub(crate) fn take_lost(&mut self) -> u64 {
        let held = match &mut self.state {
            State::Undecided(undecided) => Some(&mut undecided.held),
            State::Watched(watch) => match &mut watch.taken_for {
                TakenFor::Either(held) => Some(held),
                TakenFor::This(_) | TakenFor::Noise(_) => None,
            },
            State::Expected | State::Known(_) | State::Unsupported => None,
        };
        held.map_or(0, |held| mem::take(&mut held.uncounted))
    }

    /// The call is over: what was held back is what was set, as far as anybody will ever know.
    pub(crate) fn release(&mut self, to: &mut CallerAudio<'_>) {
        if let State::Watched(watch) = &mut self.state
            && let (TakenFor::Either(held), Some(carried)) =
                (&mut watch.taken_for, Carried::set(self.set))
        {
            mem::take(held).hand_over(carried, to);
        }
    }
}

impl Carried {
    fn set(codec: Codec) -> Option<Self> {
        match codec {
            Codec::Slin => Some(Self::Linear(Rate::Slin)),
            Codec::Ulaw => Some(Self::Companded(Law::Ulaw)),
            Codec::Alaw => Some(Self::Companded(Law::Alaw)),
            Codec::Auto => None,
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

    /// What comes at so many bytes a second where `set` is expected, if it can be anything that is understood.
    fn at(bytes_per_second: u32, set: Codec) -> Option<Self> {
        match Self::set(set)? {
            law @ Self::Companded(_) => COMPANDED.contains(&bytes_per_second).then_some(law),
            Self::Linear(_) if LINEAR.contains(&bytes_per_second) => Self::set(set),
            Self::Linear(_) => wideband(bytes_per_second).map(Self::Linear),
        }
    }
}

fn wideband(bytes_per_second: u32) -> Option<Rate> {
    detect::wideband_hz(bytes_per_second).and_then(Rate::from_hz)
}

impl Watch {
    fn new(carried: Carried, first: usize) -> Self {
        let is_either = carried == Carried::Linear(Rate::Slin) && first > USUAL;
        Self {
            meter: RateMeter::default(),
            taken_for: match is_either {
                true => TakenFor::Either(Held::default()),
                false => TakenFor::This(carried),
            },
        }
    }

    fn receive(
        &mut self,
        age: Duration,
        now: Time,
        offset: Duration,
        bytes: &[u8],
        to: &mut CallerAudio<'_>,
    ) {
        self.meter.push(age, bytes.len());
        match &mut self.taken_for {
            TakenFor::Either(held) => held.hold(age, offset, now, bytes),
            TakenFor::This(carried) => to.put(*carried, offset, now, bytes),
            TakenFor::Noise(_) => {}
        }
    }

    /// What was found, and whether that is what was set and stays so.
    fn decide(&mut self, set: Codec, to: &mut CallerAudio<'_>) -> (Option<RateFound>, bool) {
        let sure = self.meter.bytes_per_second();
        let rate = match &self.taken_for {
            TakenFor::Either(_) => sure.or_else(|| self.early()),
            _ => sure,
        };
        let expected = Carried::set(set);
        let Some(bytes_per_second) = rate else {
            return (self.give_up_holding(expected, to), false);
        };
        let carried = Carried::at(bytes_per_second, set);
        if carried.is_none() && sure.is_none() {
            return (None, false);
        }
        let found = self.take_for(carried, bytes_per_second, set, to);
        (found, sure.is_some() && carried == expected)
    }

    /// The rate before it is sure, if it is not one that may be another.
    fn early(&self) -> Option<u32> {
        let rate = self.meter.early_bytes_per_second()?;
        (!(LINEAR_EARLY..LINEAR.end).contains(&rate)).then_some(rate)
    }

    /// From now on it is this, or noise.
    fn take_for(
        &mut self,
        carried: Option<Carried>,
        bytes_per_second: u32,
        set: Codec,
        to: &mut CallerAudio<'_>,
    ) -> Option<RateFound> {
        let is_so = match (&self.taken_for, carried) {
            (TakenFor::This(this), Some(carried)) => *this == carried,
            (TakenFor::Noise(_), None) => true,
            _ => false,
        };
        if is_so {
            return None;
        }
        let next = carried.map_or(TakenFor::Noise(bytes_per_second), TakenFor::This);
        let before = mem::replace(&mut self.taken_for, next);
        let was_held = matches!(before, TakenFor::Either(_));
        let notice = match carried {
            None => Some(CodecNotice::Mismatch {
                expected: set,
                bytes_per_second,
            }),
            Some(Carried::Linear(rate)) if rate != Rate::Slin => {
                Some(CodecNotice::Wideband { rate })
            }
            // Which is what was expected all the time.
            Some(_) if was_held => None,
            Some(_) => Some(CodecNotice::Decided(set)),
        };
        to.batch.extend_codec(notice);
        let moved = match (before, carried) {
            (TakenFor::Either(held), Some(carried)) => held.hand_over(carried, to),
            _ => None,
        };
        let rate = carried.map_or(Rate::Slin, Carried::rate);
        Some(RateFound { rate, moved })
    }

    /// What comes so unevenly that it has no rate is better heard than not.
    fn give_up_holding(
        &mut self,
        expected: Option<Carried>,
        to: &mut CallerAudio<'_>,
    ) -> Option<RateFound> {
        if let (TakenFor::Either(held), Some(carried)) = (&mut self.taken_for, expected)
            && held.is_full()
        {
            let held = mem::take(held);
            self.taken_for = TakenFor::This(carried);
            held.hand_over(carried, to);
        }
        None
    }
}

impl Undecided {
    fn decide(
        &mut self,
        age: Duration,
        to: &mut CallerAudio<'_>,
    ) -> Option<(State, Option<RateFound>)> {
        let linear = |rate| (Carried::Linear(rate), CodecNotice::Wideband { rate });
        let (carried, notice) = match self.detector.verdict() {
            Verdict::Undecided => {
                self.tell_of_sound(age, to);
                return None;
            }
            Verdict::Slin => (
                Carried::Linear(Rate::Slin),
                CodecNotice::Decided(Codec::Slin),
            ),
            Verdict::Ulaw => (
                Carried::Companded(Law::Ulaw),
                CodecNotice::Decided(Codec::Ulaw),
            ),
            Verdict::Alaw => (
                Carried::Companded(Law::Alaw),
                CodecNotice::Decided(Codec::Alaw),
            ),
            Verdict::Wideband { hz } => linear(Rate::from_hz(hz).unwrap_or_default()),
            Verdict::Unsupported { bytes_per_second } => {
                to.batch
                    .extend_codec(Some(CodecNotice::Unsupported { bytes_per_second }));
                return Some((State::Unsupported, None));
            }
        };
        to.batch.extend_codec(Some(notice));
        let moved = mem::take(&mut self.held).hand_over(carried, to);
        let found = (carried.rate() != Rate::Slin).then_some(RateFound {
            rate: carried.rate(),
            moved,
        });
        Some((State::Known(carried), found))
    }

    /// A caller who speaks and is not heard is not left without a word.
    fn tell_of_sound(&mut self, age: Duration, to: &mut CallerAudio<'_>) {
        if !self.is_told && self.detector.sound_undecided(age) >= UNDECIDED {
            self.is_told = true;
            to.batch.extend_codec(Some(CodecNotice::Undecided));
        }
    }
}

impl Held {
    fn hold(&mut self, age: Duration, offset: Duration, now: Time, bytes: &[u8]) {
        let is_stale = |frame: &HeldFrame| now - frame.arrived > HELD;
        while self.frames.front().is_some_and(is_stale) {
            self.drop_oldest();
        }
        self.bytes.extend(bytes);
        self.frames.push_back(HeldFrame {
            length: bytes.len(),
            offset,
            arrived: now,
            age,
        });
        // One message is always less than that.
        while self.bytes.len() > HELD_BYTES || self.frames.len() > HELD_FRAMES {
            self.drop_oldest();
            self.lost += 1;
            self.uncounted += 1;
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes.drain(..frame.length);
        }
    }

    /// Whether it is about to lose something, or has.
    fn is_full(&self) -> bool {
        if self.lost > 0 {
            return true;
        }
        let ends = self.frames.front().zip(self.frames.back());
        ends.is_some_and(|(first, last)| last.arrived - first.arrived + HELD / 10 > HELD)
    }

    /// Hands everything over as what it is. Says where on the call's clock it was taken to begin, and where it does.
    fn hand_over(
        mut self,
        carried: Carried,
        to: &mut CallerAudio<'_>,
    ) -> Option<(Duration, Duration)> {
        let first = *self.frames.front()?;
        if self.lost > 0 {
            to.batch.push(Entry::Lagged { frames: self.lost });
        }
        let rate = carried.rate();
        // Counted as if it was of 8 kHz, and so much longer than it is, it was taken to have begun too early.
        let begin = match rate {
            Rate::Slin => first.offset,
            _ => {
                let length = rate.duration(first.length as u64 / 2);
                first.offset.max(first.age.saturating_sub(length))
            }
        };
        let mut rest: &[u8] = self.bytes.make_contiguous();
        for frame in self.frames {
            let (bytes, behind) = rest.split_at(frame.length);
            rest = behind;
            let counted = frame.offset.saturating_sub(first.offset) * Rate::Slin.hz();
            let offset = begin + counted / rate.hz();
            to.put(carried, offset, frame.arrived, bytes);
        }
        Some((first.offset, begin))
    }
}

impl CallerAudio<'_> {
    /// Hands over little endian samples; half a sample at the end is dropped.
    pub(crate) fn put_linear(&mut self, rate: Rate, offset: Duration, now: Time, bytes: &[u8]) {
        self.put(Carried::Linear(rate), offset, now, bytes);
    }

    fn put(&mut self, carried: Carried, offset: Duration, arrived: Time, bytes: &[u8]) {
        let (rate, before) = (carried.rate(), self.batch.samples_len());
        self.batch
            .push_audio(rate, offset, arrived, |samples| match carried {
                Carried::Linear(_) => {
                    let (pairs, _) = bytes.as_chunks();
                    samples.extend(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
                }
                Carried::Companded(law) => law.decode(bytes, samples),
            });
        let samples = self.batch.samples_from(before);
        self.taps.put(Side::Caller, rate, arrived, samples);
    }
}

impl Batch {
    fn extend_codec(&mut self, notice: Option<CodecNotice>) {
        if let Some(notice) = notice {
            self.push(Entry::Codec(notice));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What comes of a second and a half of the same message, `each_ms` times a millisecond, and how many were lost.
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

    fn held(codec: InboundCodec) -> Held {
        match codec.state {
            State::Undecided(undecided) => undecided.held,
            state => panic!("{state:?}"),
        }
    }

    #[test]
    fn a_flood_is_held_back_up_to_a_bound_and_the_rest_is_counted() {
        for (message, each_ms) in [(&[0xFF; 2][..], 200), (&[0xFF; 60_000], 1)] {
            let (codec, batch, lost) = flooded(Codec::Auto, message, each_ms);
            let held = held(codec);
            assert!(held.frames.len() <= HELD_FRAMES && held.bytes.len() <= HELD_BYTES);
            assert!(held.bytes.capacity() <= 4 * HELD_BYTES);
            assert_eq!(lost, 1_500 * each_ms - held.frames.len() as u64);
            assert!(batch.is_empty(), "nothing is heard yet");
        }
    }

    #[test]
    fn what_was_lost_is_told_before_what_was_held_back() {
        let (codec, mut batch, lost) = flooded(Codec::Auto, &[0xFF; 2], 200);
        let mut to = CallerAudio {
            batch: &mut batch,
            taps: &mut Taps::default(),
        };
        held(codec).hand_over(Carried::Companded(Law::Ulaw), &mut to);
        let first = batch.take().unwrap().0;
        let is_told = matches!(first, Entry::Lagged { frames } if frames == lost);
        assert!(is_told, "{first:?}, and {lost} were lost");
        assert!(matches!(batch.take(), Some((Entry::Audio(_), [_, _]))));
    }

    #[test]
    fn a_flood_of_long_frames_is_not_held_back_for_ever() {
        let (codec, mut batch, lost) = flooded(Codec::Slin, &[1; 640], 20);
        assert!(lost < 1_000, "{lost}");
        let State::Watched(watch) = codec.state else {
            panic!("{:?}", codec.state);
        };
        assert!(!matches!(watch.taken_for, TakenFor::Either(_)));
        let is_lagged = |entry| matches!(entry, Entry::Lagged { .. });
        assert!(std::iter::from_fn(|| batch.take().map(|it| it.0)).any(is_lagged));
    }

    #[test]
    fn what_a_caller_sends_in_a_second_is_held_back_whole() {
        // Each millisecond, and slin192.
        for (length, gap) in [(16, 1), (7_680, 20)] {
            let mut held = Held::default();
            for at in (1..=1_000).step_by(gap).map(Duration::from_millis) {
                held.hold(at, at, Time::ZERO + at, &vec![0; length]);
            }
            assert_eq!((held.frames.len(), held.lost), (1_000 / gap, 0));
        }
    }
}
