//! Checks whether the caller of the demonstration heard what it should.

use std::time::Duration;

use sidetone_audio::level::rms_dbfs;
use sidetone_caller::CallRecord;

use super::script::{FILE, SPEAKS_AT, greeting, samples_in, voice};
use crate::{
    correlate::{Found, find},
    failure::Outcome,
};

/// The correlation from which on a sound counts as heard.
const MIN_CORRELATION: f64 = 0.9;
/// The echo is searched in pieces of this length, as live audio may skip a frame on a busy machine.
const PIECE: Duration = Duration::from_millis(160);
/// Pieces below this level are pauses, in dBFS.
const MIN_SPEECH_DBFS: f32 = -40.0;
/// The echo of a piece is searched up to this long after the piece was said …
const MAX_DELAY: Duration = Duration::from_millis(600);
/// … and up to this long before, as frames that the server skipped in a stall are missing in what was heard.
const MAX_SKIPPED: Duration = Duration::from_millis(400);

/// What the caller's record shows.
#[derive(Debug)]
pub(super) struct Results {
    greeting: Option<Found>,
    greeting_at: Duration,
    echo: Echo,
    worst_lateness: Duration,
    frames: usize,
    length: Duration,
    fault: Option<String>,
}

/// The caller's voice as it came back.
#[derive(Debug, Default)]
struct Echo {
    /// The median of its pieces.
    correlation: f64,
    delay: Duration,
}

impl Results {
    pub(super) fn of(record: &CallRecord) -> Self {
        let heard = record.heard_samples();
        let until_speaking = heard.len().min(samples_in(SPEAKS_AT));
        let greeting = find(&greeting(), &heard[..until_speaking]);
        let late = record.lateness().into_iter().max().unwrap_or_default();
        Self {
            greeting,
            greeting_at: greeting.map_or(Duration::ZERO, |found| received_at(record, found.at)),
            echo: Echo::of(record),
            worst_lateness: Duration::from_nanos(late.max(0) as u64),
            frames: record.heard.len(),
            length: record.ended.at,
            fault: record
                .ended
                .cause
                .is_fault()
                .then(|| record.ended.cause.to_string()),
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        Outcome::of(self.greeting_heard() && self.echo_heard() && self.fault.is_none())
    }

    /// The figures, for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mark = |good: bool| if good { "heard" } else { "NOT HEARD" };
        let mut lines = vec![
            String::new(),
            format!(
                "  greeting   {:9}  correlation {:.3}, started after {:.0} ms",
                mark(self.greeting_heard()),
                self.greeting.map_or(0.0, |found| found.correlation),
                self.greeting_at.as_secs_f64() * 1000.0
            ),
            format!(
                "  echo       {:9}  correlation {:.3}, delay {:.0} ms",
                mark(self.echo_heard()),
                self.echo.correlation,
                self.echo.delay.as_secs_f64() * 1000.0
            ),
            format!(
                "  timing     {:9}  {} frames of 20 ms, the latest {:.1} ms late",
                "",
                self.frames,
                self.worst_lateness.as_secs_f64() * 1000.0
            ),
            format!(
                "  {FILE}   {:9}  caller on the left, server on the right, {:.1} s",
                "",
                self.length.as_secs_f64()
            ),
        ];
        if let Some(fault) = &self.fault {
            lines.insert(1, format!("  the call failed: {fault}"));
        }
        lines
    }

    fn greeting_heard(&self) -> bool {
        self.greeting
            .is_some_and(|found| found.correlation >= MIN_CORRELATION)
    }

    fn echo_heard(&self) -> bool {
        self.echo.correlation >= MIN_CORRELATION
    }
}

impl Echo {
    /// Finds each piece of the voice near its place. The median counts: on a busy machine a stall damages some pieces,
    /// but a server that does not echo damages all of them.
    fn of(record: &CallRecord) -> Self {
        let (voice, heard) = (voice(), record.heard_samples());
        let (mut correlations, mut delays) = (Vec::new(), Vec::new());
        for (place, piece) in voice.chunks_exact(samples_in(PIECE)).enumerate() {
            if rms_dbfs(piece) < MIN_SPEECH_DBFS {
                continue;
            }
            let sent = samples_in(SPEAKS_AT) + place * piece.len();
            let from = sent
                .saturating_sub(samples_in(MAX_SKIPPED))
                .min(heard.len());
            let to = (sent + piece.len() + samples_in(MAX_DELAY)).min(heard.len());
            let found = find(piece, &heard[from..to]);
            correlations.push(found.map_or(0.0, |found| found.correlation));
            if let Some(found) = found {
                let received = received_at(record, from + found.at);
                delays.push(received.saturating_sub(sent_at(record, sent)));
            }
        }
        correlations.sort_unstable_by(f64::total_cmp);
        delays.sort_unstable();
        Self {
            correlation: median(&correlations),
            delay: median(&delays),
        }
    }
}

/// The median of sorted values.
fn median<T: Copy + Default>(sorted: &[T]) -> T {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// When a sample was received, from the start of the call.
fn received_at(record: &CallRecord, sample: usize) -> Duration {
    let mut start = 0;
    for message in &record.heard {
        if sample < start + message.samples() {
            return message.at + message.rate.duration((sample - start) as u64);
        }
        start += message.samples();
    }
    record.ended.at
}

/// When a sample was sent, from the start of the call.
fn sent_at(record: &CallRecord, sample: usize) -> Duration {
    let mut start = 0;
    for frame in &record.sent {
        if sample < start + frame.samples {
            return frame.at + record.codec.rate().duration((sample - start) as u64);
        }
        start += frame.samples;
    }
    record.ended.at
}
