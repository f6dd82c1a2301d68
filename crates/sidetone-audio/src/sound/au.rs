//! Sun's format, which Asterisk knows as `.au`: a short header, then samples, the most significant byte first.

use super::Flaw;
use super::gather::{Gather, Trouble};
use super::part::Part;
use super::pcm::{Encoding, Layout};
use crate::g711::Law;
use std::time::Duration;

pub(super) fn read(part: &Part, end: u64, gather: &mut Gather) -> Result<(), Trouble> {
    let mut fields = [0; 6];
    for (number, field) in fields.iter_mut().enumerate() {
        let bytes = part.array(4 * number as u64)?;
        let bytes =
            bytes.ok_or_else(|| Trouble::Unsupported("an AU header that was cut".into()))?;
        *field = u32::from_be_bytes(bytes);
    }
    let [_, start, said, encoding, rate, channels] = fields;
    let encoding = match encoding {
        1 => Encoding::Companded(Law::Ulaw),
        2 => Encoding::Signed(1),
        3 => Encoding::Signed(2),
        4 => Encoding::Signed(3),
        5 => Encoding::Signed(4),
        6 => Encoding::Float,
        7 => Encoding::Double,
        27 => Encoding::Companded(Law::Alaw),
        other => return Err(Trouble::Unsupported(format!("AU of encoding {other}"))),
    };
    let (start, said) = (u64::from(start), u64::from(said));
    if start < 24 || start > part.len() || !(1..=1024).contains(&channels) {
        return Err(Trouble::Unsupported(
            "an AU header that makes no sense".into(),
        ));
    }
    let layout = Layout {
        encoding,
        channels: channels as usize,
        rate,
        big_endian: true,
    };
    // No size, or all ones, is what a program writes that can't know it yet.
    let is_known = said > 0 && said < u64::from(u32::MAX);
    let sound_end = match is_known && start + said <= part.len() {
        true => start + said,
        false => end.max(start),
    };
    layout.read(&part.slice(start, sound_end), gather)?;
    let missing = (start + said).saturating_sub(sound_end) / layout.frame_len();
    if is_known && missing > 0 {
        let missing = Duration::try_from_secs_f64(missing as f64 / f64::from(rate)).ok();
        gather.flaws.push(Flaw::Cut { missing });
    }
    let bytes = end.saturating_sub(sound_end);
    if bytes > 1 {
        gather.flaws.push(Flaw::LeftOut { bytes });
    }
    Ok(())
}
