use std::{io, net::SocketAddr};

use sidetone_proto::Kind;

/// Trouble on one call that did not end it, or did; what the first project's `on_exception` got.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Asterisk reports that it could not forward a frame (error message, bit 2).
    #[error("Asterisk could not forward an audio frame; its own log says why")]
    FrameForwarding,
    /// Asterisk reports that it ran out of memory (error message, bit 4).
    #[error("Asterisk is out of memory; its own log says more")]
    Memory,
    /// A message that can't be what its header says.
    #[error(
        "unexpected {kind} message with {length} bytes of payload; is an AudioSocket client connected to this port?"
    )]
    UnexpectedPayload {
        /// What the header said it was.
        kind: Kind,
        /// The length that the header said.
        length: u16,
    },
    /// The connection broke.
    #[error("the connection broke: {0}; AudioSocket belongs on one host or a wired network")]
    Connection(String),
    /// The handler failed or panicked.
    #[error("the handler failed: {0}")]
    Handler(String),
}

/// Why audio was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlayError {
    /// The call is over. Handlers may pass this on with `?`: it is a normal end.
    #[error("the call is over")]
    Closed,
    /// `clear()` was called while this was waiting, or an utterance was cleared or stopped before; nothing more of it is
    /// queued.
    #[error("cleared or stopped while it was being queued")]
    Cleared,
    /// Only from `try_play`: the playback buffer has no room for all of it, so none was queued.
    #[error(
        "the playback buffer is full: wait with play() or write(), or make playback_buffer larger"
    )]
    Full,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address can't be listened on.
    #[error("can't listen on {address}: {}", advice(.source))]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// It would listen beyond this machine with no word on who may connect.
    #[error(
        "{address} can be reached from other machines and AudioSocket has no login: say which networks may connect with allow(…), or any with Networks::any()"
    )]
    NotAllowed {
        /// The address.
        address: SocketAddr,
    },
    /// The system refused what a media thread needs.
    #[error("can't start the media threads: {0}")]
    Media(#[source] io::Error),
}

fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; stop it or choose another port".into()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; use one of its own, or 0.0.0.0 for all".into()
        }
        io::ErrorKind::PermissionDenied => {
            "not permitted; ports below 1024 need privileges, choose a higher one".into()
        }
        io::ErrorKind::InvalidInput => {
            "not an address; write it as HOST:PORT, like 127.0.0.1:9092".into()
        }
        _ => error.to_string(),
    }
}
