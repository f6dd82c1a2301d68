//! The conversation as tables: what happens, and what comes of it.

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
        Action::Fail(failure) => json!({"fail": failure.kind()}),
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

#[test]
fn a_conversation_begins_with_its_settings() {
    let bot = bot()
        .voice("marin")
        .instructions("The caller is {from}. {Hi}")
        .turn_detection(TurnDetection::Silence {
            threshold: Some(0.7),
            prefix_padding: None,
            silence: Some(Duration::from_millis(400)),
            idle_timeout: None,
        })
        .unwrap()
        .tools(r#"[{"name": "weather", "description": "It tells the weather."}]"#)
        .unwrap()
        .allow_hang_up()
        .transcribe("gpt-4o-mini-transcribe", Some("de".into()));
    let (_, sent) = Talk::begin_with(&bot, &session(), AudioFormat::ULAW);
    let [update] = sent.as_slice() else {
        panic!("{sent:?}");
    };
    assert_eq!(update["type"], "session.update");
    let mut session = update["session"].clone();
    let tools = session.as_object_mut().unwrap().remove("tools").unwrap();
    let expected = json!({
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": "The caller is +49 30. {Hi}",
        "tool_choice": "auto",
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "transcription": {"model": "gpt-4o-mini-transcribe", "language": "de"},
                "turn_detection": {
                    "type": "server_vad", "threshold": 0.7, "silence_duration_ms": 400,
                    "create_response": true, "interrupt_response": true,
                },
            },
            "output": {"format": {"type": "audio/pcmu"}, "voice": "marin"},
        },
    });
    assert_eq!(session, expected);
    let names: Vec<_> = tools
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(names, ["weather", "hang_up"]);
}

#[test]
fn formats_follow_the_call() {
    let pcm = json!({"type": "audio/pcm", "rate": 24000});
    let cases = [
        (
            AudioFormat::ULAW,
            AudioFormat::ULAW,
            json!({"type": "audio/pcmu"}),
        ),
        (
            AudioFormat::ALAW,
            AudioFormat::ALAW,
            json!({"type": "audio/pcma"}),
        ),
        (
            AudioFormat::linear(8_000),
            AudioFormat::ULAW,
            json!({"type": "audio/pcmu"}),
        ),
        (
            AudioFormat::linear(16_000),
            AudioFormat::linear(24_000),
            pcm.clone(),
        ),
        (
            AudioFormat::linear(48_000),
            AudioFormat::linear(24_000),
            pcm,
        ),
    ];
    for (caller, expected, object) in cases {
        let (talk, sent) = Talk::begin_with(&bot(), &session(), caller);
        assert_eq!(talk.conversation.caller_format(), expected, "{caller:?}");
        assert_eq!(
            sent[0]["session"]["audio"]["input"]["format"], object,
            "{caller:?}"
        );
        assert_eq!(
            sent[0]["session"]["audio"]["output"]["format"], object,
            "{caller:?}"
        );
    }
}

#[test]
fn interruption_and_turn_detection_are_the_services_words() {
    let meaning = |eagerness| TurnDetection::Meaning { eagerness };
    let cases = [
        (
            TurnDetection::default(),
            Interruption::ByService,
            json!({"type": "server_vad", "create_response": true, "interrupt_response": true}),
        ),
        (
            TurnDetection::default(),
            Interruption::ByClient,
            json!({"type": "server_vad", "create_response": true, "interrupt_response": false}),
        ),
        (
            meaning(None),
            Interruption::Never,
            json!({"type": "semantic_vad", "eagerness": "auto", "create_response": true, "interrupt_response": false}),
        ),
        (
            meaning(Some(Eagerness::Low)),
            Interruption::ByService,
            json!({"type": "semantic_vad", "eagerness": "low", "create_response": true, "interrupt_response": true}),
        ),
    ];
    for (turn_detection, interruption, expected) in cases {
        let bot = bot()
            .turn_detection(turn_detection)
            .unwrap()
            .interruption(interruption);
        assert_eq!(bot.turn_detection_object(), expected);
    }
    let wrong = TurnDetection::Silence {
        threshold: Some(1.5),
        prefix_padding: None,
        silence: None,
        idle_timeout: None,
    };
    assert!(
        bot()
            .turn_detection(wrong)
            .unwrap_err()
            .to_string()
            .contains("from 0 to 1")
    );
}

#[test]
fn the_key_is_a_header_and_nothing_else() {
    let bot = bot();
    let upgrade = bot.upgrade("wss://api.openai.com/v1/realtime", &session());
    assert_eq!(upgrade.query, "model=gpt-realtime");
    assert_eq!(
        upgrade.headers,
        [(AUTHORIZATION, HeaderValue::from_static("Bearer sk-secret"))]
    );
    let named = bot.upgrade("wss://host/realtime?a=1&model=mine", &session());
    assert_eq!(named.query, "");
    for shown in [format!("{bot:?}"), format!("{upgrade:?}")] {
        assert!(!shown.contains("sk-secret"), "{shown}");
    }
    for wrong in ["", " \n", "sk-\nsecret", "sk-\u{7f}secret"] {
        let error = OpenAi::new(wrong, "gpt-realtime").unwrap_err().to_string();
        assert!(
            error.contains("key") && !error.contains("sk-"),
            "{wrong:?}: {error}"
        );
    }
    assert!(OpenAi::new("sk-secret", " ").is_err());
    assert!(OpenAi::new(" sk-secret\n", "gpt-realtime").is_ok());
}

#[test]
fn audio_waits_until_the_settings_are_taken() {
    let mut talk = Talk::begin(&bot());
    let frame = |number: u8| CallEvent::Audio {
        timestamp: Duration::ZERO,
        payload: Box::leak(Box::new([number])),
    };
    let append = |audio: &str| json!({"type": "input_audio_buffer.append", "audio": audio});
    assert_eq!(talk.call(frame(0)), NOTHING);
    assert_eq!(talk.service(json!({"type": "session.created"})), NOTHING);
    assert_eq!(talk.call(frame(4)), NOTHING);
    let expected = [append("AA=="), append("BA==")];
    assert_eq!(talk.service(json!({"type": "session.updated"})), expected);
    assert_eq!(talk.call(frame(8)), [append("CA==")]);
    assert_eq!(talk.service(json!({"type": "session.updated"})), NOTHING);
    let sent = Message::Text(append("CA==").to_string());
    // Written by another hand, its fields are in another order.
    assert!(!talk.conversation.is_caller_audio(&sent));
    assert!(talk.conversation.is_caller_audio(&message::append(&[8])));
}

#[test]
fn a_service_that_never_takes_the_settings_is_given_up() {
    let mut talk = Talk::begin(&bot());
    let mut came = Vec::new();
    for frame in 1..=600 {
        let event = CallEvent::Audio {
            timestamp: Duration::ZERO,
            payload: &[0; 160],
        };
        came.extend(talk.call(event).into_iter().map(|it| (frame, it)));
    }
    assert_eq!(came.len(), 2, "{came:?}");
    assert!(
        came[0].0 == 101 && came[0].1["complaint"].is_string(),
        "{came:?}"
    );
    assert_eq!(came[1], (500, json!({"fail": "unavailable"})));
    // What is kept meanwhile is bounded.
    assert_eq!(talk.service(json!({"type": "session.updated"})).len(), 100);
}

#[test]
fn a_bot_speaks_first_if_it_is_told_to() {
    for (speaks_first, expected) in [(false, vec![]), (true, vec![create()])] {
        let mut talk = Talk::begin(&bot().speaks_first(speaks_first));
        assert_eq!(talk.service(json!({"type": "session.updated"})), expected);
    }
    let mut again = session();
    again.is_reconnect = true;
    let (mut talk, _) = Talk::begin_with(&bot(), &again, AudioFormat::ULAW);
    let sent = talk.service(json!({"type": "session.updated"}));
    assert_eq!(sent[0]["item"]["role"], "system");
    assert_eq!(sent[1..], [create()]);
}

#[test]
fn speech_is_played_as_its_item() {
    let mut talk = Talk::settled(&bot());
    talk.service(created("r1"));
    let steps = [
        (delta("r1", "i1", 160), json!({"play": ["i1", 160]})),
        (delta("r1", "i1", 1), json!({"play": ["i1", 1]})),
        (delta("r1", "i1", 0), json!({"play": ["i1", 0]})),
        (audio_done("r1", "i1"), json!({"end_item": "i1"})),
        (delta("r1", "i2", 480_000), json!({"play": ["i2", 480_000]})),
        (audio_done("r1", "i2"), json!({"end_item": "i2"})),
    ];
    for (event, expected) in steps {
        assert_eq!(talk.service(event), [expected]);
    }
    let mut second_part = delta("r1", "i2", 8);
    second_part["content_index"] = json!(1);
    assert_eq!(talk.service(second_part), [json!({"play": ["i2/1", 8]})]);
}

#[test]
fn an_interruption_clears_and_truncates_at_what_was_heard() {
    // What was heard and not, by item; what is truncated.
    let whole: &[Value] = &[audio_done("r1", "i1"), delta("r1", "i2", 4000)];
    let cases: [(&[Value], &[(&str, u64, u64)], Vec<Value>); 8] = [
        (&[], &[("i1", 300, 700)], vec![truncate("i1", 300)]),
        // Nothing of it.
        (&[], &[("i1", 0, 1000)], vec![]),
        // Never more than came of it, whatever the queue says.
        (&[], &[("i1", 1020, 80)], vec![truncate("i1", 1000)]),
        // All that came, but there was more to come.
        (&[], &[("i1", 1000, 0)], vec![truncate("i1", 1000)]),
        // All of the first.
        (
            whole,
            &[("i1", 1000, 0), ("i2", 120, 380)],
            vec![truncate("i2", 120)],
        ),
        (
            whole,
            &[("i1", 990, 10), ("i2", 0, 500)],
            vec![truncate("i1", 990)],
        ),
        // In two parts, since somebody else cleared the queue in between.
        (
            &[],
            &[("i1", 300, 100), ("i1", 200, 400)],
            vec![truncate("i1", 500)],
        ),
        // Of an item nobody knows.
        (&[], &[("other", 300, 700)], vec![]),
    ];
    for (events, items, expected) in cases {
        let mut talk = Talk::speaking(&bot());
        for event in events {
            talk.service(event.clone());
        }
        assert_eq!(
            talk.service(speech_started()),
            [json!("clear")],
            "{items:?}"
        );
        assert_eq!(talk.cleared(items), expected, "{items:?}");
        // Once.
        assert_eq!(talk.cleared(items), NOTHING, "{items:?}");
    }
}

#[test]
fn a_truncation_names_the_part_and_counts_in_its_format() {
    let (mut talk, _) = Talk::begin_with(&bot(), &session(), AudioFormat::linear(16_000));
    talk.service(json!({"type": "session.updated"}));
    talk.service(created("r1"));
    let mut part = delta("r1", "i1", 48_000);
    part["content_index"] = json!(2);
    talk.service(part);
    talk.queued = QUEUED;
    talk.service(speech_started());
    let mut expected = truncate("i1", 1000);
    expected["content_index"] = json!(2);
    assert_eq!(talk.cleared(&[("i1/2", 1001, 1)]), [expected]);
}

#[test]
fn nothing_queued_is_not_cleared() {
    // Nobody speaks.
    let mut talk = Talk::settled(&bot());
    assert_eq!(talk.service(speech_started()), NOTHING);
    // All was heard, but the service may have made more of it.
    let mut talk = Talk::speaking(&bot());
    talk.queued = Duration::ZERO;
    assert_eq!(
        talk.service(speech_started()),
        [truncate("i1", 1000), json!({"end_item": "i1"})]
    );
    assert_eq!(talk.service(delta("r1", "i1", 160)), NOTHING);
    // All of it.
    let mut talk = Talk::speaking(&bot());
    talk.service(audio_done("r1", "i1"));
    talk.service(done("r1", "completed"));
    talk.queued = Duration::ZERO;
    assert_eq!(talk.call(CallEvent::Drained), NOTHING);
    assert_eq!(talk.service(speech_started()), NOTHING);
}

#[test]
fn an_item_is_remembered_until_it_is_heard() {
    let mut talk = Talk::speaking(&bot());
    talk.service(audio_done("r1", "i1"));
    talk.service(done("r1", "completed"));
    // More had come since the queue was empty.
    assert_eq!(talk.call(CallEvent::Drained), NOTHING);
    assert_eq!(talk.service(speech_started()), [json!("clear")]);
    assert_eq!(talk.cleared(&[("i1", 400, 600)]), [truncate("i1", 400)]);
}

#[test]
fn what_comes_of_an_interrupted_response_is_not_heard() {
    let mut talk = Talk::speaking(&bot());
    talk.service(speech_started());
    assert_eq!(talk.service(delta("r1", "i1", 800)), NOTHING);
    assert_eq!(talk.cleared(&[("i1", 300, 700)]), [truncate("i1", 300)]);
    assert_eq!(talk.service(delta("r1", "i1", 800)), NOTHING);
    assert_eq!(talk.service(delta("r1", "i3", 800)), NOTHING);
    assert_eq!(talk.service(audio_done("r1", "i1")), NOTHING);
    assert_eq!(talk.service(done("r1", "cancelled")), NOTHING);
    talk.service(speech_stopped());
    talk.service(created("r2"));
    assert_eq!(
        talk.service(delta("r2", "i2", 800)),
        [json!({"play": ["i2", 800]})]
    );
}

#[test]
fn only_a_response_that_the_service_would_not_stop_is_cancelled() {
    let clear = || json!("clear");
    let cases = [
        (Interruption::ByService, vec![clear()], vec![clear()]),
        (
            Interruption::ByClient,
            vec![cancel(), clear()],
            vec![clear()],
        ),
        (Interruption::Never, vec![], vec![]),
    ];
    for (interruption, while_active, afterwards) in cases {
        let bot = bot().interruption(interruption);
        let mut talk = Talk::speaking(&bot);
        assert_eq!(
            talk.service(speech_started()),
            while_active,
            "{interruption:?}"
        );
        // Once.
        talk.queued = Duration::ZERO;
        assert!(
            !talk.service(speech_started()).contains(&cancel()),
            "{interruption:?}"
        );
        let mut talk = Talk::speaking(&bot);
        talk.service(audio_done("r1", "i1"));
        talk.service(done("r1", "completed"));
        assert_eq!(
            talk.service(speech_started()),
            afterwards,
            "{interruption:?}"
        );
    }
    // The caller began to speak before the service began what it was asked for.
    let mut talk = Talk::settled(&bot().speaks_first(true));
    talk.service(speech_started());
    assert_eq!(talk.service(created("r1")), [cancel()]);
    assert_eq!(talk.service(delta("r1", "i1", 160)), NOTHING);
}

#[test]
fn digits_are_told_and_answered_if_that_is_wished() {
    let mut talk = Talk::speaking(&bot());
    assert_eq!(
        talk.call(CallEvent::Digit('5')),
        [said("user", "The caller pressed 5")]
    );
    // Interrupting, and answered when the response is over and what was heard is known.
    let mut talk = Talk::speaking(&bot().answers_digits(true));
    let expected = [
        cancel(),
        json!("clear"),
        said("user", "The caller pressed 5"),
    ];
    assert_eq!(talk.call(CallEvent::Digit('5')), expected);
    assert_eq!(talk.service(done("r1", "cancelled")), NOTHING);
    assert_eq!(
        talk.cleared(&[("i1", 300, 700)]),
        [truncate("i1", 300), create()]
    );
    // Another one on the way there.
    assert_eq!(
        talk.call(CallEvent::Digit('#')),
        [said("user", "The caller pressed #")]
    );
    assert_eq!(talk.service(created("r2")), [] as [Value; 0]);
    assert_eq!(talk.service(done("r2", "completed")), [create()]);
    // Before the settings are taken.
    let mut talk = Talk::begin(&bot());
    assert_eq!(talk.call(CallEvent::Digit('1')), NOTHING);
    let expected = [said("user", "The caller pressed 1")];
    assert_eq!(talk.service(json!({"type": "session.updated"})), expected);
}

#[test]
fn functions_are_called_and_their_results_answered() {
    let bot = bot().tools(r#"[{"name": "weather"}]"#).unwrap();
    let tool = |id: &str| json!({"tool": [id, "weather", "{\"at\":1}"]});
    let mut talk = Talk::settled(&bot);
    talk.service(created("r1"));
    assert_eq!(
        talk.service(function_call("r1", "c1", "weather", "{\"at\":1}")),
        [tool("c1")]
    );
    assert_eq!(
        talk.service(function_call("r1", "c2", "weather", "{\"at\":1}")),
        [tool("c2")]
    );
    let result = |id, output| CallEvent::ToolResult { id, output };
    assert_eq!(
        talk.call(result("c1", Ok("sunny"))),
        [output("c1", "sunny")]
    );
    assert_eq!(talk.call(result("c1", Ok("sunny"))), NOTHING);
    assert_eq!(talk.service(done("r1", "completed")), NOTHING);
    let expected = [output("c2", r#"{"error":"it took too long"}"#), create()];
    assert_eq!(talk.call(result("c2", Err("it took too long"))), expected);
    talk.service(created("r2"));
    assert_eq!(talk.service(done("r2", "completed")), NOTHING);
    // A name that it was not given.
    for name in ["hang_up", "transfer", "rm"] {
        let mut talk = Talk::settled(&bot);
        talk.service(created("r1"));
        let came = talk.service(function_call("r1", "c1", name, r#"{"to":"1"}"#));
        assert!(came[0]["complaint"].is_string(), "{came:?}");
        assert_eq!(
            came[1..],
            [output("c1", r#"{"error":"there is no such function"}"#)]
        );
        assert_eq!(talk.service(done("r1", "completed")), [create()]);
    }
}

#[test]
fn a_response_that_knows_a_result_is_not_asked_for_again() {
    let mut talk = Talk::settled(&bot().tools(r#"[{"name": "weather"}]"#).unwrap());
    talk.service(created("r1"));
    talk.service(function_call("r1", "c1", "weather", "{}"));
    talk.service(done("r1", "completed"));
    talk.service(speech_started());
    let event = CallEvent::ToolResult {
        id: "c1",
        output: Ok("sunny"),
    };
    assert_eq!(talk.call(event), [output("c1", "sunny")]);
    let added = json!({"type": "conversation.item.added", "item": {"id": "sidetone_1", "type": "function_call_output"}});
    assert_eq!(talk.service(added), NOTHING);
    assert_eq!(talk.service(speech_stopped()), NOTHING);
    talk.service(created("r2"));
    assert_eq!(talk.service(done("r2", "completed")), NOTHING);
}

#[test]
fn a_response_that_the_service_did_not_give_is_asked_for_later() {
    let already = |request| {
        error(
            "invalid_request_error",
            Some("conversation_already_has_active_response"),
            Some(request),
        )
    };
    // It began one of its own before it had the function's result; or it knew it.
    for (confirmed, expected) in [(false, vec![create()]), (true, vec![])] {
        let mut talk = Talk::settled(&bot().tools(r#"[{"name": "weather"}]"#).unwrap());
        talk.service(created("r1"));
        talk.service(function_call("r1", "c1", "weather", "{}"));
        talk.service(done("r1", "completed"));
        let event = CallEvent::ToolResult {
            id: "c1",
            output: Ok("sunny"),
        };
        assert_eq!(talk.call(event), [output("c1", "sunny"), create()]);
        if confirmed {
            talk.service(json!({"type": "conversation.item.added", "item": {"id": "sidetone_1"}}));
        }
        talk.service(created("r2"));
        assert_eq!(talk.service(already("sidetone_2")), NOTHING);
        assert_eq!(talk.service(done("r2", "completed")), expected);
    }
    // Without any response it would be refused again and again.
    let mut talk = Talk::settled(&bot().speaks_first(true));
    let came = talk.service(already("sidetone_1"));
    assert!(
        came.len() == 1 && came[0]["complaint"].is_string(),
        "{came:?}"
    );
}

#[test]
fn what_is_said_into_a_response_that_goes_on_blocks_nothing() {
    let mut talk = Talk::speaking(&bot().interruption(Interruption::Never).answers_digits(true));
    talk.service(speech_started());
    talk.service(speech_stopped());
    talk.call(CallEvent::Digit('1'));
    talk.cleared(&[("i1", 300, 700)]);
    assert_eq!(talk.service(done("r1", "cancelled")), [create()]);
}

#[test]
fn a_bot_hangs_up_when_it_has_spoken() {
    let bot = bot().allow_hang_up();
    let mut talk = Talk::speaking(&bot);
    assert_eq!(
        talk.service(function_call("r1", "c1", "hang_up", "{}")),
        NOTHING
    );
    assert_eq!(
        talk.service(delta("r1", "i1", 160)),
        [json!({"play": ["i1", 160]})]
    );
    assert_eq!(talk.service(done("r1", "completed")), [json!("end")]);
    // The caller goes on.
    for (interrupts, status) in [
        (true, "cancelled"),
        (true, "completed"),
        (false, "incomplete"),
    ] {
        let mut talk = Talk::speaking(&bot);
        talk.service(function_call("r1", "c1", "hang_up", "{}"));
        if interrupts {
            talk.service(speech_started());
        }
        let came = talk.service(done("r1", status));
        let expected = output(
            "c1",
            r#"{"error":"the caller interrupted; the call goes on"}"#,
        );
        assert_eq!(came[0], expected, "{status}");
        assert!(!came.contains(&json!("end")), "{status}");
    }
}

#[test]
fn a_transfer_is_the_sessions_tool() {
    let bot = bot().allow_transfer("100 is sales");
    let begin = || {
        let mut talk = Talk::speaking(&bot);
        assert_eq!(
            talk.service(function_call("r1", "c1", "transfer", r#"{"to":"100"}"#)),
            NOTHING
        );
        let tool = json!({"tool": ["c1", "transfer", r#"{"to":"100"}"#]});
        assert_eq!(talk.service(done("r1", "completed")), [tool]);
        talk
    };
    let result = |output| CallEvent::ToolResult { id: "c1", output };
    assert_eq!(begin().call(result(Ok(""))), [json!("end")]);
    let expected = [output("c1", r#"{"error":"not allowed"}"#), create()];
    assert_eq!(begin().call(result(Err("not allowed"))), expected);
    // Without a destination nobody is asked.
    let mut talk = Talk::speaking(&bot);
    talk.service(function_call("r1", "c1", "transfer", r#"{"to":5}"#));
    let came = talk.service(done("r1", "completed"));
    assert!(
        came[0]["item"]["output"].as_str().unwrap().contains("`to`"),
        "{came:?}"
    );
    assert_eq!(came[1..], [create()]);
}

#[test]
fn both_sides_are_reported_in_words() {
    let mut talk = Talk::settled(&bot());
    let bot_said =
        json!({"type": "response.output_audio_transcript.done", "transcript": " Hello. "});
    let caller_said = json!({
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "u", "content_index": 0, "transcript": "Hi.\n",
    });
    let said = |speaker: Speaker, text: &str| vec![json!({"said": [format!("{speaker:?}"), text]})];
    assert_eq!(talk.service(bot_said), said(Speaker::Bot, "Hello."));
    assert_eq!(talk.service(caller_said), said(Speaker::Caller, "Hi."));
    let empty = json!({"type": "response.output_audio_transcript.done", "transcript": " "});
    assert_eq!(talk.service(empty), NOTHING);
    let failed = json!({
        "type": "conversation.item.input_audio_transcription.failed", "item_id": "u",
        "error": {"type": "server_error", "code": "audio_unintelligible", "message": "No."},
    });
    let complaint = "no transcript of the caller: audio_unintelligible: No.";
    assert_eq!(talk.service(failed), [json!({"complaint": complaint})]);
}

#[test]
fn errors_end_the_conversation_or_are_complaints() {
    let request = "invalid_request_error";
    // The kind of the failure; without one it is a complaint.
    let cases = [
        (
            error(request, Some("session_expired"), None),
            Some("expired"),
        ),
        (
            error("rate_limit_error", Some("rate_limit_exceeded"), None),
            Some("rate_limited"),
        ),
        (
            error(request, Some("invalid_api_key"), None),
            Some("rejected"),
        ),
        (
            error("insufficient_quota", Some("insufficient_quota"), None),
            Some("rejected"),
        ),
        (error("authentication_error", None, None), Some("rejected")),
        (
            error(request, Some("model_not_found"), None),
            Some("rejected"),
        ),
        (
            error(request, Some("invalid_value"), Some("settings")),
            Some("rejected"),
        ),
        (
            error(request, Some("invalid_value"), Some("sidetone_7")),
            None,
        ),
        (error("server_error", None, None), None),
        (error("server_error", Some("internal_error"), None), None),
        (json!({"type": "error"}), None),
    ];
    for (event, kind) in cases {
        let mut talk = Talk::settled(&bot());
        match (talk.try_service(&event), kind) {
            (Ok(came), None) => {
                let complaint = came[0]["complaint"].as_str().unwrap();
                assert!(!complaint.contains("sk-secret"), "{complaint}");
            }
            (Err(failure), Some(kind)) => {
                assert_eq!(failure.kind(), kind, "{event}");
                assert!(!failure.to_string().contains("sk-secret"), "{failure}");
                assert!(failure.to_string().contains("Because"), "{failure}");
            }
            (came, _) => panic!("{event}: {came:?}"),
        }
    }
    // It was over when it was cancelled.
    let late = error(
        request,
        Some("response_cancel_not_active"),
        Some("sidetone_7"),
    );
    assert_eq!(Talk::settled(&bot()).service(late), NOTHING);
    // Before the settings are taken, everything is about them.
    let early = error(request, Some("invalid_value"), None);
    assert_eq!(
        Talk::begin(&bot()).try_service(&early).unwrap_err().kind(),
        "rejected"
    );
}

#[test]
fn a_response_that_fails_is_asked_for_once_more() {
    for (code, kind) in [
        ("rate_limit_exceeded", "rate_limited"),
        ("insufficient_quota", "rejected"),
    ] {
        let mut talk = Talk::settled(&bot());
        talk.service(created("r1"));
        assert_eq!(talk.try_service(&failed(code)).unwrap_err().kind(), kind);
    }
    let mut talk = Talk::settled(&bot());
    talk.service(created("r1"));
    let came = talk.service(failed("server_error"));
    assert!(came[0]["complaint"].is_string(), "{came:?}");
    assert_eq!(came[1..], [create()]);
    talk.service(created("r1"));
    assert_eq!(
        talk.try_service(&failed("server_error"))
            .unwrap_err()
            .kind(),
        "rejected"
    );
    // Not in a row.
    let mut talk = Talk::settled(&bot());
    for _ in 0..3 {
        talk.service(created("r1"));
        talk.service(failed("server_error"));
        talk.service(created("r2"));
        talk.service(done("r2", "completed"));
    }
}

#[test]
fn what_is_wrong_is_said_and_ends_nothing() {
    let texts = [
        "".into(),
        "[]".into(),
        r#"{"type": 1}"#.into(),
        r#"{"type":"response.output_audio.delta","delta":"AAAA"}"#.into(),
        r#"{"type":"response.output_audio.delta","item_id":"i","delta":"§"}"#.into(),
        r#"{"type":"response.output_item.done","item":{"type":"function_call"}}"#.into(),
        format!(
            r#"{{"type":"error","error":{{"message":"{}"}}}}"#,
            "ü".repeat(10_000)
        ),
    ];
    for text in &texts {
        let mut talk = Talk::settled(&bot());
        let mut actions = Vec::new();
        let handled = talk
            .conversation
            .handle_message(Received::Text(text), QUEUED, &mut actions);
        handled.unwrap();
        match actions.as_slice() {
            [Action::Complaint(complaint)] => assert!(complaint.len() < 400, "{complaint}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    let mut actions = Vec::new();
    let binary = Received::Binary(&[0; 160]);
    let mut talk = Talk::settled(&bot());
    talk.conversation
        .handle_message(binary, QUEUED, &mut actions)
        .unwrap();
    assert!(matches!(actions.as_slice(), [Action::Complaint(_)]));
    // New ones come and go.
    for event in [
        "rate_limits.updated",
        "conversation.item.done",
        "of.tomorrow",
    ] {
        assert_eq!(
            talk.service(json!({"type": event, "delta": "AA", "item_id": "x"})),
            NOTHING
        );
    }
    assert!(!talk.conversation.ends_by_closing());
}
