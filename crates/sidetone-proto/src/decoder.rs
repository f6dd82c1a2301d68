use uuid::Uuid;

use crate::{AudioPayload, Kind, Message, PeerErrors};

/// Bytes of a message's header: the kind, then the length of the payload in big endian.
const HEADER: usize = 3;

/// A payload buffer with more capacity than this, in bytes, is freed once its message is done: the longest frame that
/// Asterisk sends, 20 ms at 192 kHz, needs no more.
const MAX_KEPT_CAPACITY: usize = 7680;

/// Turns a byte stream that TCP may have cut anywhere into messages.
///
/// A message that lies whole in the input is borrowed from it. Only a message that is cut off at the end of the input
/// is copied. At most one partial message is kept, so a decoder holds at most 65535 bytes.
///
/// Call [`decode`](Self::decode) until it returns no message:
///
/// ```
/// use sidetone_proto::{Decoder, Message};
///
/// let mut decoder = Decoder::new();
/// let mut digits = String::new();
/// for piece in [&b"\x03\x00"[..], b"\x017\x03\x00\x01#"] {
///     let mut rest = piece;
///     loop {
///         let decoded = decoder.decode(rest);
///         rest = &rest[decoded.consumed..];
///         match decoded.message {
///             Some(Message::Dtmf(digit)) => digits.push(digit),
///             Some(_) => {}
///             None => break,
///         }
///     }
/// }
/// assert_eq!(digits, "7#");
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER],
    header_len: usize,
    payload: Vec<u8>,
    /// Bytes of payload still to be skipped.
    skip: usize,
    /// The payload buffer holds the message that the last call returned.
    is_borrowed: bool,
}

/// The result of [`Decoder::decode`].
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// How many bytes of the input were consumed.
    pub consumed: usize,
    /// The message that they completed; `None` when all input is consumed and more is needed.
    pub message: Option<Message<'a>>,
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next message out of `input`.
    pub fn decode<'a>(&'a mut self, input: &'a [u8]) -> Decoded<'a> {
        if self.is_borrowed {
            self.is_borrowed = false;
            self.payload.clear();
            if self.payload.capacity() > MAX_KEPT_CAPACITY {
                self.payload = Vec::new();
            }
        }
        let mut consumed = self.skip.min(input.len());
        self.skip -= consumed;

        let missing = HEADER - self.header_len;
        let header = &input[consumed..];
        if header.len() < missing {
            self.header[self.header_len..self.header_len + header.len()].copy_from_slice(header);
            self.header_len += header.len();
            return Decoded {
                consumed: input.len(),
                message: None,
            };
        }
        self.header[self.header_len..].copy_from_slice(&header[..missing]);
        consumed += missing;
        let (kind, length) = parse_header(self.header);
        let needed = usize::from(length);

        if let Some(message) = without_payload(kind, length) {
            self.header_len = 0;
            self.skip = needed;
            return Decoded {
                consumed,
                message: Some(message),
            };
        }

        let rest = &input[consumed..];
        if self.payload.is_empty() && rest.len() >= needed {
            self.header_len = 0;
            let message = with_payload(kind, &rest[..needed]);
            return Decoded {
                consumed: consumed + needed,
                message: Some(message),
            };
        }
        let taken = rest.len().min(needed - self.payload.len());
        self.payload.reserve_exact(needed - self.payload.len());
        self.payload.extend_from_slice(&rest[..taken]);
        consumed += taken;
        if self.payload.len() < needed {
            self.header_len = HEADER;
            return Decoded {
                consumed,
                message: None,
            };
        }
        self.header_len = 0;
        self.is_borrowed = true;
        Decoded {
            consumed,
            message: Some(with_payload(kind, &self.payload)),
        }
    }

    /// Whether the input so far ends in the middle of a message, as it may when a call ends.
    pub fn is_mid_message(&self) -> bool {
        self.header_len > 0 || self.skip > 0
    }

    /// Bytes of memory allocated for a partial message.
    pub fn memory(&self) -> usize {
        self.payload.capacity()
    }
}

/// The whole messages at the beginning of `bytes`, which begin with a header.
pub(crate) fn whole_messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
        let (kind, length) = parse_header(*header);
        let (payload, rest) = rest.split_at_checked(usize::from(length))?;
        bytes = rest;
        Some(without_payload(kind, length).unwrap_or_else(|| with_payload(kind, payload)))
    })
}

fn parse_header([kind, high, low]: [u8; HEADER]) -> (Kind, u16) {
    (Kind::from(kind), u16::from_be_bytes([high, low]))
}

/// The messages that are known from their header alone. Any payload is skipped.
fn without_payload(kind: Kind, length: u16) -> Option<Message<'static>> {
    match (kind, length) {
        (Kind::Hangup, _) => Some(Message::Hangup),
        (Kind::Unknown(kind), length) => Some(Message::Unknown { kind, length }),
        (Kind::Uuid, 16) | (Kind::Dtmf | Kind::Error, 1) | (Kind::Audio(_), _) => None,
        (Kind::Uuid | Kind::Dtmf | Kind::Error, _) => Some(Message::Malformed { kind, length }),
    }
}

fn with_payload(kind: Kind, bytes: &[u8]) -> Message<'_> {
    let malformed = Message::Malformed {
        kind,
        length: bytes.len() as u16,
    };
    match (kind, bytes) {
        (Kind::Audio(rate), bytes) => Message::Audio(AudioPayload { rate, bytes }),
        (Kind::Uuid, bytes) => Uuid::from_slice(bytes).map_or(malformed, Message::Uuid),
        (Kind::Dtmf, [digit]) => {
            let digit = char::from(*digit).to_ascii_uppercase();
            if matches!(digit, '0'..='9' | '*' | '#' | 'A'..='D') {
                Message::Dtmf(digit)
            } else {
                malformed
            }
        }
        (Kind::Error, [bits]) => Message::Error(PeerErrors(*bits)),
        _ => malformed,
    }
}
