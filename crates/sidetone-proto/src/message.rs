use uuid::Uuid;

use crate::{Kind, PeerErrors, Rate};

/// One message as it came in, borrowed from the bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message<'a> {
    /// The other side ended the call. Asterisk never sends this; it closes the connection.
    Hangup,
    /// Which call this is. Asterisk's first message.
    Uuid(Uuid),
    /// A digit, one of `0-9 * # A-D`, at the end of its press.
    Dtmf(char),
    /// Audio, possibly of length 0 and possibly an odd number of bytes.
    Audio(AudioPayload<'a>),
    /// The other side reports errors.
    Error(PeerErrors),
    /// A kind that the protocol does not define. Its payload is skipped.
    Unknown {
        /// The first byte.
        kind: u8,
        /// Bytes of payload.
        length: u16,
    },
    /// A known kind with an impossible length or content: a UUID that is not 16 bytes, DTMF or an error that is not
    /// one byte, a digit that no telephone has. Its payload is skipped.
    Malformed {
        /// The kind.
        kind: Kind,
        /// Bytes of payload.
        length: u16,
    },
}

/// The payload of an audio message.
///
/// Under kind `0x10` the bytes are 8 kHz samples only if the dialplan asks for them: `Dial` without `c(slin)` sends the
/// caller's own codec under this kind, and only the number of bytes shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioPayload<'a> {
    /// The rate that the kind names.
    pub rate: Rate,
    /// The bytes as they came.
    pub bytes: &'a [u8],
}
