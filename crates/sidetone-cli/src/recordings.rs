//! `--record`: every call in a file, and what became of it told.

use std::{path::Path, sync::Arc};

use sidetone::{
    Call,
    record::{RecordError, Recorder, Recording},
};

use crate::{
    afterwards::Afterwards,
    events::Event,
    failure::{Failure, with_sources},
    report::Teller,
};

/// The recordings of a server.
pub(crate) struct Recordings {
    recorder: Arc<Recorder>,
    teller: Teller,
    /// Each waits for the end of one.
    tellers: Afterwards,
}

impl Recordings {
    /// A recorder that can write, so that nothing is served if it can't.
    pub(crate) fn prepare(directory: &Path) -> Result<Recorder, Failure> {
        Recorder::new(directory).map_err(|error| Failure::new(with_sources(&error)))
    }

    pub(crate) fn new(recorder: Recorder, teller: Teller) -> Self {
        Self {
            recorder: Arc::new(recorder),
            teller,
            tellers: Afterwards::default(),
        }
    }

    /// Records this call to its end.
    pub(crate) fn begin(&self, call: &Call) {
        match self.recorder.record(&call.handle()) {
            Ok(recording) => self.tellers.spawn(tell(recording, self.teller.clone())),
            // There is nothing to record.
            Err(RecordError::CallOver) => {}
            Err(error) => self.teller.tell(Event::Recorded {
                id: call.id(),
                files: Vec::new(),
                duration_ms: 0,
                lost_frames: 0,
                surplus_ms: 0,
                failure: Some(error.to_string()),
            }),
        }
    }

    /// Waits until all files are whole and that has been told.
    pub(crate) async fn finish(&self) {
        let recorder = Arc::clone(&self.recorder);
        // If it panicked, the files stay .part, which their tellers say.
        let _ = tokio::task::spawn_blocking(move || recorder.finish()).await;
        self.tellers.finish().await;
    }
}

async fn tell(recording: Recording, teller: Teller) {
    let report = recording.ended().await;
    teller.tell(Event::Recorded {
        id: recording.call(),
        files: report.files,
        duration_ms: report.duration.as_millis() as u64,
        lost_frames: report.lost_frames,
        surplus_ms: (report.caller.discarded + report.server.discarded).as_millis() as u64,
        failure: report.failure,
    });
}
