//! A simulated telephone line: what arrives on a call's socket under kind 0x10, and when.

#![allow(clippy::unwrap_used, unreachable_pub)]

use std::time::Duration;

use audio_codec::Encoder;
use audio_codec::g722::G722Encoder;
use sidetone_audio::g711::Law;
use sidetone_audio::resample::resample_clip;

/// The codec of the caller's channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Slin,
    Ulaw,
    Alaw,
    G722,
}

impl Codec {
    pub const ALL: [Codec; 4] = [Codec::Slin, Codec::Ulaw, Codec::Alaw, Codec::G722];

    pub fn bytes_per_ms(self) -> usize {
        if self == Codec::Slin { 16 } else { 8 }
    }

    /// Encodes sound at 8 kHz.
    pub fn encode(self, sound: &[i16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Codec::Slin => bytes.extend(sound.iter().flat_map(|s| s.to_le_bytes())),
            Codec::Ulaw => Law::Ulaw.encode(sound, &mut bytes),
            Codec::Alaw => Law::Alaw.encode(sound, &mut bytes),
            Codec::G722 => {
                let wide = resample_clip(sound, 8000, 16_000).unwrap();
                bytes.resize(wide.len(), 0);
                let len = G722Encoder::new().encode_into(&wide, &mut bytes).unwrap();
                bytes.truncate(len);
            }
        }
        bytes
    }
}

/// How messages arrive.
#[derive(Debug, Clone)]
pub struct Line {
    /// The length of a frame in ms.
    pub ptime_ms: usize,
    /// A first frame and a count: these frames arrive together, when the last of them is due.
    pub burst: Option<(usize, usize)>,
    /// A first frame and a count: these frames never arrive.
    pub gap: Option<(usize, usize)>,
    pub seed: u64,
}

impl Line {
    pub fn new(ptime_ms: usize, seed: u64) -> Self {
        Self {
            ptime_ms,
            burst: None,
            gap: None,
            seed,
        }
    }

    /// The messages of a stream, with their arrival times. Their intervals are up to 5.5 ms off the
    /// frame length, as measured on Asterisk.
    pub fn deliver(&self, bytes: &[u8], bytes_per_ms: usize) -> Vec<(Duration, Vec<u8>)> {
        let mut random = self.seed;
        let mut latest = Duration::ZERO;
        let mut messages = Vec::new();
        for (n, payload) in bytes.chunks(bytes_per_ms * self.ptime_ms).enumerate() {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let jitter = (random >> 33) % 5_500;
            let lost = |(from, count): (usize, usize)| (from..from + count).contains(&n);
            if self.gap.is_some_and(lost) {
                continue;
            }
            let due = match self.burst {
                Some((from, count)) if lost((from, count)) => from + count - 1,
                _ => n,
            };
            let at = Duration::from_millis((due * self.ptime_ms) as u64);
            latest = latest.max(at + Duration::from_micros(jitter));
            messages.push((latest, payload.to_vec()));
        }
        messages
    }
}
