//! The other end of the line: a client that calls as Asterisk does.

use std::{net::SocketAddr, time::Duration};

use pyo3::{
    exceptions::{PyOSError, PyValueError},
    prelude::*,
    types::PyBytes,
};
use sidetone::Uuid;
use sidetone_audio::{level::rms_dbfs, tone};
use sidetone_caller::{CallRecord, Caller, Event, Run};

use crate::{
    samples::{samples_of, to_bytes},
    sound::duration,
};

/// The rate of what the caller says.
const RATE: u32 = 8_000;

/// Calls a server as Asterisk does, and waits until the call is over. `observer` gets what happens as it happens: a word, the
/// seconds since the call began, and a detail.
#[pyfunction]
#[pyo3(signature = (address, id, samples, digits, hang_up_after, observer = None))]
#[allow(clippy::too_many_arguments, reason = "Python names them")]
pub(crate) fn place_call(
    py: Python<'_>,
    address: &str,
    id: &str,
    samples: &Bound<'_, PyAny>,
    digits: Vec<(String, f64)>,
    hang_up_after: f64,
    observer: Option<Py<PyAny>>,
) -> PyResult<PlacedCall> {
    let wrong = |error: &dyn std::fmt::Display| PyValueError::new_err(error.to_string());
    let address: SocketAddr = address.parse().map_err(|error| wrong(&error))?;
    let id: Uuid = id.parse().map_err(|error| wrong(&error))?;
    let mut caller = Caller::new(address)
        .uuid(id)
        .say(samples_of(samples)?)
        .hang_up_after(duration(hang_up_after)?);
    for (digits, at) in digits {
        caller = caller.dtmf(&digits, duration(at)?);
    }
    if let Some(observer) = observer {
        caller = caller.observe(move |event| tell(&observer, event));
    }
    let called = py.detach(|| caller.call());
    called
        .map(PlacedCall)
        .map_err(|error| PyOSError::new_err(error.to_string()))
}

fn tell(observer: &Py<PyAny>, event: Event<'_>) {
    Python::attach(|py| {
        let told = match event {
            Event::Connected { .. } => observer.call1(py, ("connected", 0.0, "")),
            Event::Heard { at, samples, .. } => {
                observer.call1(py, ("heard", at.as_secs_f64(), rms_dbfs(samples)))
            }
            Event::Sent { at, samples, .. } => {
                observer.call1(py, ("sent", at.as_secs_f64(), rms_dbfs(samples)))
            }
            Event::Digit { at, digit } => observer.call1(py, ("digit", at.as_secs_f64(), digit)),
            Event::Ended(ended) => {
                let (at, cause) = (ended.at.as_secs_f64(), ended.cause.to_string());
                observer.call1(py, ("ended", at, cause))
            }
            _ => return,
        };
        if let Err(error) = told {
            error.write_unraisable(py, None);
        }
    });
}

/// A call that was placed and is over, as its caller saw it.
#[pyclass(frozen, module = "audiosocket.testing")]
pub(crate) struct PlacedCall(CallRecord);

#[pymethods]
impl PlacedCall {
    /// The samples that were heard, all of them.
    #[getter]
    fn heard<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        to_bytes(py, self.0.heard_samples())
    }

    /// The samples that were said.
    #[getter]
    fn sent<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        to_bytes(py, self.0.sent_samples())
    }

    /// How long it lasted, in seconds.
    #[getter]
    fn duration(&self) -> f64 {
        self.0.ended.at.as_secs_f64()
    }

    /// How it ended, in words.
    #[getter]
    fn ended(&self) -> String {
        self.0.ended.cause.to_string()
    }

    /// Whether the server did something that an Asterisk punishes.
    #[getter]
    fn is_fault(&self) -> bool {
        self.0.ended.cause.is_fault()
    }

    /// How late the latest frame came, in milliseconds, against the best schedule of 20 ms.
    #[getter]
    fn worst_lateness_ms(&self) -> f64 {
        let latest = self.0.lateness().into_iter().max().unwrap_or_default();
        latest.max(0) as f64 / 1e6
    }

    /// How much of these samples was heard, bit for bit, as a share from 0 to 1.
    fn share_heard(&self, samples: &Bound<'_, PyAny>) -> PyResult<f64> {
        let samples = samples_of(samples)?;
        Ok(share(&self.0.find(&samples), samples.len()))
    }

    /// When the first of these samples was heard, in seconds, if any was.
    fn first_heard(&self, samples: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
        let runs = self.0.find(&samples_of(samples)?);
        Ok(runs.first().map(|run| self.heard_at(run.heard)))
    }

    /// The median delay of what came back of what was said, in milliseconds, if anything did.
    #[getter]
    fn echo_delay_ms(&self) -> Option<f64> {
        let mut delays: Vec<Duration> = self.0.echo_delays().iter().map(|it| it.delay).collect();
        delays.sort_unstable();
        let median = delays.get(delays.len() / 2)?;
        Some(median.as_secs_f64() * 1e3)
    }

    fn __repr__(&self) -> String {
        format!(
            "<audiosocket.testing.PlacedCall of {:.1} s: {}>",
            self.duration(),
            self.0.ended.cause
        )
    }
}

impl PlacedCall {
    fn heard_at(&self, sample: usize) -> f64 {
        let mut begin = 0;
        for heard in &self.0.heard {
            let samples = usize::from(heard.bytes) / 2;
            if sample < begin + samples {
                let inside = heard.rate.duration((sample - begin) as u64);
                return (heard.at + inside).as_secs_f64();
            }
            begin += samples;
        }
        self.duration()
    }
}

fn share(runs: &[Run], of: usize) -> f64 {
    let found: usize = runs.iter().map(|run| run.length).sum();
    // What repeats itself may be found more than once.
    (found as f64 / of.max(1) as f64).min(1.0)
}

/// A greeting, without words, at 8 kHz.
#[pyfunction]
pub(crate) fn greeting(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
    to_bytes(py, &tone::greeting(RATE))
}

/// Something like a voice, at 8 kHz.
#[pyfunction]
pub(crate) fn voice(py: Python<'_>, seconds: f64) -> PyResult<Bound<'_, PyBytes>> {
    to_bytes(py, &tone::caller_voice(RATE, duration(seconds)?, 7))
}
