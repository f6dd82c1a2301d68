//! The conversation as tables: what happens, and what comes of it.
#![allow(clippy::unwrap_used)]

mod errors;
mod functions;
mod settings;
mod speech;

use serde_json::Value;
use sidetone::Heard;
use uuid::Uuid;

use super::*;
use crate::{
    dialect::{Action, CallEvent, Cleared, Message, Received, Speaker},
    failure::BotFailure,
};

const QUEUED: Duration = Duration::from_millis(500);

fn bot() -> OpenAi {
    OpenAi::new("sk-secret", "gpt-realtime").unwrap()
}

fn session() -> Session {
    Session::of(Uuid::from_u128(0xAB)).param("from", "+49 30")
}

/// A conversation, its call's queue, and what comes of each step.
struct Talk {
    conversation: Box<dyn Conversation>,
    queued: Duration,
}

impl Talk {
    /// Just connected.
    fn begin(bot: &OpenAi) -> Self {
        Self::begin_with(bot, &session(), AudioFormat::ULAW).0
    }

    fn begin_with(bot: &OpenAi, session: &Session, caller: AudioFormat) -> (Self, Vec<Value>) {
        let mut talk = Self {
            conversation: bot.start(session, caller),
            queued: Duration::ZERO,
        };
        let sent = talk.call(CallEvent::Connected);
        (talk, sent)
    }

    /// With the settings taken.
    fn settled(bot: &OpenAi) -> Self {
        let mut talk = Self::begin(bot);
        talk.service(json!({"type": "session.created"}));
        talk.service(json!({"type": "session.updated"}));
        talk
    }

    /// In a response of which a second is queued and more is to come.
    fn speaking(bot: &OpenAi) -> Self {
        let mut talk = Self::settled(bot);
        talk.service(created("r1"));
        talk.service(delta("r1", "i1", 8000));
        talk.queued = QUEUED;
        talk
    }

    fn call(&mut self, event: CallEvent<'_>) -> Vec<Value> {
        let mut actions = Vec::new();
        self.conversation
            .handle_event(event, self.queued, &mut actions);
        actions.iter().map(shown).collect()
    }

    fn service(&mut self, event: Value) -> Vec<Value> {
        self.try_service(&event)
            .unwrap_or_else(|failure| panic!("{event}: {failure}"))
    }

    fn try_service(&mut self, event: &Value) -> Result<Vec<Value>, BotFailure> {
        let text = event.to_string();
        let mut actions = Vec::new();
        let received = Received::Text(&text);
        self.conversation
            .handle_message(received, self.queued, &mut actions)?;
        Ok(actions.iter().map(shown).collect())
    }

    fn cleared(&mut self, items: &[(&str, u64, u64)]) -> Vec<Value> {
        self.queued = Duration::ZERO;
        let ms = Duration::from_millis;
        let items = items.iter().map(|(name, heard, unheard)| {
            let mut sum = Heard::default();
            sum.heard = ms(*heard);
            sum.unheard = ms(*unheard);
            ((*name).into(), sum)
        });
        let cleared = Cleared {
            marks: Vec::new(),
            items: items.collect(),
        };
        self.call(CallEvent::Cleared(&cleared))
    }
}

/// An action in short; what is sent, without its event's name.
fn shown(action: &Action) -> Value {
    match action {
        Action::Send(Message::Text(text)) => {
            let mut message: Value = serde_json::from_str(text).unwrap();
            let fields = message.as_object_mut().unwrap();
            fields.remove("event_id");
            if let Some(Value::Object(item)) = fields.get_mut("item") {
                item.remove("id");
            }
            message
        }
        Action::Play { item, audio, .. } => json!({"play": [item.as_deref(), audio.len()]}),
        Action::EndItem(item) => json!({"end_item": **item}),
        Action::Clear => json!("clear"),
        Action::End => json!("end"),
        Action::CallTool {
            id,
            name,
            arguments,
        } => json!({"tool": [id, name, arguments]}),
        Action::Transcript(it) => json!({"said": [format!("{:?}", it.speaker), it.text]}),
        Action::Complaint(text) => json!({"complaint": text}),
        other => panic!("{other:?}"),
    }
}

fn created(response: &str) -> Value {
    json!({"type": "response.created", "response": {"id": response, "status": "in_progress"}})
}

fn done(response: &str, status: &str) -> Value {
    json!({"type": "response.done", "response": {"id": response, "status": status, "output": []}})
}

fn failed(code: &str) -> Value {
    let error = json!({"type": "x", "code": code, "message": "Because."});
    json!({
        "type": "response.done",
        "response": {"id": "r1", "status": "failed", "status_details": {"type": "failed", "error": error}},
    })
}

fn delta(response: &str, item: &str, bytes: usize) -> Value {
    let delta = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, vec![0; bytes]);
    json!({
        "type": "response.output_audio.delta",
        "response_id": response, "item_id": item, "output_index": 0, "content_index": 0, "delta": delta,
    })
}

fn audio_done(response: &str, item: &str) -> Value {
    json!({
        "type": "response.output_audio.done",
        "response_id": response, "item_id": item, "output_index": 0, "content_index": 0,
    })
}

fn function_call(response: &str, id: &str, name: &str, arguments: &str) -> Value {
    json!({
        "type": "response.output_item.done", "response_id": response, "output_index": 1,
        "item": {
            "id": "f", "type": "function_call", "status": "completed",
            "name": name, "call_id": id, "arguments": arguments,
        },
    })
}

fn speech_started() -> Value {
    json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 1, "item_id": "u"})
}

fn speech_stopped() -> Value {
    json!({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 2, "item_id": "u"})
}

fn error(kind: &str, code: Option<&str>, event_id: Option<&str>) -> Value {
    json!({
        "type": "error",
        "error": {"type": kind, "code": code, "message": "Because of sk-secret.", "event_id": event_id},
    })
}

fn truncate(item: &str, ms: u64) -> Value {
    json!({"type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": ms})
}

fn output(call: &str, output: &str) -> Value {
    let item = json!({"type": "function_call_output", "call_id": call, "output": output});
    json!({"type": "conversation.item.create", "item": item})
}

fn said(role: &str, text: &str) -> Value {
    let content = json!([{"type": "input_text", "text": text}]);
    let item = json!({"type": "message", "role": role, "content": content});
    json!({"type": "conversation.item.create", "item": item})
}

fn create() -> Value {
    json!({"type": "response.create"})
}

fn cancel() -> Value {
    json!({"type": "response.cancel"})
}

const NOTHING: [Value; 0] = [];
