//! The recordings of calls, in sound and in words: starting and stopping them, what is written beside them, and the disk that
//! they are on.

mod disk;
mod side_file;
mod transcript;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde::Serialize;
use sidetone::record::{RecordError, Recorder, Recording, Report};
use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
};

use crate::{call::RunningCall, config, event::GatewayEvent, registry::Registry, with_sources};
use side_file::SideFile;
pub(crate) use transcript::Said;
use transcript::{Pauses, TranscriptFile};

/// Transcripts of a call that may wait for the disk: 4 MB at most.
const MAX_WAITING: usize = 256;

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
pub(crate) struct RecordingControl {
    state: Mutex<State>,
    /// Held while the side file is written: by one at a time, so that the last one has all.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Recording>,
    /// How many there have been, the current one included.
    begun: usize,
    reports: Vec<Report>,
    /// Where what is said goes, while it is written down.
    said: Option<mpsc::Sender<Said>>,
    pauses: Pauses,
    /// The name of the file with what was said, when it is complete.
    transcript: Option<String>,
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
        let mut state = call.recording.state.lock();
        if state.current.is_some() {
            drop(state);
            call.recording.resume(call.context.started_at.elapsed());
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
            let mut state = call.recording.state.lock();
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

    /// Writes down what is said from now on, until the call has been handled.
    pub(crate) fn write_down(self: &Arc<Self>, call: &Arc<RunningCall>) -> Result<(), StartError> {
        if self.is_short_of_disk() {
            return Err(StartError::ShortOfDisk);
        }
        let (sender, said) = mpsc::channel(MAX_WAITING);
        call.recording.state.lock().said = Some(sender);
        let write = Arc::clone(self).write_transcript(Arc::clone(call), said);
        self.ends.lock().spawn(write);
        Ok(())
    }

    async fn write_transcript(
        self: Arc<Self>,
        call: Arc<RunningCall>,
        mut said: mpsc::Receiver<Said>,
    ) {
        let (dir, context) = (self.dir.clone(), Arc::clone(&call.context));
        // Each write has a thread for a moment. One for the whole of the call would be one for each call.
        let mut file = blocking(move || TranscriptFile::create(&dir, &context)).await;
        let mut waiting = Vec::new();
        while let Ok(mut open) = file {
            if said.recv_many(&mut waiting, MAX_WAITING).await == 0 {
                file = Ok(open);
                break;
            }
            let lines: String = waiting.drain(..).map(|said| said.line()).collect();
            file = blocking(move || open.append(&lines).map(|()| open)).await;
        }
        let finished = match file {
            Ok(open) => blocking(move || open.finish()).await,
            Err(error) => Err(error),
        };
        match finished {
            Ok(name) => {
                call.recording.state.lock().transcript = Some(name);
                self.write_side_file(&call).await;
            }
            Err(error) => {
                let text = format!("what is said is not written down any more: {error}");
                self.report(&call, text);
            }
        }
    }

    async fn write_side_file(&self, call: &Arc<RunningCall>) {
        let (dir, written) = (self.dir.clone(), Arc::clone(call));
        let written = blocking(move || {
            let _writing = written.recording.writing.lock();
            let side_file = {
                let state = written.recording.state.lock();
                SideFile::of(&written, &state.reports, state.transcript.as_deref())
            };
            side_file.write(&dir)
        });
        if let Err(error) = written.await {
            let text =
                format!("can't write what is known of the call beside its recording: {error}");
            self.report(call, text);
        }
    }

    fn report(&self, call: &RunningCall, text: String) {
        if let Some(registry) = self.registry.upgrade() {
            registry.bus.publish(GatewayEvent::CallNotice {
                call: Arc::clone(&call.context),
                text,
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
        let _ = spawn_blocking(move || recorder.finish()).await;
        let mut ends = std::mem::take(&mut *self.ends.lock());
        while ends.join_next().await.is_some() {}
    }
}

impl RecordingControl {
    pub(crate) fn state(&self) -> RecordingState {
        let state = self.state.lock();
        match &state.current {
            None if state.said.is_none() => RecordingState::Off,
            None if state.pauses.is_paused() => RecordingState::Paused,
            Some(current) if current.is_paused() => RecordingState::Paused,
            _ => RecordingState::On,
        }
    }

    /// Writes silence from now on, and nothing of what is said. `at` is the time on the call's clock. False if the call is not
    /// recorded.
    pub(crate) fn pause(&self, at: Duration) -> bool {
        let mut state = self.state.lock();
        if let Some(current) = &state.current {
            current.pause();
        }
        let is_recorded = state.is_recorded();
        if is_recorded {
            state.pauses.begin(at);
        }
        is_recorded
    }

    /// Goes on after a pause. False if the call is not recorded.
    pub(crate) fn resume(&self, at: Duration) -> bool {
        let mut state = self.state.lock();
        if let Some(current) = &state.current {
            current.resume();
        }
        state.pauses.end(at);
        state.is_recorded()
    }

    /// Completes the files. False if the call is not recorded.
    pub(crate) fn stop(&self) -> bool {
        let mut state = self.state.lock();
        let is_recorded = state.is_recorded();
        state.said = None;
        if let Some(current) = state.current.take() {
            current.stop();
        }
        is_recorded
    }

    /// Writes down what was said, from `since` on at the earliest, if that is wanted and no part of it was in a pause. False if
    /// it is lost.
    pub(crate) fn write_down(&self, said: &Said, since: Duration) -> bool {
        let state = self.state.lock();
        match &state.said {
            Some(_) if state.pauses.touch(since, said.end) => true,
            Some(sender) => {
                let sent = sender.try_send(said.clone());
                // One that is closed has been reported.
                !matches!(sent, Err(mpsc::error::TrySendError::Full(_)))
            }
            None => true,
        }
    }

    /// Nothing more is said.
    pub(crate) fn end_transcript(&self) {
        self.state.lock().said = None;
    }
}

impl State {
    fn is_recorded(&self) -> bool {
        self.current.is_some() || self.said.is_some()
    }
}

/// Does work of the disk on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}
