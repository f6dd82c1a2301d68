use std::{collections::HashMap, time::Duration};

use crate::CallRecord;

/// How many samples identify a position in the source.
const KEY: usize = 8;

/// The distance of the source's positions in the index. The rest of a run is found from there.
const STRIDE: usize = 8;

/// A run of samples that are the same, bit for bit, in two recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The index of its first sample in the source.
    pub source: usize,
    /// The index of its first sample in what was heard.
    pub heard: usize,
    /// How many samples it has.
    pub length: usize,
}

/// The delay of an echo at one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoDelay {
    /// When the message was received.
    pub at: Duration,
    /// How long before that the frame with the message's first echoed sample was sent.
    pub delay: Duration,
}

/// Finds the runs of samples of `source` that are in `heard`, bit for bit, in the order of `heard`. Every run of at
/// least 15 samples is found, and some shorter ones.
///
/// Samples that all have the same value, such as silence, don't identify a position. They are found only as the
/// continuation of a run.
///
/// ```
/// use sidetone_caller::{Run, exact_runs, ramp};
///
/// let source = ramp(1, 0, 1000);
/// let heard = [&vec![0; 160][..], &source[..400], &source[560..]].concat();
/// assert_eq!(exact_runs(&source, &heard), [
///     Run { source: 0, heard: 160, length: 400 },
///     Run { source: 560, heard: 560, length: 440 },
/// ]);
/// ```
pub fn exact_runs(source: &[i16], heard: &[i16]) -> Vec<Run> {
    let index = Index::new(source);
    let mut runs = Vec::new();
    // What lies before `searched` is in a run, or in none. `expected` continues the last run in the source.
    let (mut at, mut searched, mut expected) = (0, 0, 0);
    while at + KEY <= heard.len() {
        let Some(position) = index.find(&heard[at..at + KEY], expected) else {
            at += 1;
            continue;
        };
        // The index holds every `STRIDE`-th position only, so the run may begin before this one.
        let before = common_length(
            source[..position].iter().rev().take(STRIDE - 1),
            heard[searched..at].iter().rev(),
        );
        let after = common_length(&source[position..], &heard[at..]);
        runs.push(Run {
            source: position - before,
            heard: at - before,
            length: before + after,
        });
        at += after;
        searched = at;
        expected = position + after;
    }
    runs
}

/// Where samples lie in the source.
struct Index<'a> {
    source: &'a [i16],
    positions: HashMap<u128, usize>,
}

impl<'a> Index<'a> {
    fn new(source: &'a [i16]) -> Self {
        let mut positions = HashMap::with_capacity(source.len() / STRIDE);
        for (position, window) in source.windows(KEY).enumerate().step_by(STRIDE) {
            if let Some(key) = key(window) {
                positions.entry(key).or_insert(position);
            }
        }
        Self { source, positions }
    }

    /// A position of these samples. Where they lie in several, it is `expected` if that is one of them, so that a run
    /// continues where the last one stopped.
    fn find(&self, window: &[i16], expected: usize) -> Option<usize> {
        let key = key(window)?;
        match self.source.get(expected..expected + KEY) {
            Some(next) if next == window => Some(expected),
            _ => self.positions.get(&key).copied(),
        }
    }
}

/// Eight samples as a key; `None` when all are the same.
fn key(window: &[i16]) -> Option<u128> {
    if window.iter().all(|sample| *sample == window[0]) {
        return None;
    }
    let bits = window.iter().map(|sample| u128::from(*sample as u16));
    Some(bits.fold(0, |key, bits| key << 16 | bits))
}

/// How many samples are the same from the beginning on.
fn common_length<'a>(
    left: impl IntoIterator<Item = &'a i16>,
    right: impl IntoIterator<Item = &'a i16>,
) -> usize {
    let pairs = left.into_iter().zip(right);
    pairs.take_while(|(left, right)| left == right).count()
}

impl CallRecord {
    /// The runs of sent samples that came back, bit for bit.
    pub fn echo(&self) -> Vec<Run> {
        exact_runs(self.sent_samples(), self.heard_samples())
    }

    /// The delay of the echo at each message that holds some of it, from the sending of the frame with that sample.
    /// This is the delay that a caller hears, which the spacing of messages doesn't show.
    pub fn echo_delays(&self) -> Vec<EchoDelay> {
        self.delays_of(&self.echo())
    }

    /// The runs of samples of `clip` that were heard, bit for bit.
    pub fn find(&self, clip: &[i16]) -> Vec<Run> {
        exact_runs(clip, self.heard_samples())
    }

    fn delays_of(&self, runs: &[Run]) -> Vec<EchoDelay> {
        let ends = self.sent.iter().scan(0, |end, sent| {
            *end += sent.samples;
            Some(*end)
        });
        let ends: Vec<usize> = ends.collect();
        let mut delays = Vec::new();
        let (mut start, mut run) = (0, 0);
        for heard in &self.heard {
            let end = start + heard.samples();
            while runs
                .get(run)
                .is_some_and(|run| run.heard + run.length <= start)
            {
                run += 1;
            }
            if let Some(run) = runs.get(run).filter(|run| run.heard < end) {
                let first = run.source + start.saturating_sub(run.heard);
                let frame = ends.partition_point(|end| *end <= first);
                if let Some(sent) = self.sent.get(frame) {
                    delays.push(EchoDelay {
                        at: heard.at,
                        delay: heard.at.saturating_sub(sent.at),
                    });
                }
            }
            start = end;
        }
        delays
    }
}
