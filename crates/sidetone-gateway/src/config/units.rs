//! Durations like `30s` and amounts like `2GB`.

use std::{fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// A length of time: `500ms`, `30s`, `5m`, `4h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

/// A number of bytes: `500MB`, `2GB`, `1TB`, in powers of ten as disks are sold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) u64);

const TIMES: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const AMOUNTS: [(&str, u64); 5] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A whole number and one of these units.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len()
        - text
            .trim_start_matches(|it: char| it.is_ascii_digit())
            .len();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a time like \"30s\", \"5m\", \"4h\" or \"7d\"";
        let milliseconds = deserializer.deserialize_any(Quantity(&TIMES, expected))?;
        Ok(Self(Duration::from_millis(milliseconds)))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "an amount like \"500MB\" or \"2GB\"";
        deserializer
            .deserialize_any(Quantity(&AMOUNTS, expected))
            .map(Self)
    }
}

struct Quantity(&'static [(&'static str, u64)], &'static str);

impl Visitor<'_> for Quantity {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse(text, self.0).ok_or_else(|| E::custom(format_args!("{text:?} is not {}", self.1)))
    }
}
