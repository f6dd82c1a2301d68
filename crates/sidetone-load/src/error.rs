use std::{io, net::SocketAddr};

/// Why a load could not run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Nothing listens at the address.
    #[error("nothing listens on {0}: start the server, or name the address it listens on")]
    Refused(SocketAddr),
    /// For 2 s, as long as Asterisk waits, no further connection was accepted.
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
        source: io::Error,
    },
    /// The system refused something.
    #[error("can't {doing} ({source}): if descriptors ran out, raise the limit with ulimit -n")]
    System {
        /// What the load tried to do.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The number of calls is out of range.
    #[error("{0} calls can't be placed: choose 1 to 65535")]
    Calls(usize),
    /// A duration is out of range.
    #[error("measure for more than 0 and at most 600 seconds, and warm up for at most 600")]
    Time,
    /// The hard limit on file descriptors is too low.
    #[error(
        "{calls} calls need {needed} descriptors and the hard limit is {limit}: place fewer, or raise it (ulimit -Hn)"
    )]
    Descriptors {
        /// The calls asked for.
        calls: usize,
        /// The descriptors they need.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// The server's process can't be read.
    #[error("process {pid} can't be read ({source}): name the server's own process, as its user")]
    Process {
        /// The process ID.
        pid: u32,
        /// The system's error.
        source: io::Error,
    },
    /// All calls ended before the measurement began.
    #[error(
        "the server ended every call before the measurement began: is it an AudioSocket server?"
    )]
    NoCalls,
}

impl LoadError {
    pub(crate) fn system(doing: &'static str, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        Self::System { doing, source }
    }

    /// Why a connection to `address` could not be made.
    pub(crate) fn connect(source: io::Error, address: SocketAddr) -> Self {
        match source.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused(address),
            io::ErrorKind::TimedOut => Self::NotAccepted(address),
            _ => Self::Unreachable { address, source },
        }
    }
}
