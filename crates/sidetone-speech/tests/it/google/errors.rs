use std::time::Duration;

use sidetone_services::google::{Rules, Service};
use sidetone_speech::{Format, SpeechError, SpeechEvent, google::Google};

use super::kit::{Caller, engine, service};

#[tokio::test(start_paused = true)]
async fn a_cut_in_the_middle_of_a_word_costs_nothing() {
    let service = service();
    let mut caller = Caller::new(engine(&service), Format::linear(8000));
    caller.say(&["before", "it"]).await;
    caller.say_on(&["while", "somebody", "is"]).await;
    service.disconnect();
    caller.say(&["speaking"]).await;
    caller.say(&["after", "it"]).await;
    let heard = caller.hang_up().await;
    heard.assert_complete();
    let [
        SpeechEvent::Retrying {
            error: SpeechError::Broken { .. } | SpeechError::Unavailable { .. },
            ..
        },
        SpeechEvent::Recovered,
    ] = heard.incidents()[..]
    else {
        panic!("{:?}", heard.incidents())
    };
    assert_eq!(service.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_died_unnoticed_costs_nothing() {
    let service = service();
    let mut caller = Caller::new(engine(&service), Format::linear(8000));
    caller.say(&["before", "it"]).await;
    // So that nothing is known to be said when it dies.
    caller.send(&[0; 8000]).await;
    service.freeze();
    for word in ["into", "the", "void", "of", "it"] {
        caller.say(&[word]).await;
    }
    caller.send(&[0; 8 * 8000]).await;
    caller.say(&["after", "it"]).await;
    let heard = caller.hang_up().await;
    heard.assert_complete();
    let [SpeechEvent::Retrying { .. }, SpeechEvent::Recovered] = heard.incidents()[..] else {
        panic!("{:?}", heard.incidents())
    };
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_is_used_up_costs_nothing_if_it_is_soon_filled() {
    let service = Service::new(Rules {
        streams: 0,
        ..Rules::default()
    });
    let mut caller = Caller::new(engine(&service), Format::linear(8000));
    caller.say(&["too", "many", "calls"]).await;
    caller.say(&["at", "a", "time"]).await;
    service.change(|rules| rules.streams = 1);
    for _ in 0..10 {
        caller.say(&["now", "it", "goes"]).await;
    }
    let heard = caller.hang_up().await;
    heard.assert_complete();
    let incidents = heard.incidents();
    let Some((SpeechEvent::Recovered, troubles)) = incidents.split_last() else {
        panic!("{incidents:?}")
    };
    assert!(!troubles.is_empty());
    for trouble in troubles {
        let SpeechEvent::Retrying {
            error: SpeechError::Unavailable { reason, .. },
            ..
        } = trouble
        else {
            panic!("{trouble:?}")
        };
        assert!(reason.contains("Quota"), "{reason}");
    }
}

async fn failure(rules: Rules, change: impl FnOnce(Google) -> Google) -> String {
    let service = Service::new(rules);
    let mut caller = Caller::new(change(engine(&service)), Format::linear(8000));
    caller.say(&["nobody", "listens"]).await;
    let heard = caller.hang_up().await;
    let [SpeechError::Refused { reason, .. }] = heard.failures()[..] else {
        panic!("{:?}", heard.events)
    };
    assert_eq!(service.calls().len(), 1, "it is not tried again");
    reason.clone()
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_is_not_tried_again() {
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
async fn nobody_at_the_address_is_trouble_and_not_the_end() {
    let service = service();
    let engine = engine(&service);
    drop(service);
    let mut caller = Caller::new(engine, Format::linear(8000));
    caller.send(&[0; 16_000]).await;
    let heard = caller.hang_up().await;
    assert!(matches!(
        heard.incidents()[0],
        SpeechEvent::Retrying {
            error: SpeechError::Unavailable { .. },
            ..
        }
    ));
    let SpeechEvent::Lost { to, .. } = heard.incidents()[heard.incidents().len() - 1] else {
        panic!("{:?}", heard.events)
    };
    assert_eq!(*to, Duration::from_secs(2));
}

/// What is told first where the service answers so.
async fn first_word(rules: Rules) -> SpeechError {
    let service = Service::new(rules);
    let mut caller = Caller::new(engine(&service), Format::linear(8000));
    caller.say(&["anybody", "there"]).await;
    let heard = caller.hang_up().await;
    let error = heard.incidents().into_iter().find_map(|it| match it {
        SpeechEvent::Failed(error) | SpeechEvent::Retrying { error, .. } => Some(error.clone()),
        _ => None,
    });
    error.unwrap_or_else(|| panic!("{:?}", heard.events))
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_grpc_is_told_as_what_it_says() {
    let page = "<html><title>502 Bad Gateway</title></html>";
    for (status, location, text, told, is_final) in [
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
        let error = first_word(Rules {
            http_reply: Some((status, location, text)),
            ..Rules::default()
        })
        .await;
        assert!(error.to_string().contains(told), "{status}: {error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        assert_eq!(error.is_final(), is_final, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_too_long_is_given_up() {
    let error = first_word(Rules {
        padding: 256 * 1024,
        ..Rules::default()
    })
    .await;
    assert!(matches!(error, SpeechError::Broken { .. }), "{error}");
    assert!(error.to_string().contains("too large"), "{error}");
}
