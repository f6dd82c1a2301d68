use sidetone_services::google::{Rules, Service};
use sidetone_speech::{Format, Recognizer, SpeechEvent, google::Google};
use tokio::net::TcpListener;

use super::kit::{Caller, assert_content, engine, service};

#[tokio::test(start_paused = true)]
async fn what_is_set_arrives() {
    let service = Service::new(Rules {
        location: "eu".into(),
        recognizers: vec!["mine".into()],
        models: vec!["chirp_2".into()],
        ..Rules::default()
    });
    let engine = engine(&service)
        .region("eu")
        .recognizer("mine")
        .model("chirp_2")
        .phrases(["sidetone", "dialplan"]);
    let mut caller = Caller::new(engine, Format::linear(8000));
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
async fn a_recognizer_of_ones_own_keeps_its_model() {
    let service = Service::new(Rules {
        recognizers: vec!["mine".into()],
        ..Rules::default()
    });
    let engine = Google::new::<String>([])
        .project("test")
        .recognizer("mine")
        .channel(service.channel());
    let mut caller = Caller::new(engine, Format::linear(8000));
    caller.say(&["hello"]).await;
    caller.hang_up().await.assert_complete();
    assert_eq!(service.calls()[0].model, "");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_can_do_less_is_asked_for_less() {
    let service = Service::new(Rules {
        word_confidence: false,
        ..Rules::default()
    });
    let mut caller = Caller::new(engine(&service), Format::linear(8000));
    caller.say(&["one", "two"]).await;
    let heard = caller.hang_up().await;
    heard.assert_complete();
    assert!(heard.incidents().is_empty(), "{:?}", heard.incidents());
    assert_eq!(service.calls().len(), 2);
    assert_eq!(heard.finals()[0].words[0].confidence, None);
}

#[tokio::test(start_paused = true)]
async fn everything_that_the_service_tells_is_told() {
    let service = service();
    let mut caller = Caller::new(engine(&service), Format::linear(8000));
    caller.say(&["one", "two"]).await;
    let heard = caller.hang_up().await;
    let transcript = heard.finals()[0];
    assert_eq!(transcript.confidence, Some(0.95));
    assert_eq!(transcript.stability, None);
    assert_eq!(transcript.language.as_deref(), Some("en-us"));
    assert_eq!(transcript.words[0].confidence, Some(0.9));
    let Some((_, SpeechEvent::Transcript(interim))) = heard.events.first() else {
        panic!("{:?}", heard.events)
    };
    assert!(!interim.is_final);
    assert_eq!(interim.text, "one");
    assert_eq!((interim.confidence, interim.stability), (None, Some(0.8)));
}

#[tokio::test]
async fn a_server_of_ones_own_needs_no_credentials() {
    let mut service = service();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = service.listen(listener).unwrap();
    let engine = Google::new(["en-US"])
        .project("test")
        .endpoint(format!("http://{address}"));
    assert_eq!(
        engine.destination(),
        format!("Google Speech-to-Text at http://{address}")
    );
    let mut caller = Caller::new(engine, Format::linear(8000));
    caller.say(&["over", "tcp"]).await;
    caller.hang_up().await.assert_complete();
    assert_content(&service);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_none_says_so() {
    let engine = Google::new(["en-US"]).project("test").endpoint("http://");
    let mut caller = Caller::new(engine, Format::linear(8000));
    caller.send(&[0; 160]).await;
    let heard = caller.hang_up().await;
    assert!(heard.failures()[0].is_final(), "{:?}", heard.events);
}
