//! Sun's AU, which Asterisk knows as `.au`: a short header, then big-endian samples.

use std::time::Duration;

use super::Flaw;
use super::collector::{Collector, ReadError};
use super::part::Part;
use super::pcm::{Encoding, Layout};
use crate::g711::Law;

pub(super) fn read(part: &Part, end: u64, collector: &mut Collector) -> Result<(), ReadError> {
    let mut fields = [0; 6];
    for (number, field) in fields.iter_mut().enumerate() {
        let bytes = part.array(4 * number as u64)?;
        let bytes =
            bytes.ok_or_else(|| ReadError::Unsupported("an AU header that was cut".into()))?;
        *field = u32::from_be_bytes(bytes);
    }
    let [_, start, size, encoding, rate, channels] = fields;
    let encoding = match encoding {
        1 => Encoding::Companded(Law::Ulaw),
        2 => Encoding::Signed(1),
        3 => Encoding::Signed(2),
        4 => Encoding::Signed(3),
        5 => Encoding::Signed(4),
        6 => Encoding::Float,
        7 => Encoding::Double,
        27 => Encoding::Companded(Law::Alaw),
        other => return Err(ReadError::Unsupported(format!("AU of encoding {other}"))),
    };
    let (start, size) = (u64::from(start), u64::from(size));
    if start < 24 || start > part.len() || !(1..=1024).contains(&channels) {
        return Err(ReadError::Unsupported(
            "an AU header that makes no sense".into(),
        ));
    }
    let layout = Layout {
        encoding,
        channels: channels as usize,
        rate,
        big_endian: true,
    };
    // A program that does not know the size yet writes 0 or all ones.
    let is_known = size > 0 && size < u64::from(u32::MAX);
    let sound_end = match is_known && start + size <= part.len() {
        true => start + size,
        false => end.max(start),
    };
    layout.read(&part.slice(start, sound_end), collector)?;
    let missing = (start + size).saturating_sub(sound_end) / layout.frame_len();
    if is_known && missing > 0 {
        let missing = Duration::try_from_secs_f64(missing as f64 / f64::from(rate)).ok();
        collector.flaws.push(Flaw::Truncated { missing });
    }
    let bytes = end.saturating_sub(sound_end);
    if bytes > 1 {
        collector.flaws.push(Flaw::Skipped { bytes });
    }
    Ok(())
}
