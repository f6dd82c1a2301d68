use {
    crate::{HeaderRead, OnForbidden, OnHangup, Rules, Why},
    sidetone_proto::{AudioPayload, Kind, Rate},
};

const HEADER: usize = 3;

/// A payload buffer that grew beyond this is given back once its message is done.
const KEEP: usize = 4096;

/// Reads the server's stream as Asterisk does.
///
/// Not `sidetone_proto::Decoder`: that forgives what Asterisk dies of, and waits for payloads that Asterisk
/// never looks at.
#[derive(Debug, Default)]
pub(crate) struct Ear {
    header: [u8; HEADER],
    header_len: usize,
    payload: Vec<u8>,
    /// The payload buffer holds a message that was lent on the last call.
    lent: bool,
}

/// What Asterisk waits for on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaits {
    /// The next message, along with the caller's frames.
    Message,
    /// The rest of a header, and nothing else.
    Header { got: usize },
    /// The rest of a payload, and nothing else.
    Payload { got: usize, of: usize },
}

impl Ear {
    /// Takes the next message out of `input`: audio, or the end of the call. `None` when more is needed.
    pub(crate) fn hear<'a, 'i: 'a>(
        &'a mut self,
        rules: &Rules,
        input: &mut &'i [u8],
    ) -> Option<Result<AudioPayload<'a>, Why>> {
        if self.lent {
            self.lent = false;
            self.payload.clear();
            self.payload.shrink_to(KEEP);
        }
        if self.header_len < HEADER {
            let HeaderRead::Endless = rules.header_read;
            let taken = take(input, HEADER - self.header_len);
            self.header[self.header_len..self.header_len + taken.len()].copy_from_slice(taken);
            self.header_len += taken.len();
            if self.header_len < HEADER {
                return None;
            }
            if let Err(why) = judge(self.header, rules) {
                self.header_len = 0;
                return Some(Err(why));
            }
        }
        let [kind, high, low] = self.header;
        // Judged already: every other kind has ended the call.
        let rate = Rate::from_code(kind)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if self.payload.is_empty() && input.len() >= length {
            self.header_len = 0;
            let bytes = take(input, length);
            return Some(Ok(AudioPayload { rate, bytes }));
        }
        let rest = take(input, length - self.payload.len());
        self.payload.extend_from_slice(rest);
        if self.payload.len() < length {
            return None;
        }
        self.header_len = 0;
        self.lent = true;
        let bytes = &self.payload;
        Some(Ok(AudioPayload { rate, bytes }))
    }

    pub(crate) fn awaits(&self) -> Awaits {
        match self.header_len {
            0 => Awaits::Message,
            HEADER => Awaits::Payload {
                got: self.payload.len(),
                of: usize::from(u16::from_be_bytes([self.header[1], self.header[2]])),
            },
            got => Awaits::Header { got },
        }
    }
}

/// What Asterisk decides from the header alone.
fn judge(header: [u8; HEADER], rules: &Rules) -> Result<(), Why> {
    let kind = Kind::from(header[0]);
    match kind {
        Kind::Hangup => {
            let OnHangup::Close = rules.zero_hangup;
            Err(Why::ServerHungUp)
        }
        Kind::Audio(rate) if rate == Rate::Slin || rules.wideband => {
            if header[1..] == [0, 0] {
                let OnForbidden::Drop = rules.zero_length;
                return Err(Why::EmptyAudio);
            }
            Ok(())
        }
        forbidden => {
            let OnForbidden::Drop = rules.unknown_kind;
            Err(Why::ForbiddenKind(forbidden))
        }
    }
}

fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    taken
}
