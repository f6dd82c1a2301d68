use sidetone_proto::{AudioPayload, Kind, Rate};

use crate::{EndCause, HeaderRead, OnForbidden, OnHangup, Rules};

const HEADER: usize = 3;

/// A payload buffer that grew beyond this many bytes shrinks once its message is done.
const KEEP: usize = 4096;

/// Reads the server's stream as Asterisk does.
///
/// `sidetone_proto::Decoder` won't do: it accepts what ends a call in Asterisk, and waits for payloads that Asterisk
/// never reads.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    header: [u8; HEADER],
    header_len: usize,
    payload: Vec<u8>,
    /// The payload buffer holds the message that the last call returned.
    lent: bool,
}

/// What Asterisk waits for on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadState {
    /// The next message, while it sends the caller's frames.
    Message,
    /// The rest of a header, and nothing else.
    Header { got: usize },
    /// The rest of a payload, and nothing else.
    Payload { got: usize, of: usize },
}

impl Receiver {
    /// Takes the next message out of `input`: audio, or why the call ends. `None` when more bytes are needed.
    pub(crate) fn next_message<'a, 'i: 'a>(
        &'a mut self,
        rules: &Rules,
        input: &mut &'i [u8],
    ) -> Option<Result<AudioPayload<'a>, EndCause>> {
        if self.lent {
            self.lent = false;
            self.payload.clear();
            self.payload.shrink_to(KEEP);
        }
        if self.header_len < HEADER {
            let HeaderRead::Endless = rules.header_read;
            let taken = split_front(input, HEADER - self.header_len);
            self.header[self.header_len..self.header_len + taken.len()].copy_from_slice(taken);
            self.header_len += taken.len();
            if self.header_len < HEADER {
                return None;
            }
            if let Err(cause) = check_header(self.header, rules) {
                self.header_len = 0;
                return Some(Err(cause));
            }
        }
        let [kind, high, low] = self.header;
        // Checked already: every other kind has ended the call.
        let rate = Rate::from_code(kind)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if self.payload.is_empty() && input.len() >= length {
            self.header_len = 0;
            let bytes = split_front(input, length);
            return Some(Ok(AudioPayload { rate, bytes }));
        }
        let rest = split_front(input, length - self.payload.len());
        self.payload.extend_from_slice(rest);
        if self.payload.len() < length {
            return None;
        }
        self.header_len = 0;
        self.lent = true;
        let bytes = &self.payload;
        Some(Ok(AudioPayload { rate, bytes }))
    }

    pub(crate) fn state(&self) -> ReadState {
        match self.header_len {
            0 => ReadState::Message,
            HEADER => ReadState::Payload {
                got: self.payload.len(),
                of: usize::from(u16::from_be_bytes([self.header[1], self.header[2]])),
            },
            got => ReadState::Header { got },
        }
    }
}

/// What Asterisk decides from the header alone.
fn check_header(header: [u8; HEADER], rules: &Rules) -> Result<(), EndCause> {
    let kind = Kind::from(header[0]);
    match kind {
        Kind::Hangup => {
            let OnHangup::Close = rules.zero_hangup;
            Err(EndCause::ServerHungUp)
        }
        Kind::Audio(rate) if rate == Rate::Slin || rules.wideband => {
            if header[1..] == [0, 0] {
                let OnForbidden::Drop = rules.zero_length;
                return Err(EndCause::EmptyAudio);
            }
            Ok(())
        }
        forbidden => {
            let OnForbidden::Drop = rules.unknown_kind;
            Err(EndCause::ForbiddenKind(forbidden))
        }
    }
}

fn split_front<'a>(input: &mut &'a [u8], max: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(max.min(input.len()));
    *input = rest;
    taken
}
