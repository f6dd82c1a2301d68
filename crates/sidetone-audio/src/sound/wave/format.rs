//! The format chunk of a WAV file, part of which is redundant.

use super::Container;
use crate::g711::Law;
use crate::sound::collector::ReadError;
use crate::sound::pcm::{Encoding, Layout};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    tag: u16,
    channels: u16,
    rate: u32,
    bytes_per_second: u32,
    /// Bytes per frame: one sample of each channel.
    block_len: u16,
    bits: u16,
    big_endian: bool,
}

const PCM: u16 = 1;
const FLOAT: u16 = 3;
const ALAW: u16 = 6;
const ULAW: u16 = 7;
const EXTENSIBLE: u16 = 0xFFFE;

/// Common sample rates.
const USUAL_RATES: [u32; 13] = [
    8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400,
    192_000,
];

impl Format {
    pub(super) fn parse(container: Container, fields: &[u8]) -> Option<Self> {
        let big_endian = container == Container::Rifx;
        let word = |at: usize| {
            let bytes = *fields.get(at..)?.first_chunk()?;
            Some(if big_endian {
                u16::from_be_bytes(bytes)
            } else {
                u16::from_le_bytes(bytes)
            })
        };
        let long = |at: usize| {
            let bytes = *fields.get(at..)?.first_chunk()?;
            Some(if big_endian {
                u32::from_be_bytes(bytes)
            } else {
                u32::from_le_bytes(bytes)
            })
        };
        Some(Self {
            tag: match word(0)? {
                // The actual format is the start of a GUID further down.
                EXTENSIBLE => word(24)?,
                tag => tag,
            },
            channels: word(2)?,
            rate: long(4)?,
            bytes_per_second: long(8)?,
            block_len: word(12)?,
            // The oldest headers end here.
            bits: word(14).unwrap_or(0),
            big_endian,
        })
    }

    /// The layout of the samples. A redundant field is not trusted alone: of the three that give
    /// the length of a frame, two must agree.
    pub(super) fn layout(&self) -> Result<Layout, ReadError> {
        if !matches!(self.tag, PCM | FLOAT | ALAW | ULAW) {
            return Err(ReadError::Unsupported(self.codec()));
        }
        if self.channels == 0 {
            return Err(ReadError::Unsupported(
                "a WAV format without a channel".into(),
            ));
        }
        let channels = usize::from(self.channels);
        let sample_len = self.sample_len()?;
        let encoding = self.encoding(sample_len).ok_or_else(|| {
            let (bits, channels) = (sample_len * 8, self.channels);
            let tag = self.tag;
            ReadError::Unsupported(format!(
                "WAV with {channels} channels of {bits} bits (format {tag})"
            ))
        })?;
        let layout = Layout {
            encoding,
            channels,
            rate: self.rate,
            big_endian: self.big_endian,
        };
        self.check_rate(&layout)?;
        Ok(layout)
    }

    /// Bytes per sample, as most of the fields have it.
    fn sample_len(&self) -> Result<usize, ReadError> {
        let channels = usize::from(self.channels);
        let by_bits = match self.tag {
            ALAW | ULAW => 1,
            _ => usize::from(self.bits).div_ceil(8),
        };
        let by_block = usize::from(self.block_len);
        let by_seconds = self.bytes_per_second.checked_div(self.rate).unwrap_or(0) as usize;
        if by_bits > 0 && [by_block, by_seconds].contains(&(by_bits * channels)) {
            return Ok(by_bits);
        }
        let len = by_block / channels;
        // Three bytes may be stored in four, and an empty field contradicts nothing.
        let is_wider = (self.bits == 0 || by_bits == 3) && len * channels == by_block;
        if is_wider && len > 0 && (by_bits < len && len <= 4) && by_block == by_seconds {
            return Ok(len);
        }
        Err(ReadError::Contradictory(format!(
            "its header says that {} of {} bits take {} bytes, and {} bytes a second at {} Hz",
            match self.channels {
                1 => "one channel".into(),
                channels => format!("{channels} channels"),
            },
            self.bits,
            self.block_len,
            self.bytes_per_second,
            self.rate,
        )))
    }

    fn encoding(&self, sample_len: usize) -> Option<Encoding> {
        match (self.tag, sample_len) {
            (PCM, 1) => Some(Encoding::Unsigned),
            (PCM, 2..=4) => Some(Encoding::Signed(sample_len)),
            (FLOAT, 4) => Some(Encoding::Float),
            (FLOAT, 8) => Some(Encoding::Double),
            (ALAW, 1) => Some(Encoding::Companded(Law::Alaw)),
            (ULAW, 1) => Some(Encoding::Companded(Law::Ulaw)),
            _ => None,
        }
    }

    /// The byte rate is often wrong. But if it fits another common rate, nothing says which of the
    /// two is right.
    fn check_rate(&self, layout: &Layout) -> Result<(), ReadError> {
        let other = u64::from(self.bytes_per_second) / layout.frame_len();
        let is_whole = u64::from(self.bytes_per_second).is_multiple_of(layout.frame_len());
        let is_usual = USUAL_RATES.iter().any(|rate| u64::from(*rate) == other);
        if other == u64::from(self.rate) || !is_whole || !is_usual {
            return Ok(());
        }
        Err(ReadError::Contradictory(format!(
            "its header says {} Hz, and a byte rate that means {other} Hz",
            self.rate
        )))
    }

    fn codec(&self) -> String {
        let codec = match self.tag {
            0x02 => "MS ADPCM",
            0x11 => "IMA ADPCM",
            0x31 => "GSM 6.10",
            0x45 | 0x64 => "G.726",
            0x50 | 0x55 => "MPEG audio",
            0x65 | 0x028F => "G.722",
            tag => return format!("WAV of the unknown format {tag:#06x}"),
        };
        format!("{codec} in a WAV file")
    }
}
