//! `--record`: records every call into a file of its own, and reports the result.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use sidetone::{
    Call,
    record::{RecordError, Recorder, Recording},
};
use uuid::Uuid;

use crate::{
    background::BackgroundTasks,
    event::{Event, json_line},
    failure::{Failure, with_sources},
    format::{count, file_names},
    output::Reporter,
    sanitize::serialize_paths,
};

/// The recording of a call has ended, usually just after the call.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename = "recorded")]
pub(crate) struct Recorded {
    pub(crate) id: Uuid,
    /// Complete, unless `failure` says otherwise.
    #[serde(serialize_with = "serialize_paths")]
    pub(crate) files: Vec<PathBuf>,
    pub(crate) duration_ms: u64,
    /// Frames that the disk was too slow for. They are silence in the file.
    pub(crate) lost_frames: u64,
    /// Audio that was left out because it came faster than real time.
    pub(crate) surplus_ms: u64,
    pub(crate) failure: Option<String>,
}

impl Event for Recorded {
    fn to_json(&self) -> String {
        json_line(self)
    }

    fn call(&self) -> Option<Uuid> {
        Some(self.id)
    }

    fn text(&self) -> String {
        match &self.failure {
            Some(failure) if self.files.is_empty() => return format!("not recorded: {failure}"),
            Some(failure) => return format!("recorded in part: {failure}"),
            None => {}
        }
        let mut text = format!("recorded in {}", file_names(&self.files));
        if self.lost_frames > 0 {
            let frames = count(self.lost_frames, "frame", "frames");
            text.push_str(&format!("; the disk was too slow for {frames}"));
        }
        if self.surplus_ms > 0 {
            let seconds = self.surplus_ms as f64 / 1000.0;
            text.push_str(&format!(
                "; {seconds:.1} s were left out because they came faster than real time"
            ));
        }
        text
    }

    fn is_always_shown(&self) -> bool {
        true
    }
}

/// The recordings of a server.
pub(crate) struct Recordings {
    recorder: Arc<Recorder>,
    reporter: Reporter,
    /// Each waits for the end of one recording and reports it.
    reports: BackgroundTasks,
}

impl Recordings {
    /// Checks that the directory can be written to, before the server listens.
    pub(crate) fn prepare(directory: &Path) -> Result<Recorder, Failure> {
        Recorder::new(directory).map_err(|error| Failure::new(with_sources(&error)))
    }

    pub(crate) fn new(recorder: Recorder, reporter: Reporter) -> Self {
        Self {
            recorder: Arc::new(recorder),
            reporter,
            reports: BackgroundTasks::default(),
        }
    }

    /// Records the call until it ends.
    pub(crate) fn start(&self, call: &Call) {
        match self.recorder.record(&call.handle()) {
            Ok(recording) => self
                .reports
                .spawn(report_end(recording, self.reporter.clone())),
            // There is nothing to record.
            Err(RecordError::CallOver) => {}
            Err(error) => self.reporter.report(Recorded {
                id: call.id(),
                files: Vec::new(),
                duration_ms: 0,
                lost_frames: 0,
                surplus_ms: 0,
                failure: Some(error.to_string()),
            }),
        }
    }

    /// Waits until all files are complete and reported.
    pub(crate) async fn finish(&self) {
        let recorder = Arc::clone(&self.recorder);
        // If it panics, the files stay `.part`, and their reports say so.
        let _ = tokio::task::spawn_blocking(move || recorder.finish()).await;
        self.reports.join_all().await;
    }
}

async fn report_end(recording: Recording, reporter: Reporter) {
    let report = recording.ended().await;
    reporter.report(Recorded {
        id: recording.call(),
        files: report.files,
        duration_ms: report.duration.as_millis() as u64,
        lost_frames: report.lost_frames,
        surplus_ms: (report.caller.discarded + report.server.discarded).as_millis() as u64,
        failure: report.failure,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_that_failed_is_not_reported_as_complete() {
        let text = |failure: Option<&str>| {
            let event = Recorded {
                id: Uuid::nil(),
                files: vec!["dir/call.wav".into()],
                duration_ms: 1000,
                lost_frames: 0,
                surplus_ms: 0,
                failure: failure.map(Into::into),
            };
            event.lines().join("\n")
        };
        assert_eq!(text(None), "00000000  recorded in call.wav");
        assert!(text(Some("the disk is full")).contains("in part: the disk is full"));
    }
}
