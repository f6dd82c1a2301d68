//! `--record`: every call in a file, and what became of it told.

use std::{path::Path, sync::Arc};

use sidetone::{
    Call,
    record::{Recorder, Recording},
};

use crate::{afterwards::Afterwards, events::Event, failure::Failure, report::Teller};

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
        Recorder::new(directory).map_err(Failure::new)
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
        // It fails only if the recorder has finished, which it does after the last call.
        if let Ok(recording) = self.recorder.record(&call.handle()) {
            self.tellers.spawn(tell(recording, self.teller.clone()));
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
        surplus_ms: (report.caller.surplus + report.server.surplus).as_millis() as u64,
        failure: report.failure,
    });
}
