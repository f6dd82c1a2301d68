//! A transcript, as it is reported and written.

use std::time::Duration;

use serde::{Serialize, Serializer};
use sidetone_speech::Transcript;
use uuid::Uuid;

use crate::sanitize::sanitize;

/// The side of a call that is transcribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    Caller,
    /// What the caller hears.
    Heard,
}

impl Side {
    pub(super) fn name(self) -> &'static str {
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

/// A transcript of a part of a call. Times count from the call's UUID.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CallTranscript {
    pub(super) id: Uuid,
    pub(super) side: Side,
    pub(super) text: String,
    /// Whether it will not change any more.
    #[serde(rename = "final")]
    pub(super) is_final: bool,
    pub(super) start_ms: u64,
    pub(super) end_ms: u64,
    /// From 0 to 1, if the service gives it.
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

impl CallTranscript {
    pub(super) fn new(id: Uuid, side: Side, transcript: Transcript) -> Self {
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

    /// The memory that its text and words take, in bytes.
    pub(super) fn memory_len(&self) -> usize {
        let words = self.words.iter();
        let words = words.map(|word| word.text.len() + size_of::<TimedWord>());
        self.text.len() + self.language.as_ref().map_or(0, String::len) + words.sum::<usize>()
    }

    pub(super) fn start(&self) -> Duration {
        Duration::from_millis(self.start_ms)
    }

    pub(super) fn end(&self) -> Duration {
        Duration::from_millis(self.end_ms)
    }

    /// When the last word ended, or else the transcript.
    pub(super) fn speech_end(&self) -> Duration {
        let last = self.words.last().map(|word| word.end_ms);
        Duration::from_millis(last.unwrap_or(self.end_ms))
    }
}

/// Text from outside in one line, with single spaces.
pub(super) fn one_line(text: &str) -> String {
    let text = sanitize(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
