//! Headerless files, whose extension says all there is to know.

use super::Sound;
use crate::g711::Law;

#[derive(Clone, Copy)]
pub(super) enum Encoding {
    /// 16 bits, little-endian, at this rate.
    Slin(u32),
    /// G.711 at 8 kHz.
    Companded(Law),
}

/// As Asterisk names its files.
pub(super) fn encoding_of(extension: &str) -> Option<Encoding> {
    let extension = extension.to_ascii_lowercase();
    let kilohertz = ["slin", "sln"]
        .iter()
        .find_map(|prefix| extension.strip_prefix(prefix));
    if let Some(kilohertz) = kilohertz {
        return match kilohertz {
            "" | "8" => Some(Encoding::Slin(8_000)),
            "44" => Some(Encoding::Slin(44_100)),
            "12" | "16" | "24" | "32" | "48" | "96" | "192" => kilohertz
                .parse()
                .ok()
                .map(|k: u32| Encoding::Slin(k * 1000)),
            _ => None,
        };
    }
    match &extension[..] {
        "ulaw" | "ul" | "mu" | "pcm" => Some(Encoding::Companded(Law::Ulaw)),
        "alaw" | "al" => Some(Encoding::Companded(Law::Alaw)),
        _ => None,
    }
}

pub(super) fn decode(encoding: Encoding, bytes: &[u8]) -> Sound {
    match encoding {
        Encoding::Slin(rate) => {
            let (pairs, _) = bytes.as_chunks();
            let samples = pairs.iter().map(|&pair| i16::from_le_bytes(pair)).collect();
            Sound { samples, rate }
        }
        Encoding::Companded(law) => {
            let mut samples = Vec::with_capacity(bytes.len());
            law.decode(bytes, &mut samples);
            Sound {
                samples,
                rate: 8_000,
            }
        }
    }
}
