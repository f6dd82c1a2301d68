//! G.711, the companded sound of the telephone network: one byte a sample, µ-law or A-law.
//!
//! Both laws follow ITU-T G.191's reference: decoding scales to the full 16 bits, and encoding
//! treats negative samples by ones' complement.

/// The two companding laws of ITU-T G.711.
///
/// ```
/// use sidetone_audio::g711::Law;
///
/// let mut samples = Vec::new();
/// Law::Ulaw.decode(&[0xFF, 0x80], &mut samples);
/// assert_eq!(samples, [0, 32124]);
/// assert_eq!(Law::Ulaw.encode_sample(32124), 0x80);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Law {
    /// µ-law: North America and Japan; `ulaw` in Asterisk.
    Ulaw,
    /// A-law: the rest of the world; `alaw` in Asterisk.
    Alaw,
}

impl Law {
    /// The sample that a code stands for.
    #[inline]
    pub const fn decode_byte(self, code: u8) -> i16 {
        self.table()[code as usize]
    }

    /// The code nearest to a sample. A sample that exceeds the law's range is clipped.
    #[inline]
    pub fn encode_sample(self, sample: i16) -> u8 {
        match self {
            Law::Ulaw => encode_ulaw(sample),
            Law::Alaw => encode_alaw(sample),
        }
    }

    /// Appends one sample per code.
    pub fn decode(self, codes: &[u8], samples: &mut Vec<i16>) {
        let table = self.table();
        samples.extend(codes.iter().map(|&code| table[usize::from(code)]));
    }

    /// Appends one code per sample.
    pub fn encode(self, samples: &[i16], codes: &mut Vec<u8>) {
        // The match is outside the loops so that each of them can be unrolled.
        match self {
            Law::Ulaw => codes.extend(samples.iter().map(|&sample| encode_ulaw(sample))),
            Law::Alaw => codes.extend(samples.iter().map(|&sample| encode_alaw(sample))),
        }
    }

    #[inline]
    const fn table(self) -> &'static [i16; 256] {
        match self {
            Law::Ulaw => &ULAW,
            Law::Alaw => &ALAW,
        }
    }
}

static ULAW: [i16; 256] = table_of(Law::Ulaw);
static ALAW: [i16; 256] = table_of(Law::Alaw);

const fn table_of(law: Law) -> [i16; 256] {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = match law {
            Law::Ulaw => expand_ulaw(code as u8),
            Law::Alaw => expand_alaw(code as u8),
        };
        code += 1;
    }
    table
}

/// Added to a µ-law magnitude so that every segment starts at a power of two.
const ULAW_BIAS: i16 = 33 << 2;

const fn expand_ulaw(code: u8) -> i16 {
    // Codes are sent inverted, so that silence has many ones, which the line needs to recover its
    // clock.
    let bits = !code;
    let segment = (bits >> 4) & 7;
    let step = (bits & 15) as i16;
    let magnitude = (((step << 3) + ULAW_BIAS) << segment) - ULAW_BIAS;
    if bits & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

const fn expand_alaw(code: u8) -> i16 {
    let bits = code ^ 0x55;
    let segment = (bits >> 4) & 7;
    let step = (bits & 15) as i16;
    // Each value is the middle of its interval; the lowest two segments have equal steps.
    let magnitude = match segment {
        0 => (step << 4) + 8,
        _ => ((step << 4) + 0x108) << (segment - 1),
    };
    if bits & 0x80 != 0 {
        magnitude
    } else {
        -magnitude
    }
}

#[inline]
fn encode_ulaw(sample: i16) -> u8 {
    let negative = sample >> 15;
    // 14 bits: the lowest two of 16 are below the law's resolution.
    let magnitude = (((sample ^ negative) >> 2) as u32 + 33).min(0x1FFF);
    let segment = 26 - magnitude.leading_zeros();
    let step = (magnitude >> (segment + 1)) & 15;
    !((negative as u8 & 0x80) | (segment << 4 | step) as u8)
}

#[inline]
fn encode_alaw(sample: i16) -> u8 {
    let negative = sample >> 15;
    // 12 bits of magnitude are what the law encodes.
    let magnitude = ((sample ^ negative) >> 4) as u32;
    // The lowest two segments share their step size, hence the floor.
    let shift = 27u32.saturating_sub((magnitude | 16).leading_zeros());
    let code = match magnitude {
        0..16 => magnitude,
        _ => ((shift + 1) << 4) | ((magnitude >> shift) & 15),
    };
    ((!negative as u8 & 0x80) | code as u8) ^ 0x55
}
