use sidetone_services::google::{Rules, Service};
use sidetone_speech::{Format, Recognizer, SpeechEvent, google::Google};
use tokio::net::TcpListener;

use super::caller::{Caller, assert_nothing_refused, recognizer_for, service};

#[tokio::test(start_paused = true)]
async fn settings_reach_the_service() {
    let service = Service::new(Rules {
        location: "eu".into(),
        recognizers: vec!["mine".into()],
        models: vec!["chirp_2".into()],
        ..Rules::default()
    });
    let recognizer = recognizer_for(&service)
        .region("eu")
        .recognizer("mine")
        .model("chirp_2")
        .phrases(["sidetone", "dialplan"]);
    let mut caller = Caller::new(recognizer, Format::linear(8000));
    caller.say(&["hello"]).await;
    caller.hang_up().await.assert_complete();
    let call = &service.calls()[0];
    assert_eq!(
        call.recognizer,
        "projects/test/locations/eu/recognizers/mine"
    );
    assert_eq!(
        (call.model.as_str(), call.encoding.as_str()),
        ("chirp_2", "LINEAR16")
    );
    assert_eq!(call.phrases, ["sidetone", "dialplan"]);
}

#[tokio::test(start_paused = true)]
async fn a_named_recognizer_keeps_its_model() {
    let service = Service::new(Rules {
        recognizers: vec!["mine".into()],
        ..Rules::default()
    });
    let recognizer = Google::new::<String>([])
        .project("test")
        .recognizer("mine")
        .channel(service.channel());
    let mut caller = Caller::new(recognizer, Format::linear(8000));
    caller.say(&["hello"]).await;
    caller.hang_up().await.assert_complete();
    assert_eq!(service.calls()[0].model, "");
}

#[tokio::test(start_paused = true)]
async fn a_model_without_a_feature_gets_a_request_without_it() {
    let service = Service::new(Rules {
        word_confidence: false,
        ..Rules::default()
    });
    let mut caller = Caller::new(recognizer_for(&service), Format::linear(8000));
    caller.say(&["one", "two"]).await;
    let outcome = caller.hang_up().await;
    outcome.assert_complete();
    assert!(
        outcome.other_events().is_empty(),
        "{:?}",
        outcome.other_events()
    );
    assert_eq!(service.calls().len(), 2);
    assert_eq!(outcome.finals()[0].words[0].confidence, None);
}

#[tokio::test(start_paused = true)]
async fn every_field_of_a_result_is_reported() {
    let service = service();
    let mut caller = Caller::new(recognizer_for(&service), Format::linear(8000));
    caller.say(&["one", "two"]).await;
    let outcome = caller.hang_up().await;
    let transcript = outcome.finals()[0];
    assert_eq!(transcript.confidence, Some(0.95));
    assert_eq!(transcript.stability, None);
    assert_eq!(transcript.language.as_deref(), Some("en-us"));
    assert_eq!(transcript.words[0].confidence, Some(0.9));
    let Some((_, SpeechEvent::Transcript(interim))) = outcome.events.first() else {
        panic!("{:?}", outcome.events)
    };
    assert!(!interim.is_final);
    assert_eq!(interim.text, "one");
    assert_eq!((interim.confidence, interim.stability), (None, Some(0.8)));
}

#[tokio::test]
async fn a_self_hosted_server_needs_no_credentials() {
    let mut service = service();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = service.listen(listener).unwrap();
    let recognizer = Google::new(["en-US"])
        .project("test")
        .endpoint(format!("http://{address}"));
    assert_eq!(
        recognizer.destination(),
        format!("Google Speech-to-Text at http://{address}")
    );
    let mut caller = Caller::new(recognizer, Format::linear(8000));
    caller.say(&["over", "tcp"]).await;
    caller.hang_up().await.assert_complete();
    assert_nothing_refused(&service);
}

#[tokio::test(start_paused = true)]
async fn an_invalid_address_is_a_final_error() {
    let recognizer = Google::new(["en-US"]).project("test").endpoint("http://");
    let mut caller = Caller::new(recognizer, Format::linear(8000));
    caller.send(&[0; 160]).await;
    let outcome = caller.hang_up().await;
    assert!(outcome.failures()[0].is_final(), "{:?}", outcome.events);
}
