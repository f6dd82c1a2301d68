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
    file::{self, Disk, Output},
    timeline::Timeline,
    track::Counts,
};
use crate::{
    call::CallHandle,
    media::{Side, Tap, TapBuffer, clock},
};

/// How often every tap is emptied.
const TURN: Duration = Duration::from_millis(100);

/// Files that are begun in a turn although it takes too long by then: those that are open go first, as their calls would lose
/// audio.
const BEGUN_LATE: usize = 32;

/// A file is made whole every so many turns. With what the timeline holds back, a kill costs 550 ms.
const CHECKPOINT_EVERY: u64 = 2;

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
    tap: Arc<Tap>,
    open: Option<Open>,
    report: watch::Sender<Report>,
}

struct Open {
    hz: u32,
    timeline: Timeline,
    output: Output,
}

/// What the jobs use in turn.
struct Context {
    disk: Disk,
    buffer: TapBuffer,
    frames: Vec<i16>,
}

/// How far a job is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Gather,
    Checkpoint,
    Finish,
}

/// Writes all recordings until it is told to finish.
pub(super) fn run(disk: Disk, commands: &Receiver<Command>) {
    let mut context = Context {
        disk,
        buffer: TapBuffer::default(),
        frames: Vec::new(),
    };
    let mut jobs: Vec<Box<Job>> = Vec::new();
    let mut turns: u64 = 0;
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
        turns += 1;
        due = clock::now() + TURN;
        // Not all files in the same turn.
        let mut nth = turns;
        let mut begun_late = 0;
        jobs.retain_mut(|job| {
            nth += 1;
            if job.open.is_none() && clock::now() >= due {
                begun_late += 1;
                if begun_late > BEGUN_LATE {
                    return true;
                }
            }
            let checkpoint = nth.is_multiple_of(CHECKPOINT_EVERY);
            let turn = if checkpoint {
                Turn::Checkpoint
            } else {
                Turn::Gather
            };
            job.turn(turn, &mut context)
        });
    }
    for job in &mut jobs {
        job.turn(Turn::Finish, &mut context);
    }
}

impl Job {
    pub(super) fn new(call: CallHandle, tap: Arc<Tap>, report: watch::Sender<Report>) -> Self {
        Self {
            call,
            tap,
            open: None,
            report,
        }
    }

    /// Takes what has come and writes what is due; false when the recording is over.
    fn turn(&mut self, turn: Turn, context: &mut Context) -> bool {
        // In this order: what came before the end is in the tap when the end is seen.
        let over = turn == Turn::Finish || self.tap.is_closed() || self.call.ended().is_some();
        let now = clock::now();
        let turn = if over { Turn::Finish } else { turn };
        match self.advance(now, turn, context) {
            Ok(()) if turn == Turn::Finish => self.finish(None),
            Ok(()) => return true,
            Err(error) => self.finish(Some(error)),
        }
        false
    }

    fn advance(&mut self, now: Time, turn: Turn, context: &mut Context) -> io::Result<()> {
        if self.open.is_none() {
            self.open(now, turn, &context.disk)?;
        }
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        self.tap.take(&mut context.buffer);
        for (piece, samples) in context.buffer.frames() {
            open.timeline.put(piece.side, piece.rate, piece.at, samples);
        }
        let lost = context.buffer.lost();
        if lost > 0 {
            self.report.send_modify(|report| report.lost_frames += lost);
        }
        if turn == Turn::Gather {
            return Ok(());
        }
        context.frames.clear();
        let first = match turn {
            Turn::Finish => open.timeline.finish(&mut context.frames),
            _ => open.timeline.take(now, &mut context.frames),
        };
        open.output.write(&context.disk, first, &context.frames)?;
        open.output.checkpoint()?;
        let end = first + context.frames.len() as u64 / 2;
        self.report.send_modify(|report| open.describe(end, report));
        Ok(())
    }

    /// Begins the file once its rate is known.
    fn open(&mut self, now: Time, turn: Turn, disk: &Disk) -> io::Result<()> {
        let (start, rate) = match self.tap.first_audio() {
            Some((start, _, Some(caller))) => (start, caller),
            Some((start, server, None)) if now - start >= RATE_WAIT => (start, server),
            Some((start, server, None)) if turn == Turn::Finish => (start, server),
            None if turn == Turn::Finish => (now, Rate::default()),
            _ => return Ok(()),
        };
        let hz = rate.hz();
        let began = OffsetDateTime::now_utc() - (now - start);
        let stem = file::stem(began, self.call.id());
        self.open = Some(Open {
            hz,
            timeline: Timeline::new(hz, start),
            output: Output::create(disk, stem, hz)?,
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
            (Some(open), failure) => (open.output.remove_empty(), failure),
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
        self.report.send_modify(|report| {
            report.files = files;
            report.failure = failure;
            report.ended = true;
        });
        self.say_what_was_lost();
    }

    fn say_what_was_lost(&self) {
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
        } else if report.lost_frames > 0 || !report.surplus().is_zero() {
            tracing::warn!(
                target: "sidetone::record",
                call = %id,
                files = ?report.files,
                lost_frames = report.lost_frames,
                surplus_ms = report.surplus().as_millis() as u64,
                "the recording has lost audio; lost frames come of a disk that is too slow, surplus of a caller that sends faster than real time"
            );
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.tap.close();
    }
}

impl Open {
    /// Brings the report up to date.
    fn describe(&self, end: u64, report: &mut Report) {
        let duration =
            |samples: u64| Duration::from_nanos(samples * 1_000_000_000 / u64::from(self.hz));
        let side = |counts: Counts| SideReport {
            missing: duration(counts.missing),
            added: duration(counts.added),
            removed: duration(counts.removed),
            surplus: duration(counts.surplus),
        };
        report.duration = duration(end);
        report.caller = side(self.timeline.counts(Side::Caller));
        report.server = side(self.timeline.counts(Side::Server));
        if !self.output.files().eq(report.files.iter()) {
            report.files = self.output.files().map(Into::into).collect();
        }
    }
}
