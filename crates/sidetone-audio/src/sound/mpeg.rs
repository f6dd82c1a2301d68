//! The frames of an mp3, which has no header that says where it ends.
//!
//! A decoder given the whole file trusts its first frame's length, finds frames in pictures, and
//! skips frames at another rate. So this splits the file into runs of consecutive frames.

use std::io::{self, Read};

use super::part::Part;
use super::tags;

/// Consecutive frames of the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) frames: u64,
    /// Whether the end of the file cuts the last frame.
    pub(super) is_cut: bool,
    /// Bytes before it that are neither frames nor tags.
    pub(super) left_out: u64,
}

/// How many bytes that are neither frames nor tags are skipped at most.
const MAX_SKIPPED: u64 = 4 << 20;
/// So many consecutive frames do not occur by chance.
const MIN_CHAIN: u64 = 3;

/// The next run from `from` on. `Err` says how many bytes were not frames if there is none.
pub(super) fn next_run(part: &Part, from: u64) -> io::Result<Result<Run, u64>> {
    let (mut at, mut tagged) = (from, 0);
    loop {
        if let Some(len) = tags_at(part, at)? {
            (at, tagged) = (at + len, tagged + len);
            continue;
        }
        if let Some(run) = run_at(part, at)? {
            let is_alone = run.to == part.len() || (at == 0 && run.is_cut);
            if run.frames >= MIN_CHAIN || is_alone {
                let left_out = at - from - tagged;
                return Ok(Ok(Run { left_out, ..run }));
            }
        }
        match next_candidate(part, at + 1)? {
            Some(place) if place - from - tagged < MAX_SKIPPED => at = place,
            _ => return Ok(Err((part.len() - from).saturating_sub(tagged))),
        }
    }
}

fn tags_at(part: &Part, at: u64) -> io::Result<Option<u64>> {
    let len = match tags::id3v2(part, at)? {
        None => tags::ape(part, at)?,
        tag => tag,
    };
    Ok(match len {
        // Of a file that another is appended to.
        None if part.peek(at, 3)? == b"TAG" && follows(part, at + 128)? => Some(128),
        len => len,
    })
}

/// Whether a frame, a tag or the end follows.
fn follows(part: &Part, at: u64) -> io::Result<bool> {
    let start = part.peek(at, 4)?;
    Ok(start.is_empty()
        || start.starts_with(b"ID3")
        || start.starts_with(b"TAG")
        || Frame::parse(&start).is_some())
}

/// The position of the next byte that may begin a frame or a tag.
fn next_candidate(part: &Part, mut at: u64) -> io::Result<Option<u64>> {
    let mut block = [0; 1 << 14];
    let mut rest = part.from(at);
    loop {
        let len = rest.read(&mut block)?;
        if len == 0 {
            return Ok(None);
        }
        let is_candidate = |byte: &u8| [0xFF, b'I', b'A', b'T'].contains(byte);
        if let Some(place) = block[..len].iter().position(is_candidate) {
            return Ok(Some(at + place as u64));
        }
        at += len as u64;
    }
}

/// The run that begins here, of any length.
fn run_at(part: &Part, from: u64) -> io::Result<Option<Run>> {
    let Some(first) = Frame::at(part, from)? else {
        return Ok(None);
    };
    // After this many frames the first frame's count ends, and an appended file begins.
    let counted = match first.count(part, from)? {
        Some(count) if count > 0 => 1 + u64::from(count),
        _ => u64::MAX,
    };
    let mut run = Run {
        from,
        to: from,
        frames: 0,
        is_cut: false,
        left_out: 0,
    };
    let mut frame = Some(first);
    while let Some(this) = frame.filter(|frame| frame.is_like(&first)) {
        if run.frames >= MIN_CHAIN && (this.count(part, run.to)?.is_some() || run.frames == counted)
        {
            break;
        }
        if run.to + this.len > part.len() {
            run.is_cut = true;
            break;
        }
        run.to += this.len;
        run.frames += 1;
        frame = Frame::at(part, run.to)?;
    }
    Ok((run.frames > 0).then_some(run))
}

/// The fields of a frame's first four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    /// Version, layer and rate, which all frames of a file share.
    kind: u32,
    is_mono: bool,
    /// MPEG 1, not 2 or 2.5.
    is_first_version: bool,
    len: u64,
}

impl Frame {
    fn at(part: &Part, at: u64) -> io::Result<Option<Self>> {
        Ok(Self::parse(&part.peek(at, 4)?))
    }

    /// `None` if this is not a frame of layer III (ISO/IEC 11172-3, 2.4.1.3).
    fn parse(bytes: &[u8]) -> Option<Self> {
        const FIRST: [u64; 16] = [
            0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0,
        ];
        const LATER: [u64; 16] = [
            0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0,
        ];
        let header = u32::from_be_bytes(*bytes.first_chunk()?);
        let version = header >> 19 & 3;
        let layer = header >> 17 & 3;
        if header >> 21 != 0x7FF || version == 1 || layer != 1 {
            return None;
        }
        let is_first_version = version == 3;
        let rates = [44_100, 48_000, 32_000].map(|rate: u64| match version {
            3 => rate,
            2 => rate / 2,
            _ => rate / 4,
        });
        let rate = *rates.get((header >> 10 & 3) as usize)?;
        let kilobits = if is_first_version { FIRST } else { LATER }[(header >> 12 & 15) as usize];
        let padding = u64::from(header >> 9 & 1);
        let len = kilobits * if is_first_version { 144_000 } else { 72_000 } / rate + padding;
        (kilobits > 0).then_some(Self {
            kind: header & 0xFFFE_0C00,
            is_mono: header >> 6 & 3 == 3,
            is_first_version,
            len,
        })
    }

    fn is_like(&self, other: &Self) -> bool {
        self.kind == other.kind && self.is_mono == other.is_mono
    }

    /// How many frames follow, if this frame holds only that count, or 0 if it leaves it out.
    fn count(&self, part: &Part, at: u64) -> io::Result<Option<u32>> {
        let side_information = match (self.is_first_version, self.is_mono) {
            (true, false) => 32,
            (true, true) | (false, false) => 17,
            (false, true) => 9,
        };
        Ok(match part.array::<12>(at + 4 + side_information)? {
            Some([b'X', b'i', b'n', b'g', rest @ ..] | [b'I', b'n', b'f', b'o', rest @ ..]) => {
                let [.., flags, a, b, c, d] = rest;
                Some(if flags & 1 != 0 {
                    u32::from_be_bytes([a, b, c, d])
                } else {
                    0
                })
            }
            _ => None,
        })
    }
}
