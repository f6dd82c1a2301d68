use std::{any::Any, error::Error, fmt, io, net::SocketAddr, sync::Arc};

use sidetone_proto::Kind;

/// An error on one call, whether or not it ended the call.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Asterisk reports that it could not forward a frame (error message, bit 2).
    #[error("Asterisk could not forward an audio frame; its own log says why")]
    FrameForwarding,
    /// Asterisk reports that it ran out of memory (error message, bit 4).
    #[error("Asterisk is out of memory; its own log says more")]
    Memory,
    /// A message whose payload does not fit its kind.
    #[error(
        "unexpected {kind} message with {length} bytes of payload; is an AudioSocket client connected to this port?"
    )]
    UnexpectedPayload {
        /// The kind in the message's header.
        kind: Kind,
        /// The length in the message's header, in bytes.
        length: u16,
    },
    /// The connection failed.
    #[error("the connection failed; AudioSocket belongs on one host or a wired network")]
    Connection(#[source] Arc<io::Error>),
    /// The handler panicked, with this message.
    #[error("the handler failed: {0}")]
    Handler(String),
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::Connection(Arc::new(error))
    }
}

/// Errors of the system are equal if their kinds and numbers are.
impl PartialEq for CallError {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::FrameForwarding, Self::FrameForwarding) | (Self::Memory, Self::Memory) => true,
            (
                Self::UnexpectedPayload { kind, length },
                Self::UnexpectedPayload {
                    kind: other_kind,
                    length: other_length,
                },
            ) => (kind, length) == (other_kind, other_length),
            (Self::Connection(error), Self::Connection(other)) => {
                (error.kind(), error.raw_os_error()) == (other.kind(), other.raw_os_error())
            }
            (Self::Handler(text), Self::Handler(other)) => text == other,
            _ => false,
        }
    }
}

impl Eq for CallError {}

/// Why audio was not queued, or a call can't be monitored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlayError {
    /// The call is over. Handlers may pass this on with `?`, in whatever error type they have: it is a normal end.
    Closed,
    /// `clear()` was called while this was waiting, or an utterance was cleared or stopped before; nothing more of it is
    /// queued.
    Cleared,
    /// Only from `try_play`: the playback buffer has no room for all of it, so none was queued.
    Full,
    /// Only from [`monitor`](crate::CallHandle::monitor) and [`listen`](crate::CallHandle::listen): the call has 16 of them,
    /// and no more.
    TooManyMonitors,
}

impl fmt::Display for PlayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the call is over",
            Self::Cleared => "cleared or stopped while it was being queued",
            Self::Full => {
                "the playback buffer is full: wait with play() or write(), or make playback_buffer larger"
            }
            Self::TooManyMonitors => {
                "the call has 16 monitors, which is the limit: drop one of them first"
            }
        })
    }
}

impl Error for PlayError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        (*self == Self::Closed).then_some(&HungUp)
    }
}

/// The last source of [`PlayError::Closed`], which shows it in every error that keeps its sources. The error itself can't
/// be found in all of them: `anyhow` hides it in a type of its own, and a transparent variant only passes its source on.
#[derive(Debug, thiserror::Error)]
#[error("one of its two sides hung up")]
struct HungUp;

/// Whether an error, or one of its sources, says that a call is over.
pub(crate) fn is_hang_up(error: &(dyn Error + 'static)) -> bool {
    error.is::<HungUp>() || error.source().is_some_and(is_hang_up)
}

/// How a handler failed. [`ServerBuilder::on_handler_error`](crate::ServerBuilder::on_handler_error) gets it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// It returned this error.
    #[error("it returned an error")]
    Returned(#[source] Box<dyn Error + Send + Sync>),
    /// It panicked, with this message.
    #[error("it panicked: {0}")]
    Panicked(String),
}

impl HandlerError {
    /// Of what [`catch_unwind`](std::panic::catch_unwind) caught.
    pub(crate) fn from_panic(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Self::Panicked(text.unwrap_or_else(|| "with no message".into()))
    }
}

/// Why a server could not start, or failed. Its [source](Error::source) is the system's own error, if there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address can't be listened on.
    #[error("can't listen on {address}{}", advice(.source))]
    Bind {
        /// The address.
        address: String,
        /// The system's error.
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
    #[error("can't start the media threads")]
    Media(#[source] io::Error),
}

/// What to do about an address that can't be listened on, where that is known.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": another program listens there; stop it or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            ": this machine has no such address; use one of its own, or 0.0.0.0 for all"
        }
        io::ErrorKind::PermissionDenied => {
            ": not permitted; ports below 1024 need privileges, choose a higher one"
        }
        io::ErrorKind::InvalidInput => {
            ": not an address; write it as HOST:PORT, like 127.0.0.1:9092"
        }
        _ => "",
    }
}

/// Shows an error with its sources, on one line.
pub(crate) struct WithSources<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for WithSources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_error_keeps_its_source_and_does_not_repeat_it() {
        let system = || io::Error::other("as this test wants it");
        let errors: [Box<dyn Error>; 3] = [
            Box::new(ServeError::Media(system())),
            Box::new(CallError::from(system())),
            Box::new(crate::record::RecordError::Thread(system())),
        ];
        for error in errors {
            let source = error.source().unwrap().to_string();
            assert!(!error.to_string().contains(&source), "{error}");
            let line = WithSources(&*error).to_string();
            assert_eq!(line, format!("{error}: {source}"));
        }
    }

    #[test]
    fn a_hang_up_is_found_in_whatever_error_carries_it() {
        #[derive(Debug, thiserror::Error)]
        enum Own {
            #[error("the menu failed")]
            Menu(#[from] PlayError),
            #[error(transparent)]
            Transparent(PlayError),
            #[error("a wrapper")]
            Boxed(#[source] Box<dyn Error + Send + Sync>),
        }
        fn is(error: impl Into<Box<dyn Error + Send + Sync>>) -> bool {
            is_hang_up(&*error.into())
        }
        let in_anyhow = |error| anyhow::Error::from(error).context("while it greeted");
        assert!(is(PlayError::Closed));
        assert!(is(Own::Menu(PlayError::Closed)) && is(Own::Transparent(PlayError::Closed)));
        assert!(is(Own::Boxed(Own::Menu(PlayError::Closed).into())));
        assert!(is(anyhow::Error::from(PlayError::Closed)));
        assert!(is(in_anyhow(PlayError::Closed).context("in the menu")));
        assert!(is(anyhow::Error::from(Own::Transparent(PlayError::Closed))));
        assert!(is(io::Error::other(PlayError::Closed)));
        for other in [PlayError::Cleared, PlayError::Full] {
            assert!(!is(other) && !is(Own::Menu(other)) && !is(in_anyhow(other)));
        }
        assert!(!is("the call is over"), "a text is no error of ours");
    }

    #[test]
    fn errors_of_the_connection_are_equal_by_kind_and_number() {
        let reset = || CallError::from(io::Error::from_raw_os_error(104));
        assert_eq!(reset(), reset());
        assert_ne!(reset(), io::Error::from_raw_os_error(110).into());
    }
}
