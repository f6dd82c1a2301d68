//! Whether the caller of the demonstration heard what it should.

use std::time::Duration;

use sidetone_audio::tone;
use sidetone_caller::CallRecord;

use super::{FILE, RATE, SPEAKS_AT, samples_in, voice};
use crate::{
    correlate::{Found, find},
    failure::Verdict,
};

/// From this correlation on a sound was heard.
const ENOUGH: f64 = 0.9;
/// The echo is looked for in pieces of this length: a live line may drop a frame on a busy machine.
const PIECE: Duration = Duration::from_millis(400);
/// How much later than it was said an echo is looked for.
const LATEST: Duration = Duration::from_millis(600);

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
                .why
                .is_fault()
                .then(|| record.ended.why.to_string()),
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
    /// Finds each piece of the voice where it should be, and weighs it by its length.
    fn of(record: &CallRecord) -> Self {
        let (voice, heard) = (voice(), record.heard_samples());
        let start = samples_in(SPEAKS_AT);
        let pieces = voice.chunks_exact(samples_in(PIECE)).enumerate();
        let pieces = pieces.filter(|(_, piece)| piece.iter().any(|sample| *sample != 0));
        let mut found = Vec::new();
        for (place, piece) in pieces {
            let said = start + place * samples_in(PIECE);
            // Heard samples lie about where they were said; an echo is never early.
            let from = said.saturating_sub(samples_in(PIECE)).min(heard.len());
            let to = (said + piece.len() + samples_in(LATEST)).min(heard.len());
            let Some(echo) = find(piece, &heard[from..to]) else {
                found.push((0.0, Duration::ZERO));
                continue;
            };
            let delay = heard_at(record, from + echo.at).saturating_sub(said_at(record, said));
            found.push((echo.correlation, delay));
        }
        let mean = found
            .iter()
            .map(|(correlation, _)| correlation)
            .sum::<f64>()
            / found.len().max(1) as f64;
        let mut delays: Vec<Duration> = found.iter().map(|(_, delay)| *delay).collect();
        delays.sort_unstable();
        Self {
            correlation: mean,
            delay: delays.get(delays.len() / 2).copied().unwrap_or_default(),
        }
    }
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
