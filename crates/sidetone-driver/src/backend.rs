use std::{env, ffi::OsStr, fmt, io, sync::Arc};

use crate::{Driver, Epoll, Uring, Waker};

/// The environment variable that names the backend if the program names none.
const VARIABLE: &str = "SIDETONE_IO_BACKEND";

/// How to do I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoBackend {
    /// The backend that the environment variable `SIDETONE_IO_BACKEND` names, `epoll` or `io_uring`. Without it, io_uring
    /// where a trial of it works, else epoll: many containers refuse io_uring, whatever the kernel's version is.
    #[default]
    Auto,
    /// Readiness and a system call for each read and write. Works everywhere.
    Epoll,
    /// Completions, and one system call for all sends of an iteration. Opening it fails where the system refuses it.
    IoUring,
}

impl IoBackend {
    /// Opens a driver for this thread, which `waker` wakes.
    ///
    /// # Errors
    ///
    /// When the system refuses the backend that was named, here or in the environment; when it refuses both; and when the
    /// environment names an unknown one.
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
                    tracing::info!(%error, "io_uring is not available, using epoll");
                    Ok(Box::new(Epoll::new(waker)?))
                }
            },
        }
    }

    /// Chooses the backend that the environment names, if the program names none.
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
        "{VARIABLE} is {name:?}: set it to `epoll` or `io_uring`, or unset it to use io_uring where it works"
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

    /// The backend that is opened where the environment names `named`.
    fn chosen(named: Option<&str>) -> io::Result<IoBackend> {
        let backend = IoBackend::Auto.or_named(named.map(OsStr::new))?;
        backend.start(waker()).map(|driver| driver.backend())
    }

    /// Runs a test where a container's filter refuses a system call.
    fn refusing(call: i64, test: impl FnOnce() + Send + 'static) {
        let filter = SeccompFilter::new(
            [(call, vec![])].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(Errno::PERM.raw_os_error() as u32),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        let program: BpfProgram = filter.unwrap().try_into().unwrap();
        // A filter applies to one thread, until it ends.
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
    fn a_backend_that_is_named_is_used() {
        assert_eq!(chosen(Some("epoll")).unwrap(), IoBackend::Epoll);
        if Uring::new(waker()).is_ok() {
            assert_eq!(chosen(Some("io_uring")).unwrap(), IoBackend::IoUring);
            assert_eq!(chosen(None).unwrap(), IoBackend::IoUring);
        }
    }

    #[test]
    fn an_unknown_name_is_rejected_with_the_known_ones() {
        let refused = chosen(Some("iouring")).map(drop).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        assert!(refused.to_string().contains("`epoll` or `io_uring`"));
    }
}
