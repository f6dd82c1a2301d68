//! Sound without calls: G.711, rates, voice activity, clips.

use std::{path::PathBuf, time::Duration};

use parking_lot::Mutex;
use pyo3::{exceptions::PyValueError, prelude::*, types::PyBytes};
use sidetone::{
    Clip as Sound,
    vad::{VoiceDetector as Detector, VoiceEvent},
};
use sidetone_audio::{
    g711::Law,
    resample::{Resampler as Converter, resample_clip},
};

use crate::{
    errors::SoundError,
    samples::{samples_of, to_bytes},
};

/// Linear samples as µ-law: a byte for each.
#[pyfunction]
pub(crate) fn encode_ulaw<'py>(samples: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    encode(Law::Ulaw, samples)
}

/// Linear samples as A-law: a byte for each.
#[pyfunction]
pub(crate) fn encode_alaw<'py>(samples: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    encode(Law::Alaw, samples)
}

/// µ-law as linear samples.
#[pyfunction]
pub(crate) fn decode_ulaw<'py>(py: Python<'py>, codes: Vec<u8>) -> PyResult<Bound<'py, PyBytes>> {
    decode(py, Law::Ulaw, &codes)
}

/// A-law as linear samples.
#[pyfunction]
pub(crate) fn decode_alaw<'py>(py: Python<'py>, codes: Vec<u8>) -> PyResult<Bound<'py, PyBytes>> {
    decode(py, Law::Alaw, &codes)
}

fn encode<'py>(law: Law, samples: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let mut codes = Vec::new();
    law.encode(&samples_of(samples)?, &mut codes);
    Ok(PyBytes::new(samples.py(), &codes))
}

fn decode<'py>(py: Python<'py>, law: Law, codes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let mut samples = Vec::new();
    law.decode(codes, &mut samples);
    to_bytes(py, &samples)
}

/// A whole sound at another rate, from 4 to 384 kHz; its beginning and end stay where they are.
///
/// :raises ValueError: a rate is out of range.
#[pyfunction]
pub(crate) fn resample<'py>(
    py: Python<'py>,
    samples: &Bound<'py, PyAny>,
    from_rate: u32,
    to_rate: u32,
) -> PyResult<Bound<'py, PyBytes>> {
    let samples = samples_of(samples)?;
    let resampled = py.detach(|| resample_clip(&samples, from_rate, to_rate));
    to_bytes(py, &resampled.map_err(unsupported)?)
}

/// Converts a stream of samples to another rate; what comes out is some milliseconds late.
#[pyclass(frozen, module = "audiosocket")]
pub(crate) struct Resampler {
    converter: Mutex<Converter>,
    #[pyo3(get)]
    from_rate: u32,
    #[pyo3(get)]
    to_rate: u32,
}

#[pymethods]
impl Resampler {
    #[new]
    fn new(from_rate: u32, to_rate: u32) -> PyResult<Self> {
        let converter = Converter::new(from_rate, to_rate).map_err(unsupported)?;
        Ok(Self {
            converter: Mutex::new(converter),
            from_rate,
            to_rate,
        })
    }

    /// What can be told of the other rate, given these samples and those before.
    fn process<'py>(&self, samples: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let mut out = Vec::new();
        let samples_in = samples_of(samples)?;
        self.converter.lock().process(&samples_in, &mut out);
        to_bytes(samples.py(), &out)
    }

    /// The rest, at the end of the stream.
    fn flush<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let mut out = Vec::new();
        self.converter.lock().flush(&mut out);
        to_bytes(py, &out)
    }

    fn __repr__(&self) -> String {
        format!(
            "<audiosocket.Resampler {} to {} Hz>",
            self.from_rate, self.to_rate
        )
    }
}

/// Tells speech from silence, in a stream of samples of one rate.
#[pyclass(frozen, module = "audiosocket")]
pub(crate) struct VoiceDetector(Mutex<Detector>);

#[pymethods]
impl VoiceDetector {
    #[new]
    fn new(rate: u32) -> PyResult<Self> {
        let detector = Detector::new(rate).map_err(unsupported)?;
        Ok(Self(Mutex::new(detector)))
    }

    /// What these samples show: that speech started or ended, and when, in seconds from the stream's beginning.
    fn push(&self, samples: &Bound<'_, PyAny>) -> PyResult<Vec<(&'static str, f64)>> {
        let samples = samples_of(samples)?;
        Ok(self.0.lock().push(&samples).map(told).collect())
    }

    /// The same for time in which no audio came, which is silence.
    fn push_silence(&self, seconds: f64) -> PyResult<Vec<(&'static str, f64)>> {
        let duration = duration(seconds)?;
        Ok(self.0.lock().push_silence(duration).map(told).collect())
    }

    #[getter]
    fn is_speaking(&self) -> bool {
        self.0.lock().is_speaking()
    }

    fn __repr__(&self) -> String {
        let state = if self.is_speaking() {
            "speaking"
        } else {
            "silent"
        };
        format!("<audiosocket.VoiceDetector {state}>")
    }
}

fn told(event: VoiceEvent) -> (&'static str, f64) {
    match event {
        VoiceEvent::SpeechStarted { at } => ("started", at.as_secs_f64()),
        VoiceEvent::SpeechEnded { at } => ("ended", at.as_secs_f64()),
    }
}

/// A sound that is prepared once and played by any number of calls.
#[pyclass(frozen, module = "audiosocket")]
pub(crate) struct Clip(pub(crate) Sound);

#[pymethods]
impl Clip {
    #[new]
    #[pyo3(signature = (samples, rate = 8_000))]
    fn new(samples: &Bound<'_, PyAny>, rate: u32) -> PyResult<Self> {
        let samples = samples_of(samples)?;
        let sound = Sound::from_samples(rate, samples);
        sound
            .map(Self)
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// Read a sound file: WAV or AU, of any rate. It blocks while it reads.
    ///
    /// :raises SoundError: the file can't be read; the message says why.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let sound = py.detach(|| Sound::open(path));
        sound
            .map(Self)
            .map_err(|error| SoundError::new_err(error.to_string()))
    }

    /// The same over and over, until it is stopped or cleared.
    fn looped(&self) -> Self {
        Self(self.0.looped())
    }

    /// In seconds.
    #[getter]
    fn duration(&self) -> f64 {
        self.0.duration().as_secs_f64()
    }

    fn __repr__(&self) -> String {
        format!("<audiosocket.Clip of {:.3} s>", self.duration())
    }
}

fn unsupported(error: sidetone::UnsupportedRate) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// In seconds.
pub(crate) fn duration(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| PyValueError::new_err(format!("{seconds} seconds: {error}")))
}
