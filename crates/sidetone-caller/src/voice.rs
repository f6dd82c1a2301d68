use std::{fmt, sync::Arc};

use crate::{Codec, noise::noise};

/// The audio that a caller sends, one payload for each frame.
#[derive(Default)]
#[non_exhaustive]
pub enum Voice {
    /// Frames of silence.
    #[default]
    Silence,
    /// No frames, as from a phone that suppresses silence.
    Nothing,
    /// These samples, at the rate of the call's codec, then silence.
    Samples(Arc<Vec<i16>>),
    /// The endless [`ramp`] of a seed.
    Ramp(u64),
    /// These payloads as they are, then silence. The frame of an empty payload is not sent. Payloads are cut off after
    /// 65535 bytes.
    Payloads(Arc<[Vec<u8>]>),
    /// The payloads that a closure makes, for frames counted from 0. The frame of an empty payload is not sent.
    Made(FrameMaker),
}

type FrameMaker = Box<dyn FnMut(u64, &mut Vec<u8>) + Send>;

/// Makes `count` pseudo-random samples, from the `start`-th on. They practically never repeat and none is zero, so that a
/// few of them identify their position. The same seed gives the same samples.
///
/// ```
/// use sidetone_caller::ramp;
///
/// assert_eq!(ramp(7, 100, 50), ramp(7, 0, 150)[100..]);
/// assert_ne!(ramp(7, 0, 50), ramp(8, 0, 50));
/// ```
pub fn ramp(seed: u64, start: u64, count: usize) -> Vec<i16> {
    (start..)
        .take(count)
        .map(|index| ramp_sample(seed, index))
        .collect()
}

fn ramp_sample(seed: u64, index: u64) -> i16 {
    // Half of full scale, so that a codec or a mixer on the way does not clip it.
    match (noise(seed, index) >> 48) as i16 / 2 {
        0 => 1,
        sample => sample,
    }
}

impl Voice {
    /// A voice whose payloads `make` makes. It gets the number of the frame and an empty payload to fill.
    pub fn made(make: impl FnMut(u64, &mut Vec<u8>) + Send + 'static) -> Self {
        Self::Made(Box::new(make))
    }

    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Appends the payload of frame `index`, which has `length` samples.
    pub(crate) fn encode_frame(
        &mut self,
        index: u64,
        length: usize,
        codec: Codec,
        payload: &mut Vec<u8>,
    ) {
        let at = payload.len();
        match self {
            Self::Nothing => return,
            Self::Made(make) => {
                // A buffer of its own: the closure may clear or resize it.
                let mut made = Vec::new();
                make(index, &mut made);
                return payload.append(&mut made);
            }
            Self::Payloads(payloads) => {
                if let Some(made) = payloads.get(index as usize) {
                    return payload.extend_from_slice(made);
                }
            }
            Self::Samples(samples) => {
                let start = (index as usize).saturating_mul(length).min(samples.len());
                let end = (start + length).min(samples.len());
                codec.encode(&samples[start..end], payload);
            }
            Self::Ramp(seed) => {
                let mut start = index * length as u64;
                let end = start + length as u64;
                let mut chunk = [0; 64];
                while start < end {
                    let length = chunk.len().min((end - start) as usize);
                    for (index, sample) in (start..).zip(&mut chunk[..length]) {
                        *sample = ramp_sample(*seed, index);
                    }
                    codec.encode(&chunk[..length], payload);
                    start += length as u64;
                }
            }
            Self::Silence => {}
        }
        let (silence, width) = match codec {
            Codec::Slin(_) => (0x00, 2),
            Codec::Ulaw => (0xff, 1),
            Codec::Alaw => (0xd5, 1),
        };
        payload.resize(at + length * width, silence);
    }
}

impl From<Vec<i16>> for Voice {
    fn from(samples: Vec<i16>) -> Self {
        Self::Samples(samples.into())
    }
}

impl From<Arc<Vec<i16>>> for Voice {
    fn from(samples: Arc<Vec<i16>>) -> Self {
        Self::Samples(samples)
    }
}

impl From<Vec<Vec<u8>>> for Voice {
    fn from(payloads: Vec<Vec<u8>>) -> Self {
        Self::Payloads(payloads.into())
    }
}

impl fmt::Debug for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence => f.write_str("Silence"),
            Self::Nothing => f.write_str("Nothing"),
            Self::Samples(samples) => write!(f, "Samples({})", samples.len()),
            Self::Ramp(seed) => write!(f, "Ramp({seed})"),
            Self::Payloads(payloads) => write!(f, "Payloads({})", payloads.len()),
            Self::Made(_) => f.write_str("Made"),
        }
    }
}
