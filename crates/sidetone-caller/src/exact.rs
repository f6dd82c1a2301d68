use {
    crate::CallRecord,
    std::{collections::HashMap, time::Duration},
};

/// Samples that tell a place in a sound.
const KEY: usize = 8;

/// Only every so-many-th place of a sound is looked up; the rest of a run is found from there.
const STRIDE: usize = 8;

/// A stretch of one sound that lies bit by bit in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its first sample in the sound that was looked for.
    pub said: usize,
    /// Its first sample in the sound that was searched.
    pub heard: usize,
    /// How many samples it has.
    pub length: usize,
}

/// The delay of an echo at one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoDelay {
    /// When the message came.
    pub at: Duration,
    /// How long before that the frame was sent in which the message's first echoed sample was.
    pub delay: Duration,
}

/// Finds every stretch of at least 15 samples of `said` in `heard`, bit by bit, in the order of `heard`.
/// Some shorter ones are found, too.
///
/// Stretches of one repeated value, such as silence, say nothing about where they come from and only count
/// as the continuation of a run.
///
/// ```
/// use sidetone_caller::{Run, exact_runs, ramp};
///
/// let said = ramp(1, 0, 1000);
/// let heard = [&vec![0; 160][..], &said[..400], &said[560..]].concat();
/// assert_eq!(exact_runs(&said, &heard), [
///     Run { said: 0, heard: 160, length: 400 },
///     Run { said: 560, heard: 560, length: 440 },
/// ]);
/// ```
pub fn exact_runs(said: &[i16], heard: &[i16]) -> Vec<Run> {
    let mut places = HashMap::with_capacity(said.len() / STRIDE);
    for (place, window) in said.windows(KEY).enumerate().step_by(STRIDE) {
        if let Some(key) = key(window) {
            places.entry(key).or_insert(place);
        }
    }
    // Up to here everything belongs to a run, or to none.
    let (mut runs, mut settled, mut expected) = (Vec::new(), 0, 0);
    let mut at = 0;
    while at + KEY <= heard.len() {
        let window = &heard[at..at + KEY];
        let place = key(window).and_then(|key| {
            // What repeats itself is taken for its continuation.
            let goes_on = said.get(expected..expected + KEY) == Some(window);
            let place = goes_on.then_some(expected);
            place.or_else(|| places.get(&key).copied())
        });
        let Some(place) = place else {
            at += 1;
            continue;
        };
        let before = said[..place]
            .iter()
            .rev()
            .zip(heard[settled..at].iter().rev());
        let before = before
            .take(STRIDE - 1)
            .take_while(|(said, heard)| said == heard);
        let behind = said[place..].iter().zip(&heard[at..]);
        let behind = behind.take_while(|(said, heard)| said == heard).count();
        let before = before.count();
        runs.push(Run {
            said: place - before,
            heard: at - before,
            length: before + behind,
        });
        at += behind;
        settled = at;
        expected = place + behind;
    }
    runs
}

impl CallRecord {
    /// Every stretch of what was sent that came back bit by bit.
    pub fn echo(&self) -> Vec<Run> {
        exact_runs(self.sent_samples(), self.heard_samples())
    }

    /// How late the *content* came back in each message that holds some of it, from the moment the frame
    /// with that sample was sent. This is what a caller hears; the spacing of messages says nothing about it.
    pub fn echo_delays(&self) -> Vec<EchoDelay> {
        self.delays_of(&self.echo())
    }

    /// Where `clip` lies in what was heard, bit by bit.
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
                let first = run.said + start.saturating_sub(run.heard);
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

/// What tells this place from others; `None` when all samples are the same.
fn key(window: &[i16]) -> Option<u128> {
    if window.iter().all(|sample| *sample == window[0]) {
        return None;
    }
    let bits = window.iter().map(|sample| u128::from(*sample as u16));
    Some(bits.fold(0, |key, bits| key << 16 | bits))
}
