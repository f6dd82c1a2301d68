//! The events of a transcription.

use serde::Serialize;
use uuid::Uuid;

use super::{
    summary::Transcribed,
    transcript::{CallTranscript, Side},
};
use crate::{
    event::{Event, json_line},
    format::duration_ms,
};

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum TranscribeEvent {
    /// Where the callers' voices are sent.
    Destination {
        provider: &'static str,
        destination: String,
    },
    /// With `--json`: what was said.
    Transcript(CallTranscript),
    /// The recognizer can't be reached. It is tried again until it answers.
    RecognizerUnavailable {
        id: Uuid,
        side: Side,
        text: String,
    },
    RecognizerRecovered {
        id: Uuid,
        side: Side,
    },
    /// The recognizer refuses for good. There is no more text of this side of the call.
    RecognizerRefused {
        id: Uuid,
        side: Side,
        text: String,
    },
    /// A part of the call that has no transcript, in time since the UUID.
    NotTranscribed {
        id: Uuid,
        side: Side,
        from_ms: u64,
        to_ms: u64,
    },
    /// The command ends the call: `stop_word` or `time_limit`.
    HangingUp {
        id: Uuid,
        reason: &'static str,
        #[serde(skip)]
        text: &'static str,
    },
    /// The transcript is complete, usually just before the call's end is reported.
    Transcribed(Transcribed),
}

impl Event for TranscribeEvent {
    fn to_json(&self) -> String {
        json_line(self)
    }

    fn call(&self) -> Option<Uuid> {
        match self {
            Self::Destination { .. } => None,
            Self::Transcript(transcript) => Some(transcript.id),
            Self::Transcribed(call) => Some(call.id),
            Self::RecognizerUnavailable { id, .. }
            | Self::RecognizerRecovered { id, .. }
            | Self::RecognizerRefused { id, .. }
            | Self::NotTranscribed { id, .. }
            | Self::HangingUp { id, .. } => Some(*id),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Destination { destination, .. } => {
                format!("sends what callers say to {destination}")
            }
            Self::Transcript(transcript) => {
                format!("{}: {}", transcript.side.name(), transcript.text)
            }
            Self::RecognizerUnavailable { side, text, .. } => format!(
                "{}: {text}; it is tried again, and reported when it recovers",
                side.name()
            ),
            Self::RecognizerRecovered { side, .. } => {
                format!("{}: the recognizer works again", side.name())
            }
            Self::RecognizerRefused { side, text, .. } => {
                format!("{}: no longer transcribed: {text}", side.name())
            }
            Self::NotTranscribed {
                side,
                from_ms,
                to_ms,
                ..
            } => format!(
                "{}: not transcribed from {} to {}",
                side.name(),
                duration_ms(*from_ms),
                duration_ms(*to_ms)
            ),
            Self::HangingUp { text, .. } => format!("hanging up: {text}"),
            Self::Transcribed(call) => call.text(),
        }
    }

    fn external_text_len(&self) -> usize {
        match self {
            Self::Transcript(transcript) => transcript.memory_len(),
            Self::RecognizerUnavailable { text, .. } | Self::RecognizerRefused { text, .. } => {
                text.len()
            }
            _ => 0,
        }
    }
}
