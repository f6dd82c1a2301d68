//! What comes of a call, in numbers.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;
use uuid::Uuid;

use super::{line::Line, words};
use crate::plain::paths;

/// Counts while the call goes on.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    words: u64,
    transcripts: u64,
    /// From the end of what was said to its final transcript, for each.
    delays: Vec<Duration>,
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
    /// Audio that no recogniser got.
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
        self.delays.push(now.saturating_sub(line.speech_end()));
    }

    pub(crate) fn lose(&mut self, length: Duration) {
        self.lost += length;
    }

    pub(crate) fn summary(
        mut self,
        id: Uuid,
        duration: Duration,
        files: Vec<PathBuf>,
        failure: Option<String>,
    ) -> Transcribed {
        self.delays.sort_unstable();
        let median = self.delays.get(self.delays.len() / 2);
        Transcribed {
            id,
            duration_ms: duration.as_millis() as u64,
            words: self.words,
            transcripts: self.transcripts,
            delay_ms: median.map(|delay| delay.as_millis() as u64),
            lost_ms: self.lost.as_millis() as u64,
            files,
            failure,
        }
    }
}
