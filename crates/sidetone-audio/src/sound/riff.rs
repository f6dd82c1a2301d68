//! WAV files, also those whose writer was killed before it filled in the sizes.

use super::{Sound, SoundError, mix};
use crate::g711::Law;
use crate::resample::{MAX_RATE, MIN_RATE};

pub(super) fn is_riff(bytes: &[u8]) -> bool {
    bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WAVE")
}

pub(super) fn decode(bytes: &[u8], name: &str) -> Result<Sound, SoundError> {
    let unsupported = |encoding: String| SoundError::Unsupported {
        name: name.into(),
        encoding,
    };
    let Some((format, data)) = find_chunks(bytes) else {
        return Err(unsupported(
            "a WAV header that ends before its sound".into(),
        ));
    };
    let Some(format) = Format::parse(format) else {
        return Err(unsupported("a WAV header without a format".into()));
    };
    let Some(decode) = format.decoder() else {
        return Err(unsupported(format.describe()));
    };
    if !(MIN_RATE..=MAX_RATE).contains(&format.rate) {
        return Err(unsupported(format!("sound at {} Hz", format.rate)));
    }
    let samples = data.chunks_exact(format.sample_len * format.channels);
    let mixed = samples.map(|moment| mix(moment.chunks_exact(format.sample_len).map(decode)));
    Ok(Sound {
        samples: mixed.collect(),
        rate: format.rate,
    })
}

/// The contents of the chunks `fmt ` and `data`.
fn find_chunks(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut format = None;
    let mut rest = bytes.get(12..)?;
    loop {
        let (id, size, body) = chunk(rest)?;
        if id == b"data" {
            return Some((format?, &body[..sound_len(size, body)]));
        }
        if id == b"fmt " {
            format = Some(body.get(..size)?);
        }
        // Chunks begin at even places.
        rest = body.get(size.checked_next_multiple_of(2)?..)?;
    }
}

fn chunk(bytes: &[u8]) -> Option<(&[u8; 4], usize, &[u8])> {
    let (id, rest) = bytes.split_first_chunk()?;
    let (size, body) = rest.split_first_chunk()?;
    Some((id, u32::from_le_bytes(*size) as usize, body))
}

/// How much of what follows is sound. The header is believed only if what it leaves over looks like
/// chunks; else its writer died before it could tell.
fn sound_len(said: usize, body: &[u8]) -> usize {
    let left = body.get(said.next_multiple_of(2)..).unwrap_or_default();
    match chunk(left) {
        Some((id, size, left)) if is_name(id) && size <= left.len() => said,
        _ if said + 1 == body.len() => said,
        _ => body.len(),
    }
}

fn is_name(id: &[u8; 4]) -> bool {
    id.iter()
        .all(|byte| byte.is_ascii_graphic() || *byte == b' ')
}

struct Format {
    tag: u16,
    channels: usize,
    rate: u32,
    /// Bytes that a sample of one channel takes.
    sample_len: usize,
}

const PCM: u16 = 1;
const FLOAT: u16 = 3;
const ALAW: u16 = 6;
const ULAW: u16 = 7;
const EXTENSIBLE: u16 = 0xFFFE;

impl Format {
    fn parse(chunk: &[u8]) -> Option<Format> {
        let word = |at: usize| Some(u16::from_le_bytes(*chunk.get(at..)?.first_chunk()?));
        let rate = u32::from_le_bytes(*chunk.get(4..)?.first_chunk()?);
        let tag = match word(0)? {
            // The true one begins the identifier further down.
            EXTENSIBLE => word(24)?,
            tag => tag,
        };
        let channels = usize::from(word(2)?);
        let frame_len = usize::from(word(12)?);
        Some(Format {
            tag,
            channels,
            rate,
            sample_len: frame_len.checked_div(channels)?,
        })
    }

    /// Turns the bytes of one sample into 32 bits of full scale.
    fn decoder(&self) -> Option<fn(&[u8]) -> i32> {
        match (self.tag, self.sample_len) {
            (PCM, 1) => Some(|bytes| (i32::from(bytes[0]) - 128) << 24),
            (PCM, 2..=4) => Some(|bytes| {
                bytes.iter().fold(0, |sample, &byte| {
                    (sample as u32 >> 8 | u32::from(byte) << 24) as i32
                })
            }),
            // The cast clips, and takes what is not a number for silence.
            (FLOAT, 4) => Some(|bytes| {
                let bytes = bytes.first_chunk().copied().unwrap_or_default();
                (f64::from(f32::from_le_bytes(bytes)) * FULL_SCALE) as i32
            }),
            (FLOAT, 8) => Some(|bytes| {
                let bytes = bytes.first_chunk().copied().unwrap_or_default();
                (f64::from_le_bytes(bytes) * FULL_SCALE) as i32
            }),
            (ALAW, 1) => Some(|bytes| i32::from(Law::Alaw.decode_byte(bytes[0])) << 16),
            (ULAW, 1) => Some(|bytes| i32::from(Law::Ulaw.decode_byte(bytes[0])) << 16),
            _ => None,
        }
    }

    fn describe(&self) -> String {
        let codec = match self.tag {
            0x02 => "MS ADPCM",
            0x11 => "IMA ADPCM",
            0x31 => "GSM 6.10",
            0x45 | 0x64 => "G.726",
            0x50 | 0x55 => "MPEG audio",
            0x65 | 0x028F => "G.722",
            PCM | FLOAT | ALAW | ULAW => {
                let (bits, channels) = (self.sample_len * 8, self.channels);
                return format!(
                    "WAV with {channels} channels of {bits} bits (format {})",
                    self.tag
                );
            }
            tag => return format!("WAV of the unknown format {tag:#06x}"),
        };
        format!("{codec} in a WAV file")
    }
}

const FULL_SCALE: f64 = 2_147_483_648.0;
