use std::time::Duration;

use sidetone_audio::g711::Law;
use sidetone_proto::{Kind, Rate};

/// The codec of the caller's audio.
///
/// ```
/// use sidetone_caller::Codec;
/// use sidetone_proto::Rate;
///
/// let frame = std::time::Duration::from_millis(20);
/// assert_eq!(Codec::Slin(Rate::Slin16).frame_bytes(frame), 640);
/// assert_eq!(Codec::Ulaw.frame_bytes(frame), 160);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Linear samples under the kind of their rate.
    Slin(Rate),
    /// µ-law under kind `0x10`, as from `Dial` with `c(ulaw)`, or without `c()` from a µ-law phone.
    Ulaw,
    /// A-law under kind `0x10`.
    Alaw,
}

impl Default for Codec {
    fn default() -> Self {
        Self::Slin(Rate::Slin)
    }
}

impl Codec {
    /// The sample rate.
    pub const fn rate(self) -> Rate {
        match self {
            Self::Slin(rate) => rate,
            Self::Ulaw | Self::Alaw => Rate::Slin,
        }
    }

    /// The kind of its messages.
    pub const fn kind(self) -> Kind {
        Kind::Audio(self.rate())
    }

    /// Whole samples in a frame of `ptime`.
    pub const fn frame_samples(self, ptime: Duration) -> usize {
        self.rate().samples_in(ptime) as usize
    }

    /// Bytes of payload in a frame of `ptime`.
    pub const fn frame_bytes(self, ptime: Duration) -> usize {
        match self {
            Self::Slin(_) => self.frame_samples(ptime) * 2,
            Self::Ulaw | Self::Alaw => self.frame_samples(ptime),
        }
    }

    pub(crate) fn encode(self, samples: &[i16], payload: &mut Vec<u8>) {
        match self {
            Self::Slin(_) => payload.extend(samples.iter().flat_map(|sample| sample.to_le_bytes())),
            Self::Ulaw => Law::Ulaw.encode(samples, payload),
            Self::Alaw => Law::Alaw.encode(samples, payload),
        }
    }

    pub(crate) fn decode(self, payload: &[u8], samples: &mut Vec<i16>) {
        match self {
            Self::Slin(_) => decode_linear(payload, samples),
            Self::Ulaw => Law::Ulaw.decode(payload, samples),
            Self::Alaw => Law::Alaw.decode(payload, samples),
        }
    }
}

/// Decodes little-endian samples. An odd byte at the end is ignored.
pub(crate) fn decode_linear(payload: &[u8], samples: &mut Vec<i16>) {
    let (pairs, _) = payload.as_chunks::<2>();
    samples.extend(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
}
