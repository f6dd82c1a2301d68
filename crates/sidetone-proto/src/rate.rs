use std::time::Duration;

/// The nine sample rates that an audio message can have, by Asterisk's own names for them.
///
/// Samples are signed 16-bit little endian, mono. Asterisk knows the eight kinds above 8 kHz from releases
/// 20.17, 21.12, 22.7 and 23.1 on.
///
/// ```
/// use sidetone_proto::Rate;
///
/// assert_eq!(Rate::Slin.code(), 0x10);
/// assert_eq!(Rate::Slin16.hz(), 16_000);
/// assert_eq!(Rate::Slin16.slot_samples(), 320); // 20 ms
/// assert_eq!(Rate::Slin48.slot().as_millis(), 10);
/// assert_eq!(Rate::from_hz(44_100), Some(Rate::Slin44));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Rate {
    /// 8 kHz, kind `0x10`. This kind also carries whatever companded or compressed codec a dialplan
    /// leaves in place.
    #[default]
    Slin,
    /// 12 kHz, kind `0x11`.
    Slin12,
    /// 16 kHz, kind `0x12`.
    Slin16,
    /// 24 kHz, kind `0x13`.
    Slin24,
    /// 32 kHz, kind `0x14`.
    Slin32,
    /// 44.1 kHz, kind `0x15`.
    Slin44,
    /// 48 kHz, kind `0x16`.
    Slin48,
    /// 96 kHz, kind `0x17`.
    Slin96,
    /// 192 kHz, kind `0x18`.
    Slin192,
}

impl Rate {
    /// All rates, slowest first, which is also the order of their kinds.
    pub const ALL: [Self; 9] = [
        Self::Slin,
        Self::Slin12,
        Self::Slin16,
        Self::Slin24,
        Self::Slin32,
        Self::Slin44,
        Self::Slin48,
        Self::Slin96,
        Self::Slin192,
    ];

    /// Samples per second.
    pub const fn hz(self) -> u32 {
        match self {
            Self::Slin => 8_000,
            Self::Slin12 => 12_000,
            Self::Slin16 => 16_000,
            Self::Slin24 => 24_000,
            Self::Slin32 => 32_000,
            Self::Slin44 => 44_100,
            Self::Slin48 => 48_000,
            Self::Slin96 => 96_000,
            Self::Slin192 => 192_000,
        }
    }

    /// The rate of `hz` samples per second, if it is one of the nine.
    pub fn from_hz(hz: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|rate| rate.hz() == hz)
    }

    /// The kind byte of audio at this rate, `0x10` to `0x18`.
    pub const fn code(self) -> u8 {
        0x10 + self as u8
    }

    /// The rate of a kind byte, if it is one of the audio kinds.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code.checked_sub(0x10)?)).copied()
    }

    /// Asterisk's name of this format, as it stands in `Dial`'s `c(…)`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slin => "slin",
            Self::Slin12 => "slin12",
            Self::Slin16 => "slin16",
            Self::Slin24 => "slin24",
            Self::Slin32 => "slin32",
            Self::Slin44 => "slin44",
            Self::Slin48 => "slin48",
            Self::Slin96 => "slin96",
            Self::Slin192 => "slin192",
        }
    }

    /// How much time one slot of the grid is: 20 ms, and 10 ms from 44.1 kHz on.
    ///
    /// 20 ms at 44.1 kHz are 1764 bytes, more than a TCP segment on Ethernet (1448 bytes) holds; a
    /// message spread over two segments can arrive in two parts, and Asterisk drops the call when the
    /// second is more than 5 ms late.
    pub const fn slot(self) -> Duration {
        if self.hz() >= 44_100 {
            Duration::from_millis(10)
        } else {
            Duration::from_millis(20)
        }
    }

    /// Samples in one slot.
    pub const fn slot_samples(self) -> usize {
        if self.hz() >= 44_100 {
            self.hz() as usize / 100
        } else {
            self.hz() as usize / 50
        }
    }

    /// The most samples that go into one message, so that it fits one TCP segment of 1448 bytes.
    ///
    /// A slot is one message, except at 96 kHz (two of 5 ms) and 192 kHz (four of 2.5 ms).
    pub const fn message_samples(self) -> usize {
        match self {
            Self::Slin96 | Self::Slin192 => 480,
            _ => self.slot_samples(),
        }
    }

    /// Bytes of a slot on the wire, with the headers of its messages.
    pub const fn slot_bytes(self) -> usize {
        let messages = self.slot_samples() / self.message_samples();
        2 * self.slot_samples() + 3 * messages
    }

    /// How long `samples` samples last, to the nanosecond below.
    pub const fn duration(self, samples: u64) -> Duration {
        duration_of(samples, self.hz() as u64)
    }

    /// How many whole samples fit in `duration`.
    pub const fn samples_in(self, duration: Duration) -> u64 {
        let hz = self.hz() as u64;
        let rest = duration.subsec_nanos() as u64 * hz / NANOS;
        duration.as_secs().saturating_mul(hz).saturating_add(rest)
    }
}

const NANOS: u64 = 1_000_000_000;

/// How long `count` of something last of which there are `a_second`, less than 18 thousand million, to the
/// nanosecond below.
pub(crate) const fn duration_of(count: u64, a_second: u64) -> Duration {
    let nanos = count % a_second * NANOS / a_second;
    Duration::new(count / a_second, nanos as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_rates_name_each_other() {
        for (index, rate) in Rate::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(rate.code()), 0x10 + index);
            assert_eq!(Rate::from_code(rate.code()), Some(rate));
            assert_eq!(Rate::from_hz(rate.hz()), Some(rate));
        }
        assert_eq!(Rate::from_code(0x0f), None);
        assert_eq!(Rate::from_code(0x19), None);
        assert_eq!(Rate::from_hz(11_025), None);
    }

    #[test]
    fn a_slot_is_whole_messages_that_fit_a_segment() {
        for rate in Rate::ALL {
            assert_eq!(rate.slot_samples() % rate.message_samples(), 0, "{rate:?}");
            assert_eq!(
                rate.duration(rate.slot_samples() as u64),
                rate.slot(),
                "{rate:?}"
            );
            assert!(rate.message_samples() * 2 + 3 <= 1448, "{rate:?}");
        }
    }

    #[test]
    fn samples_and_durations_are_exact_at_any_length() {
        let hz = Rate::Slin44.hz();
        assert_eq!(Rate::Slin44.duration(1), Duration::from_nanos(22_675));
        for seconds in [0, 1, 86_400, u64::MAX / u64::from(hz) - 1] {
            let samples = seconds * u64::from(hz) + 441;
            let duration = Duration::from_secs(seconds) + Duration::from_millis(10);
            assert_eq!(Rate::Slin44.duration(samples), duration);
            assert_eq!(Rate::Slin44.samples_in(duration), samples);
        }
        assert_eq!(Rate::Slin192.samples_in(Duration::MAX), u64::MAX);
    }
}
