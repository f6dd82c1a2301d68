//! The events of calls with a bot.

use serde::Serialize;
use sidetone::OwnedEvent;
use sidetone_bot::{BotEvent, BotFailure, dialect::Speaker};
use uuid::Uuid;

use crate::{
    event::{Event, json_line},
    failure::with_sources,
    sanitize::sanitize,
};

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event")]
pub(super) enum BotReport {
    /// The bot has taken the call.
    #[serde(rename = "bot_connected")]
    Connected { id: Uuid, after_ms: u64 },
    /// The bot has begun to speak.
    #[serde(rename = "bot_spoke")]
    Spoke { id: Uuid, after_ms: u64 },
    /// The bot did something wrong that ends nothing.
    #[serde(rename = "bot_complaint")]
    Complaint { id: Uuid, text: String },
    /// The bot does not take the caller's audio.
    #[serde(rename = "bot_dropped")]
    Dropped { id: Uuid, frames: u64 },
    /// Something about the call itself: its codec, or an error.
    #[serde(rename = "bot_call_notice")]
    CallNotice { id: Uuid, text: String },
    /// The connection broke, and is made once more.
    #[serde(rename = "bot_reconnecting")]
    Reconnecting {
        id: Uuid,
        reason: &'static str,
        error: String,
    },
    /// Something that was said, in words.
    #[serde(rename = "bot_transcript")]
    Transcript {
        id: Uuid,
        speaker: &'static str,
        text: String,
    },
    /// The bot has ended the conversation.
    #[serde(rename = "bot_ended")]
    Ended { id: Uuid },
    /// The bot failed, and the call ends.
    #[serde(rename = "bot_failed")]
    Failed {
        id: Uuid,
        reason: &'static str,
        error: String,
    },
}

impl BotReport {
    pub(super) fn of(id: Uuid, event: BotEvent) -> Option<Self> {
        let ms = |time: std::time::Duration| time.as_millis() as u64;
        Some(match event {
            BotEvent::Connected { after } => Self::Connected {
                id,
                after_ms: ms(after),
            },
            BotEvent::FirstAudio { after } => Self::Spoke {
                id,
                after_ms: ms(after),
            },
            BotEvent::Complaint(text) => Self::Complaint { id, text },
            BotEvent::Call(OwnedEvent::Codec(notice)) => Self::CallNotice {
                id,
                text: notice.to_string(),
            },
            BotEvent::Call(OwnedEvent::Error(error)) => Self::CallNotice {
                id,
                text: with_sources(&error),
            },
            BotEvent::Call(OwnedEvent::Lagged { frames }) => Self::CallNotice {
                id,
                text: format!("{frames} frames were dropped: this machine is too busy"),
            },
            BotEvent::Dropped { frames } => Self::Dropped { id, frames },
            BotEvent::Reconnecting(failure) => Self::Reconnecting {
                id,
                reason: failure.kind(),
                error: failure.to_string(),
            },
            BotEvent::Transcript(transcript) => Self::Transcript {
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
        Self::Failed {
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
        let (Self::Connected { id, .. }
        | Self::Spoke { id, .. }
        | Self::Complaint { id, .. }
        | Self::CallNotice { id, .. }
        | Self::Dropped { id, .. }
        | Self::Reconnecting { id, .. }
        | Self::Transcript { id, .. }
        | Self::Ended { id }
        | Self::Failed { id, .. }) = self;
        Some(*id)
    }

    fn text(&self) -> String {
        match self {
            Self::Connected { after_ms, .. } => {
                format!("the bot has taken the call, after {after_ms} ms")
            }
            Self::Spoke { after_ms, .. } => {
                format!("the bot begins to speak, {after_ms} ms later")
            }
            Self::Complaint { text, .. } => format!("the bot sends {}", sanitize(text)),
            Self::CallNotice { text, .. } => sanitize(text).into_owned(),
            Self::Dropped { frames, .. } => {
                format!("the bot does not take the caller's audio: {frames} frames were dropped")
            }
            Self::Reconnecting { error, .. } => {
                format!("{}; the connection is made once more", sanitize(error))
            }
            Self::Transcript { speaker, text, .. } => format!("{speaker}: {}", sanitize(text)),
            Self::Ended { .. } => "the bot ends the conversation".into(),
            Self::Failed { error, .. } => format!("{}: the call ends", sanitize(error)),
        }
    }

    fn external_text_len(&self) -> usize {
        match self {
            Self::Complaint { text, .. }
            | Self::CallNotice { text, .. }
            | Self::Transcript { text, .. } => text.len(),
            Self::Reconnecting { error, .. } | Self::Failed { error, .. } => error.len(),
            _ => 0,
        }
    }
}
