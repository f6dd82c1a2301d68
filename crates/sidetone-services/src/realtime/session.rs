//! One conversation.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_websockets::{CloseCode, Message};

use super::{
    Answer, Known, Logged, Script, Speech, Turn,
    check::{self, Format, Refusal, Settings},
};
use crate::websocket::{Reply, Session};

/// The longest `audio` of an append, in bytes of the message.
const MAX_APPEND: usize = 15 << 20;

pub(super) struct RealtimeSession {
    script: Script,
    known: Arc<Mutex<Known>>,
    input: Format,
    output: Format,
    voice: String,
    interrupts: bool,
    creates: bool,
    transcribes: bool,
    tools: Vec<String>,
    has_spoken: bool,
    /// How much caller audio has come, in milliseconds.
    now_ms: u64,
    /// When the last answer began.
    turn_began_ms: u64,
    /// The sentence that the caller is saying, with its beginning and its item.
    speaking: Option<(Turn, u64, String)>,
    response: Option<Response>,
    /// Items that exist.
    items: Vec<String>,
    /// Calls that wait for their result.
    calls: Vec<String>,
    sequence_number: u64,
    out: Vec<Value>,
}

/// A response that is being given.
struct Response {
    id: String,
    /// Its speech: the item, its number among all, and how many bytes are to come.
    speech: Option<(String, usize, usize)>,
    call: Option<(&'static str, &'static str)>,
    output: Vec<Value>,
}

impl RealtimeSession {
    pub(super) fn new(script: Script, known: Arc<Mutex<Known>>) -> Self {
        Self {
            script,
            known,
            input: Format::Pcm,
            output: Format::Pcm,
            voice: "alloy".into(),
            interrupts: true,
            creates: true,
            transcribes: false,
            tools: Vec::new(),
            has_spoken: false,
            now_ms: 0,
            turn_began_ms: 0,
            speaking: None,
            response: None,
            items: Vec::new(),
            calls: Vec::new(),
            sequence_number: 0,
            out: Vec::new(),
        }
    }
}

impl Session for RealtimeSession {
    fn greeting(&mut self) -> Reply {
        self.send("session.created", json!({"session": self.object()}));
        self.reply()
    }

    fn handle_message(&mut self, message: &Message) -> Reply {
        if message.is_text() || message.is_binary() {
            self.read(message);
        }
        let is_expired = self.now_ms >= self.script.expires_after.as_millis() as u64;
        if is_expired {
            let text = "Your session hit the maximum duration of 60 minutes.";
            self.refuse(None, &Refusal::new("session_expired", text));
        }
        match is_expired {
            true => self.reply().and_close(CloseCode::NORMAL_CLOSURE, ""),
            false => self.reply(),
        }
    }

    fn audio_taken(&self) -> Duration {
        Duration::from_millis(self.now_ms)
    }
}

/// What the client says.
impl RealtimeSession {
    /// All that is to be sent.
    fn reply(&mut self) -> Reply {
        let mut reply = Reply::default();
        let mut known = self.known.lock();
        for message in self.out.drain(..) {
            reply.texts.push(message.to_string());
            known.log.push(Logged {
                from_client: false,
                message,
            });
        }
        reply
    }

    fn read(&mut self, message: &Message) {
        let text = message.as_text().unwrap_or_default();
        let Ok(message) = serde_json::from_str::<Value>(text) else {
            return self.refuse(
                None,
                &Refusal::new("invalid_json", "It has to be JSON in a text message."),
            );
        };
        self.known.lock().log.push(Logged {
            from_client: true,
            message: message.clone(),
        });
        if let Err(refusal) = self.handle(&message, text.len()) {
            self.refuse(message["event_id"].as_str(), &refusal);
        }
    }

    fn handle(&mut self, message: &Value, length: usize) -> Result<(), Refusal> {
        match check::message(message)? {
            "session.update" => self.update(check::settings(&message["session"])?)?,
            "input_audio_buffer.append" => self.append(&message["audio"], length)?,
            "input_audio_buffer.clear" => self.send("input_audio_buffer.cleared", json!({})),
            "conversation.item.create" => self.create_item(&message["item"])?,
            "conversation.item.truncate" => self.truncate(message)?,
            "response.create" => self.create_response()?,
            "response.cancel" => match self.response.is_some() {
                true => self.end_response(
                    "cancelled",
                    json!({"type": "cancelled", "reason": "client_cancelled"}),
                ),
                false => {
                    let text = "Cancellation failed: no active response found";
                    return Err(Refusal::new("response_cancel_not_active", text));
                }
            },
            other => {
                return Err(Refusal::new(
                    "unsupported",
                    format!("This stand-in has no '{other}'."),
                ));
            }
        }
        Ok(())
    }

    fn update(&mut self, settings: Settings) -> Result<(), Refusal> {
        if let Some(voice) = settings.voice {
            if self.has_spoken && voice != self.voice {
                return Err(Refusal::new(
                    "cannot_update_voice",
                    "Cannot update a conversation's voice.",
                ));
            }
            self.voice = voice;
        }
        self.input = settings.input.unwrap_or(self.input);
        self.output = settings.output.unwrap_or(self.output);
        self.interrupts = settings.interrupt_response.unwrap_or(self.interrupts);
        self.creates = settings.create_response.unwrap_or(self.creates);
        self.transcribes = settings.transcription.unwrap_or(self.transcribes);
        self.tools = settings
            .tools
            .unwrap_or_else(|| std::mem::take(&mut self.tools));
        self.send("session.updated", json!({"session": self.object()}));
        Ok(())
    }

    fn append(&mut self, audio: &Value, length: usize) -> Result<(), Refusal> {
        if length > MAX_APPEND {
            return Err(Refusal::of("audio", "The audio is longer than 15 MiB."));
        }
        let audio = audio.as_str().and_then(|it| STANDARD.decode(it).ok());
        let Some(audio) = audio else {
            return Err(Refusal::of("audio", "It has to be base64."));
        };
        if self.input == Format::Pcm && audio.len() % 2 != 0 {
            return Err(Refusal::of(
                "audio",
                "It has to be whole samples of 16 bits.",
            ));
        }
        let mut known = self.known.lock();
        known.input.extend_from_slice(&audio);
        drop(known);
        let ms = audio.len() / self.input.bytes_per_ms();
        self.now_ms += ms as u64;
        self.speak(ms * self.script.speed as usize);
        self.detect_turn();
        Ok(())
    }

    fn create_item(&mut self, item: &Value) -> Result<(), Refusal> {
        if let Some(call_id) = check::item(item)? {
            let Some(call) = self.calls.iter().position(|it| it == call_id) else {
                let text = format!("Tool call ID '{call_id}' not found in conversation.");
                return Err(Refusal::new("invalid_tool_call_id", text));
            };
            self.calls.remove(call);
        }
        let mut item = item.clone();
        if item.get("id").is_none() {
            item["id"] = json!(self.name("item"));
        }
        let id = item["id"].as_str().unwrap_or_default().to_owned();
        if self.items.contains(&id) {
            return Err(Refusal::of(
                "item.id",
                format!("Item '{id}' already exists."),
            ));
        }
        item["object"] = json!("realtime.item");
        item["status"] = json!("completed");
        self.add_item(&id, &item, true);
        Ok(())
    }

    fn truncate(&mut self, message: &Value) -> Result<(), Refusal> {
        let item_id = message["item_id"].as_str().unwrap_or_default();
        if message["content_index"] != 0 {
            return Err(Refusal::of("content_index", "There is no such content."));
        }
        let Some(end_ms) = message["audio_end_ms"].as_u64().filter(|it| *it > 0) else {
            return Err(Refusal::of(
                "audio_end_ms",
                "It has to be a positive integer.",
            ));
        };
        let mut known = self.known.lock();
        let Some(speech) = known.speeches.iter_mut().find(|it| it.item_id == item_id) else {
            return Err(Refusal::of(
                "item_id",
                format!("Item '{item_id}' has no audio of the assistant."),
            ));
        };
        let sent_ms = (speech.audio.len() / self.output.bytes_per_ms()) as u64;
        if end_ms > sent_ms {
            let text = format!("Audio content of {sent_ms}ms is already shorter than {end_ms}ms");
            return Err(Refusal::of("audio_end_ms", text));
        }
        speech.truncated_ms = Some(end_ms);
        drop(known);
        let truncated = json!({"item_id": item_id, "content_index": 0, "audio_end_ms": end_ms});
        self.send("conversation.item.truncated", truncated);
        Ok(())
    }

    fn create_response(&mut self) -> Result<(), Refusal> {
        if let Some(response) = &self.response {
            let text = format!(
                "Conversation already has an active response in progress: {}",
                response.id
            );
            return Err(Refusal::new(
                "conversation_already_has_active_response",
                text,
            ));
        }
        let answer = self.script.requested.pop_front();
        self.begin_response(&answer.unwrap_or(Answer::Speech(Duration::from_secs(1))));
        Ok(())
    }
}

/// What the server says.
impl RealtimeSession {
    fn detect_turn(&mut self) {
        if self.speaking.is_none() {
            let is_due =
                |turn: &mut Turn| self.now_ms >= self.turn_began_ms + turn.after.as_millis() as u64;
            let Some(turn) = self.script.turns.pop_front_if(is_due) else {
                return;
            };
            let item_id = self.name("item");
            let started = json!({"audio_start_ms": self.now_ms, "item_id": item_id});
            self.send("input_audio_buffer.speech_started", started);
            self.speaking = Some((turn, self.now_ms, item_id));
            if self.interrupts && self.response.is_some() {
                // Made while the caller's speech was noticed.
                self.speak(40);
                self.end_response(
                    "cancelled",
                    json!({"type": "cancelled", "reason": "turn_detected"}),
                );
            }
            return;
        }
        let now_ms = self.now_ms;
        let is_over = |(turn, began_ms, _): &mut (Turn, u64, String)| {
            now_ms >= *began_ms + turn.speech.as_millis() as u64
        };
        let Some((turn, _, item_id)) = self.speaking.take_if(is_over) else {
            return;
        };
        let stopped = json!({"audio_end_ms": self.now_ms, "item_id": item_id});
        self.send("input_audio_buffer.speech_stopped", stopped);
        let previous = self.items.last().cloned();
        let committed = json!({"item_id": item_id, "previous_item_id": previous});
        self.send("input_audio_buffer.committed", committed);
        let item = json!({
            "id": item_id, "object": "realtime.item", "type": "message", "status": "completed", "role": "user",
            "content": [{"type": "input_audio", "transcript": null}],
        });
        self.add_item(&item_id, &item, true);
        self.turn_began_ms = self.now_ms;
        if self.creates && self.response.is_none() {
            self.begin_response(&turn.answer);
        }
        if self.transcribes {
            let transcript = json!({
                "item_id": item_id, "content_index": 0, "transcript": "Hello.",
                "usage": {"type": "duration", "seconds": turn.speech.as_secs_f64()},
            });
            self.send(
                "conversation.item.input_audio_transcription.completed",
                transcript,
            );
        }
    }

    fn begin_response(&mut self, answer: &Answer) {
        let id = self.name("resp");
        let mut response = Response {
            id,
            speech: None,
            call: None,
            output: Vec::new(),
        };
        let object = self.response_object(&response, "in_progress", &Value::Null);
        self.send("response.created", json!({"response": object}));
        let (speech, call) = match answer {
            Answer::Speech(length) => (*length, None),
            Answer::Call(length, name, arguments) => (*length, Some((*name, *arguments))),
            Answer::Failure(code) => {
                self.response = Some(response);
                let error =
                    json!({"type": "invalid_request_error", "code": code, "message": "No."});
                return self.end_response("failed", json!({"type": "failed", "error": error}));
            }
        };
        response.call = call;
        if !speech.is_zero() {
            let item_id = self.name("item");
            let item = assistant(&item_id, "in_progress", &json!([]));
            let added = json!({"response_id": response.id, "output_index": 0, "item": item});
            self.send("response.output_item.added", added);
            self.add_item(&item_id, &item, false);
            let part = json!({"type": "audio", "transcript": ""});
            self.send(
                "response.content_part.added",
                of_part(&response.id, &item_id, json!({"part": part})),
            );
            let mut known = self.known.lock();
            known.speeches.push(Speech {
                item_id: item_id.clone(),
                audio: Vec::new(),
                truncated_ms: None,
            });
            let number = known.speeches.len() - 1;
            drop(known);
            let bytes = speech.as_millis() as usize * self.output.bytes_per_ms();
            response.speech = Some((item_id, number, bytes));
        }
        self.has_spoken = true;
        self.response = Some(response);
        self.speak(20 * self.script.speed as usize);
    }

    /// Says this many more milliseconds.
    fn speak(&mut self, ms: usize) {
        let Some(response) = &mut self.response else {
            return;
        };
        let Some((item_id, number, left)) = &mut response.speech else {
            return self.end_response("completed", Value::Null);
        };
        let bytes = (ms * self.output.bytes_per_ms()).min(*left);
        *left -= bytes;
        let is_over = *left == 0;
        let mut known = self.known.lock();
        let said = &mut known.speeches[*number].audio;
        let audio = audio(self.output, *number, said.len(), bytes);
        said.extend_from_slice(&audio);
        drop(known);
        let (id, item_id) = (response.id.clone(), item_id.clone());
        if bytes > 0 {
            let delta = json!({"delta": STANDARD.encode(audio)});
            self.send("response.output_audio.delta", of_part(&id, &item_id, delta));
            let words = json!({"delta": "word "});
            self.send(
                "response.output_audio_transcript.delta",
                of_part(&id, &item_id, words),
            );
        }
        if is_over {
            self.end_response("completed", Value::Null);
        }
    }

    fn end_response(&mut self, status: &str, details: Value) {
        let Some(mut response) = self.response.take() else {
            return;
        };
        let item_status = match status {
            "completed" => "completed",
            _ => "incomplete",
        };
        if let Some((item_id, ..)) = response.speech.take() {
            self.send(
                "response.output_audio.done",
                of_part(&response.id, &item_id, json!({})),
            );
            let done = json!({"transcript": "word word"});
            self.send(
                "response.output_audio_transcript.done",
                of_part(&response.id, &item_id, done),
            );
            let part = json!({"type": "audio", "transcript": "word word"});
            self.send(
                "response.content_part.done",
                of_part(&response.id, &item_id, json!({"part": part})),
            );
            let content = json!([{"type": "output_audio", "transcript": "word word"}]);
            let item = assistant(&item_id, item_status, &content);
            self.finish_item(&mut response, item);
        }
        if let (Some((name, arguments)), "completed") = (response.call, status) {
            self.call(&mut response, name, arguments);
        }
        let object = self.response_object(&response, status, &details);
        self.send("response.done", json!({"response": object}));
        let limits =
            json!([{"name": "requests", "limit": 1000, "remaining": 999, "reset_seconds": 60.0}]);
        self.send("rate_limits.updated", json!({"rate_limits": limits}));
    }

    fn call(&mut self, response: &mut Response, name: &str, arguments: &str) {
        let (item_id, call_id) = (self.name("item"), self.name("call"));
        let item = |status: &str, arguments: &str| {
            json!({
                "id": item_id, "object": "realtime.item", "type": "function_call", "status": status,
                "name": name, "call_id": call_id, "arguments": arguments,
            })
        };
        let index = response.output.len();
        let place = |more: Value| {
            let mut place = json!({"response_id": response.id, "output_index": index});
            merge(&mut place, more);
            place
        };
        let added = item("in_progress", "");
        self.send("response.output_item.added", place(json!({"item": added})));
        self.add_item(&item_id, &added, false);
        let of_call = json!({"item_id": item_id, "call_id": call_id});
        let mut delta = of_call.clone();
        delta["delta"] = json!(arguments);
        self.send("response.function_call_arguments.delta", place(delta));
        let mut done = of_call;
        merge(&mut done, json!({"name": name, "arguments": arguments}));
        self.send("response.function_call_arguments.done", place(done));
        self.calls.push(call_id.clone());
        let item = item("completed", arguments);
        self.finish_item(response, item);
    }

    fn finish_item(&mut self, response: &mut Response, item: Value) {
        let index = response.output.len();
        let done = json!({"response_id": response.id, "output_index": index, "item": item});
        self.send(
            "conversation.item.done",
            json!({"item": item, "previous_item_id": null}),
        );
        self.send("response.output_item.done", done);
        response.output.push(item);
    }

    fn add_item(&mut self, id: &str, item: &Value, is_whole: bool) {
        let previous = self.items.last().cloned();
        self.items.push(id.into());
        self.send(
            "conversation.item.added",
            json!({"item": item, "previous_item_id": previous}),
        );
        if is_whole {
            self.send(
                "conversation.item.done",
                json!({"item": item, "previous_item_id": previous}),
            );
        }
    }

    fn refuse(&mut self, event_id: Option<&str>, refusal: &Refusal) {
        let error = json!({
            "type": "invalid_request_error",
            "code": refusal.code,
            "message": refusal.message,
            "param": refusal.param,
            "event_id": event_id,
        });
        self.send("error", json!({"error": error}));
    }

    fn send(&mut self, kind: &str, content: Value) {
        let mut message = json!({"type": kind, "event_id": self.name("event")});
        merge(&mut message, content);
        self.out.push(message);
    }

    fn name(&mut self, prefix: &str) -> String {
        self.sequence_number += 1;
        format!("{prefix}_{}", self.sequence_number)
    }

    fn object(&self) -> Value {
        let tools = self
            .tools
            .iter()
            .map(|name| json!({"type": "function", "name": name}));
        let transcription = match self.transcribes {
            true => json!({"model": "gpt-4o-mini-transcribe"}),
            false => Value::Null,
        };
        json!({
            "type": "realtime",
            "model": "gpt-realtime",
            "output_modalities": ["audio"],
            "tools": tools.collect::<Vec<_>>(),
            "audio": {
                "input": {
                    "format": format_object(self.input),
                    "transcription": transcription,
                    "turn_detection": {
                        "type": "server_vad",
                        "create_response": self.creates,
                        "interrupt_response": self.interrupts,
                    },
                },
                "output": {"format": format_object(self.output), "voice": self.voice},
            },
        })
    }

    fn response_object(&self, response: &Response, status: &str, details: &Value) -> Value {
        json!({
            "object": "realtime.response",
            "id": response.id,
            "status": status,
            "status_details": details,
            "output": response.output,
            "output_modalities": ["audio"],
            "max_output_tokens": "inf",
            "audio": {"output": {"format": format_object(self.output), "voice": self.voice}},
        })
    }
}

fn merge(message: &mut Value, content: Value) {
    if let (Value::Object(message), Value::Object(mut content)) = (message, content) {
        message.append(&mut content);
    }
}

fn of_part(response_id: &str, item_id: &str, more: Value) -> Value {
    let mut part = json!({"response_id": response_id, "item_id": item_id, "output_index": 0, "content_index": 0});
    merge(&mut part, more);
    part
}

fn assistant(item_id: &str, status: &str, content: &Value) -> Value {
    json!({
        "id": item_id, "object": "realtime.item", "type": "message", "status": status, "role": "assistant",
        "content": content,
    })
}

fn format_object(format: Format) -> Value {
    match format {
        Format::Pcm => json!({"type": format.name(), "rate": 24_000}),
        Format::Pcmu | Format::Pcma => json!({"type": format.name()}),
    }
}

/// Audio that says of each piece of itself where it is from: noise in G.711, and in linear samples, which may be resampled, one
/// level for each item.
fn audio(format: Format, number: usize, from: usize, length: usize) -> Vec<u8> {
    let bytes = from..from + length;
    match format {
        Format::Pcm => {
            let level = 1000 + 500 * (number as i16 % 50);
            bytes.map(|it| level.to_le_bytes()[it % 2]).collect()
        }
        Format::Pcmu | Format::Pcma => bytes.map(|it| noise(number, it)).collect(),
    }
}

/// Any byte but those of silence.
fn noise(number: usize, index: usize) -> u8 {
    let mut bits = (number as u64) << 32 | index as u64;
    for _ in 0..3 {
        bits = (bits ^ (bits >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    }
    // Loud ones of either sign.
    (bits >> 56) as u8 & 0xBF
}
