use std::fmt;

use crate::Rate;

/// The kind of a message: its first byte.
///
/// Asterisk sends `Uuid` first, then `Audio` and `Dtmf`. `Error` is documented, but no release that was examined sends
/// it. A caller who hangs up is a plain end of stream, never `Hangup`.
///
/// ```
/// use sidetone_proto::{Kind, Rate};
///
/// assert_eq!(Kind::from(0x12), Kind::Audio(Rate::Slin16));
/// assert_eq!(Kind::from(0x42), Kind::Unknown(0x42));
/// assert_eq!(Kind::Dtmf.code(), 0x03);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `0x00`: the call is over.
    Hangup,
    /// `0x01`: the UUID of the call, 16 bytes.
    Uuid,
    /// `0x03`: one ASCII character, a digit that the caller pressed.
    Dtmf,
    /// `0x10` to `0x18`: samples.
    Audio(Rate),
    /// `0xff`: one byte of [`PeerErrors`].
    Error,
    /// Any other kind. Its payload is skipped.
    Unknown(u8),
}

impl From<u8> for Kind {
    fn from(code: u8) -> Self {
        match code {
            0x00 => Self::Hangup,
            0x01 => Self::Uuid,
            0x03 => Self::Dtmf,
            0xff => Self::Error,
            other => Rate::from_code(other).map_or(Self::Unknown(other), Self::Audio),
        }
    }
}

impl Kind {
    /// The byte on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Hangup => 0x00,
            Self::Uuid => 0x01,
            Self::Dtmf => 0x03,
            Self::Audio(rate) => rate.code(),
            Self::Error => 0xff,
            Self::Unknown(code) => code,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hangup => f.write_str("hang-up (0x00)"),
            Self::Uuid => f.write_str("UUID (0x01)"),
            Self::Dtmf => f.write_str("DTMF (0x03)"),
            Self::Audio(rate) => write!(f, "{} audio ({:#04x})", rate.name(), rate.code()),
            Self::Error => f.write_str("error (0xff)"),
            Self::Unknown(code) => write!(f, "unknown kind {code:#04x}"),
        }
    }
}

/// The bits of an error message (`0xff`), as the protocol's documentation names them.
///
/// ```
/// use sidetone_proto::PeerErrors;
///
/// let errors = PeerErrors(0x06);
/// assert!(errors.frame_forwarding() && errors.memory() && !errors.hangup());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerErrors(pub u8);

impl PeerErrors {
    /// Bit `0x01`: the call was hung up.
    pub const fn hangup(self) -> bool {
        self.0 & 0x01 != 0
    }

    /// Bit `0x02`: Asterisk could not forward a frame.
    pub const fn frame_forwarding(self) -> bool {
        self.0 & 0x02 != 0
    }

    /// Bit `0x04`: Asterisk was out of memory.
    pub const fn memory(self) -> bool {
        self.0 & 0x04 != 0
    }
}
