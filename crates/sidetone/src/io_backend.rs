use std::fmt;

/// How the media threads talk to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum IoBackend {
    /// What the environment variable `SIDETONE_IO_BACKEND` names, `epoll` or `io_uring`. If it is not set, io_uring
    /// where it works, else epoll: many containers forbid io_uring, whatever the kernel's version.
    #[default]
    Auto,
    /// Readiness, and a system call for each read and write. Works everywhere.
    Epoll,
    /// Completions, and one system call for all writes of an event-loop iteration. The server fails to start where
    /// io_uring is not available.
    IoUring,
}

impl From<IoBackend> for sidetone_driver::IoBackend {
    fn from(backend: IoBackend) -> Self {
        match backend {
            IoBackend::Auto => Self::Auto,
            IoBackend::Epoll => Self::Epoll,
            IoBackend::IoUring => Self::IoUring,
        }
    }
}

impl fmt::Display for IoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        sidetone_driver::IoBackend::from(*self).fmt(f)
    }
}
