use {
    sidetone_proto::{EndedBy, Kind},
    std::{fmt, io, time::Duration},
};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When, since the UUID was sent.
    pub at: Duration,
    /// Why.
    pub why: Why,
}

/// Why a call ended.
///
/// ```
/// use sidetone_caller::Why;
///
/// let why = Why::EmptyAudio;
/// assert!(why.is_fault());
/// assert!(why.asterisk_log().is_some_and(|line| line.contains("Invalid message length")));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// This side hung up: its time was over, or it was stopped.
    HungUp,
    /// The server sent `00 00 00`.
    ServerHungUp,
    /// The server closed its side without a hang-up message.
    ServerClosed,
    /// The server reset the connection.
    ServerReset,
    /// More of a payload took longer than 5 ms to come.
    LatePayload {
        /// Bytes of payload that were there.
        got: usize,
        /// Bytes that the header promised.
        of: usize,
    },
    /// The stream ended inside a payload.
    CutPayload {
        /// Bytes of payload that were there.
        got: usize,
        /// Bytes that the header promised.
        of: usize,
    },
    /// The server sent a kind that only Asterisk may send, or one that nobody knows.
    ForbiddenKind(Kind),
    /// The server sent audio of length 0.
    EmptyAudio,
    /// The socket did not take a whole message, since the server does not read.
    ShortWrite {
        /// Bytes that it took.
        written: usize,
        /// Bytes of the message.
        of: usize,
    },
    /// In the application: neither side sent anything for 2 s.
    Silence,
    /// A part of a header came and the rest never did: nothing went either way until the caller hung up.
    Frozen {
        /// Bytes of the header that came, 1 or 2.
        got: usize,
    },
    /// The connection failed in another way.
    ConnectionFailed(io::ErrorKind),
}

impl Ended {
    /// Who ended the call. What Asterisk does not forgive counts as ended by the caller's side.
    pub const fn by(&self) -> EndedBy {
        match self.why {
            Why::ServerHungUp | Why::ServerClosed => EndedBy::Server,
            Why::ServerReset | Why::ConnectionFailed(_) => EndedBy::Connection,
            _ => EndedBy::Caller,
        }
    }
}

impl Why {
    /// Whether the server did what Asterisk does not forgive, or the connection broke.
    pub const fn is_fault(self) -> bool {
        !matches!(self, Self::HungUp | Self::ServerHungUp | Self::ServerClosed)
    }

    /// Whether the dialplan goes on behind `AudioSocket()`. Behind `Dial()` every end is the called party's
    /// hang-up, and what follows is up to Dial's options.
    pub const fn dialplan_goes_on(self) -> bool {
        matches!(self, Self::ServerHungUp | Self::ServerClosed)
    }

    /// What Asterisk writes in its log when a call ends so (release 22.10); `None` when it writes nothing.
    pub const fn asterisk_log(self) -> Option<&'static str> {
        Some(match self {
            Self::LatePayload { .. } => "Poll timed out while waiting for data",
            Self::CutPayload { .. } => "Insufficient payload read from AudioSocket",
            Self::ForbiddenKind(_) => "Received AudioSocket message other than hangup or audio",
            Self::EmptyAudio => "Invalid message length received from AudioSocket server",
            Self::ShortWrite { .. } => "Failed to write data to AudioSocket",
            Self::ServerReset | Self::ConnectionFailed(_) => {
                "Failed to read header from AudioSocket"
            }
            Self::Silence => "Reached timeout after 2000 ms of no activity",
            Self::HungUp => "Failed to receive frame from channel",
            Self::ServerHungUp | Self::ServerClosed | Self::Frozen { .. } => return None,
        })
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HungUp => f.write_str("the caller hung up"),
            Self::ServerHungUp => f.write_str("the server hung up"),
            Self::ServerClosed => f.write_str(
                "the server closed the connection without a hang-up message (00 00 00); before Asterisk 20.14, 21.9 and 22.4 that goes unnoticed",
            ),
            Self::ServerReset => f.write_str(
                "the server reset the connection: it closed with audio unread; it should send 00 00 00, shut down its side and read to the end",
            ),
            Self::LatePayload { got, of } => write!(
                f,
                "more than 5 ms passed inside a message ({got} of {of} bytes of payload were there): the server must write header and payload at once"
            ),
            Self::CutPayload { got, of } => write!(
                f,
                "the stream ended inside a message ({got} of {of} bytes of payload were there)"
            ),
            Self::ForbiddenKind(kind) => write!(
                f,
                "the server sent {kind}: only hang-up (0x00) and audio (0x10 to 0x18) are allowed, or it lost its place in the stream"
            ),
            Self::EmptyAudio => f.write_str("the server sent audio of length 0"),
            Self::ShortWrite { written, of } => write!(
                f,
                "the socket took {written} of {of} bytes: the server does not read what it is sent"
            ),
            Self::Silence => f.write_str(
                "neither side sent anything for 2 s: the server should send silence when it has nothing else",
            ),
            Self::Frozen { got } => write!(
                f,
                "the server sent {got} of the 3 bytes of a header and never the rest: the call was frozen both ways"
            ),
            Self::ConnectionFailed(kind) => write!(f, "the connection failed: {kind}"),
        }
    }
}
