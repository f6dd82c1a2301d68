//! Tags of other programs before and after a sound: titles, pictures, and the like.

use std::io;

use super::part::Part;

/// Where the sound begins and ends without tags.
pub(super) fn strip(part: &Part) -> io::Result<(u64, u64)> {
    let mut start = 0;
    while let Some(len) = id3v2(part, start)? {
        start += len;
    }
    let mut end = part.len();
    while let Some(len) = trailing_tag(part, end)?.filter(|len| end - start >= *len) {
        end -= len;
    }
    Ok((start, end))
}

/// The length of an ID3v2 tag that begins here.
pub(super) fn id3v2(part: &Part, at: u64) -> io::Result<Option<u64>> {
    let Some([b'I', b'D', b'3', major, _, flags, size @ ..]) = part.array::<10>(at)? else {
        return Ok(None);
    };
    // Four times seven bits, so that no byte looks like the start of a frame.
    if major == 0xFF || size.iter().any(|byte| *byte >= 0x80) {
        return Ok(None);
    }
    let size = size.iter().fold(0, |sum, byte| sum << 7 | u64::from(*byte));
    let footer = if flags & 0x10 != 0 { 10 } else { 0 };
    Ok(Some(10 + size + footer))
}

/// The length of an APE tag whose header begins here.
pub(super) fn ape(part: &Part, at: u64) -> io::Result<Option<u64>> {
    let header = part.array::<32>(at)?;
    let header = header.filter(|header| header.starts_with(b"APETAGEX"));
    // The size does not include the header.
    Ok(header.map(|header| 32 + u64::from(word(&header[12..]))))
}

/// The length of the tag that ends here.
fn trailing_tag(part: &Part, end: u64) -> io::Result<Option<u64>> {
    let ending = |len: u64| {
        part.slice(end.saturating_sub(len), end)
            .peek(0, len as usize)
    };
    if ending(128)?.starts_with(b"TAG") && end >= 128 {
        let more = end >= 128 + 227 && part.peek(end - 128 - 227, 4)? == b"TAG+";
        return Ok(Some(if more { 128 + 227 } else { 128 }));
    }
    let footer = ending(32)?;
    if footer.len() == 32 && footer.starts_with(b"APETAGEX") {
        let has_header = word(&footer[20..]) & 1 << 31 != 0;
        let len = u64::from(word(&footer[12..])) + if has_header { 32 } else { 0 };
        return Ok(Some(len.max(32)).filter(|len| *len <= end));
    }
    if footer.len() == 32 && footer.ends_with(b"LYRICS200") {
        let digits = std::str::from_utf8(&footer[17..23]).ok();
        let len = digits.and_then(|digits| digits.parse::<u64>().ok());
        return Ok(len.map(|len| len + 15).filter(|len| *len <= end));
    }
    if footer.len() == 32 && footer[22..].starts_with(b"3DI") {
        let size = footer[28..]
            .iter()
            .fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7F));
        return Ok(Some(size + 20).filter(|len| *len <= end));
    }
    Ok(None)
}

fn word(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
