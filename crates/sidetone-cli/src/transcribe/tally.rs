//! What comes of a call, in numbers.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Serialize;
use uuid::Uuid;

use super::{line::Line, words};
use crate::plain::paths;

/// A delay of ten minutes is as bad as a longer one, in ms.
const LONGEST_DELAY: u64 = 600_000;

/// Counts while the call goes on.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    words: u64,
    transcripts: u64,
    /// From the end of what was said to its final transcript, in ms: how many took so long.
    delays: BTreeMap<u64, u64>,
    lost: Duration,
}

/// The summary of a call's transcription.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Transcribed {
    pub(crate) id: Uuid,
    /// Of the call.
    pub(crate) duration_ms: u64,
    pub(crate) words: u64,
    /// Final ones.
    pub(crate) transcripts: u64,
    /// The median of the time from the end of speech to the final transcript.
    pub(crate) delay_ms: Option<u64>,
    /// Audio that no recognizer got.
    pub(crate) lost_ms: u64,
    /// Whole, unless `failure` says why not.
    #[serde(serialize_with = "paths")]
    pub(crate) files: Vec<PathBuf>,
    pub(crate) failure: Option<String>,
}

impl Tally {
    /// A final transcript came, at `now` on the call's clock.
    pub(crate) fn add(&mut self, line: &Line, now: Duration) {
        self.words += words(&line.text).count() as u64;
        self.transcripts += 1;
        let delay = now.saturating_sub(line.speech_end()).as_millis() as u64;
        *self.delays.entry(delay.min(LONGEST_DELAY)).or_default() += 1;
    }

    pub(crate) fn lose(&mut self, length: Duration) {
        self.lost += length;
    }

    /// The delay that half of them did not reach.
    fn median(&self) -> Option<u64> {
        let mut before = 0;
        let mut delays = self.delays.iter();
        let median = delays.find(|(_, count)| {
            before += *count;
            before > self.transcripts / 2
        });
        median.map(|(delay, _)| *delay)
    }

    pub(crate) fn summary(
        self,
        id: Uuid,
        duration: Duration,
        files: Vec<PathBuf>,
        failure: Option<String>,
    ) -> Transcribed {
        Transcribed {
            id,
            duration_ms: duration.as_millis() as u64,
            words: self.words,
            transcripts: self.transcripts,
            delay_ms: self.median(),
            lost_ms: self.lost.as_millis() as u64,
            files,
            failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use sidetone_speech::Transcript;

    use super::*;
    use crate::transcribe::line::Side;

    #[test]
    fn the_median_is_exact_and_takes_no_room_for_each() {
        let median = |delays: &mut dyn Iterator<Item = u64>| {
            let mut tally = Tally::default();
            for delay in delays {
                let transcript = Transcript::new("word", true, Duration::ZERO, Duration::ZERO);
                let line = Line::new(Uuid::nil(), Side::Caller, transcript);
                tally.add(&line, Duration::from_millis(delay));
            }
            (tally.median(), tally.delays.len())
        };
        assert_eq!(median(&mut [].into_iter()), (None, 0));
        assert_eq!(median(&mut [5].into_iter()), (Some(5), 1));
        assert_eq!(median(&mut [9, 1, 5].into_iter()), (Some(5), 3));
        assert_eq!(median(&mut [9, 1, 5, 7].into_iter()), (Some(7), 4));
        let hours = (0..10_000).map(|it| it % 100 + 3_600_000 * (it % 3));
        assert_eq!(median(&mut hours.into_iter()), (Some(LONGEST_DELAY), 101));
    }
}
