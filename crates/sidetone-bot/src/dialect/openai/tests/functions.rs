//! What the bot has done.

use super::*;

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

/// The answer to a function that was called too early.
fn interrupted() -> Value {
    output(
        "c1",
        r#"{"error":"the caller interrupted; the call goes on"}"#,
    )
}

#[test]
fn a_bot_hangs_up_when_it_is_heard() {
    let bot = bot().allow_hang_up();
    let hang_up = || function_call("r1", "c1", "hang_up", "{}");
    let frame = || CallEvent::Audio {
        timestamp: Duration::ZERO,
        payload: &[0; 160],
    };
    let saying_goodbye = || {
        let mut talk = Talk::speaking(&bot);
        assert_eq!(talk.service(hang_up()), NOTHING);
        assert_eq!(
            talk.service(audio_done("r1", "i1")),
            [json!({"end_item": "i1"})]
        );
        assert_eq!(talk.service(done("r1", "completed")), NOTHING);
        talk
    };
    let mut talk = saying_goodbye();
    assert_eq!(talk.call(frame()).len(), 1);
    talk.queued = Duration::ZERO;
    assert_eq!(talk.call(frame())[1..], [json!("end")]);
    assert_eq!(talk.call(CallEvent::Drained), NOTHING);
    // Without a word.
    let mut talk = Talk::settled(&bot);
    talk.service(created("r1"));
    talk.service(hang_up());
    assert_eq!(talk.service(done("r1", "completed")), [json!("end")]);
    // The caller has something to say to that.
    let mut talk = saying_goodbye();
    assert_eq!(
        talk.service(speech_started()),
        [interrupted(), json!("clear")]
    );
    assert_eq!(talk.cleared(&[("i1", 300, 700)]), [truncate("i1", 300)]);
    assert_eq!(talk.call(CallEvent::Drained), NOTHING);
}

#[test]
fn a_bot_that_is_interrupted_does_not_hang_up() {
    let bot = bot().allow_hang_up();
    let incomplete = output(
        "c1",
        r#"{"error":"what was to be said before is not complete"}"#,
    );
    for (interrupts, status, expected) in [
        (true, "cancelled", interrupted()),
        (true, "completed", interrupted()),
        (false, "cancelled", interrupted()),
        (false, "incomplete", incomplete),
    ] {
        let mut talk = Talk::speaking(&bot);
        talk.service(function_call("r1", "c1", "hang_up", "{}"));
        if interrupts {
            talk.service(speech_started());
        }
        let came = talk.service(done("r1", status));
        assert_eq!(came[0], expected, "{status}");
        talk.queued = Duration::ZERO;
        assert!(
            !talk.call(CallEvent::Drained).contains(&json!("end")),
            "{status}"
        );
    }
}

#[test]
fn a_transfer_is_the_sessions_tool() {
    let bot = bot().allow_transfer("100 is sales");
    let begin = || {
        let mut talk = Talk::speaking(&bot);
        talk.service(function_call("r1", "c1", "transfer", r#"{"to":"100"}"#));
        assert_eq!(talk.service(done("r1", "completed")), NOTHING);
        // What the bot says of it is heard first.
        talk.queued = Duration::ZERO;
        let tool = json!({"tool": ["c1", "transfer", r#"{"to":"100"}"#]});
        assert_eq!(talk.call(CallEvent::Drained), [tool]);
        talk
    };
    let result = |output| CallEvent::ToolResult { id: "c1", output };
    assert_eq!(begin().call(result(Ok(""))), [json!("end")]);
    let expected = [output("c1", r#"{"error":"not allowed"}"#), create()];
    assert_eq!(begin().call(result(Err("not allowed"))), expected);
    // Without a destination nobody is asked.
    let mut talk = Talk::speaking(&bot);
    talk.queued = Duration::ZERO;
    talk.service(function_call("r1", "c1", "transfer", r#"{"to":5}"#));
    let came = talk.service(done("r1", "completed"));
    assert!(
        came[0]["item"]["output"].as_str().unwrap().contains("`to`"),
        "{came:?}"
    );
    assert_eq!(came[1..], [create()]);
}
