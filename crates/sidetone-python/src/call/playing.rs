use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::{exceptions::PyValueError, prelude::*};
use sidetone::{CallHandle, LiveAudio, UnsupportedRate};

use crate::{
    errors::{ClearedError, play_error},
    executor::Executor,
    forked::Guarded,
    samples::samples_of,
    sound::duration,
    types,
};

/// A place in what a call plays. Marks of one call are ordered as they were queued.
#[pyclass(frozen, eq, ord, hash, module = "audiosocket")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Mark(pub(crate) sidetone::Mark);

#[pymethods]
impl Mark {
    fn __repr__(&self) -> String {
        format!("<audiosocket.{:?}>", self.0)
    }
}

/// Something that was queued on a call.
///
/// Awaited, it waits until that has been heard, stopped or cleared, or the call is over, and returns how much of it
/// the caller heard. If the wait is cancelled, it stops.
#[pyclass(frozen, module = "audiosocket")]
pub(crate) struct Playback(Guarded<PlaybackParts>);

struct PlaybackParts {
    playback: sidetone::Playback,
    executor: Arc<Executor>,
}

impl Playback {
    pub(super) fn new(playback: sidetone::Playback, executor: &Arc<Executor>) -> Self {
        Self(Guarded::new(PlaybackParts {
            playback,
            executor: Arc::clone(executor),
        }))
    }
}

#[pymethods]
impl Playback {
    /// Waits until its end, and stops it if the wait is cancelled.
    fn __await__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let parts = self.0.get()?;
        let guard = parts.playback.clone().stop_on_drop();
        let finished = parts.executor.spawn(py, async move {
            let heard = guard.playback().finished().await;
            guard.keep();
            Box::new(move |py: Python<'_>| types::heard(py, heard)) as _
        })?;
        finished.call_method0("__await__")
    }

    /// Wait as `await` does, but let it play on if the wait is cancelled.
    fn finished<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let parts = self.0.get()?;
        let playback = parts.playback.clone();
        parts.executor.spawn(py, async move {
            let heard = playback.finished().await;
            Box::new(move |py: Python<'_>| types::heard(py, heard)) as _
        })
    }

    /// Take it out of what is played, at once, awaited or not; what is queued behind it follows.
    fn stop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let parts = self.0.get()?;
        let stopping = parts.playback.stop();
        parts.executor.spawn(py, async move {
            let heard = stopping.await;
            Box::new(move |py: Python<'_>| types::heard(py, heard)) as _
        })
    }

    #[getter]
    fn is_finished(&self) -> PyResult<bool> {
        Ok(self.0.get()?.playback.is_finished())
    }

    /// How much of it was heard, once that is known.
    #[getter]
    fn heard(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let heard = self.0.get()?.playback.heard();
        heard.map(|heard| types::heard(py, heard)).transpose()
    }

    fn __repr__(&self) -> String {
        let state = match self.is_finished() {
            Ok(true) => "finished",
            Ok(false) => "playing",
            Err(_) => "of the parent process",
        };
        format!("<audiosocket.Playback {state}>")
    }
}

/// Speech that comes in pieces, is queued as one and counts as one. `with` ends it.
#[pyclass(frozen, module = "audiosocket")]
pub(crate) struct Utterance(Guarded<UtteranceParts>);

struct UtteranceParts {
    /// Gone when it has ended.
    utterance: Mutex<Option<sidetone::Utterance>>,
    playback: sidetone::Playback,
    executor: Arc<Executor>,
}

impl Utterance {
    pub(super) fn new(
        call: &CallHandle,
        rate: u32,
        prebuffer: f64,
        executor: &Arc<Executor>,
    ) -> PyResult<Self> {
        let mut utterance = call.utterance(rate).map_err(unsupported)?;
        utterance.set_prebuffer(duration(prebuffer)?);
        Ok(Self(Guarded::new(UtteranceParts {
            playback: utterance.playback(),
            utterance: Mutex::new(Some(utterance)),
            executor: Arc::clone(executor),
        })))
    }
}

#[pymethods]
impl Utterance {
    /// Queue more of it.
    ///
    /// :raises ClearedError: it has ended, or was stopped or cleared.
    /// :raises CallEndedError: the call is over.
    /// :raises PlaybackFullError: ten minutes are queued already, or what `playback_buffer` says.
    fn write(&self, py: Python<'_>, samples: &Bound<'_, PyAny>) -> PyResult<()> {
        let samples = samples_of(samples)?;
        let parts = self.0.get()?;
        let mut utterance = parts.utterance.lock();
        let Some(utterance) = utterance.as_mut() else {
            return Err(ClearedError::new_err(
                "the utterance has ended: begin another one for more",
            ));
        };
        py.detach(|| utterance.try_play(&samples))
            .map_err(play_error)
    }

    /// Say that nothing more comes: what is queued of it plays to its end.
    fn end(&self) -> PyResult<Playback> {
        if let Some(utterance) = self.0.get()?.utterance.lock().take() {
            utterance.end();
        }
        self.playback()
    }

    /// Take it out of what is played, at once, awaited or not.
    fn stop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.playback()?.stop(py)
    }

    #[getter]
    fn playback(&self) -> PyResult<Playback> {
        let parts = self.0.get()?;
        Ok(Playback::new(parts.playback.clone(), &parts.executor))
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, _error: &Bound<'_, PyAny>) -> PyResult<()> {
        self.end().map(drop)
    }

    fn __repr__(&self) -> String {
        let state = match self.0.get() {
            Ok(parts) if parts.utterance.lock().is_some() => "open",
            Ok(_) => "ended",
            Err(_) => "of the parent process",
        };
        format!("<audiosocket.Utterance {state}>")
    }
}

/// Audio that is made as it plays.
#[pyclass(frozen, module = "audiosocket")]
pub(crate) struct Live(Guarded<Mutex<LiveAudio>>);

impl Live {
    pub(super) fn new(call: &CallHandle, rate: Option<u32>, prebuffer: f64) -> PyResult<Self> {
        let live = match rate {
            Some(rate) => call.live_at(rate).map_err(unsupported)?,
            None => call.live(),
        };
        let prebuffer = duration(prebuffer)?;
        if !prebuffer.is_zero() {
            live.set_prebuffer(prebuffer);
        }
        Ok(Self(Guarded::new(Mutex::new(live))))
    }
}

#[pymethods]
impl Live {
    /// Play samples as soon as possible. After the end of the call they go nowhere.
    fn push(&self, samples: &Bound<'_, PyAny>) -> PyResult<()> {
        let samples = samples_of(samples)?;
        self.0.get()?.lock().push(&samples);
        Ok(())
    }

    fn __repr__(&self) -> String {
        "<audiosocket.Live>".to_owned()
    }
}

pub(super) fn unsupported(error: UnsupportedRate) -> PyErr {
    PyValueError::new_err(error.to_string())
}
