use {crate::CallerError, std::io};

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A call can't be placed, or the system refuses something.
    #[error(transparent)]
    Call(#[from] CallerError),
    /// The number of calls is out of range.
    #[error("{0} calls can't be placed: choose 1 to 65535")]
    Calls(usize),
    /// A time is out of range.
    #[error("measure for more than 0 and at most 600 seconds, and warm up for at most 600")]
    Time,
    /// The hard limit of descriptors is too low.
    #[error(
        "{calls} calls need {needed} descriptors and the hard limit is {limit}: place fewer, or raise it (ulimit -Hn)"
    )]
    Descriptors {
        /// The calls asked for.
        calls: usize,
        /// What they need.
        needed: u64,
        /// What there is.
        limit: u64,
    },
    /// The server's process can't be read.
    #[error("process {pid} can't be read ({source}): name the server's own process, as its user")]
    Process {
        /// The process.
        pid: u32,
        /// What the system said.
        source: io::Error,
    },
    /// All calls ended before anything was measured.
    #[error(
        "the server ended every call before the measurement began: is it an AudioSocket server?"
    )]
    NoCalls,
}

impl LoadError {
    pub(super) fn system(doing: &'static str, source: impl Into<io::Error>) -> Self {
        CallerError::system(doing, source).into()
    }
}
