//! WAV files of all kinds (RIFF, RIFX, RF64, BW64), including those whose writer was killed before
//! it filled in the sizes.
mod chunks;
mod format;

use std::time::Duration;

use self::chunks::Chunk;
use self::format::Format;
use super::collector::{Collector, ReadError};
use super::error::Flaw;
use super::part::Part;
use super::tags;

/// The container, which determines the width and byte order of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    Riff,
    /// RIFF with the most significant byte first.
    Rifx,
    /// RF64 and BW64: RIFF beyond 4 GiB, with the sizes in a chunk of their own.
    Long,
}

pub(super) fn container(start: &[u8]) -> Option<Container> {
    if start.get(8..12) != Some(b"WAVE") {
        return None;
    }
    match start.first_chunk()? {
        b"RIFF" => Some(Container::Riff),
        b"RIFX" => Some(Container::Rifx),
        b"RF64" | b"BW64" => Some(Container::Long),
        _ => None,
    }
}

/// A size from here on is a placeholder of a program that does not know it yet.
const PLACEHOLDER: u64 = 0x7FFF_0000;
/// More than any program writes, to bound the work on a malicious file.
const MAX_CHUNKS: usize = 10_000;

/// Reads the first file in `part`. Returns where the next one begins, if any. From `end` on there
/// are only tags of other programs.
pub(super) fn read(
    container: Container,
    part: &Part,
    end: u64,
    collector: &mut Collector,
) -> Result<Option<u64>, ReadError> {
    let (format, data) = find_sound(container, part)?;
    let layout = format.layout()?;
    let space = part.len() - data.body();
    let is_plausible_size = data.size != 0 && data.size <= space;
    let sound_end = match is_plausible_size {
        true => data.body() + data.size,
        // Its writer was killed before it knew the size, or the file was cut off.
        false => chunks::start_of_trailing(container, part, data.body(), end.max(data.body()))?,
    };
    layout.read(&part.slice(data.body(), sound_end), collector)?;
    let missing = data.size.saturating_sub(sound_end - data.body()) / layout.frame_len();
    if !is_plausible_size && missing > 0 && data.size < PLACEHOLDER {
        let seconds = missing as f64 / f64::from(layout.rate);
        let missing = Duration::try_from_secs_f64(seconds).ok();
        collector.flaws.push(Flaw::Truncated { missing });
    }
    let after = match is_plausible_size {
        true => data.next(container, part)?,
        false => sound_end,
    };
    check_trailer(container, part, after, end, collector)
}

/// The format of the sound, and the chunk that holds it.
fn find_sound(container: Container, part: &Part) -> Result<(Format, Chunk), ReadError> {
    let cut = || ReadError::Unsupported("a WAV header that ends before its sound".into());
    let mut format = None;
    let mut long_size = None;
    let mut at = 12;
    for _ in 0..MAX_CHUNKS {
        let chunk = Chunk::at(container, part, at)?;
        let mut chunk = chunk.filter(Chunk::has_name).ok_or_else(cut)?;
        match &chunk.id {
            b"ds64" => {
                let size = part.array(chunk.body() + 8)?;
                long_size = size.map(u64::from_le_bytes);
            }
            b"fmt " => {
                let len = chunk.size.min(40) as usize;
                let fields = part.peek(chunk.body(), len)?;
                let this = Format::parse(container, &fields).ok_or_else(cut)?;
                if format.replace(this).is_some_and(|other| other != this) {
                    return Err(ReadError::Contradictory(
                        "it has two format chunks that disagree".into(),
                    ));
                }
            }
            b"data" => {
                if let Some(size) = long_size.filter(|_| chunk.size == u64::from(u32::MAX)) {
                    chunk.size = size;
                }
                let format = format.ok_or_else(|| {
                    ReadError::Unsupported("a WAV header without a format before its sound".into())
                })?;
                return Ok((format, chunk));
            }
            _ => {}
        }
        at = chunk.next(container, part)?;
    }
    Err(cut())
}

/// Reports what follows the sound and is neither a chunk nor a tag. Returns where the next file
/// begins, if any.
fn check_trailer(
    container: Container,
    part: &Part,
    mut at: u64,
    end: u64,
    collector: &mut Collector,
) -> Result<Option<u64>, ReadError> {
    for _ in 0..MAX_CHUNKS {
        let Some(chunk) = Chunk::at(container, part, at)? else {
            break;
        };
        if self::container(&part.peek(at, 12)?).is_some() {
            return Ok(Some(at));
        }
        if !chunk.is_plausible(part) {
            break;
        }
        at = chunk.next(container, part)?;
    }
    // Tags of other programs, and a last chunk that is cut off, are no loss.
    while let Some(len) = match tags::id3v2(part, at)? {
        None => tags::ape(part, at)?,
        tag => tag,
    } {
        at += len;
    }
    let is_chunk = Chunk::at(container, part, at)?.is_some_and(|chunk| chunk.is_usual());
    let bytes = end.saturating_sub(at);
    if bytes > 1 && !is_chunk {
        collector.flaws.push(Flaw::Skipped { bytes });
    }
    Ok(None)
}
