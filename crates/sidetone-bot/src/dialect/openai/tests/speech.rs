//! What is played, and what an interruption does to it.

use super::*;

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
fn a_sample_may_come_in_two_deltas() {
    let wideband = AudioFormat::linear(16_000);
    let (mut talk, _) = Talk::begin_with(&bot(), &session(), wideband);
    talk.service(json!({"type": "session.updated"}));
    talk.service(created("r1"));
    let played = [(3, 2), (1, 2), (2, 2)];
    for (came, plays) in played {
        let expected = json!({"play": ["i1", plays]});
        assert_eq!(talk.service(delta("r1", "i1", came)), [expected]);
    }
}

/// What came, then what was heard and not, by item, and what of it is truncated.
type Interrupted<'a> = (&'a [Value], &'a [(&'a str, u64, u64)], Vec<Value>);

#[test]
fn an_interruption_clears_and_truncates_at_what_was_heard() {
    let whole: &[Value] = &[audio_done("r1", "i1"), delta("r1", "i2", 4000)];
    let cases: [Interrupted<'_>; 8] = [
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
