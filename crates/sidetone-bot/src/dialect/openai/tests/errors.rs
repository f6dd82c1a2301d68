//! Words and errors.

use super::*;

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
    assert_eq!(
        talk.service(failed.clone()),
        [json!({"complaint": complaint})]
    );
    // Once, whatever the caller says.
    assert_eq!(talk.service(failed), NOTHING);
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
