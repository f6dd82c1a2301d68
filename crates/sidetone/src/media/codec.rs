use std::{mem, time::Duration};

use sidetone_audio::{
    detect::{Detector, RateMeter, Verdict},
    g711::Law,
};
use sidetone_proto::{Rate, Time};

use super::batch::{Batch, Entry};
use crate::event::{Codec, CodecNotice};

/// While `auto` is undecided no more than this is held back; what is older goes. Sound is decided upon
/// after 200 ms of it, so that only silence can be lost here.
const HELD: Duration = Duration::from_secs(1);

/// The byte rates that linear samples at 8 kHz come at, whatever the jitter.
const LINEAR: std::ops::Range<u32> = 12_800..19_600;

/// Turns the payload of kind `0x10` into linear samples.
#[derive(Debug)]
pub(crate) enum InboundCodec {
    /// Linear, as far as anybody knows before the first frame.
    Expected,
    /// Taken for linear, and looked at until that is sure.
    Watched(Box<Watch>),
    Linear,
    Companded(Law),
    Undecided(Box<Undecided>),
    /// Compressed: nothing that an application could hear.
    Unsupported,
}

/// A stream taken for linear whose byte rate is not known yet. What it sounds like is not looked at: the rate
/// alone tells linear samples from everything else, and costs next to nothing.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    meter: RateMeter,
}

/// A stream that `auto` has not decided upon, and what is held back of it.
#[derive(Debug, Default)]
pub(crate) struct Undecided {
    detector: Detector,
    bytes: Vec<u8>,
    frames: Vec<(usize, Duration, Time)>,
}

impl InboundCodec {
    pub(crate) fn new(codec: Codec) -> Self {
        match codec {
            Codec::Slin => Self::Expected,
            Codec::Ulaw => Self::Companded(Law::Ulaw),
            Codec::Alaw => Self::Companded(Law::Alaw),
            Codec::Auto => Self::Undecided(Box::default()),
        }
    }

    pub(crate) fn is_companded(&self) -> bool {
        matches!(self, Self::Companded(_))
    }

    /// What this call's codec is, as far as it is known.
    pub(crate) fn codec(&self) -> Codec {
        match self {
            Self::Expected | Self::Watched(_) | Self::Linear => Codec::Slin,
            Self::Companded(Law::Ulaw) => Codec::Ulaw,
            Self::Companded(Law::Alaw) => Codec::Alaw,
            Self::Undecided(_) | Self::Unsupported => Codec::Auto,
        }
    }

    /// Takes one payload that came at `now`, `age` after the UUID, and adds what it gives to `batch`.
    pub(crate) fn receive(
        &mut self,
        age: Duration,
        now: Time,
        offset: Duration,
        bytes: &[u8],
        batch: &mut Batch,
    ) {
        match self {
            Self::Expected => {
                *self = Self::Watched(Box::default());
                self.receive(age, now, offset, bytes, batch);
            }
            Self::Watched(watch) => {
                if let Some(notice) = watch.look(age, bytes) {
                    if let Some(mismatch) = notice {
                        batch.push(Entry::Codec(mismatch));
                    }
                    *self = Self::Linear;
                }
                push_linear(bytes, offset, now, batch);
            }
            Self::Linear => push_linear(bytes, offset, now, batch),
            Self::Companded(law) => push_companded(*law, bytes, offset, now, batch),
            Self::Undecided(undecided) => {
                if let Some(decided) = undecided.receive(age, now, offset, bytes, batch) {
                    *self = decided;
                }
            }
            Self::Unsupported => {}
        }
    }
}

impl Watch {
    /// `Some` once it is sure: of a mismatch, or that there is none.
    fn look(&mut self, age: Duration, bytes: &[u8]) -> Option<Option<CodecNotice>> {
        self.meter.push(age, bytes.len());
        let bytes_per_second = self.meter.bytes_per_second()?;
        let mismatch = CodecNotice::Mismatch {
            expected: Codec::Slin,
            bytes_per_second,
        };
        Some((!LINEAR.contains(&bytes_per_second)).then_some(mismatch))
    }
}

impl Undecided {
    fn receive(
        &mut self,
        age: Duration,
        now: Time,
        offset: Duration,
        bytes: &[u8],
        batch: &mut Batch,
    ) -> Option<InboundCodec> {
        self.hold(offset, now, bytes);
        let (notice, decided) = match self.detector.push(age, bytes) {
            Verdict::Undecided => return None,
            Verdict::Slin => (CodecNotice::Decided(Codec::Slin), InboundCodec::Linear),
            Verdict::Ulaw => (
                CodecNotice::Decided(Codec::Ulaw),
                InboundCodec::Companded(Law::Ulaw),
            ),
            Verdict::Alaw => (
                CodecNotice::Decided(Codec::Alaw),
                InboundCodec::Companded(Law::Alaw),
            ),
            Verdict::Unsupported { bytes_per_second } => (
                CodecNotice::Unsupported { bytes_per_second },
                InboundCodec::Unsupported,
            ),
        };
        batch.push(Entry::Codec(notice));
        let mut begin = 0;
        for (length, offset, arrived) in mem::take(&mut self.frames) {
            let bytes = &self.bytes[begin..begin + length];
            begin += length;
            match &decided {
                InboundCodec::Companded(law) => push_companded(*law, bytes, offset, arrived, batch),
                InboundCodec::Linear => push_linear(bytes, offset, arrived, batch),
                _ => {}
            }
        }
        Some(decided)
    }

    fn hold(&mut self, offset: Duration, now: Time, bytes: &[u8]) {
        let fresh = self
            .frames
            .iter()
            .position(|(_, _, arrived)| now - *arrived <= HELD);
        let stale = fresh.unwrap_or(self.frames.len());
        let gone: usize = self.frames.drain(..stale).map(|(length, ..)| length).sum();
        self.bytes.drain(..gone);
        self.bytes.extend_from_slice(bytes);
        self.frames.push((bytes.len(), offset, now));
    }
}

/// Adds little endian samples; half a sample at the end is dropped.
pub(crate) fn push_samples(
    rate: Rate,
    bytes: &[u8],
    offset: Duration,
    now: Time,
    batch: &mut Batch,
) {
    batch.push_audio(rate, offset, now, |samples| {
        samples.extend(
            bytes
                .chunks_exact(2)
                .map(|pair| i16::from_le_bytes([pair[0], pair[1]])),
        );
    });
}

fn push_linear(bytes: &[u8], offset: Duration, now: Time, batch: &mut Batch) {
    push_samples(Rate::Slin, bytes, offset, now, batch);
}

fn push_companded(law: Law, bytes: &[u8], offset: Duration, now: Time, batch: &mut Batch) {
    batch.push_audio(Rate::Slin, offset, now, |samples| {
        law.decode(bytes, samples)
    });
}
