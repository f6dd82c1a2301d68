use std::{
    mem,
    net::SocketAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyConnectionError, PyConnectionResetError, PyKeyboardInterrupt, PyOSError},
    exceptions::{PySystemExit, PyTimeoutError},
    intern,
    prelude::*,
    types::{PyByteArray, PyDict, PyString, PyTuple},
};
use sidetone::{CallError, EndReason, ServeError, callback::CallInfo};

use crate::{
    errors::{
        AsteriskFrameForwardError, AsteriskMemoryAllocError, AudioDroppedError, AudioLaggedError,
        AudioSocketReadError,
    },
    forked::Origin,
    peer::peer_name,
};

/// What the program gave, and what all its calls share.
pub(super) struct Program {
    /// Where the callbacks are to be called.
    pub(super) origin: Origin,
    pub(super) on_audio: Py<PyAny>,
    on_exception: Py<PyAny>,
    event_loop: Py<PyAny>,
    closing: Mutex<Closing>,
    /// Connections that ended without a UUID and wait to be told.
    unidentified: Mutex<Vec<(SocketAddr, EndReason)>>,
    /// An exception that is to end the event loop.
    interrupt: Mutex<Option<PyErr>>,
    /// Samples of one answer.
    pub(super) samples: Mutex<Vec<i16>>,
}

/// What the program said of the end, for calls that are on their way in by then.
#[derive(Default)]
struct Closing {
    accepts_no_more: bool,
    /// When all calls were hung up.
    hung_up: Option<Instant>,
    /// That was after the last call had been accepted.
    hung_up_last: bool,
}

/// What `on_exception` is told.
pub(super) enum CallFailure {
    FrameForwarding,
    Memory,
    /// What came is not what AudioSocket says.
    Read(String),
    /// So many messages of the caller were dropped.
    Lagged(u64),
    /// So many frames of what the program returned were dropped.
    Dropped(u64),
    Reset,
    PeerGone,
    ConnectionFailed,
    /// A callback raised it.
    Raised(PyErr),
}

impl Program {
    pub(super) fn new(on_audio: Py<PyAny>, on_exception: Py<PyAny>, event_loop: Py<PyAny>) -> Self {
        Self {
            origin: Origin::here(),
            on_audio,
            on_exception,
            event_loop,
            closing: Mutex::default(),
            unidentified: Mutex::default(),
            interrupt: Mutex::default(),
            samples: Mutex::default(),
        }
    }

    pub(super) fn note_last_accepted(&self) {
        self.closing.lock().accepts_no_more = true;
    }

    pub(super) fn note_all_hung_up(&self) {
        let mut closing = self.closing.lock();
        closing.hung_up = Some(Instant::now());
        closing.hung_up_last = closing.accepts_no_more;
    }

    /// Whether a call that has just come in was among those that were hung up, having begun so long ago.
    pub(super) fn was_hung_up(&self, duration: Duration) -> bool {
        let closing = self.closing.lock();
        closing.hung_up_last || closing.hung_up.is_some_and(|at| at.elapsed() <= duration)
    }

    /// Shows the garbage collector what is held.
    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let held = [&self.on_audio, &self.on_exception, &self.event_loop];
        held.into_iter().try_for_each(|object| visit.call(object))
    }

    /// Tells `on_exception`, or the event loop if there is none.
    pub(super) fn report(
        &self,
        uuid: &Bound<'_, PyString>,
        peer: &Bound<'_, PyTuple>,
        failure: CallFailure,
    ) {
        let py = uuid.py();
        let on_exception = self.on_exception.bind(py);
        let is_raised = matches!(failure, CallFailure::Raised(_));
        let error = failure.into_exception();
        if on_exception.is_callable() {
            if let Err(raised) = on_exception.call1((uuid, peer, error.into_value(py))) {
                self.handle_exception(py, "an exception in the exception callback", &raised);
            }
        } else if !is_raised {
            let message = format!("call {uuid} from {peer}, without an exception callback");
            self.handle_exception(py, &message, &error);
        }
    }

    /// The same of a call of which no more is known.
    pub(super) fn report_on(&self, py: Python<'_>, info: &CallInfo, failure: CallFailure) {
        let uuid = PyString::new(py, &info.id.simple().to_string());
        if let Ok(peer) = peer_name(py, info.peer) {
            self.report(&uuid, &peer, failure);
        }
    }

    /// Gives an exception to the event loop's handler, or keeps it if it is to end the loop.
    pub(super) fn handle_exception(&self, py: Python<'_>, message: &str, error: &PyErr) {
        if error.is_instance_of::<PyKeyboardInterrupt>(py)
            || error.is_instance_of::<PySystemExit>(py)
        {
            return self.interrupt(error.clone_ref(py));
        }
        let context = PyDict::new(py);
        let told = context
            .set_item("message", message)
            .and_then(|()| context.set_item("exception", error.value(py)))
            .and_then(|()| {
                let method = intern!(py, "call_exception_handler");
                self.event_loop.call_method1(py, method, (context,))
            });
        if let Err(failed) = told {
            // The loop's own handler reports its failures itself; this one is about to end.
            failed.write_unraisable(py, None);
        }
    }

    /// Keeps an exception that is to leave the event loop's call of `poll`.
    pub(super) fn interrupt(&self, error: PyErr) {
        *self.interrupt.lock() = Some(error);
    }

    /// An exception that came of a callback and is to end the event loop.
    pub(super) fn take_interrupt(&self) -> PyResult<()> {
        self.interrupt.lock().take().map_or(Ok(()), Err)
    }

    /// From any thread.
    pub(super) fn note_unidentified(&self, peer: SocketAddr, reason: EndReason) {
        self.unidentified.lock().push((peer, reason));
    }

    /// Tells the callbacks of connections that ended without a UUID.
    pub(super) fn report_unidentified(&self, py: Python<'_>) {
        let ended = mem::take(&mut *self.unidentified.lock());
        for (peer, reason) in ended {
            let Ok(peer) = peer_name(py, peer) else {
                continue;
            };
            let uuid = PyString::intern(py, "");
            let arguments = (&uuid, &peer, PyByteArray::new(py, &[]));
            if let Err(error) = self.on_audio.call1(py, arguments) {
                let message = "an exception in the audio callback, for a connection without a UUID";
                self.handle_exception(py, message, &error);
            }
            if let Some(failure) = CallFailure::of_end(reason) {
                self.report(&uuid, &peer, failure);
            }
        }
    }
}

impl CallFailure {
    /// What an error that ends no call means. Those of a connection are told at its end.
    pub(super) fn of_error(error: &CallError) -> Option<Self> {
        match error {
            CallError::FrameForwarding => Some(Self::FrameForwarding),
            CallError::Memory => Some(Self::Memory),
            CallError::UnexpectedPayload { .. } => Some(Self::Read(error.to_string())),
            _ => None,
        }
    }

    /// What the end of a call or connection means; nothing, if it is an ordinary one.
    pub(super) fn of_end(reason: EndReason) -> Option<Self> {
        match reason {
            EndReason::IdentityTimeout
            | EndReason::MalformedIdentity
            | EndReason::OtherProtocol(_)
            | EndReason::Flooded => Some(Self::Read(reason.to_string())),
            EndReason::ConnectionReset => Some(Self::Reset),
            EndReason::PeerGone => Some(Self::PeerGone),
            EndReason::ConnectionFailed => Some(Self::ConnectionFailed),
            _ => None,
        }
    }

    fn into_exception(self) -> PyErr {
        match self {
            Self::FrameForwarding => {
                AsteriskFrameForwardError::new_err(CallError::FrameForwarding.to_string())
            }
            Self::Memory => AsteriskMemoryAllocError::new_err(CallError::Memory.to_string()),
            Self::Read(message) => AudioSocketReadError::new_err(message),
            Self::Lagged(messages) => AudioLaggedError::new_err(format!(
                "{messages} messages of audio were dropped, because the event loop was blocked for a minute or more"
            )),
            Self::Dropped(frames) => AudioDroppedError::new_err(format!(
                "{frames} frames of what the audio callback returned were left out, because more came than can be heard: \
                 the call was behind by them"
            )),
            Self::Reset => PyConnectionResetError::new_err((
                libc_errno(rustix::io::Errno::CONNRESET),
                EndReason::ConnectionReset.to_string(),
            )),
            Self::PeerGone => PyTimeoutError::new_err((
                libc_errno(rustix::io::Errno::TIMEDOUT),
                EndReason::PeerGone.to_string(),
            )),
            Self::ConnectionFailed => {
                PyConnectionError::new_err(EndReason::ConnectionFailed.to_string())
            }
            Self::Raised(error) => error,
        }
    }
}

fn libc_errno(errno: rustix::io::Errno) -> i32 {
    errno.raw_os_error()
}

/// Why no server started.
pub(super) fn serve_error(error: ServeError) -> PyErr {
    PyOSError::new_err(error.to_string())
}
