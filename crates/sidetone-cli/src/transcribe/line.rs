//! A transcript as it is told and written.

use std::time::Duration;

use serde::{Serialize, Serializer};
use sidetone_speech::Transcript;
use uuid::Uuid;

use crate::plain::plain;

/// Who was transcribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Caller,
    /// What the caller hears.
    Heard,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Heard => "heard",
        }
    }
}

impl Serialize for Side {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A transcript of one call. Times are on the call's clock, which begins with the UUID.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) id: Uuid,
    pub(crate) side: Side,
    pub(crate) text: String,
    /// Whether it stays.
    #[serde(rename = "final")]
    pub(crate) is_final: bool,
    pub(crate) start_ms: u64,
    pub(crate) end_ms: u64,
    /// From 0 to 1, if the service tells.
    confidence: Option<f32>,
    stability: Option<f32>,
    language: Option<String>,
    words: Vec<TimedWord>,
}

#[derive(Clone, Debug, Serialize)]
struct TimedWord {
    text: String,
    start_ms: u64,
    end_ms: u64,
    confidence: Option<f32>,
}

impl Line {
    pub(crate) fn new(id: Uuid, side: Side, transcript: Transcript) -> Self {
        let words = transcript.words.into_iter().map(|word| TimedWord {
            text: one_line(&word.text),
            start_ms: word.start.as_millis() as u64,
            end_ms: word.end.as_millis() as u64,
            confidence: word.confidence,
        });
        Self {
            id,
            side,
            text: one_line(&transcript.text),
            is_final: transcript.is_final,
            start_ms: transcript.start.as_millis() as u64,
            end_ms: transcript.end.as_millis() as u64,
            confidence: transcript.confidence,
            stability: transcript.stability,
            language: transcript.language.as_deref().map(one_line),
            words: words.collect(),
        }
    }

    /// What it takes in memory for what was said, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let words = self.words.iter();
        let words = words.map(|word| word.text.len() + size_of::<TimedWord>());
        self.text.len() + self.language.as_ref().map_or(0, String::len) + words.sum::<usize>()
    }

    pub(crate) fn start(&self) -> Duration {
        Duration::from_millis(self.start_ms)
    }

    pub(crate) fn end(&self) -> Duration {
        Duration::from_millis(self.end_ms)
    }

    /// Where the last word ended, as nearly as that is known.
    pub(crate) fn speech_end(&self) -> Duration {
        let last = self.words.last().map(|word| word.end_ms);
        Duration::from_millis(last.unwrap_or(self.end_ms))
    }
}

/// Text from outside in one line, without space around it.
pub(super) fn one_line(text: &str) -> String {
    let text = plain(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
