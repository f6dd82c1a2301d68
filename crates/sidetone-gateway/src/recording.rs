//! The recordings of calls: starting and stopping them, what is written beside them, and the disk that they are on.

mod disk;
mod side_file;

use std::{
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use serde::Serialize;
use sidetone::record::{RecordError, Recorder, Recording, Report};
use tokio::task::JoinSet;

use crate::{call::RunningCall, config, event::GatewayEvent, registry::Registry, with_sources};
use side_file::SideFile;

/// All recordings of a gateway.
#[derive(Debug)]
pub(crate) struct Recordings {
    recorder: Arc<Recorder>,
    dir: PathBuf,
    registry: Weak<Registry>,
    is_short_of_disk: AtomicBool,
    /// Each waits for the end of one recording.
    ends: Mutex<JoinSet<()>>,
}

/// The recording of one call.
#[derive(Debug, Default)]
pub(crate) struct RecordingControl(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    current: Option<Recording>,
    /// How many there have been, the current one included.
    begun: usize,
    reports: Vec<Report>,
}

/// What a recording does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RecordingState {
    Off,
    On,
    Paused,
}

/// Why a call is not recorded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("the disk is almost full, so this call is not recorded: make room, or lower min_free")]
    ShortOfDisk,
    #[error("the call is not being handled yet")]
    NotHandled,
    #[error("not recorded: {}", with_sources(.0))]
    Recorder(#[from] RecordError),
}

impl Recordings {
    pub(crate) fn open(
        settings: &config::Recording,
        registry: &Arc<Registry>,
    ) -> Result<Arc<Self>, RecordError> {
        let recordings = Arc::new(Self {
            recorder: Arc::new(Recorder::new(&settings.dir)?),
            dir: settings.dir.clone(),
            registry: Arc::downgrade(registry),
            is_short_of_disk: AtomicBool::new(false),
            ends: Mutex::default(),
        });
        tokio::spawn(disk::watch(Arc::downgrade(&recordings)));
        Ok(recordings)
    }

    /// Records the call from now on, or from its beginning if it has just begun. Goes on if it is paused.
    pub(crate) fn start(self: &Arc<Self>, call: &Arc<RunningCall>) -> Result<(), StartError> {
        let mut state = call.recording.0.lock();
        if let Some(current) = &state.current {
            current.resume();
            return Ok(());
        }
        if self.is_short_of_disk() {
            return Err(StartError::ShortOfDisk);
        }
        let handle = call.handle().ok_or(StartError::NotHandled)?;
        let recording = self.recorder.record(handle)?;
        state.current = Some(recording.clone());
        state.begun += 1;
        let number = state.begun;
        drop(state);
        let end = Arc::clone(self).end(recording, number, Arc::clone(call));
        self.ends.lock().spawn(end);
        Ok(())
    }

    /// Waits for the end of a recording, writes its side file and reports it.
    async fn end(self: Arc<Self>, recording: Recording, number: usize, call: Arc<RunningCall>) {
        self.write_side_file(&call).await;
        let report = recording.ended().await;
        {
            let mut state = call.recording.0.lock();
            // Another one may have begun since this one was stopped.
            if state.begun == number {
                state.current = None;
            }
            state.reports.push(report.clone());
        }
        self.write_side_file(&call).await;
        let Some(registry) = self.registry.upgrade() else {
            return;
        };
        registry.bus.publish(GatewayEvent::RecordingEnded {
            call: Arc::clone(&call.context),
            report: Box::new(report),
        });
    }

    async fn write_side_file(&self, call: &RunningCall) {
        let side_file = SideFile::of(call, &call.recording.0.lock().reports);
        let dir = self.dir.clone();
        let written = tokio::task::spawn_blocking(move || side_file.write(&dir)).await;
        if let Ok(Err(error)) = written
            && let Some(registry) = self.registry.upgrade()
        {
            registry.bus.publish(GatewayEvent::CallNotice {
                call: Arc::clone(&call.context),
                text: format!(
                    "can't write what is known of the call beside its recording: {error}"
                ),
            });
        }
    }

    pub(crate) fn is_short_of_disk(&self) -> bool {
        self.is_short_of_disk.load(Ordering::Relaxed)
    }

    /// Recordings whose end is not reported yet.
    pub(crate) fn open_count(&self) -> usize {
        let mut ends = self.ends.lock();
        while ends.try_join_next().is_some() {}
        ends.len()
    }

    /// Completes all files, when the calls are over.
    pub(crate) async fn finish(&self) {
        let recorder = Arc::clone(&self.recorder);
        // If it panics, the files stay `.part`, and their reports say so.
        let _ = tokio::task::spawn_blocking(move || recorder.finish()).await;
        let mut ends = std::mem::take(&mut *self.ends.lock());
        while ends.join_next().await.is_some() {}
    }
}

impl RecordingControl {
    pub(crate) fn state(&self) -> RecordingState {
        let state = self.0.lock();
        match &state.current {
            None => RecordingState::Off,
            Some(current) if current.is_paused() => RecordingState::Paused,
            Some(_) => RecordingState::On,
        }
    }

    /// Writes silence from now on. False if the call is not recorded.
    pub(crate) fn pause(&self) -> bool {
        match &self.0.lock().current {
            Some(current) => {
                current.pause();
                true
            }
            None => false,
        }
    }

    /// Completes the file. False if the call is not recorded.
    pub(crate) fn stop(&self) -> bool {
        match self.0.lock().current.take() {
            Some(current) => {
                current.stop();
                true
            }
            None => false,
        }
    }
}
