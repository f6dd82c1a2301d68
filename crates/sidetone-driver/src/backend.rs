use std::{env, ffi::OsStr, fmt, io, sync::Arc};

use crate::{Driver, Epoll, Uring, Waker};

/// Names the backend where the program names none.
const VARIABLE: &str = "SIDETONE_IO_BACKEND";

/// Which way to talk to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoBackend {
    /// What the environment variable `SIDETONE_IO_BACKEND` says, `epoll` or `io_uring`. Without it, io_uring where
    /// a trial of it works, else epoll: many containers refuse it, whatever the kernel's version says.
    #[default]
    Auto,
    /// Readiness and a system call for each read and write. Works everywhere.
    Epoll,
    /// Completions, and one system call for all writes of a turn. Starting fails where it can't be had.
    IoUring,
}

impl IoBackend {
    /// Begins to talk to the kernel in this way, on this thread.
    ///
    /// # Errors
    /// When the system refuses the one that was named, here or in the environment, or any; and when the
    /// environment names one that nobody knows.
    pub fn open(self, waker: Arc<Waker>) -> io::Result<Box<dyn Driver>> {
        self.or_named(env::var_os(VARIABLE).as_deref())?
            .start(waker)
    }

    fn start(self, waker: Arc<Waker>) -> io::Result<Box<dyn Driver>> {
        match self {
            Self::Epoll => Ok(Box::new(Epoll::new(waker)?)),
            Self::IoUring => Ok(Box::new(Uring::new(waker)?)),
            Self::Auto => match Uring::new(Arc::clone(&waker)) {
                Ok(ring) => Ok(Box::new(ring)),
                Err(error) => {
                    tracing::info!(%error, "io_uring can't be had; taking epoll");
                    Ok(Box::new(Epoll::new(waker)?))
                }
            },
        }
    }

    /// What the environment names counts where the program names none.
    fn or_named(self, variable: Option<&OsStr>) -> io::Result<Self> {
        let named = [Self::Epoll, Self::IoUring];
        match variable {
            Some(name) if self == Self::Auto => named
                .into_iter()
                .find(|backend| name == backend.to_string().as_str())
                .ok_or_else(|| unknown(name)),
            _ => Ok(self),
        }
    }
}

impl fmt::Display for IoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Epoll => "epoll",
            Self::IoUring => "io_uring",
        })
    }
}

fn unknown(name: &OsStr) -> io::Error {
    let text = format!(
        "{VARIABLE} is {name:?}: set it to `epoll` or `io_uring`, or unset it to have io_uring where it works"
    );
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use rustix::io::Errno;
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

    use super::*;

    fn waker() -> Arc<Waker> {
        Arc::new(Waker::new().unwrap())
    }

    /// What is opened where the environment has `named`.
    fn chosen(named: Option<&str>) -> io::Result<IoBackend> {
        let backend = IoBackend::Auto.or_named(named.map(OsStr::new))?;
        backend.start(waker()).map(|kernel| kernel.backend())
    }

    /// What becomes of a trial where a container's filter refuses a system call.
    fn refusing(call: i64, test: impl FnOnce() + Send + 'static) {
        let filter = SeccompFilter::new(
            [(call, vec![])].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(Errno::PERM.raw_os_error() as u32),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        let program: BpfProgram = filter.unwrap().try_into().unwrap();
        // It holds for one thread, to its end.
        let thread = thread::spawn(move || {
            apply_filter(&program).unwrap();
            test();
        });
        thread.join().unwrap();
    }

    #[test]
    fn where_a_ring_is_refused_there_is_epoll_unless_a_ring_was_asked_for() {
        // io_uring_setup, io_uring_enter, io_uring_register: the same numbers on all architectures.
        for call in 425..=427 {
            refusing(call, || {
                assert_eq!(chosen(None).unwrap(), IoBackend::Epoll);
                assert!(chosen(Some("io_uring")).is_err());
            });
        }
    }

    #[test]
    fn an_engine_that_is_named_is_taken() {
        assert_eq!(chosen(Some("epoll")).unwrap(), IoBackend::Epoll);
        if Uring::new(waker()).is_ok() {
            assert_eq!(chosen(Some("io_uring")).unwrap(), IoBackend::IoUring);
            assert_eq!(chosen(None).unwrap(), IoBackend::IoUring);
        }
    }
    #[test]
    fn a_name_that_nobody_knows_is_told_with_those_that_are_known() {
        let refused = chosen(Some("iouring")).map(drop).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        assert!(refused.to_string().contains("`epoll` or `io_uring`"));
    }
}
