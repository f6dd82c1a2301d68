use crate::Rate;

/// The hang-up message, whole.
pub const HANGUP: [u8; 3] = [0, 0, 0];

/// The messages that a server may write. Asterisk drops the call over anything else: a UUID, DTMF, an error, an unknown
/// kind, or audio of length 0 (measured on 20.14 and later).
///
/// ```
/// use sidetone_proto::{Outbound, Rate};
///
/// let mut wire = Vec::new();
/// Outbound::audio(Rate::Slin, &[1, 2])?.encode(&mut wire);
/// Outbound::Hangup.encode(&mut wire);
/// assert_eq!(wire, [0x10, 0, 2, 1, 2, 0, 0, 0]);
/// assert!(Outbound::audio(Rate::Slin, &[]).is_err());
/// # Ok::<(), sidetone_proto::PayloadError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound<'a> {
    /// Ends the call. The dialplan goes on.
    Hangup,
    /// Audio from 1 to 65535 bytes long.
    Audio(OutboundAudio<'a>),
}

/// Audio that can be written; made by [`Outbound::audio`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboundAudio<'a> {
    rate: Rate,
    payload: &'a [u8],
}

/// Why bytes can't be an audio message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// Asterisk drops a call that gets audio of length 0.
    #[error("an audio message must not be empty: Asterisk drops the call; send silence instead")]
    Empty,
    /// The length field of a message has 16 bits.
    #[error("an audio message holds at most 65535 bytes, not {0}: split it")]
    TooLong(usize),
}

impl<'a> Outbound<'a> {
    /// An audio message of little endian samples.
    ///
    /// # Errors
    ///
    /// When `payload` is empty or longer than 65535 bytes.
    pub fn audio(rate: Rate, payload: &'a [u8]) -> Result<Self, PayloadError> {
        match payload.len() {
            0 => Err(PayloadError::Empty),
            length if length > usize::from(u16::MAX) => Err(PayloadError::TooLong(length)),
            _ => Ok(Self::Audio(OutboundAudio { rate, payload })),
        }
    }

    /// Appends the message to `out`, header and payload contiguous, so that one write can carry it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hangup => out.extend_from_slice(&HANGUP),
            Self::Audio(audio) => {
                put_header(audio.rate, audio.payload.len(), out);
                out.extend_from_slice(audio.payload);
            }
        }
    }
}

/// Appends `samples` to `out` as audio messages of at most [`Rate::message_samples`] each; nothing if there are no
/// samples.
pub fn encode_samples(rate: Rate, samples: &[i16], out: &mut Vec<u8>) {
    for message in samples.chunks(rate.message_samples()) {
        put_header(rate, message.len() * 2, out);
        let payload = out.len();
        out.resize(payload + message.len() * 2, 0);
        for (bytes, sample) in out[payload..].chunks_exact_mut(2).zip(message) {
            bytes.copy_from_slice(&sample.to_le_bytes());
        }
    }
}

fn put_header(rate: Rate, length: usize, out: &mut Vec<u8>) {
    let [high, low] = (length as u16).to_be_bytes();
    out.extend_from_slice(&[rate.code(), high, low]);
}
