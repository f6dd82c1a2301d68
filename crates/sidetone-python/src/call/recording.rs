use std::{
    collections::{HashMap, hash_map::Entry},
    ffi::OsStr,
    mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use pyo3::prelude::*;
use sidetone::{
    CallHandle,
    record::{self, RecordError, Recorder},
};

use crate::{errors::RecordingError, executor::Executor, forked::Guarded, types};

/// The recorders of a server, one for each directory that is recorded into. Each has a thread.
#[derive(Default)]
pub(crate) struct Recorders(Mutex<HashMap<PathBuf, DirectoryRecorder>>);

struct DirectoryRecorder {
    recorder: Recorder,
    /// Those that run, and some that have ended.
    recordings: Vec<record::Recording>,
    /// At this many, those that have ended are dropped.
    prune_at: usize,
}

impl Recorders {
    /// Into a file of this path, if that ends in `.wav`, else into a directory.
    pub(super) fn record(&self, path: &Path, call: &CallHandle) -> PyResult<record::Recording> {
        let extension = path.extension().unwrap_or_default();
        if !extension.eq_ignore_ascii_case("wav") {
            return self.record_into(path, |recorder| recorder.record(call));
        }
        let directory = match path.parent() {
            Some(parent) if parent != "" => parent,
            _ => Path::new("."),
        };
        let name = path.file_stem().and_then(OsStr::to_str);
        self.record_into(directory, |recorder| {
            recorder.record_as(call, name.unwrap_or_default())
        })
    }

    fn record_into(
        &self,
        directory: &Path,
        record: impl FnOnce(&Recorder) -> Result<record::Recording, RecordError>,
    ) -> PyResult<record::Recording> {
        let mut recorders = self.0.lock();
        if !recorders.contains_key(directory) {
            // Each call may have a directory of its own.
            recorders.retain(|_, recorder| recorder.prune());
        }
        let recorder = match recorders.entry(directory.into()) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => {
                place.insert(DirectoryRecorder::new(directory).map_err(failed)?)
            }
        };
        let recording = record(&recorder.recorder).map_err(failed)?;
        recorder.keep(recording.clone());
        Ok(recording)
    }

    /// Waits until the files of all recordings are whole.
    pub(crate) fn finish(&self) {
        let recorders = mem::take(&mut *self.0.lock());
        // Each waits for its own.
        drop(recorders);
    }
}

impl DirectoryRecorder {
    fn new(directory: &Path) -> Result<Self, RecordError> {
        Ok(Self {
            recorder: Recorder::new(directory)?,
            recordings: Vec::new(),
            prune_at: 0,
        })
    }

    fn keep(&mut self, recording: record::Recording) {
        if self.recordings.len() >= self.prune_at {
            self.prune();
            self.prune_at = (self.recordings.len() * 2).max(64);
        }
        self.recordings.push(recording);
    }

    /// Whether it still has something to record.
    fn prune(&mut self) -> bool {
        self.recordings
            .retain(|recording| !recording.report().ended);
        !self.recordings.is_empty()
    }
}

fn failed(error: RecordError) -> PyErr {
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
