//! Two callbacks for all calls: the interface of the original module.

mod program;

use std::{
    mem,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::PyTypeError,
    intern,
    prelude::*,
    types::{PyByteArray, PyBytes, PyMemoryView, PyString, PyTuple},
};
use sidetone::{
    CallError, Codec, EndReason, Frame, LiveAudio, Networks, Server, ServerBuilder, ServerHandle,
    callback::{self, CallInfo, Input, Poller, Reply},
};

use crate::{forked::Guarded, listener, notifier::Notifier, peer::peer_name};
use program::{CallFailure, Program};

/// What a program may be behind before its caller's audio is dropped.
const RECEIVE_BUFFER: Duration = Duration::from_secs(60);

/// How long calls go on after the server was closed: as long as they like.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The rate of what programs return, whatever the call's is.
const RETURNED_HZ: u32 = 8_000;

/// How long closing waits for a media thread to close its listener. It takes a millisecond or two.
const LISTENER_PATIENCE: Duration = Duration::from_secs(1);

/// Serves calls on listening sockets and calls `on_audio` and `on_exception` inside `poll`.
///
/// In a forked child, all methods raise `RuntimeError`.
#[pyclass(frozen)]
pub(crate) struct CallbackServer(Guarded<Serving>);

struct Serving {
    notifier: Arc<Notifier>,
    program: Arc<Program>,
    /// Of the pollers, which are locked while a callback runs.
    handles: Vec<ServerHandle>,
    pollers: Mutex<Vec<Poller>>,
}

#[pymethods]
impl CallbackServer {
    #[new]
    fn new(
        sockets: Vec<Bound<'_, PyAny>>,
        on_audio: Py<PyAny>,
        on_exception: Py<PyAny>,
        event_loop: Py<PyAny>,
    ) -> PyResult<Self> {
        let notifier = Arc::new(Notifier::new()?);
        let program = Arc::new(Program::new(on_audio, on_exception, event_loop));
        let start = |socket| start(socket, &program, &notifier);
        let pollers: Vec<_> = sockets.iter().map(start).collect::<PyResult<_>>()?;
        Ok(Self(Guarded::new(Serving {
            handles: pollers.iter().map(Poller::handle).collect(),
            notifier,
            program,
            pollers: Mutex::new(pollers),
        })))
    }

    /// A program's callbacks may refer to the server. Whatever else is in such a cycle lets go of it.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let serving = self.0.look();
        serving.map_or(Ok(()), |serving| serving.program.traverse(&visit))
    }

    /// The descriptor that becomes readable when there is something to poll.
    fn fileno(&self) -> PyResult<i32> {
        Ok(self.0.get()?.notifier.descriptor())
    }

    /// Calls the callbacks for all that has happened.
    fn poll(&self, py: Python<'_>) -> PyResult<()> {
        let serving = self.0.get()?;
        serving.notifier.reset();
        // A callback may run the event loop again.
        let Some(mut pollers) = serving.pollers.try_lock() else {
            return Ok(());
        };
        for poller in pollers.iter_mut() {
            poller.poll();
        }
        drop(pollers);
        if serving.program.origin.is_here() {
            serving.program.report_unidentified(py);
        }
        serving.program.take_interrupt()
    }

    /// Accepts no more calls. Those that run go on.
    fn stop_accepting(&self, py: Python<'_>) -> PyResult<()> {
        let serving = self.0.get()?;
        let handles = &serving.handles;
        for handle in handles {
            handle.hand_over(FOR_EVER);
        }
        serving.program.note_last_accepted();
        // A program may listen on the same port again at once.
        py.detach(|| {
            let until = Instant::now() + LISTENER_PATIENCE;
            while handles.iter().any(ServerHandle::is_listening) && Instant::now() < until {
                thread::sleep(Duration::from_micros(100));
            }
        });
        Ok(())
    }

    /// Hangs up all calls, at once.
    fn hang_up_all(&self) -> PyResult<()> {
        let serving = self.0.get()?;
        serving.program.note_all_hung_up();
        for handle in &serving.handles {
            handle.calls().iter().for_each(|call| call.hang_up());
        }
        Ok(())
    }

    /// Whether it accepts no more calls and the last is over.
    fn has_ended(&self) -> PyResult<bool> {
        let pollers = &self.0.get()?.pollers;
        // One that is polling has not.
        let Some(pollers) = pollers.try_lock() else {
            return Ok(false);
        };
        Ok(pollers.iter().all(Poller::has_ended))
    }

    /// Hangs up what runs and forgets the callbacks, which hear of nothing more.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get()?.close(py);
        Ok(())
    }
}

impl Serving {
    fn close(&self, py: Python<'_>) {
        let pollers = mem::take(&mut *self.pollers.lock());
        // It waits for threads, and for callers to close.
        py.detach(|| drop(pollers));
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if !self.pollers.get_mut().is_empty() {
            // There is no interpreter left to wait without if it ends right now.
            Python::try_attach(|py| self.close(py));
        }
    }
}

fn start(
    socket: &Bound<'_, PyAny>,
    program: &Arc<Program>,
    notifier: &Arc<Notifier>,
) -> PyResult<Poller> {
    let (of_calls, of_errors) = (Arc::clone(program), Arc::clone(program));
    let on_call = move |info: &CallInfo| {
        let mut call = CallbackCall::new(info, Arc::clone(&of_calls));
        move |input: Input<'_>, reply: &mut Reply| {
            Python::attach(|py| call.handle(py, input, reply));
        }
    };
    let on_error = move |info: &CallInfo, error: &CallError| {
        if let Some(failure) = CallFailure::of_error(error) {
            Python::attach(|py| of_errors.report_on(py, info, failure));
        }
    };
    let (waker, of_unidentified) = (Arc::clone(notifier), Arc::clone(program));
    let settings = settings().on_unidentified(move |peer, reason| {
        of_unidentified.note_unidentified(peer, reason);
        waker.notify();
    });
    let notifier = Arc::clone(notifier);
    let listener = listener::duplicate(socket)?;
    callback::poller(settings, on_call, on_error, listener, move || {
        notifier.notify();
    })
    .map_err(program::serve_error)
}

/// Anybody may call, as often as they like: the original module had no limits.
fn settings() -> ServerBuilder {
    Server::builder()
        .codec(Codec::Raw)
        .receive_buffer(RECEIVE_BUFFER)
        .max_calls(usize::MAX / 2)
        .allow(Networks::any())
        .trusted(Networks::any())
}

/// What one call's callbacks need.
struct CallbackCall {
    program: Arc<Program>,
    uuid: Py<PyString>,
    peer: Py<PyTuple>,
    line: Option<LiveAudio>,
    /// Half a sample, whose other half may be returned next.
    odd_byte: Option<u8>,
    /// Nothing more is asked: the call ends.
    is_ending: bool,
    /// What a callback raised.
    raised: Option<PyErr>,
    frames: u32,
    /// Frames of what was returned that were dropped, as far as that was told.
    dropped: u64,
}

/// After so many frames it is looked whether anything that was returned had to be dropped.
const FRAMES_BETWEEN_LOOKS: u32 = 50;

impl CallbackCall {
    fn new(info: &CallInfo, program: Arc<Program>) -> Self {
        Python::attach(|py| {
            let uuid = PyString::new(py, &info.id.simple().to_string());
            let peer = peer_name(py, info.peer).unwrap_or_else(|_| PyTuple::empty(py));
            Self {
                program,
                uuid: uuid.unbind(),
                peer: peer.unbind(),
                line: None,
                odd_byte: None,
                is_ending: false,
                raised: None,
                frames: 0,
                dropped: 0,
            }
        })
    }

    fn handle(&mut self, py: Python<'_>, input: Input<'_>, reply: &mut Reply) {
        if !self.program.origin.is_here() {
            // A callback forked the process. The call goes on in the parent.
            return;
        }
        match input {
            Input::Started => {
                // It is a rate that can be resampled.
                self.line = reply.handle().live_at(RETURNED_HZ).ok();
                if let Some(line) = &mut self.line {
                    line.keep_bursts();
                }
                if self.program.was_hung_up(reply.stats().duration) {
                    self.is_ending = true;
                    reply.hang_up();
                }
            }
            Input::Audio(frame) if !self.is_ending => {
                if let Err(error) = self.give(py, frame, reply) {
                    self.fail(py, error, reply);
                }
            }
            Input::Lagged { frames } => self.report(py, CallFailure::Lagged(frames)),
            Input::Ended(reason) => self.end(py, reason, reply),
            _ => {}
        }
    }

    /// Gives a message to `on_audio`, and plays what that returns.
    fn give(&mut self, py: Python<'_>, frame: Frame<'_>, reply: &mut Reply) -> PyResult<()> {
        let audio = PyByteArray::new_with(py, frame.payload_len(), |bytes| {
            frame.write_payload(bytes);
            Ok(())
        })?;
        let returned = self.ask(py, audio)?;
        if !returned.is_none(py) && self.program.origin.is_here() {
            let is_hang_up = with_bytes(returned.bind(py), |bytes| {
                self.play(bytes);
                bytes.is_empty()
            })?;
            if is_hang_up {
                self.is_ending = true;
                // What was returned before is heard.
                reply.finish();
            }
        }
        self.frames += 1;
        if self.frames.is_multiple_of(FRAMES_BETWEEN_LOOKS) {
            self.report_dropped(py, reply);
        }
        Ok(())
    }

    fn ask(&self, py: Python<'_>, audio: Bound<'_, PyByteArray>) -> PyResult<Py<PyAny>> {
        let arguments = (&self.uuid, &self.peer, audio);
        self.program.on_audio.call1(py, arguments)
    }

    fn play(&mut self, mut bytes: &[u8]) {
        let mut samples = self.program.samples.lock();
        samples.clear();
        if let Some((&second, rest)) = bytes.split_first()
            && let Some(first) = self.odd_byte.take()
        {
            samples.push(i16::from_le_bytes([first, second]));
            bytes = rest;
        }
        let (pairs, rest) = bytes.as_chunks();
        samples.extend(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
        self.odd_byte = rest.first().copied().or(self.odd_byte);
        if let Some(line) = &mut self.line
            && !samples.is_empty()
        {
            line.push(&samples);
        }
        samples.shrink_to(KEPT_SAMPLES);
    }

    /// A callback raised an exception: its call ends, and no other.
    fn fail(&mut self, py: Python<'_>, error: PyErr, reply: &mut Reply) {
        if !self.program.origin.is_here() {
            return self.program.interrupt(error);
        }
        self.is_ending = true;
        reply.hang_up();
        let message = "an exception in the audio callback ended a call";
        self.program.handle_exception(py, message, &error);
        self.raised = Some(error);
    }

    fn end(&mut self, py: Python<'_>, reason: EndReason, reply: &mut Reply) {
        self.report_dropped(py, reply);
        if let Err(error) = self.ask(py, PyByteArray::new(py, &[])) {
            let message = "an exception in the audio callback, at the end of a call";
            self.program.handle_exception(py, message, &error);
        }
        let was_reset = reply.stats().counters.reset;
        let failure = match self.raised.take() {
            Some(raised) => Some(CallFailure::Raised(raised)),
            None if was_reset => Some(CallFailure::Reset),
            None => CallFailure::of_end(reason),
        };
        if let Some(failure) = failure {
            self.report(py, failure);
        }
    }

    fn report_dropped(&mut self, py: Python<'_>, reply: &Reply) {
        let dropped = reply.stats().counters.live_dropped;
        if dropped > self.dropped {
            self.report(py, CallFailure::Dropped(dropped - self.dropped));
            self.dropped = dropped;
        }
    }

    fn report(&self, py: Python<'_>, failure: CallFailure) {
        let (uuid, peer) = (self.uuid.bind(py), self.peer.bind(py));
        self.program.report(uuid, peer, failure);
    }
}

/// Samples of capacity that are kept between answers.
const KEPT_SAMPLES: usize = 64 * 1024;

/// Looks at what a bytes-like object holds.
fn with_bytes<T>(object: &Bound<'_, PyAny>, look: impl FnOnce(&[u8]) -> T) -> PyResult<T> {
    let py = object.py();
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(look(bytes.as_bytes()));
    }
    if let Ok(bytes) = object.cast::<PyByteArray>() {
        return Ok(look(&bytes.to_vec()));
    }
    let view = PyMemoryView::from(object).map_err(|_| no_audio(object))?;
    let format = view.getattr(intern!(py, "format"))?;
    if format.extract::<&str>()?.ends_with(['e', 'f', 'd', 'g']) {
        return Err(PyTypeError::new_err(
            "the audio callback returned floating-point numbers: convert them to 16-bit samples, as in (samples * 32767).astype(\"<i2\")",
        ));
    }
    let bytes = view.call_method0(intern!(py, "tobytes"))?;
    Ok(look(bytes.cast::<PyBytes>()?.as_bytes()))
}

/// What to say about something that is not bytes-like.
fn no_audio(object: &Bound<'_, PyAny>) -> PyErr {
    let kind = object.get_type();
    let name = kind.fully_qualified_name();
    let name = name
        .as_ref()
        .map_or("an unknown type".into(), |name| name.to_string_lossy());
    if name == "coroutine" {
        // Nobody awaits it, which Python would warn of.
        let _ = object.call_method0(intern!(object.py(), "close"));
        return PyTypeError::new_err(
            "the audio callback is async: let it be an ordinary function that returns at once, and start what takes time with asyncio.create_task()",
        );
    }
    PyTypeError::new_err(format!(
        "the audio callback returned {name}: return None to send nothing, audio as bytes, or HANGUP_CALL_MESSAGE"
    ))
}
