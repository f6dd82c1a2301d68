use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use pyo3::prelude::*;
use sidetone::{
    CallHandle,
    record::{self, Recorder},
};

use crate::{errors::RecordingError, executor::Executor, forked::Guarded, types};

/// The recorders of a server, one for each directory.
#[derive(Default)]
pub(crate) struct Recorders(Mutex<HashMap<PathBuf, Arc<Recorder>>>);

impl Recorders {
    /// Into a file of this path, if that ends in `.wav`, else into a directory.
    pub(super) fn record(&self, path: &Path, call: &CallHandle) -> PyResult<record::Recording> {
        if path.extension().is_none_or(|extension| extension != "wav") {
            return self.recorder(path)?.record(call).map_err(failed);
        }
        let directory = match path.parent() {
            Some(parent) if parent != "" => parent,
            _ => Path::new("."),
        };
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let recorder = self.recorder(directory)?;
        recorder.record_as(call, &name).map_err(failed)
    }

    fn recorder(&self, directory: &Path) -> PyResult<Arc<Recorder>> {
        let mut recorders = self.0.lock();
        if let Some(recorder) = recorders.get(directory) {
            return Ok(Arc::clone(recorder));
        }
        let recorder = Arc::new(Recorder::new(directory).map_err(failed)?);
        recorders.insert(directory.into(), Arc::clone(&recorder));
        Ok(recorder)
    }

    /// Waits until the files of all recordings are whole.
    pub(crate) fn finish(&self) {
        let recorders = std::mem::take(&mut *self.0.lock());
        recorders.values().for_each(|recorder| recorder.finish());
    }
}

fn failed(error: record::RecordError) -> PyErr {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        message = format!("{message}: {error}");
        source = error.source();
    }
    RecordingError::new_err(message)
}

/// The recording of a call. It ends with the call.
#[pyclass(frozen, module = "audiosocket")]
pub(crate) struct Recording(Guarded<RecordingParts>);

struct RecordingParts {
    recording: record::Recording,
    executor: Arc<Executor>,
}

impl Recording {
    pub(super) fn new(recording: record::Recording, executor: &Arc<Executor>) -> Self {
        Self(Guarded::new(RecordingParts {
            recording,
            executor: Arc::clone(executor),
        }))
    }
}

#[pymethods]
impl Recording {
    /// Keep what is said from now on out of the file; silence stands in its place.
    fn pause(&self) -> PyResult<()> {
        self.0.get()?.recording.pause();
        Ok(())
    }

    /// Go on after a pause.
    fn resume(&self) -> PyResult<()> {
        self.0.get()?.recording.resume();
        Ok(())
    }

    /// End it now, while the call goes on.
    fn stop(&self) -> PyResult<()> {
        self.0.get()?.recording.stop();
        Ok(())
    }

    #[getter]
    fn is_paused(&self) -> PyResult<bool> {
        Ok(self.0.get()?.recording.is_paused())
    }

    /// How it stands, at most half a second ago.
    #[getter]
    fn report(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        types::report(py, self.0.get()?.recording.report())
    }

    /// Wait until its file is whole, or can't be.
    fn ended<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let parts = self.0.get()?;
        let recording = parts.recording.clone();
        parts.executor.spawn(py, async move {
            let report = recording.ended().await;
            Box::new(move |py: Python<'_>| types::report(py, report)) as _
        })
    }

    fn __repr__(&self) -> String {
        let state = match self.0.get() {
            Ok(parts) if parts.recording.report().ended => "ended",
            Ok(parts) if parts.recording.is_paused() => "paused",
            Ok(_) => "running",
            Err(_) => "of the parent process",
        };
        format!("<audiosocket.Recording {state}>")
    }
}
