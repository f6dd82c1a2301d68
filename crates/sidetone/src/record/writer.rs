use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use sidetone_proto::{Rate, Time};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{
    Report, SideReport,
    control::{Control, Pause, PauseFilter},
    file::{self, Output, Storage},
    timeline::Timeline,
    track::Counts,
};
use crate::{
    call::CallHandle,
    media::{Side, Tap, TapBuffer, TapFrame, clock},
};

/// How often every tap is emptied.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Files opened per round once it takes too long. Open files go first, as their calls would lose audio.
const MAX_LATE_OPENS: usize = 32;

/// A file is made whole every so many polls. With what the timeline holds back, a kill costs 550 ms.
const POLLS_PER_CHECKPOINT: u64 = 2;

/// The caller's rate is waited for so long; after that the file has the rate of what there is.
const RATE_WAIT: Duration = Duration::from_millis(200);

/// What the thread is asked to do.
pub(super) enum Command {
    Record(Box<Job>),
    /// End all recordings, and the thread.
    Finish,
}

/// One call's recording, on the thread that writes it.
pub(super) struct Job {
    call: CallHandle,
    /// What its file is to be called.
    name: Option<String>,
    tap: Arc<Tap>,
    control: Arc<Control>,
    filter: PauseFilter,
    open: Option<OpenFile>,
    report: watch::Sender<Report>,
}

struct OpenFile {
    hz: u32,
    timeline: Timeline,
    output: Output,
}

/// What the jobs use in turn.
struct Context {
    storage: Storage,
    buffer: TapBuffer,
    pauses: Vec<Pause>,
    frames: Vec<i16>,
}

/// How far a job is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Gather,
    Checkpoint,
    Finish,
}

/// Writes all recordings until it is told to finish.
pub(super) fn run(storage: Storage, commands: &Receiver<Command>) {
    let mut context = Context {
        storage,
        buffer: TapBuffer::default(),
        pauses: Vec::new(),
        frames: Vec::new(),
    };
    let mut jobs: Vec<Box<Job>> = Vec::new();
    let mut polls: u64 = 0;
    let mut due = clock::now();
    loop {
        let command = if jobs.is_empty() {
            commands.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            commands.recv_timeout(due - clock::now())
        };
        match command {
            Ok(Command::Record(job)) => {
                jobs.push(job);
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Command::Finish) | Err(RecvTimeoutError::Disconnected) => break,
        }
        polls += 1;
        due = clock::now() + POLL_INTERVAL;
        // Not all files in the same turn.
        let mut nth = polls;
        let mut late_opens = 0;
        jobs.retain_mut(|job| {
            nth += 1;
            if job.open.is_none() && clock::now() >= due {
                late_opens += 1;
                if late_opens > MAX_LATE_OPENS {
                    return true;
                }
            }
            let checkpoint = nth.is_multiple_of(POLLS_PER_CHECKPOINT);
            let step = if checkpoint {
                Step::Checkpoint
            } else {
                Step::Gather
            };
            job.step(step, &mut context)
        });
    }
    for job in &mut jobs {
        job.step(Step::Finish, &mut context);
    }
}

impl Job {
    pub(super) fn new(
        call: CallHandle,
        name: Option<String>,
        tap: Arc<Tap>,
        control: Arc<Control>,
        report: watch::Sender<Report>,
    ) -> Self {
        Self {
            call,
            name,
            tap,
            control,
            filter: PauseFilter::default(),
            open: None,
            report,
        }
    }

    /// Takes what has come and writes what is due; false when the recording is over.
    fn step(&mut self, step: Step, context: &mut Context) -> bool {
        // In this order: what came before the end is in the tap when the end is seen.
        let over = step == Step::Finish
            || self.control.is_stopped()
            || self.tap.is_closed()
            || self.call.ended().is_some();
        let now = clock::now();
        let step = if over { Step::Finish } else { step };
        match self.advance(now, step, context) {
            Ok(()) if step == Step::Finish => self.finish(None),
            Ok(()) => return true,
            Err(error) => self.finish(Some(error)),
        }
        false
    }

    fn advance(&mut self, now: Time, step: Step, context: &mut Context) -> io::Result<()> {
        if self.open.is_none() {
            self.open(now, step, &context.storage)?;
        }
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        self.tap.take(&mut context.buffer);
        let began = self.call.started_at();
        let stopped = self.control.read(&mut context.pauses);
        let is_recorded = |piece: &TapFrame| stopped.is_none_or(|stopped| piece.at < stopped);
        for (piece, samples) in context.buffer.frames() {
            let samples = self.filter.apply(&context.pauses, began, &piece, samples);
            if is_recorded(&piece) {
                open.timeline.put(piece.side, piece.rate, piece.at, samples);
            }
        }
        self.control.forget_before(now);
        let lost = context.buffer.lost();
        if lost > 0 {
            self.report.send_modify(|report| report.lost_frames += lost);
        }
        if step == Step::Gather {
            return Ok(());
        }
        context.frames.clear();
        let first = match step {
            Step::Finish => open.timeline.finish(&mut context.frames),
            _ => open.timeline.take(now, &mut context.frames),
        };
        open.output
            .write(&context.storage, first, &context.frames)?;
        open.output.checkpoint()?;
        let end = first + context.frames.len() as u64 / 2;
        self.report
            .send_modify(|report| open.update_report(end, report));
        Ok(())
    }

    /// Begins the file once its rate is known.
    fn open(&mut self, now: Time, step: Step, storage: &Storage) -> io::Result<()> {
        let (start, rate) = match self.tap.first_audio() {
            Some((start, _, Some(caller))) => (start, caller),
            Some((start, server, None)) if now - start >= RATE_WAIT => (start, server),
            Some((start, server, None)) if step == Step::Finish => (start, server),
            None if step == Step::Finish => (now, Rate::default()),
            _ => return Ok(()),
        };
        let hz = rate.hz();
        let started_at = OffsetDateTime::now_utc() - (now - start);
        let stem = self.name.take();
        let stem = stem.unwrap_or_else(|| file::stem(started_at, self.call.id()));
        self.open = Some(OpenFile {
            hz,
            timeline: Timeline::new(hz, start),
            output: Output::create(storage, stem, hz)?,
        });
        Ok(())
    }

    /// The recording is over, one way or the other.
    fn finish(&mut self, failure: Option<io::Error>) {
        let (mut files, failure) = match (self.open.take(), failure) {
            (Some(open), None) => {
                let files: Vec<_> = open.output.files().map(Into::into).collect();
                match open.output.finish() {
                    Ok(files) => (files, None),
                    Err(error) => (files, Some(error)),
                }
            }
            (Some(open), failure) => (open.output.remove_if_empty(), failure),
            (None, failure) => (Vec::new(), failure),
        };
        let failure = failure.map(|error| {
            let written = files.len();
            files.retain(|file| file.exists());
            match files.len() < written {
                true => format!("{error}: a file was removed before it was whole"),
                false => file::explain(&error),
            }
        });
        // That of the call, if it is over.
        let end = self.call.started_at() + self.call.stats().duration;
        let paused = self.control.end(end);
        self.report.send_modify(|report| {
            report.files = files;
            report.paused = paused;
            report.failure = failure;
            report.ended = true;
        });
        self.log_losses();
    }

    fn log_losses(&self) {
        let report = self.report.borrow();
        let id = self.call.id();
        if let Some(failure) = &report.failure {
            tracing::warn!(
                target: "sidetone::record",
                call = %id,
                files = ?report.files,
                lost_frames = report.lost_frames,
                "the recording ended before its call: {failure}; what was written stays, free or mend the disk for the next one"
            );
        } else if report.lost_frames > 0 || !report.discarded().is_zero() {
            tracing::warn!(
                target: "sidetone::record",
                call = %id,
                files = ?report.files,
                lost_frames = report.lost_frames,
                discarded_ms = report.discarded().as_millis() as u64,
                "the recording has lost audio; lost frames come of a disk that is too slow, discarded of a caller that sends faster than real time"
            );
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.tap.close();
    }
}

impl OpenFile {
    /// Brings the report up to date.
    fn update_report(&self, end: u64, report: &mut Report) {
        let duration =
            |samples: u64| Duration::from_nanos(samples * 1_000_000_000 / u64::from(self.hz));
        let side = |counts: Counts| SideReport {
            missing: duration(counts.missing),
            added: duration(counts.added),
            removed: duration(counts.removed),
            discarded: duration(counts.discarded),
        };
        report.duration = duration(end);
        report.caller = side(self.timeline.counts(Side::Caller));
        report.server = side(self.timeline.counts(Side::Server));
        if !self.output.files().eq(report.files.iter()) {
            report.files = self.output.files().map(Into::into).collect();
        }
    }
}
