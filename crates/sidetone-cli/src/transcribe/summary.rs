//! The figures of a transcription.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Serialize;
use uuid::Uuid;

use super::{transcript::CallTranscript, words::words};
use crate::{
    format::{count, duration_ms, file_names},
    sanitize::serialize_paths,
};

/// Longer delays count as this one, so that the number of different delays is limited. In milliseconds.
const MAX_DELAY: u64 = 600_000;

/// Counts transcripts while the call runs.
#[derive(Debug, Default)]
pub(super) struct TranscriptStats {
    words: u64,
    transcripts: u64,
    /// For each delay between the end of speech and its final transcript, in milliseconds, how often it occurred.
    delays: BTreeMap<u64, u64>,
    lost: Duration,
}

/// The summary of a call's transcription.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Transcribed {
    pub(super) id: Uuid,
    /// The call's.
    pub(super) duration_ms: u64,
    pub(super) words: u64,
    /// The number of final transcripts.
    pub(super) transcripts: u64,
    /// The median time from the end of speech to its final transcript.
    pub(super) delay_ms: Option<u64>,
    /// Audio without a transcript.
    pub(super) lost_ms: u64,
    /// Complete, unless `failure` says otherwise.
    #[serde(serialize_with = "serialize_paths")]
    pub(super) files: Vec<PathBuf>,
    pub(super) failure: Option<String>,
}

impl TranscriptStats {
    /// Counts a final transcript that came at `now`, in time since the UUID.
    pub(super) fn add(&mut self, transcript: &CallTranscript, now: Duration) {
        self.words += words(&transcript.text).count() as u64;
        self.transcripts += 1;
        let delay = now.saturating_sub(transcript.speech_end()).as_millis() as u64;
        *self.delays.entry(delay.min(MAX_DELAY)).or_default() += 1;
    }

    /// Counts audio without a transcript.
    pub(super) fn add_lost(&mut self, length: Duration) {
        self.lost += length;
    }

    /// The median delay.
    fn median(&self) -> Option<u64> {
        let mut before = 0;
        let mut delays = self.delays.iter();
        let median = delays.find(|(_, count)| {
            before += *count;
            before > self.transcripts / 2
        });
        median.map(|(delay, _)| *delay)
    }

    pub(super) fn summary(
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

impl Transcribed {
    /// The figures for people.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "transcribed {}, {}",
            duration_ms(self.duration_ms),
            count(self.words, "word", "words")
        );
        if let Some(delay) = self.delay_ms {
            text.push_str(&format!(", {delay} ms after they were said"));
        }
        if self.lost_ms > 0 {
            let lost = self.lost_ms as f64 / 1000.0;
            text.push_str(&format!("; {lost:.1} s are missing"));
        }
        match (&self.failure, self.files.is_empty()) {
            (Some(failure), _) => text.push_str(&format!("; written in part: {failure}")),
            (None, false) => text.push_str(&format!("; in {}", file_names(&self.files))),
            (None, true) => {}
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use sidetone_speech::Transcript;

    use super::*;
    use crate::transcribe::transcript::Side;

    #[test]
    fn the_median_is_exact_and_takes_no_memory_for_each_delay() {
        let median = |delays: &mut dyn Iterator<Item = u64>| {
            let mut stats = TranscriptStats::default();
            for delay in delays {
                let transcript = Transcript::new("word", true, Duration::ZERO, Duration::ZERO);
                let transcript = CallTranscript::new(Uuid::nil(), Side::Caller, transcript);
                stats.add(&transcript, Duration::from_millis(delay));
            }
            (stats.median(), stats.delays.len())
        };
        assert_eq!(median(&mut [].into_iter()), (None, 0));
        assert_eq!(median(&mut [5].into_iter()), (Some(5), 1));
        assert_eq!(median(&mut [9, 1, 5].into_iter()), (Some(5), 3));
        assert_eq!(median(&mut [9, 1, 5, 7].into_iter()), (Some(7), 4));
        let hours = (0..10_000).map(|it| it % 100 + 3_600_000 * (it % 3));
        assert_eq!(median(&mut hours.into_iter()), (Some(MAX_DELAY), 101));
    }
}
