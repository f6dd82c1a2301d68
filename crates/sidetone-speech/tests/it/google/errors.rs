use std::time::Duration;

use sidetone_services::google::{Rules, Service};
use sidetone_speech::{Format, SpeechError, SpeechEvent, google::Google};

use super::caller::{Caller, recognizer_for, service};

#[tokio::test(start_paused = true)]
async fn a_connection_cut_in_the_middle_of_a_word_loses_nothing() {
    let service = service();
    let mut caller = Caller::new(recognizer_for(&service), Format::linear(8000));
    caller.say(&["before", "it"]).await;
    caller.say_without_pause(&["while", "somebody", "is"]).await;
    service.disconnect();
    caller.say(&["speaking"]).await;
    caller.say(&["after", "it"]).await;
    let outcome = caller.hang_up().await;
    outcome.assert_complete();
    let [
        SpeechEvent::Retrying {
            error: SpeechError::Broken { .. } | SpeechError::Unavailable { .. },
            ..
        },
        SpeechEvent::Recovered,
    ] = outcome.other_events()[..]
    else {
        panic!("{:?}", outcome.other_events())
    };
    assert_eq!(service.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_died_silently_loses_nothing() {
    let service = service();
    let mut caller = Caller::new(recognizer_for(&service), Format::linear(8000));
    caller.say(&["before", "it"]).await;
    // So that no interim result shows speech when the connection dies.
    caller.send(&[0; 8000]).await;
    service.freeze();
    for word in ["into", "the", "void", "of", "it"] {
        caller.say(&[word]).await;
    }
    caller.send(&[0; 8 * 8000]).await;
    caller.say(&["after", "it"]).await;
    let outcome = caller.hang_up().await;
    outcome.assert_complete();
    let [SpeechEvent::Retrying { .. }, SpeechEvent::Recovered] = outcome.other_events()[..] else {
        panic!("{:?}", outcome.other_events())
    };
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_quota_loses_nothing_if_it_recovers_soon() {
    let service = Service::new(Rules {
        streams: 0,
        ..Rules::default()
    });
    let mut caller = Caller::new(recognizer_for(&service), Format::linear(8000));
    caller.say(&["too", "many", "calls"]).await;
    caller.say(&["at", "a", "time"]).await;
    service.change(|rules| rules.streams = 1);
    for _ in 0..10 {
        caller.say(&["now", "it", "goes"]).await;
    }
    let outcome = caller.hang_up().await;
    outcome.assert_complete();
    let other_events = outcome.other_events();
    let Some((SpeechEvent::Recovered, retries)) = other_events.split_last() else {
        panic!("{other_events:?}")
    };
    assert!(!retries.is_empty());
    for retry in retries {
        let SpeechEvent::Retrying {
            error: SpeechError::Unavailable { reason, .. },
            ..
        } = retry
        else {
            panic!("{retry:?}")
        };
        assert!(reason.contains("Quota"), "{reason}");
    }
}

async fn failure(rules: Rules, change: impl FnOnce(Google) -> Google) -> String {
    let service = Service::new(rules);
    let mut caller = Caller::new(change(recognizer_for(&service)), Format::linear(8000));
    caller.say(&["nobody", "listens"]).await;
    let outcome = caller.hang_up().await;
    let [SpeechError::Refused { reason, .. }] = outcome.failures()[..] else {
        panic!("{:?}", outcome.events)
    };
    assert_eq!(service.calls().len(), 1, "it is not tried again");
    reason.clone()
}

#[tokio::test(start_paused = true)]
async fn a_final_refusal_is_not_retried() {
    let guarded = Rules {
        token: Some("secret".into()),
        ..Rules::default()
    };
    let nobody = failure(guarded, |it| it).await;
    assert!(nobody.contains("invalid authentication"), "{nobody}");
    let rules = Rules::default;
    let project = failure(rules(), |it| it.project("other")).await;
    assert!(project.contains("denied"), "{project}");
    let recognizer = failure(rules(), |it| it.recognizer("mine")).await;
    assert!(recognizer.contains("Unable to find"), "{recognizer}");
    let model = failure(rules(), |it| it.model("nonsense")).await;
    assert!(model.contains("nonsense"), "{model}");
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_service_is_retried() {
    let service = service();
    let recognizer = recognizer_for(&service);
    drop(service);
    let mut caller = Caller::new(recognizer, Format::linear(8000));
    caller.send(&[0; 16_000]).await;
    let outcome = caller.hang_up().await;
    assert!(matches!(
        outcome.other_events()[0],
        SpeechEvent::Retrying {
            error: SpeechError::Unavailable { .. },
            ..
        }
    ));
    let SpeechEvent::Lost { to, .. } = outcome.other_events()[outcome.other_events().len() - 1]
    else {
        panic!("{:?}", outcome.events)
    };
    assert_eq!(*to, Duration::from_secs(2));
}

/// The first error with these rules.
async fn first_error(rules: Rules) -> SpeechError {
    let service = Service::new(rules);
    let mut caller = Caller::new(recognizer_for(&service), Format::linear(8000));
    caller.say(&["anybody", "there"]).await;
    let outcome = caller.hang_up().await;
    let error = outcome.other_events().into_iter().find_map(|it| match it {
        SpeechEvent::Failed(error) | SpeechEvent::Retrying { error, .. } => Some(error.clone()),
        _ => None,
    });
    error.unwrap_or_else(|| panic!("{:?}", outcome.events))
}

#[tokio::test(start_paused = true)]
async fn a_reply_other_than_grpc_is_quoted() {
    let page = "<html><title>502 Bad Gateway</title></html>";
    for (status, location, text, received, is_final) in [
        (
            308,
            "https://elsewhere.example",
            "",
            "moved to https://elsewhere.example",
            true,
        ),
        (
            403,
            "",
            r#"{"error":{"message":"No access."}}"#,
            "No access.",
            true,
        ),
        (404, "", "no such page", "no such page", true),
        (502, "", page, "\"502 Bad Gateway\"", false),
        (
            200,
            "",
            "Welcome!",
            "not gRPC: is the address right?: Welcome!",
            false,
        ),
    ] {
        let error = first_error(Rules {
            http_reply: Some((status, location, text)),
            ..Rules::default()
        })
        .await;
        assert!(error.to_string().contains(received), "{status}: {error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        assert_eq!(error.is_final(), is_final, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_too_long_is_an_error() {
    let error = first_error(Rules {
        padding: 256 * 1024,
        ..Rules::default()
    })
    .await;
    assert!(matches!(error, SpeechError::Broken { .. }), "{error}");
    assert!(error.to_string().contains("too large"), "{error}");
}
