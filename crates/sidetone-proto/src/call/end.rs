use std::fmt;

use super::OtherProtocol;

/// Who ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// The caller, or Asterisk on the caller's behalf.
    Caller,
    /// The program on this side.
    Server,
    /// Neither: the connection broke.
    Connection,
}

/// Why a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The end of the stream came, which is how Asterisk reports every hang-up of a caller. It may also come as a reset
    /// after audio, which [`Counters::reset`](crate::Counters::reset) shows.
    CallerHungUp,
    /// A hang-up message came, or an error message with the hang-up bit.
    HangupMessage,
    /// The connection was closed before its UUID came: a health check, or `AudioSocket()` without `Answer()` before
    /// it.
    NoIdentity,
    /// The handler returned and what it had queued was played.
    Finished,
    /// The program hung up.
    HungUp,
    /// The handler failed or panicked.
    HandlerFailed,
    /// The server was at its limit of calls.
    Full,
    /// The peer's address is not in an allowed network.
    NotAllowed,
    /// Its address connects too often.
    TooManyConnects,
    /// The admission hook refused the call.
    Refused,
    /// The server is shutting down.
    Shutdown,
    /// No UUID came in time.
    IdentityTimeout,
    /// No audio or digits came for too long.
    IdleTimeout,
    /// The call reached the longest duration allowed.
    MaxDuration,
    /// The first UUID message was not 16 bytes.
    MalformedIdentity,
    /// The other side speaks another protocol.
    OtherProtocol(OtherProtocol),
    /// Thousands of digits or error messages came and the handler did not read them.
    Flooded,
    /// The other side reset the connection before any audio came.
    ConnectionReset,
    /// The other side stopped answering.
    PeerGone,
    /// The connection failed in another way.
    ConnectionFailed,
}

impl EndReason {
    /// Who ended the call.
    pub const fn by(self) -> EndedBy {
        match self {
            Self::CallerHungUp | Self::HangupMessage | Self::NoIdentity => EndedBy::Caller,
            Self::ConnectionReset | Self::PeerGone | Self::ConnectionFailed => EndedBy::Connection,
            _ => EndedBy::Server,
        }
    }

    /// Whether the call was rejected, without a handler ever seeing it.
    pub const fn is_rejected(self) -> bool {
        matches!(
            self,
            Self::Full | Self::NotAllowed | Self::TooManyConnects | Self::Refused
        )
    }

    /// A short, stable name for logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CallerHungUp => "caller_hung_up",
            Self::HangupMessage => "hangup_message",
            Self::NoIdentity => "no_identity",
            Self::Finished => "finished",
            Self::HungUp => "hung_up",
            Self::HandlerFailed => "handler_failed",
            Self::Full => "full",
            Self::NotAllowed => "not_allowed",
            Self::TooManyConnects => "too_many_connects",
            Self::Refused => "refused",
            Self::Shutdown => "shutdown",
            Self::IdentityTimeout => "identity_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::MaxDuration => "max_duration",
            Self::MalformedIdentity => "malformed_identity",
            Self::OtherProtocol(_) => "other_protocol",
            Self::Flooded => "flooded",
            Self::ConnectionReset => "connection_reset",
            Self::PeerGone => "peer_gone",
            Self::ConnectionFailed => "connection_failed",
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for EndReason {
    /// Its [`name`](Self::name).
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherProtocol(protocol) => return write!(f, "it speaks {protocol}, not AudioSocket"),
            Self::CallerHungUp => "the caller hung up",
            Self::HangupMessage => "the other side sent a hang-up",
            Self::NoIdentity => "the connection was closed before its UUID came (a health check, or Answer() is missing before AudioSocket())",
            Self::Finished => "the handler finished",
            Self::HungUp => "hung up by the program",
            Self::HandlerFailed => "the handler failed",
            Self::Full => "rejected: the server is at its limit of calls",
            Self::NotAllowed => "rejected: its address is not allowed",
            Self::TooManyConnects => "rejected: its address connects too often (if it is your Asterisk, it is one that you can trust)",
            Self::Refused => "rejected by the admission hook",
            Self::Shutdown => "the server is shutting down",
            Self::IdentityTimeout => "no UUID came in time",
            Self::IdleTimeout => "nothing came in for too long",
            Self::MaxDuration => "it reached the longest duration allowed",
            Self::MalformedIdentity => "its UUID was not 16 bytes",
            Self::Flooded => "thousands of digits or error messages came that the handler did not read (is the other side an Asterisk, and does the handler read its events?)",
            Self::ConnectionReset => "the connection was reset",
            Self::PeerGone => "the other side stopped answering",
            Self::ConnectionFailed => "the connection failed",
        })
    }
}

impl fmt::Display for EndedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => "caller",
            Self::Server => "server",
            Self::Connection => "connection",
        })
    }
}
