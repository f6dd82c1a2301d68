//! Uncompressed samples.

use std::io::{BufReader, Read};

use super::collector::{Collector, ReadError};
use super::downmix;
use super::part::Part;
use crate::g711::Law;

/// The encoding of one sample of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// 8 bits, offset by 128.
    Unsigned,
    /// One to four bytes, of which the 16 most significant bits count.
    Signed(usize),
    /// 32 bits.
    Float,
    /// 64 bits.
    Double,
    /// 8 bits.
    Companded(Law),
}

impl Encoding {
    /// Bytes per sample.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Unsigned | Self::Companded(_) => 1,
            Self::Signed(len) => len,
            Self::Float => 4,
            Self::Double => 8,
        }
    }

    /// Decodes one little-endian sample to full-scale 32 bits.
    fn decode(self, bytes: &[u8]) -> i32 {
        const FULL_SCALE: f64 = 2_147_483_648.0;
        match self {
            Self::Unsigned => (i32::from(bytes[0]) - 128) << 24,
            Self::Signed(_) => bytes.iter().fold(0, |sample, &byte| {
                (sample as u32 >> 8 | u32::from(byte) << 24) as i32
            }),
            // The cast clips, and turns NaN into silence.
            Self::Float => {
                let bytes = bytes.first_chunk().copied().unwrap_or_default();
                (f64::from(f32::from_le_bytes(bytes)) * FULL_SCALE) as i32
            }
            Self::Double => {
                let bytes = bytes.first_chunk().copied().unwrap_or_default();
                (f64::from_le_bytes(bytes) * FULL_SCALE) as i32
            }
            Self::Companded(law) => i32::from(law.decode_byte(bytes[0])) << 16,
        }
    }
}

/// The layout of a file's samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) encoding: Encoding,
    /// At least one.
    pub(super) channels: usize,
    pub(super) rate: u32,
    /// The most significant byte comes first.
    pub(super) big_endian: bool,
}

impl Layout {
    /// Bytes per frame: one sample of each channel.
    pub(super) fn frame_len(&self) -> u64 {
        (self.encoding.len() * self.channels) as u64
    }

    /// Reads all of `part`, except an incomplete frame at its end.
    pub(super) fn read(&self, part: &Part, collector: &mut Collector) -> Result<(), ReadError> {
        const FRAMES: usize = 4096;
        let (frame_len, sample_len) = (self.frame_len() as usize, self.encoding.len());
        let frames = part.len() / frame_len as u64;
        collector.begin(self.rate, frames)?;
        let mut reader = BufReader::new(part.clone()).take(frames * frame_len as u64);
        let mut block = Vec::new();
        loop {
            block.clear();
            let wanted = (FRAMES * frame_len) as u64;
            // A file that was shortened meanwhile ends early.
            if reader.by_ref().take(wanted).read_to_end(&mut block)? < frame_len {
                return Ok(());
            }
            if self.big_endian {
                block.chunks_exact_mut(sample_len).for_each(<[u8]>::reverse);
            }
            let frames = block.chunks_exact(frame_len);
            collector.add(frames.map(|frame| {
                let channels = frame.chunks_exact(sample_len);
                downmix(channels.map(|bytes| self.encoding.decode(bytes)))
            }))?;
        }
    }
}
