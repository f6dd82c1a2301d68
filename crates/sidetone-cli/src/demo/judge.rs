//! Whether the caller of the demonstration heard what it should.

use std::time::Duration;

use sidetone_audio::{level::rms_dbfs, tone};
use sidetone_caller::CallRecord;

use super::{FILE, RATE, SPEAKS_AT, samples_in, voice};
use crate::{
    correlate::{Found, find},
    failure::Verdict,
};

/// From this correlation on a sound was heard.
const ENOUGH: f64 = 0.9;
/// The echo is looked for in pieces of this length: a live line may drop a frame on a busy machine.
const PIECE: Duration = Duration::from_millis(160);
/// Pieces below this are pauses, in dBFS.
const SPOKEN: f32 = -40.0;
/// How much later than it was said an echo is looked for, and how much earlier: frames that the server
/// skipped in a stall are missing from what was heard before.
const LATEST: Duration = Duration::from_millis(600);
const EARLIEST: Duration = Duration::from_millis(400);

/// What the record says.
#[derive(Debug)]
pub(super) struct Judgement {
    greeting: Option<Found>,
    greeting_at: Duration,
    echo: Echo,
    worst_lateness: Duration,
    frames: usize,
    length: Duration,
    fault: Option<String>,
}

/// What came back of what was said.
#[derive(Debug, Default)]
struct Echo {
    /// Half of its pieces came back at least so well.
    correlation: f64,
    delay: Duration,
}

impl Judgement {
    pub(super) fn of(record: &CallRecord) -> Self {
        let heard = record.heard_samples();
        let until_speaking = heard.len().min(samples_in(SPEAKS_AT));
        let greeting = find(&tone::greeting(RATE), &heard[..until_speaking]);
        let late = record.lateness().into_iter().max().unwrap_or_default();
        Self {
            greeting,
            greeting_at: greeting.map_or(Duration::ZERO, |found| heard_at(record, found.at)),
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

    pub(super) fn verdict(&self) -> Verdict {
        match self.greeting_heard() && self.echo_heard() && self.fault.is_none() {
            true => Verdict::Good,
            false => Verdict::Bad,
        }
    }

    /// The figures, for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mark = |good: bool| if good { "heard" } else { "NOT HEARD" };
        let mut lines = vec![
            String::new(),
            format!(
                "  greeting   {:9}  correlation {:.3}, began after {:.0} ms",
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
                "  rhythm     {:9}  {} frames of 20 ms, the worst came {:.1} ms late",
                "",
                self.frames,
                self.worst_lateness.as_secs_f64() * 1000.0
            ),
            format!(
                "  {FILE}   {:9}  caller left, server right, {:.1} s",
                "",
                self.length.as_secs_f64()
            ),
        ];
        if let Some(fault) = &self.fault {
            lines.insert(1, format!("  the call died: {fault}"));
        }
        lines
    }

    fn greeting_heard(&self) -> bool {
        self.greeting
            .is_some_and(|found| found.correlation >= ENOUGH)
    }

    fn echo_heard(&self) -> bool {
        self.echo.correlation >= ENOUGH
    }
}

impl Echo {
    /// Finds each piece of the voice about where it should be. The middle one counts: a stall of a busy
    /// machine costs some pieces, a server that does not echo all of them.
    fn of(record: &CallRecord) -> Self {
        let (voice, heard) = (voice(), record.heard_samples());
        let (mut correlations, mut delays) = (Vec::new(), Vec::new());
        for (place, piece) in voice.chunks_exact(samples_in(PIECE)).enumerate() {
            if rms_dbfs(piece) < SPOKEN {
                continue;
            }
            let said = samples_in(SPEAKS_AT) + place * piece.len();
            let from = said.saturating_sub(samples_in(EARLIEST)).min(heard.len());
            let to = (said + piece.len() + samples_in(LATEST)).min(heard.len());
            let found = find(piece, &heard[from..to]);
            correlations.push(found.map_or(0.0, |found| found.correlation));
            if let Some(found) = found {
                let came = heard_at(record, from + found.at);
                delays.push(came.saturating_sub(said_at(record, said)));
            }
        }
        correlations.sort_unstable_by(f64::total_cmp);
        delays.sort_unstable();
        Self {
            correlation: middle(&correlations),
            delay: middle(&delays),
        }
    }
}

/// Of values in order.
fn middle<T: Copy + Default>(sorted: &[T]) -> T {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// When a sample came, on the caller's clock.
fn heard_at(record: &CallRecord, sample: usize) -> Duration {
    let mut begin = 0;
    for message in &record.heard {
        if sample < begin + message.samples() {
            return message.at + message.rate.duration((sample - begin) as u64);
        }
        begin += message.samples();
    }
    record.ended.at
}

/// When a sample was sent.
fn said_at(record: &CallRecord, sample: usize) -> Duration {
    let mut begin = 0;
    for frame in &record.sent {
        if sample < begin + frame.samples {
            return frame.at + record.codec.rate().duration((sample - begin) as u64);
        }
        begin += frame.samples;
    }
    record.ended.at
}
