//! The events of calls with a bot.

use serde::Serialize;
use sidetone_bot::{BotEvent, BotFailure, dialect::Speaker};
use uuid::Uuid;

use crate::{
    event::{Event, json_line},
    sanitize::sanitize,
};

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum BotReport {
    /// The bot has taken the call.
    BotConnected { id: Uuid, after_ms: u64 },
    /// The bot has begun to speak.
    BotSpoke { id: Uuid, after_ms: u64 },
    /// The bot did something wrong that ends nothing.
    BotComplaint { id: Uuid, text: String },
    /// The bot does not take the caller's audio.
    BotDropped { id: Uuid, frames: u64 },
    /// The connection broke, and is made once more.
    BotReconnecting {
        id: Uuid,
        reason: &'static str,
        error: String,
    },
    /// Something that was said, in words.
    BotTranscript {
        id: Uuid,
        speaker: &'static str,
        text: String,
    },
    /// The bot has ended the conversation.
    BotEnded { id: Uuid },
    /// The bot failed, and the call ends.
    BotFailed {
        id: Uuid,
        reason: &'static str,
        error: String,
    },
}

impl BotReport {
    pub(super) fn of(id: Uuid, event: BotEvent) -> Option<Self> {
        let ms = |time: std::time::Duration| time.as_millis() as u64;
        Some(match event {
            BotEvent::Connected { after } => Self::BotConnected {
                id,
                after_ms: ms(after),
            },
            BotEvent::FirstAudio { after } => Self::BotSpoke {
                id,
                after_ms: ms(after),
            },
            BotEvent::Complaint(text) => Self::BotComplaint { id, text },
            BotEvent::Dropped { frames } => Self::BotDropped { id, frames },
            BotEvent::Reconnecting(failure) => Self::BotReconnecting {
                id,
                reason: failure.kind(),
                error: failure.to_string(),
            },
            BotEvent::Transcript(transcript) => Self::BotTranscript {
                id,
                speaker: match transcript.speaker {
                    Speaker::Caller => "caller",
                    Speaker::Bot => "bot",
                },
                text: transcript.text,
            },
            _ => return None,
        })
    }

    pub(super) fn failed(id: Uuid, failure: &BotFailure) -> Self {
        Self::BotFailed {
            id,
            reason: failure.kind(),
            error: failure.to_string(),
        }
    }
}

impl Event for BotReport {
    fn to_json(&self) -> String {
        json_line(self)
    }

    fn call(&self) -> Option<Uuid> {
        let (Self::BotConnected { id, .. }
        | Self::BotSpoke { id, .. }
        | Self::BotComplaint { id, .. }
        | Self::BotDropped { id, .. }
        | Self::BotReconnecting { id, .. }
        | Self::BotTranscript { id, .. }
        | Self::BotEnded { id }
        | Self::BotFailed { id, .. }) = self;
        Some(*id)
    }

    fn text(&self) -> String {
        match self {
            Self::BotConnected { after_ms, .. } => {
                format!("the bot has taken the call, after {after_ms} ms")
            }
            Self::BotSpoke { after_ms, .. } => {
                format!("the bot begins to speak, {after_ms} ms later")
            }
            Self::BotComplaint { text, .. } => format!("the bot sends {}", sanitize(text)),
            Self::BotDropped { frames, .. } => {
                format!("the bot does not take the caller's audio: {frames} frames were dropped")
            }
            Self::BotReconnecting { error, .. } => {
                format!("{}; the connection is made once more", sanitize(error))
            }
            Self::BotTranscript { speaker, text, .. } => format!("{speaker}: {}", sanitize(text)),
            Self::BotEnded { .. } => "the bot ends the conversation".into(),
            Self::BotFailed { error, .. } => format!("{}: the call ends", sanitize(error)),
        }
    }

    fn external_text_len(&self) -> usize {
        match self {
            Self::BotComplaint { text, .. } | Self::BotTranscript { text, .. } => text.len(),
            Self::BotReconnecting { error, .. } | Self::BotFailed { error, .. } => error.len(),
            _ => 0,
        }
    }
}
