use std::{fmt, io, time::Duration};

use sidetone_proto::{EndedBy, Kind};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When, counted from the sending of the UUID.
    pub at: Duration,
    /// EndCause.
    pub cause: EndCause,
}

/// Why a call ended.
///
/// ```
/// use sidetone_caller::EndCause;
///
/// let cause = EndCause::EmptyAudio;
/// assert!(cause.is_fault());
/// assert!(cause.asterisk_log().is_some_and(|line| line.contains("Invalid message length")));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndCause {
    /// The caller hung up: its time was over, or it was stopped.
    HungUp,
    /// The server sent `00 00 00`.
    ServerHungUp,
    /// The server closed its side without a hang-up message.
    ServerClosed,
    /// The server reset the connection.
    ServerReset,
    /// For 5 ms, no more of a payload came.
    LatePayload {
        /// Bytes of payload that came.
        got: usize,
        /// Bytes of payload that the header announced.
        of: usize,
    },
    /// The stream ended inside a payload.
    CutPayload {
        /// Bytes of payload that came.
        got: usize,
        /// Bytes of payload that the header announced.
        of: usize,
    },
    /// The server sent a kind that only Asterisk may send, or one that does not exist.
    ForbiddenKind(Kind),
    /// The server sent audio of length 0.
    EmptyAudio,
    /// The socket did not take a whole message because the server does not read.
    ShortWrite {
        /// Bytes that the socket took.
        written: usize,
        /// Bytes of the message.
        of: usize,
    },
    /// For 2 s, neither side sent a message ([`Mode::Application`](crate::Mode::Application) only).
    Silence,
    /// Only a part of a header came: nothing was sent or read until the caller hung up.
    Frozen {
        /// Bytes of the header that came, 1 or 2.
        got: usize,
    },
    /// The connection failed in another way.
    ConnectionFailed(io::ErrorKind),
}

impl Ended {
    /// Who ended the call. A call that Asterisk drops counts as ended by the caller's side.
    pub const fn by(&self) -> EndedBy {
        match self.cause {
            EndCause::ServerHungUp | EndCause::ServerClosed => EndedBy::Server,
            EndCause::ServerReset | EndCause::ConnectionFailed(_) => EndedBy::Connection,
            _ => EndedBy::Caller,
        }
    }
}

impl EndCause {
    /// Whether the server did something for which Asterisk drops the call, or the connection failed.
    pub const fn is_fault(self) -> bool {
        !matches!(self, Self::HungUp | Self::ServerHungUp | Self::ServerClosed)
    }

    /// Whether the dialplan continues after `AudioSocket()`. After `Dial()`, every end is a hang-up of the called party, and
    /// Dial's options decide.
    pub const fn dialplan_goes_on(self) -> bool {
        matches!(self, Self::ServerHungUp | Self::ServerClosed)
    }

    /// The line that Asterisk 22.10 logs when a call ends like this, without what varies; `None` when it logs nothing.
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

impl fmt::Display for EndCause {
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
                "more than 5 ms passed inside a message ({got} of {of} bytes of payload had come): the server must write header and payload at once"
            ),
            Self::CutPayload { got, of } => write!(
                f,
                "the stream ended inside a message ({got} of {of} bytes of payload had come)"
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
