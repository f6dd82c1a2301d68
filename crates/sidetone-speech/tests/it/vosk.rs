//! The Vosk recognizer against a stand-in with the rules of the real server.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sidetone_services::{Fault, vosk::VoskServer};
use sidetone_speech::{Format, SpeechError, SpeechEvent, vosk::Vosk};

use crate::support::{Call, Events};

#[tokio::test]
async fn words_come_with_their_times_at_every_rate() {
    let server = VoskServer::start().await.unwrap();
    for hz in [8000, 16_000, 48_000] {
        let call = Call::of(12, Format::linear(hz));
        let received = call.run(Vosk::new(&server.endpoint()).unwrap()).await;
        received.assert_words(&call.words);
        received.assert_text_and_interims(1.0);
    }
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn a_cut_connection_loses_no_word() {
    let server = VoskServer::start().await.unwrap();
    server.set(Fault::CutAfter(Duration::from_millis(8300)));
    let call = Call::of(20, Format::linear(8000));
    let received = call.run(Vosk::new(&server.endpoint()).unwrap()).await;
    received.assert_words(&call.words);
    assert!(matches!(
        received.errors()[..],
        [SpeechError::Broken { .. }, ..]
    ));
    assert_eq!(server.connections(), received.errors().len() + 1);
}

#[tokio::test]
async fn a_server_that_restarts_resumes_where_it_was() {
    let server = VoskServer::start().await.unwrap();
    server.set(Fault::Slow(Duration::from_millis(5)));
    let call = Call::of(20, Format::linear(8000));
    let (input, mut events) = call.start(Vosk::new(&server.endpoint()).unwrap());
    input.finish();
    let mut received = Events(Vec::new());
    while let Some(event) = events.next().await {
        let first = received.transcripts().next().is_none();
        match &event {
            SpeechEvent::Transcript(it) if it.is_final && first => server.set(Fault::Down),
            SpeechEvent::Retrying { .. } => server.set(Fault::None),
            _ => {}
        }
        if !matches!(&event, SpeechEvent::Transcript(it) if !it.is_final) {
            received.0.push(event);
        }
    }
    received.assert_words(&call.words);
    assert_eq!(received.errors().len(), 1);
    assert!(received.0.contains(&SpeechEvent::Recovered));
}

#[tokio::test]
async fn a_refusal_is_final_and_a_full_server_is_not() {
    let server = VoskServer::start().await.unwrap();
    let call = Call::of(1, Format::linear(8000));
    let vosk = || Vosk::new(&server.endpoint()).unwrap();
    server.set(Fault::Refuse(403));
    let received = call.run(vosk()).await;
    assert!(matches!(
        received.failure(),
        Some(SpeechError::Refused { .. })
    ));

    server.set(Fault::Refuse(503));
    let (input, mut events) = call.start(vosk());
    input.finish();
    let Some(SpeechEvent::Retrying { error, .. }) = events.next().await else {
        panic!("no error");
    };
    assert!(matches!(error, SpeechError::Unavailable { .. }), "{error}");
    server.set(Fault::None);
    Events::all(&mut events).await.assert_words(&call.words);
}

#[tokio::test]
async fn phrases_limit_what_is_recognized() {
    let server = VoskServer::start().await.unwrap();
    let call = Call::of(2, Format::linear(8000));
    let vosk = Vosk::new(&server.endpoint())
        .unwrap()
        .phrases(["a0 word1", "[unk]"]);
    let texts: Vec<String> = call
        .run(vosk)
        .await
        .finals()
        .map(|it| it.text.clone())
        .collect();
    assert_eq!(texts, ["a0 [unk]", "[unk] word1"]);
}

#[test]
fn an_invalid_address_is_an_error_at_once() {
    for address in [
        "",
        "127.0.0.1:2700",
        "http://127.0.0.1",
        "ws://a:b@127.0.0.1",
    ] {
        let error = Vosk::new(address).unwrap_err();
        assert!(
            matches!(error, SpeechError::Settings(_)),
            "{address}: {error}"
        );
        assert!(!error.to_string().contains("a:b"), "{error}");
    }
}
