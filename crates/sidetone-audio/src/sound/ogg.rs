//! Repairs the last page of an Ogg file that was cut off or never finished.
//!
//! The decoder takes whole pages, and a short sound has only one. So the rest of the last page is
//! made a page.

use std::io;

use super::part::Part;

const HEADER: usize = 27;
/// Before the segment table.
const MAX_PAGE: u64 = 65_307;
const LAST: u8 = 4;

/// The file with a whole last page, and whether something was missing.
pub(super) fn repair(part: &Part) -> io::Result<(Part, bool)> {
    // Enough for the last whole page and the incomplete one.
    let from = part.len().saturating_sub(2 * MAX_PAGE);
    let tail = part.peek(from, 2 * MAX_PAGE as usize)?;
    let mut whole = None;
    let mut at = 0;
    while let Some(place) = find_page(&tail, at) {
        match page_len(&tail[place..]) {
            Some(len) => {
                whole = Some(place);
                at = place + len;
            }
            None => {
                let rest = shortened(&tail[place..]);
                // If no packet of it is whole, the page before it is the last.
                let mut mended = tail[..place].to_vec();
                match (rest, whole) {
                    (Some(page), _) => mended.extend(page),
                    (None, Some(last)) => mark_last(&mut mended[last..]),
                    (None, None) => return Ok((part.clone(), true)),
                }
                return Ok((part.with_tail(from, mended), true));
            }
        }
    }
    match whole {
        Some(last) if tail[last + 5] & LAST == 0 => {
            let mut mended = tail;
            mark_last(&mut mended[last..]);
            Ok((part.with_tail(from, mended), true))
        }
        _ => Ok((part.clone(), false)),
    }
}

fn find_page(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let is_page = |start: &[u8]| start == b"OggS\0";
    Some(from + rest.windows(5).position(is_page)?)
}

/// The length of a page, if it is complete.
fn page_len(bytes: &[u8]) -> Option<usize> {
    let segments = usize::from(*bytes.get(HEADER - 1)?);
    let table = bytes.get(HEADER..HEADER + segments)?;
    let len = HEADER + segments + table.iter().map(|len| usize::from(*len)).sum::<usize>();
    (bytes.len() >= len).then_some(len)
}

/// A page of the packets that are whole in an incomplete one.
fn shortened(bytes: &[u8]) -> Option<Vec<u8>> {
    let segments = usize::from(*bytes.get(HEADER - 1)?);
    let table = bytes.get(HEADER..HEADER + segments)?;
    let contents = &bytes[HEADER + segments..];
    let (mut kept, mut kept_len, mut len) = (0, 0, 0);
    for (number, segment) in table.iter().enumerate() {
        len += usize::from(*segment);
        if len > contents.len() {
            break;
        }
        // A shorter segment ends its packet.
        if *segment < 255 {
            (kept, kept_len) = (number + 1, len);
        }
    }
    if kept == 0 {
        return None;
    }
    let mut page = bytes[..HEADER].to_vec();
    page[HEADER - 1] = kept as u8;
    page.extend(&table[..kept]);
    page.extend(&contents[..kept_len]);
    mark_last(&mut page);
    Some(page)
}

/// Marks a page as the last.
fn mark_last(page: &mut [u8]) {
    let Some(len) = page_len(page) else {
        return;
    };
    page[5] |= LAST;
    page[22..26].fill(0);
    let sum = checksum(&page[..len]);
    page[22..26].copy_from_slice(&sum.to_le_bytes());
}

/// The checksum of RFC 3533.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte) << 24, |sum, _| match sum >> 31 {
            0 => sum << 1,
            _ => sum << 1 ^ 0x04C1_1DB7,
        })
    })
}
