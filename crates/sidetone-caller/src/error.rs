use std::{io, net::SocketAddr, sync::Arc};

/// Why a call was never placed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallerError {
    /// Nothing listens at the address. Asterisk hangs up (application) or sets `DIALSTATUS` to CHANUNAVAIL (Dial).
    #[error("nothing listens on {0}: start the server, or name the address it listens on")]
    Refused(SocketAddr),
    /// The connection was not accepted within 2 s, when Asterisk gives up, too.
    #[error(
        "{0} did not accept the connection within 2 s: a firewall drops it, or the server does not accept"
    )]
    NotAccepted(SocketAddr),
    /// The connection can't be made.
    #[error("{address} can't be reached ({source}): look at the address and the network")]
    Unreachable {
        /// The server's address.
        address: SocketAddr,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The call was stopped before it was connected.
    #[error("stopped before the call was connected")]
    Stopped,
    /// A digit that DTMF does not have.
    #[error("'{0}' is no DTMF digit: use 0-9, *, # and A-D")]
    InvalidDigit(char),
    /// A frame without a sample, or with more bytes than fit into a message.
    #[error(
        "a frame of {0} bytes can't be sent: choose a frame duration that gives 1 to 65535 bytes"
    )]
    InvalidFrame(usize),
    /// The system refused something.
    #[error("can't {doing} ({source}): if descriptors ran out, raise the limit with ulimit -n")]
    System {
        /// What the caller tried to do.
        doing: &'static str,
        /// The system's error.
        source: Arc<io::Error>,
    },
}

impl CallerError {
    pub(crate) fn system(doing: &'static str, source: impl Into<io::Error>) -> Self {
        Self::System {
            doing,
            source: Arc::new(source.into()),
        }
    }
}
