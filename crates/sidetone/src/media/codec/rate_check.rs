//! Whether a payload comes at the byte rate of the configured codec.
//!
//! Only the rate is measured, not the content: it tells most encodings apart, and costs next to nothing.

use std::{mem, ops::Range, time::Duration};

use sidetone_audio::detect::{self, RateMeter};
use sidetone_proto::{Rate, Time};

use super::{CallerAudio, Encoding, RateFound, held::HeldPayloads};
use crate::event::{Codec, CodecNotice};

/// Byte rates of linear samples at 8 kHz, whatever the jitter.
const LINEAR_8K_BYTES_PER_SECOND: Range<u32> = 12_800..19_600;

/// From here on an early measurement of linear samples at 8 kHz may be one of 12 kHz.
const EARLY_LINEAR_8K_END: u32 = 18_000;

/// Byte rates of companded samples at 8 kHz, whatever the jitter.
pub(super) const COMPANDED_BYTES_PER_SECOND: Range<u32> = 6_400..9_800;

/// Bytes of 20 ms of linear samples at 8 kHz. A longer frame may be of a higher rate.
const LINEAR_8K_FRAME_BYTES: usize = 320;

/// A stream whose byte rate is not known yet, or is not the expected one.
#[derive(Debug)]
pub(super) struct RateCheck {
    meter: RateMeter,
    pub(super) assumed: Assumed,
}

/// What the payload is taken for, until the rate is known or if it is not the expected one.
#[derive(Clone, Debug)]
pub(super) enum Assumed {
    /// The length of the first frame fits several rates. Payloads are held until one is known.
    Unclear(HeldPayloads),
    Encoding(Encoding),
    /// The rate fits no encoding that the configured codec allows. Decoded it would be noise, so it is dropped.
    Noise {
        bytes_per_second: u32,
    },
}

impl Encoding {
    /// The encoding of a stream at this rate where `expected` is configured. `None` if none fits.
    fn at_rate(bytes_per_second: u32, expected: Codec) -> Option<Self> {
        match Self::of(expected)? {
            law @ Self::Companded(_) => COMPANDED_BYTES_PER_SECOND
                .contains(&bytes_per_second)
                .then_some(law),
            linear @ Self::Linear(_) if LINEAR_8K_BYTES_PER_SECOND.contains(&bytes_per_second) => {
                Some(linear)
            }
            Self::Linear(_) => detect::wideband_hz(bytes_per_second)
                .and_then(Rate::from_hz)
                .map(Self::Linear),
        }
    }
}

impl RateCheck {
    pub(super) fn new(expected: Encoding, first_frame_bytes: usize) -> Self {
        let is_unclear =
            expected == Encoding::Linear(Rate::Slin) && first_frame_bytes > LINEAR_8K_FRAME_BYTES;
        Self {
            meter: RateMeter::default(),
            assumed: match is_unclear {
                true => Assumed::Unclear(HeldPayloads::default()),
                false => Assumed::Encoding(expected),
            },
        }
    }

    pub(super) fn receive(
        &mut self,
        age: Duration,
        now: Time,
        offset: Duration,
        bytes: &[u8],
        to: &mut CallerAudio<'_>,
    ) {
        self.meter.push(age, bytes.len());
        match &mut self.assumed {
            Assumed::Unclear(held) => held.push(age, offset, now, bytes),
            Assumed::Encoding(encoding) => to.push(*encoding, offset, now, bytes),
            Assumed::Noise { .. } => {}
        }
    }

    /// Returns a rate if a new one was found, and whether the payload is known to be what was configured.
    pub(super) fn decide(
        &mut self,
        configured: Codec,
        to: &mut CallerAudio<'_>,
    ) -> (Option<RateFound>, bool) {
        let final_rate = self.meter.bytes_per_second();
        let rate = match &self.assumed {
            Assumed::Unclear(_) => final_rate.or_else(|| self.early_rate()),
            _ => final_rate,
        };
        let expected = Encoding::of(configured);
        let Some(bytes_per_second) = rate else {
            self.release_if_full(expected, to);
            return (None, false);
        };
        let encoding = Encoding::at_rate(bytes_per_second, configured);
        if encoding.is_none() && final_rate.is_none() {
            return (None, false);
        }
        let found = self.assume(encoding, bytes_per_second, configured, to);
        (found, final_rate.is_some() && encoding == expected)
    }

    /// The rate before it is final, unless it may turn out as another.
    fn early_rate(&self) -> Option<u32> {
        let rate = self.meter.early_bytes_per_second()?;
        let is_ambiguous = (EARLY_LINEAR_8K_END..LINEAR_8K_BYTES_PER_SECOND.end).contains(&rate);
        (!is_ambiguous).then_some(rate)
    }

    /// From now on the payload has this encoding, or is noise. Reports a change.
    fn assume(
        &mut self,
        encoding: Option<Encoding>,
        bytes_per_second: u32,
        configured: Codec,
        to: &mut CallerAudio<'_>,
    ) -> Option<RateFound> {
        let is_unchanged = match (&self.assumed, encoding) {
            (Assumed::Encoding(assumed), Some(encoding)) => *assumed == encoding,
            (Assumed::Noise { .. }, None) => true,
            _ => false,
        };
        if is_unchanged {
            return None;
        }
        let next = encoding.map_or(Assumed::Noise { bytes_per_second }, Assumed::Encoding);
        let before = mem::replace(&mut self.assumed, next);
        let was_unclear = matches!(before, Assumed::Unclear(_));
        let notice = match encoding {
            None => Some(CodecNotice::Mismatch {
                expected: configured,
                bytes_per_second,
            }),
            Some(Encoding::Linear(rate)) if rate != Rate::Slin => {
                Some(CodecNotice::Wideband { rate })
            }
            // It is what was expected from the start.
            Some(_) if was_unclear => None,
            Some(_) => Some(CodecNotice::Decided(configured)),
        };
        to.notify(notice);
        let moved = match (before, encoding) {
            (Assumed::Unclear(held), Some(encoding)) => held.release(encoding, to),
            _ => None,
        };
        let rate = encoding.map_or(Rate::Slin, Encoding::rate);
        Some(RateFound { rate, moved })
    }

    /// A stream that is too uneven to have a rate is taken for what was configured: better heard than dropped.
    fn release_if_full(&mut self, expected: Option<Encoding>, to: &mut CallerAudio<'_>) {
        if let (Assumed::Unclear(held), Some(encoding)) = (&mut self.assumed, expected)
            && held.is_full()
        {
            let held = mem::take(held);
            self.assumed = Assumed::Encoding(encoding);
            held.release(encoding, to);
        }
    }
}
