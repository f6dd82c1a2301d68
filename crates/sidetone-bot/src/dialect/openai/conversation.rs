//! One connection to the service.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    Interruption, OpenAi,
    message::{self, APPEND, Event, Item, ServiceError},
    speeches::{Speeches, Truncation},
    tools::{self, Tool, ToolSet},
};
use crate::{
    dialect::{
        self, Action, AudioFormat, CallEvent, Cleared, Conversation, Message, Received, Speaker,
        Transcript,
    },
    failure::BotFailure,
    session::Session,
};

/// Frames of 20 ms that are kept until the service has taken the settings. Older ones are dropped.
const MAX_HELD: usize = 100;
/// Functions that the bot may have called and not got an answer of.
const MAX_CALLS: usize = 32;
/// Items that may wait for the service to confirm them.
const MAX_UNCONFIRMED: usize = 64;
/// A response that fails is asked for once more. Another failure in a row ends the conversation.
const MAX_FAILED_RESPONSES: u32 = 2;
/// Of what the service says, for logs.
const MAX_TEXT: usize = 300;

/// Why a bot's part of the call is not over.
const INTERRUPTED: &str = "the caller interrupted; the call goes on";

/// The event that sets everything up.
const SETTINGS: &str = "settings";

pub(super) struct Realtime {
    key: Arc<str>,
    session: Value,
    tools: ToolSet,
    format: AudioFormat,
    interruption: Interruption,
    speaks_first: bool,
    answers_digits: bool,
    is_reconnect: bool,
    state: State,
    /// The response that the service is giving.
    response: Option<Response>,
    /// Our request for a response that it has not begun to give.
    requested: Option<String>,
    /// The request that is taken for the cause of the current response. If it is refused, the service was first.
    answered: Option<String>,
    /// A response is due as soon as it can be asked for.
    wants_response: bool,
    /// Items of ours that the service has not confirmed: a response that begins now may not know them.
    unconfirmed: Vec<String>,
    caller: CallerTurn,
    speeches: Speeches,
    /// Clears under way.
    clears: u32,
    /// Functions that are being carried out.
    calls: HashMap<String, Tool>,
    /// The function called in this response that ends the bot's part of the call.
    ending: Option<(Tool, FunctionCall)>,
    /// As soon as all that the bot has said is heard. Until then the caller can still interrupt.
    goodbye: Option<(Tool, FunctionCall)>,
    failed_responses: u32,
    /// What the caller says can't be transcribed.
    lacks_transcripts: bool,
    /// Of our events.
    sequence_number: u64,
}

enum State {
    /// The service has not taken the settings.
    Unsettled {
        held: VecDeque<Message>,
        digits: Vec<char>,
        frames: u32,
    },
    Settled,
}

/// Where the caller is in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallerTurn {
    None,
    Speaking,
    /// The service is about to answer, by itself.
    Finished,
}

struct Response {
    id: Option<String>,
    /// It began when the service had all items of ours.
    knows_all: bool,
    /// The caller has interrupted it: what comes of it is not heard.
    is_cut: bool,
}

struct FunctionCall {
    id: String,
    arguments: String,
}

impl Realtime {
    pub(super) fn new(settings: &OpenAi, session: &Session, format: AudioFormat) -> Self {
        Self {
            key: Arc::clone(&settings.key),
            session: settings.session(session, format),
            tools: settings.tools.clone(),
            format,
            interruption: settings.interruption,
            speaks_first: settings.speaks_first,
            answers_digits: settings.answers_digits,
            is_reconnect: session.is_reconnect(),
            state: State::Unsettled {
                held: VecDeque::new(),
                digits: Vec::new(),
                frames: 0,
            },
            response: None,
            requested: None,
            answered: None,
            wants_response: false,
            unconfirmed: Vec::new(),
            caller: CallerTurn::None,
            speeches: Speeches::new(format),
            clears: 0,
            calls: HashMap::new(),
            ending: None,
            goodbye: None,
            failed_responses: 0,
            lacks_transcripts: false,
            sequence_number: 0,
        }
    }
}

impl Conversation for Realtime {
    fn caller_format(&self) -> AudioFormat {
        self.format
    }

    fn handle_event(&mut self, event: CallEvent<'_>, queued: Duration, actions: &mut Vec<Action>) {
        match event {
            // The service reads it after it has sent `session.created`, so that need not be waited for.
            CallEvent::Connected => {
                let session = self.session.take();
                let update =
                    json!({"type": "session.update", "event_id": SETTINGS, "session": session});
                send(actions, &update);
            }
            CallEvent::Audio { payload, .. } => self.handle_audio(payload, actions),
            CallEvent::Digit(digit) => self.handle_digit(digit, queued, actions),
            CallEvent::Cleared(cleared) => self.handle_cleared(cleared, actions),
            CallEvent::Drained => {
                // More may have come since the queue was empty.
                if queued.is_zero() && self.clears == 0 {
                    self.speeches.forget_whole();
                }
            }
            CallEvent::ToolResult { id, output } => self.handle_tool_result(id, output, actions),
            // Closing the connection ends everything.
            CallEvent::MarkReached(_) | CallEvent::Ended => {}
        }
        self.end_call(queued, actions);
        self.request_response(actions);
    }

    fn handle_message(
        &mut self,
        message: Received<'_>,
        queued: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), BotFailure> {
        let Received::Text(text) = message else {
            complain(actions, "a binary message: the Realtime API is text");
            return Ok(());
        };
        let event: Event = match serde_json::from_str(text) {
            Ok(event) => event,
            Err(error) => {
                complain(actions, format!("no event of the Realtime API: {error}"));
                return Ok(());
            }
        };
        self.handle_service(event, queued, actions)?;
        self.end_call(queued, actions);
        self.request_response(actions);
        Ok(())
    }

    fn is_caller_audio(&self, message: &Message) -> bool {
        matches!(message, Message::Text(text) if text.starts_with(APPEND))
    }

    fn is_settled(&self) -> bool {
        matches!(self.state, State::Settled)
    }

    /// The service never hangs up: its end is a limit, or a fault.
    fn ends_by_closing(&self) -> bool {
        false
    }
}

/// What happens on the call.
impl Realtime {
    fn handle_audio(&mut self, payload: &[u8], actions: &mut Vec<Action>) {
        let message = message::append(payload);
        let State::Unsettled { held, frames, .. } = &mut self.state else {
            actions.push(Action::Send(message));
            return;
        };
        // Until it has taken the settings, the service would take audio for another format.
        held.push_back(message);
        *frames = frames.saturating_add(1);
        if held.len() > MAX_HELD {
            held.pop_front();
        }
        if *frames == MAX_HELD as u32 + 1 {
            complain(
                actions,
                "it takes long to take its settings: what the caller says meanwhile is lost",
            );
        }
    }

    fn handle_digit(&mut self, digit: char, queued: Duration, actions: &mut Vec<Action>) {
        if let State::Unsettled { digits, .. } = &mut self.state {
            digits.push(digit);
            return;
        }
        if self.answers_digits {
            self.interrupt(true, queued, actions);
            self.wants_response = true;
        }
        let text = format!("The caller pressed {digit}");
        self.create_item(message::said("user", &text), actions);
    }

    fn handle_cleared(&mut self, cleared: &Cleared, actions: &mut Vec<Action>) {
        self.clears = self.clears.saturating_sub(1);
        for truncation in self.speeches.cut(cleared) {
            self.truncate(&truncation, actions);
        }
    }

    fn handle_tool_result(
        &mut self,
        id: &str,
        output: Result<&str, &str>,
        actions: &mut Vec<Action>,
    ) {
        match (self.calls.remove(id), output) {
            (None, _) => {}
            (Some(Tool::Transfer), Ok(_)) => actions.push(Action::End),
            (Some(_), output) => {
                self.answer_call(id, output, actions);
                self.wants_response = true;
            }
        }
    }
}

/// What the service says.
impl Realtime {
    fn handle_service(
        &mut self,
        event: Event,
        queued: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), BotFailure> {
        match event.kind.as_str() {
            "session.updated" => self.handle_settled(actions),
            "input_audio_buffer.speech_started" => {
                self.caller = CallerTurn::Speaking;
                match self.interruption {
                    Interruption::ByService => self.interrupt(false, queued, actions),
                    Interruption::ByClient => self.interrupt(true, queued, actions),
                    Interruption::Never => {}
                }
            }
            "input_audio_buffer.speech_stopped" => self.caller = CallerTurn::Finished,
            "response.created" => self.handle_response_created(event, actions),
            "response.output_audio.delta" => self.handle_speech(&event, actions),
            "response.output_audio.done" => self.handle_speech_end(&event, actions),
            "response.output_audio_transcript.done" => {
                report_transcript(Speaker::Bot, event.transcript, actions);
            }
            "conversation.item.input_audio_transcription.completed" => {
                report_transcript(Speaker::Caller, event.transcript, actions);
            }
            "conversation.item.input_audio_transcription.failed" => {
                // Said once: it may go on for the whole call, which is none the worse.
                if std::mem::replace(&mut self.lacks_transcripts, true) {
                    return Ok(());
                }
                let error = event.error.unwrap_or_default();
                complain(
                    actions,
                    format!("no transcript of the caller: {}", self.describe(&error)),
                );
            }
            "conversation.item.added" | "conversation.item.created" => {
                let id = event.item.and_then(|it| it.id);
                self.unconfirmed.retain(|it| Some(it) != id.as_ref());
            }
            "response.output_item.done" => {
                if let Some(item) = event.item {
                    self.handle_item(item, actions);
                }
            }
            "response.done" => return self.handle_response_done(event, actions),
            "error" => return self.handle_error(&event.error.unwrap_or_default(), actions),
            // The service has many more, and adds some.
            _ => {}
        }
        Ok(())
    }

    fn handle_settled(&mut self, actions: &mut Vec<Action>) {
        let State::Unsettled { held, digits, .. } =
            std::mem::replace(&mut self.state, State::Settled)
        else {
            return;
        };
        if self.is_reconnect {
            let text = "The connection was lost for a moment, and with it what was said before. Go on with the call.";
            self.create_item(message::said("system", text), actions);
        }
        self.wants_response = self.speaks_first || self.is_reconnect;
        actions.extend(held.into_iter().map(Action::Send));
        for digit in digits {
            self.handle_digit(digit, Duration::ZERO, actions);
        }
    }

    fn handle_response_created(&mut self, event: Event, actions: &mut Vec<Action>) {
        self.answered = self.requested.take();
        let is_ours = self.answered.is_some();
        let knows_all = self.unconfirmed.is_empty();
        self.response = Some(Response {
            id: event.response.and_then(|it| it.id),
            knows_all,
            is_cut: false,
        });
        if knows_all {
            self.wants_response = false;
        }
        match self.caller {
            // The service interrupts what it was saying when the caller began, but not what it was asked for since.
            CallerTurn::Speaking if is_ours && self.interruption != Interruption::Never => {
                self.cut_response(true, actions);
            }
            CallerTurn::Speaking => {}
            CallerTurn::None | CallerTurn::Finished => self.caller = CallerTurn::None,
        }
    }

    fn handle_speech(&mut self, event: &Event, actions: &mut Vec<Action>) {
        let (Some(item_id), Some(delta)) = (&event.item_id, &event.delta) else {
            return complain(
                actions,
                "audio without its item, or an item without its audio",
            );
        };
        // On its way when the caller interrupted.
        if self.is_cut(event.response_id.as_deref()) {
            return;
        }
        let audio = match STANDARD.decode(delta) {
            Ok(audio) => audio,
            Err(error) => return complain(actions, format!("audio that is not base64: {error}")),
        };
        let index = event.content_index.unwrap_or(0);
        let (name, audio) = self.speeches.add(item_id, index, &audio);
        actions.push(Action::Play {
            item: Some(name),
            format: self.format,
            audio,
        });
    }

    fn handle_speech_end(&mut self, event: &Event, actions: &mut Vec<Action>) {
        if self.is_cut(event.response_id.as_deref()) {
            return;
        }
        let index = event.content_index.unwrap_or(0);
        let item_id = event.item_id.as_deref().unwrap_or_default();
        if let Some(name) = self.speeches.end(item_id, index) {
            actions.push(Action::EndItem(name));
        }
    }

    fn handle_item(&mut self, item: Item, actions: &mut Vec<Action>) {
        if item.kind.as_deref() != Some("function_call")
            || item.status.as_deref() == Some("incomplete")
        {
            return;
        }
        let (Some(name), Some(id)) = (item.name, item.call_id) else {
            return complain(actions, "a function call without a name or a call_id");
        };
        let call = FunctionCall {
            id,
            arguments: item.arguments.unwrap_or_default(),
        };
        match self.tools.find(&name) {
            None => {
                complain(
                    actions,
                    format!("it calls a function that it does not have: {name:.64?}"),
                );
                self.refuse_call(&call.id, "there is no such function", actions);
            }
            // What the bot says in this response comes first, and the caller may interrupt it.
            Some(tool @ (Tool::HangUp | Tool::Transfer)) if self.ending.is_none() => {
                self.ending = Some((tool, call));
            }
            Some(Tool::HangUp | Tool::Transfer) => {
                self.refuse_call(&call.id, "the call is ended already", actions);
            }
            Some(Tool::Other) => self.call_tool(Tool::Other, &name, call, actions),
        }
    }

    fn call_tool(&mut self, tool: Tool, name: &str, call: FunctionCall, actions: &mut Vec<Action>) {
        if self.calls.len() >= MAX_CALLS {
            return self.refuse_call(&call.id, "too many functions are called at once", actions);
        }
        self.calls.insert(call.id.clone(), tool);
        actions.push(Action::CallTool {
            id: call.id,
            name: name.into(),
            arguments: call.arguments,
        });
    }

    fn refuse_call(&mut self, id: &str, reason: &str, actions: &mut Vec<Action>) {
        self.answer_call(id, Err(reason), actions);
        self.wants_response = true;
    }

    fn answer_call(&mut self, id: &str, output: Result<&str, &str>, actions: &mut Vec<Action>) {
        let item = match output {
            Ok(output) => message::function_output(id, output),
            Err(reason) => message::function_output(id, &json!({"error": reason}).to_string()),
        };
        self.create_item(item, actions);
    }

    fn handle_response_done(
        &mut self,
        event: Event,
        actions: &mut Vec<Action>,
    ) -> Result<(), BotFailure> {
        let response = event.response;
        let done = response.as_ref().and_then(|it| it.id.as_deref());
        let is_active = self
            .response
            .as_ref()
            .is_some_and(|it| it.id.as_deref() == done);
        let was_cut = is_active && self.is_cut(done);
        if is_active || done.is_none() {
            self.response = None;
            // It does not answer what was said into a response that was not to be interrupted.
            if self.caller == CallerTurn::Finished {
                self.caller = CallerTurn::None;
            }
        }
        let (status, details) = response
            .map(|it| {
                (
                    it.status.unwrap_or_default(),
                    it.status_details.unwrap_or_default(),
                )
            })
            .unwrap_or_default();
        let ending = self.ending.take();
        if let Some((tool, call)) = ending {
            match status.as_str() {
                "completed" if !was_cut => self.goodbye = Some((tool, call)),
                // The caller gets an answer when the caller has finished.
                _ if was_cut || status == "cancelled" => {
                    self.answer_call(&call.id, Err(INTERRUPTED), actions);
                }
                _ => self.refuse_call(
                    &call.id,
                    "what was to be said before is not complete",
                    actions,
                ),
            }
        }
        match status.as_str() {
            "failed" => {
                return self.handle_failed_response(&details.error.unwrap_or_default(), actions);
            }
            "incomplete" => {
                let reason = details.reason.as_deref().unwrap_or("unknown");
                complain(actions, format!("a response is not complete: {reason:.64}"));
            }
            _ => {}
        }
        self.failed_responses = 0;
        Ok(())
    }

    /// Ends the bot's part of the call, if that is due.
    fn end_call(&mut self, queued: Duration, actions: &mut Vec<Action>) {
        let Some((tool, call)) = self.goodbye.take_if(|_| queued.is_zero()) else {
            return;
        };
        if tool == Tool::HangUp {
            actions.push(Action::End);
            return;
        }
        match tools::transfer_arguments(&call.arguments) {
            Ok(arguments) => {
                let call = FunctionCall { arguments, ..call };
                self.call_tool(Tool::Transfer, tools::TRANSFER, call, actions);
            }
            Err(reason) => self.refuse_call(&call.id, &reason, actions),
        }
    }

    fn handle_failed_response(
        &mut self,
        error: &ServiceError,
        actions: &mut Vec<Action>,
    ) -> Result<(), BotFailure> {
        self.failed_responses += 1;
        if let Some(failure) = self.failure(error) {
            return Err(failure);
        }
        let text = self.describe(error);
        if self.failed_responses >= MAX_FAILED_RESPONSES {
            return Err(BotFailure::Rejected(format!("its responses fail: {text}")));
        }
        complain(
            actions,
            format!("a response failed, and is asked for once more: {text}"),
        );
        self.wants_response = true;
        Ok(())
    }

    fn handle_error(
        &mut self,
        error: &ServiceError,
        actions: &mut Vec<Action>,
    ) -> Result<(), BotFailure> {
        if let Some(failure) = self.failure(error) {
            return Err(failure);
        }
        let about = error.event_id.as_deref();
        self.unconfirmed.retain(|it| Some(it.as_str()) != about);
        let is_about = |request: &mut Option<String>| {
            request.take_if(|it| Some(it.as_str()) == about).is_some()
        };
        let is_request = is_about(&mut self.requested) | is_about(&mut self.answered);
        match error.code() {
            // The response was over when it was to be cancelled.
            "response_cancel_not_active" => return Ok(()),
            // The service has begun one of its own, which may not know what ours was about.
            "conversation_already_has_active_response" if is_request => {
                if let Some(response) = &self.response {
                    self.wants_response |= !response.knows_all;
                    return Ok(());
                }
            }
            _ => {}
        }
        complain(actions, self.describe(error));
        Ok(())
    }

    /// How the conversation ends, if it does by this error.
    fn failure(&self, error: &ServiceError) -> Option<BotFailure> {
        let text = || self.describe(error);
        match error.code() {
            "session_expired" => return Some(BotFailure::Expired(text())),
            "rate_limit_exceeded" | "rate_limit_error" => {
                return Some(BotFailure::RateLimited(text()));
            }
            "invalid_api_key"
            | "account_deactivated"
            | "billing_not_active"
            | "insufficient_quota"
            | "model_not_found"
            | "permission_denied"
            | "unsupported_country_region_territory" => {
                return Some(BotFailure::Rejected(text()));
            }
            _ => {}
        }
        let kinds = [
            "authentication_error",
            "permission_error",
            "insufficient_quota",
        ];
        let is_refused = error.kind.as_deref().is_some_and(|it| kinds.contains(&it));
        // Without its settings, the bot would be another one.
        let are_settings = error.event_id.as_deref() == Some(SETTINGS)
            || matches!(self.state, State::Unsettled { .. }) && error.event_id.is_none();
        match is_refused || are_settings {
            true => Some(BotFailure::Rejected(text())),
            false => None,
        }
    }

    /// For an operator.
    fn describe(&self, error: &ServiceError) -> String {
        let message = error.message.as_deref().unwrap_or_default();
        let text = format!("{}: {message}", error.code()).replace(&*self.key, "…");
        let end = text.floor_char_boundary(MAX_TEXT);
        text[..end].trim_end_matches([' ', ':']).into()
    }
}

/// Interruptions and responses.
impl Realtime {
    /// The bot stops speaking. `cancels` says that the service would not stop by itself.
    fn interrupt(&mut self, cancels: bool, queued: Duration, actions: &mut Vec<Action>) {
        self.cut_response(cancels, actions);
        if let Some((_, call)) = self.goodbye.take() {
            self.answer_call(&call.id, Err(INTERRUPTED), actions);
        }
        if !queued.is_zero() {
            self.clears += 1;
            actions.push(Action::Clear);
        } else if self.clears == 0 {
            // All that came was heard, but the service may have more of it than that.
            for (name, truncation) in self.speeches.cut_unfinished() {
                if let Some(truncation) = truncation {
                    self.truncate(&truncation, actions);
                }
                actions.push(Action::EndItem(name));
            }
        }
    }

    fn cut_response(&mut self, cancels: bool, actions: &mut Vec<Action>) {
        if let Some(response) = &mut self.response
            && !std::mem::replace(&mut response.is_cut, true)
            && cancels
        {
            let cancel = json!({"type": "response.cancel", "event_id": self.next_event_id()});
            send(actions, &cancel);
        }
    }

    fn is_cut(&self, response_id: Option<&str>) -> bool {
        let response = self.response.as_ref();
        response.is_some_and(|it| it.is_cut && it.id.as_deref() == response_id)
    }

    /// Tells the service how much of a piece of speech was heard.
    fn truncate(&mut self, truncation: &Truncation, actions: &mut Vec<Action>) {
        let truncate = json!({
            "type": "conversation.item.truncate",
            "event_id": self.next_event_id(),
            "item_id": truncation.item_id,
            "content_index": truncation.content_index,
            "audio_end_ms": truncation.audio_end_ms,
        });
        send(actions, &truncate);
    }

    fn create_item(&mut self, mut item: Value, actions: &mut Vec<Action>) {
        // One name for both, so that an error and a confirmation are recognized.
        let id = self.next_event_id();
        item["id"] = json!(id);
        let create = json!({"type": "conversation.item.create", "event_id": id, "item": item});
        if self.unconfirmed.len() >= MAX_UNCONFIRMED {
            self.unconfirmed.remove(0);
        }
        self.unconfirmed.push(id);
        send(actions, &create);
    }

    /// Asks for a response, if one is due and the service would give it: it gives one at a time, and what it has to know comes first.
    fn request_response(&mut self, actions: &mut Vec<Action>) {
        let is_possible = matches!(self.state, State::Settled)
            && self.response.is_none()
            && self.requested.is_none()
            && self.clears == 0
            && self.calls.is_empty()
            // The service answers what the caller says by itself.
            && self.caller == CallerTurn::None;
        if !self.wants_response || !is_possible {
            return;
        }
        self.wants_response = false;
        let id = self.next_event_id();
        send(actions, &json!({"type": "response.create", "event_id": id}));
        self.requested = Some(id);
    }

    fn next_event_id(&mut self) -> String {
        self.sequence_number += 1;
        format!("sidetone_{}", self.sequence_number)
    }
}

fn report_transcript(speaker: Speaker, text: Option<String>, actions: &mut Vec<Action>) {
    let text = text.unwrap_or_default().trim().to_owned();
    if !text.is_empty() {
        actions.push(Action::Transcript(Transcript { speaker, text }));
    }
}

fn send(actions: &mut Vec<Action>, message: &Value) {
    actions.push(Action::Send(Message::Text(message.to_string())));
}

fn complain(actions: &mut Vec<Action>, complaint: impl Into<Cow<'static, str>>) {
    // It ends nothing.
    let _ = dialect::complain(actions, complaint);
}
