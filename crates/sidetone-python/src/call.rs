//! A call, as Python has it.

mod playing;
mod recording;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_core::Stream;
use parking_lot::Mutex;
use pyo3::{
    exceptions::{PyRuntimeError, PyStopAsyncIteration},
    intern,
    prelude::*,
    types::{PyString, PyTuple},
};
use sidetone::{CallHandle, CallWriter, EventStream, Player};

use crate::{
    errors::play_error,
    executor::{Executor, Run, resolve},
    forked::Guarded,
    peer::peer_name,
    samples::samples_of,
    sound::Clip,
    types,
};
pub(crate) use playing::{Live, Mark, Playback, Utterance};
pub(crate) use recording::{Recorders, Recording};

/// The rate of a call's own player, which takes clips of any.
const PLAYER_HZ: u32 = 8_000;

/// A call. It is hung up when it is dropped.
#[pyclass(frozen)]
pub(crate) struct Call(Guarded<CallParts>);

struct CallParts {
    executor: Arc<Executor>,
    recorders: Arc<Recorders>,
    handle: CallHandle,
    events: Mutex<EventStream>,
    /// Gone when the call has been told to finish.
    writer: Mutex<Option<CallWriter>>,
    player: Mutex<Player>,
    reader: Arc<Reader>,
}

/// Who waits for the call's next event.
struct Reader {
    executor: Arc<Executor>,
    is_queued: AtomicBool,
    waiter: Mutex<Option<Py<PyAny>>>,
}

impl Call {
    pub(crate) fn new(
        call: sidetone::Call,
        executor: &Arc<Executor>,
        recorders: &Arc<Recorders>,
    ) -> PyResult<Self> {
        let handle = call.handle();
        let (reader, writer) = call.split();
        let player = writer.player(PLAYER_HZ);
        Ok(Self(Guarded::new(CallParts {
            executor: Arc::clone(executor),
            recorders: Arc::clone(recorders),
            events: Mutex::new(reader.into_stream()),
            player: Mutex::new(player.map_err(|error| PyRuntimeError::new_err(error.to_string()))?),
            writer: Mutex::new(Some(writer)),
            handle,
            reader: Arc::new(Reader {
                executor: Arc::clone(executor),
                is_queued: AtomicBool::new(false),
                waiter: Mutex::default(),
            }),
        })))
    }
}

#[pymethods]
impl Call {
    /// The UUID as 32 hexadecimal digits.
    #[getter]
    fn hex<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        let id = self.0.get()?.handle.id().simple().to_string();
        Ok(PyString::new(py, &id))
    }

    #[getter]
    fn peer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        peer_name(py, self.0.get()?.handle.peer())
    }

    #[getter]
    fn rate(&self) -> PyResult<u32> {
        Ok(self.0.get()?.handle.rate().hz())
    }

    #[getter]
    fn stats(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        types::call_stats(py, self.0.get()?.handle.stats())
    }

    /// How it ended, if it has.
    #[getter]
    fn ended(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let ended = self.0.get()?.handle.ended();
        ended.map(|reason| types::ended(py, reason)).transpose()
    }

    /// The next event, or nothing if none has come; then `wait` is to be awaited.
    fn next_event(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let call = self.0.get()?;
        let waker = Waker::from(Arc::clone(&call.reader));
        let mut events = call.events.lock();
        let next = Pin::new(&mut *events).poll_next(&mut Context::from_waker(&waker));
        match next {
            Poll::Pending => Ok(None),
            Poll::Ready(Some(event)) => types::event(py, event).map(Some),
            Poll::Ready(None) => Err(PyStopAsyncIteration::new_err(())),
        }
    }

    /// A future that is done when there is an event, after `next_event` had none.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let call = self.0.get()?;
        let mut waiter = call.reader.waiter.lock();
        if let Some(waiting) = &*waiter
            && !waiting
                .call_method0(py, intern!(py, "done"))?
                .is_truthy(py)?
        {
            return Err(PyRuntimeError::new_err(
                "another task reads the events of this call already: read them in one place and pass them on",
            ));
        }
        let future = call.executor.create_future(py)?;
        *waiter = Some(future.clone().unbind());
        Ok(future)
    }

    /// Queues samples at a rate, or a clip.
    #[pyo3(signature = (sound, rate = 8_000))]
    fn play(&self, py: Python<'_>, sound: &Bound<'_, PyAny>, rate: u32) -> PyResult<Playback> {
        let call = self.0.get()?;
        let playback = match sound.cast::<Clip>() {
            Ok(clip) => call.queue(&clip.get().0)?,
            Err(_) => {
                let samples = samples_of(sound)?;
                let mut utterance = call.handle.utterance(rate).map_err(playing::unsupported)?;
                let queued = py.detach(|| utterance.try_play(&samples));
                queued.map_err(play_error)?;
                utterance.end()
            }
        };
        Ok(Playback::new(playback, &call.executor))
    }

    /// Speech that comes in pieces.
    #[pyo3(signature = (rate = 8_000, prebuffer = 0.0))]
    fn utterance(&self, rate: u32, prebuffer: f64) -> PyResult<Utterance> {
        let call = self.0.get()?;
        Utterance::new(&call.handle, rate, prebuffer, &call.executor)
    }

    /// Audio that is made as it plays.
    #[pyo3(signature = (rate = None, prebuffer = 0.0))]
    fn live(&self, rate: Option<u32>, prebuffer: f64) -> PyResult<Live> {
        Live::new(&self.0.get()?.handle, rate, prebuffer)
    }

    /// Queues a mark.
    fn mark(&self) -> PyResult<Mark> {
        let mark = self.0.get()?.player.lock().mark();
        mark.map(Mark).map_err(play_error)
    }

    /// Throws everything queued away, at once; the future says what was heard of it.
    fn clear<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let call = self.0.get()?;
        let clearing = call.handle.clear();
        call.executor.spawn(py, async move {
            let heard = clearing.await.map_err(play_error);
            Box::new(move |py: Python<'_>| types::heard(py, heard?)) as _
        })
    }

    fn pause(&self) -> PyResult<()> {
        self.0.get()?.handle.pause_playout().map_err(play_error)
    }

    fn resume(&self) -> PyResult<()> {
        self.0.get()?.handle.resume_playout().map_err(play_error)
    }

    fn record(&self, path: std::path::PathBuf) -> PyResult<Recording> {
        let call = self.0.get()?;
        let recording = call.recorders.record(&path, &call.handle)?;
        Ok(Recording::new(recording, &call.executor))
    }

    fn hang_up(&self) -> PyResult<()> {
        self.0.get()?.handle.hang_up();
        Ok(())
    }

    /// Ends the call when everything queued has been heard.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let call = self.0.get()?;
        match call.writer.lock().take() {
            Some(writer) => call.executor.spawn(py, async move {
                let reason = writer.finish().await;
                Box::new(move |py: Python<'_>| types::ended(py, reason)) as _
            }),
            None => self.closed(py),
        }
    }

    /// Waits for the end.
    fn closed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let call = self.0.get()?;
        let handle = call.handle.clone();
        call.executor.spawn(py, async move {
            let reason = handle.closed().await;
            Box::new(move |py: Python<'_>| types::ended(py, reason)) as _
        })
    }
}

impl CallParts {
    fn queue(&self, clip: &sidetone::Clip) -> PyResult<sidetone::Playback> {
        let mut player = self.player.lock();
        let mut queueing = std::pin::pin!(player.play_clip(clip));
        let context = &mut Context::from_waker(Waker::noop());
        match queueing.as_mut().poll(context) {
            Poll::Ready(queued) => queued.map_err(play_error),
            Poll::Pending => Err(play_error(sidetone::PlayError::Full)),
        }
    }
}

impl Wake for Reader {
    fn wake(self: Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            let executor = Arc::clone(&self.executor);
            executor.wake(self);
        }
    }
}

impl Run for Reader {
    fn run(self: Arc<Self>, py: Python<'_>) {
        // A swap, so that a wake before it is seen below and one after it queues this again.
        self.is_queued.swap(false, Ordering::AcqRel);
        let waiter = self.waiter.lock().take();
        if let Some(waiter) = waiter
            && let Err(error) = resolve(waiter.bind(py), Ok(py.None()))
        {
            error.write_unraisable(py, None);
        }
    }
}
