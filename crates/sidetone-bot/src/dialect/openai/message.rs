//! The service's messages.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use sidetone_audio::g711::Law;

use crate::dialect::{AudioFormat, Encoding, Message};

/// How messages with caller audio begin.
pub(super) const APPEND: &str = r#"{"type":"input_audio_buffer.append""#;

/// What the service sends. Of many events nothing is needed.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) response_id: Option<String>,
    pub(super) item_id: Option<String>,
    pub(super) content_index: Option<u32>,
    pub(super) delta: Option<String>,
    pub(super) transcript: Option<String>,
    pub(super) response: Option<Response>,
    pub(super) item: Option<Item>,
    pub(super) error: Option<ServiceError>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Response {
    pub(super) id: Option<String>,
    pub(super) status: Option<String>,
    pub(super) status_details: Option<StatusDetails>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct StatusDetails {
    pub(super) reason: Option<String>,
    pub(super) error: Option<ServiceError>,
}

/// A piece of the conversation. What it holds depends on its type.
#[derive(Debug, Deserialize)]
pub(super) struct Item {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) id: Option<String>,
    pub(super) status: Option<String>,
    pub(super) name: Option<String>,
    pub(super) call_id: Option<String>,
    pub(super) arguments: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct ServiceError {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    /// The message of ours that it is about.
    pub(super) event_id: Option<String>,
}

impl ServiceError {
    /// Its code, or at least its kind.
    pub(super) fn code(&self) -> &str {
        let code = self.code.as_deref().or(self.kind.as_deref());
        code.unwrap_or("unknown_error")
    }
}

/// The object of an audio format.
pub(super) fn format(format: AudioFormat) -> Value {
    match format.encoding {
        Encoding::G711(Law::Ulaw) => json!({"type": "audio/pcmu"}),
        Encoding::G711(Law::Alaw) => json!({"type": "audio/pcma"}),
        Encoding::Linear16 => json!({"type": "audio/pcm", "rate": format.hz}),
    }
}

/// Built by hand, since it is sent fifty times a second.
pub(super) fn append(payload: &[u8]) -> Message {
    let mut text = String::with_capacity(APPEND.len() + 16 + payload.len() * 4 / 3);
    text.push_str(APPEND);
    text.push_str(r#","audio":""#);
    STANDARD.encode_string(payload, &mut text);
    text.push_str("\"}");
    Message::Text(text)
}

/// A message in words, as an item of the conversation.
pub(super) fn said(role: &str, text: &str) -> Value {
    json!({"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]})
}

pub(super) fn function_output(call_id: &str, output: &str) -> Value {
    json!({"type": "function_call_output", "call_id": call_id, "output": output})
}
