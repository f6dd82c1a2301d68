//! The chunks of a WAV file: a name of four letters, a size, and as many bytes.

use std::collections::HashSet;
use std::io;

use super::Container;
use crate::sound::part::Part;

#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub(super) id: [u8; 4],
    /// The size in its header.
    pub(super) size: u64,
    at: u64,
}

/// The names of chunks that are common in sound files.
const USUAL: [&[u8; 4]; 24] = [
    b"LIST", b"id3 ", b"ID3 ", b"bext", b"fact", b"cue ", b"plst", b"smpl", b"inst", b"iXML",
    b"JUNK", b"junk", b"PAD ", b"FLLR", b"PEAK", b"DISP", b"_PMX", b"cart", b"axml", b"chna",
    b"afsp", b"levl", b"acid", b"strc",
];

impl Chunk {
    /// The chunk at this position, if there is space for a header.
    pub(super) fn at(container: Container, part: &Part, at: u64) -> io::Result<Option<Self>> {
        let header = part.array::<8>(at)?;
        Ok(header.map(|header| Self::parse(container, header, at)))
    }

    fn parse(container: Container, header: [u8; 8], at: u64) -> Self {
        let [a, b, c, d, size @ ..] = header;
        let size = match container {
            Container::Rifx => u32::from_be_bytes(size),
            Container::Riff | Container::Long => u32::from_le_bytes(size),
        };
        Self {
            id: [a, b, c, d],
            size: u64::from(size),
            at,
        }
    }

    /// Where its content begins.
    pub(super) fn body(&self) -> u64 {
        self.at + 8
    }

    /// Whether it has a valid name and ends within the file.
    pub(super) fn is_plausible(&self, part: &Part) -> bool {
        self.has_name() && self.body() + self.size <= part.len()
    }

    pub(super) fn is_usual(&self) -> bool {
        USUAL.contains(&&self.id)
    }

    pub(super) fn has_name(&self) -> bool {
        let is_letter = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        self.id.iter().all(is_letter)
    }

    /// Where the next chunk begins: at an even position, unless the writer left out the padding.
    pub(super) fn next(&self, container: Container, part: &Part) -> io::Result<u64> {
        let end = self.body().saturating_add(self.size);
        if self.size.is_multiple_of(2) {
            return Ok(end);
        }
        let is_chunk = |at| {
            let chunk = Self::at(container, part, at)?;
            Ok::<_, io::Error>(
                chunk.is_some_and(|chunk| chunk.is_usual() || chunk.is_plausible(part)),
            )
        };
        let is_unpadded = !is_chunk(end + 1)? && (is_chunk(end)? || end == part.len());
        Ok(if is_unpadded { end } else { end + 1 })
    }
}

/// How many bytes at the end are searched for chunks after a sound of unknown length.
const TRAILING: u64 = 16 << 20;

/// Where a sound of unknown length ends that begins at `from`: at the first of the chunks that fill
/// the rest up to `end`, or at a LIST chunk with text, else at `end`.
pub(super) fn start_of_trailing(
    container: Container,
    part: &Part,
    from: u64,
    end: u64,
) -> io::Result<u64> {
    let from = from.max(end.saturating_sub(TRAILING));
    let bytes = part.slice(from, end).peek(0, (end - from) as usize)?;
    // Positions where a chunk may end so that nothing is left over after it.
    let mut ends = HashSet::from([bytes.len() as u64]);
    let mut first = bytes.len();
    for at in (0..bytes.len().saturating_sub(7)).rev() {
        let Some(header) = bytes[at..].first_chunk() else {
            continue;
        };
        let chunk = Chunk::parse(container, *header, at as u64);
        if !chunk.has_name() {
            continue;
        }
        let after = chunk.body() + chunk.size;
        let is_text =
            &chunk.id == b"LIST" && matches!(bytes.get(at + 8..at + 12), Some(b"INFO" | b"adtl"));
        if is_text || ends.contains(&after) || ends.contains(&(after + 1)) {
            ends.insert(at as u64);
            first = at;
        }
    }
    Ok(from + first as u64)
}
