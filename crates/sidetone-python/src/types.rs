//! Instances of the classes in `python/audiosocket/_types.py`.

use pyo3::{
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyType},
};
use sidetone::{
    CallError, CallStats, Codec, CodecNotice, EndReason, Heard, OwnedEvent, ServerStats,
    record::Report,
};

use crate::{
    call::Mark,
    errors::{
        AsteriskFrameForwardError, AsteriskMemoryAllocError, AudioSocketError, AudioSocketReadError,
    },
    samples::to_bytes,
};

/// Makes an instance of a class, from positional arguments.
macro_rules! make {
    ($py:expr, $class:literal, $arguments:expr) => {{
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        CLASS
            .import($py, "audiosocket._types", $class)
            .and_then(|class| class.call1($arguments))
            .map(Bound::unbind)
    }};
}

pub(crate) fn event(py: Python<'_>, event: OwnedEvent) -> PyResult<Py<PyAny>> {
    match event {
        OwnedEvent::Audio(frame) => {
            let data = to_bytes(py, frame.samples())?;
            let (offset, arrived) = (frame.offset().as_secs_f64(), frame.arrived().as_secs_f64());
            make!(py, "Audio", (data, frame.rate().hz(), offset, arrived))
        }
        OwnedEvent::Dtmf(digit) => make!(py, "Dtmf", (digit,)),
        OwnedEvent::MarkReached(mark) => make!(py, "MarkReached", (Mark(mark),)),
        OwnedEvent::PlaybackDrained => make!(py, "PlaybackDrained", ()),
        OwnedEvent::Underrun => make!(py, "Underrun", ()),
        OwnedEvent::NoAudio { offset, duration } => {
            make!(
                py,
                "NoAudio",
                (offset.as_secs_f64(), duration.as_secs_f64())
            )
        }
        OwnedEvent::Lagged { frames } => make!(py, "Lagged", (frames,)),
        OwnedEvent::Codec(notice) => {
            let codec = match notice {
                CodecNotice::Decided(codec) => Some(codec_name(codec)),
                _ => None,
            };
            make!(py, "CodecNotice", (notice.to_string(), codec))
        }
        OwnedEvent::Error(error) => make!(py, "CallError", (call_error(&error).into_value(py),)),
        OwnedEvent::Closing(notice) => {
            make!(
                py,
                "Closing",
                (notice.reason.name(), notice.remaining.as_secs_f64())
            )
        }
        OwnedEvent::Ended(reason) => ended(py, reason),
        // What the library adds, this module has to know.
        other => Err(AudioSocketError::new_err(format!(
            "an event without a class: {other:?}"
        ))),
    }
}

pub(crate) fn ended(py: Python<'_>, reason: EndReason) -> PyResult<Py<PyAny>> {
    make!(
        py,
        "Ended",
        (reason.name(), reason.by().to_string(), reason.to_string())
    )
}

pub(crate) fn heard(py: Python<'_>, heard: Heard) -> PyResult<Py<PyAny>> {
    let millis = |duration: std::time::Duration| duration.as_secs_f64() * 1_000.0;
    make!(py, "Heard", (millis(heard.heard), millis(heard.unheard)))
}

pub(crate) fn report(py: Python<'_>, report: Report) -> PyResult<Py<PyAny>> {
    let files: Vec<String> = report
        .files
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    make!(
        py,
        "RecordingReport",
        (
            files,
            report.duration.as_secs_f64(),
            report.paused.as_secs_f64(),
            report.lost_frames,
            report.failure
        )
    )
}

pub(crate) fn call_stats(py: Python<'_>, stats: CallStats) -> PyResult<Py<PyAny>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let counters = stats.counters;
    let fields = PyDict::new(py);
    fields.set_item("duration", stats.duration.as_secs_f64())?;
    fields.set_item("rate", stats.rate.hz())?;
    fields.set_item("codec", codec_name(stats.codec))?;
    fields.set_item("buffered", stats.buffered.as_secs_f64())?;
    fields.set_item("handler_lag", stats.handler_lag.as_secs_f64())?;
    fields.set_item("lagged", stats.lagged)?;
    fields.set_item("frames_in", counters.frames_in)?;
    fields.set_item("frames_out", counters.frames_out)?;
    fields.set_item("underruns", counters.underruns)?;
    fields.set_item("live_dropped", counters.live_dropped)?;
    fields.set_item("gaps", counters.gaps)?;
    fields.set_item("worst_lateness", counters.worst_lateness.as_secs_f64())?;
    fields.set_item("caller_dbfs", stats.caller_dbfs)?;
    fields.set_item("server_dbfs", stats.server_dbfs)?;
    let class = CLASS.import(py, "audiosocket._types", "CallStats")?;
    Ok(class.call((), Some(&fields))?.unbind())
}

pub(crate) fn server_stats(py: Python<'_>, all: &[ServerStats]) -> PyResult<Py<PyAny>> {
    let sum = |count: fn(&ServerStats) -> usize| all.iter().map(count).sum::<usize>();
    make!(
        py,
        "ServerStats",
        (
            sum(|stats| stats.connections),
            sum(|stats| stats.calls),
            sum(|stats| stats.running),
            sum(|stats| stats.rejected),
            sum(|stats| stats.without_identity),
            all.iter().all(|stats| stats.io_uring)
        )
    )
}

/// The exception that stands for an error of a call.
fn call_error(error: &CallError) -> PyErr {
    let message = error.to_string();
    match error {
        CallError::FrameForwarding => AsteriskFrameForwardError::new_err(message),
        CallError::Memory => AsteriskMemoryAllocError::new_err(message),
        CallError::UnexpectedPayload { .. } => AudioSocketReadError::new_err(message),
        CallError::Connection(source) => PyErr::from(std::io::Error::new(
            source.kind(),
            format!("{message}: {source}"),
        )),
        _ => AudioSocketError::new_err(message),
    }
}

fn codec_name(codec: Codec) -> String {
    codec.to_string()
}
