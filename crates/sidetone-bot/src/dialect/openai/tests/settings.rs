//! What the service is told first, and what waits for it.

use super::*;

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
    // Written by another hand, its fields are in another order.
    let other = r#"{"audio":"CA==","type":"input_audio_buffer.append"}"#;
    let other = Message::Text(other.into());
    assert!(!talk.conversation.is_caller_audio(&other));
    assert!(talk.conversation.is_caller_audio(&message::append(&[8])));
}

#[test]
fn a_service_that_takes_long_to_take_the_settings_loses_audio_and_nothing_else() {
    let mut talk = Talk::begin(&bot());
    let mut came = Vec::new();
    for frame in 1..=600 {
        let event = CallEvent::Audio {
            timestamp: Duration::ZERO,
            payload: &[0; 160],
        };
        came.extend(talk.call(event).into_iter().map(|it| (frame, it)));
    }
    // However fast audio comes, it is no clock.
    assert_eq!(came.len(), 1, "{came:?}");
    assert!(
        came[0].0 == 101 && came[0].1["complaint"].is_string(),
        "{came:?}"
    );
    assert!(!talk.conversation.is_settled());
    // What is kept meanwhile is bounded.
    assert_eq!(talk.service(json!({"type": "session.updated"})).len(), 100);
    assert!(talk.conversation.is_settled());
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
