//! The Deepgram recognizer against a stand-in that refuses what the real service refuses.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sidetone_audio::g711::Law;
use sidetone_services::{Fault, deepgram::DeepgramServer};
use sidetone_speech::{Format, SpeechError, SpeechEvent, deepgram::Deepgram, transcribe};
use tokio::time::sleep;

use crate::support::{Call, Events};

const KEY: &str = "0123456789abcdef";
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn words_come_with_their_times_in_every_encoding() {
    let server = DeepgramServer::start(KEY, IDLE_TIMEOUT).await.unwrap();
    let g711 = |law| Format {
        hz: 8000,
        law: Some(law),
    };
    let formats = [
        Format::linear(8000),
        Format::linear(16_000),
        g711(Law::Ulaw),
        g711(Law::Alaw),
    ];
    for format in formats {
        let call = Call::of(12, format);
        let received = call.run(deepgram(&server)).await;
        received.assert_words(&call.words);
        received.assert_text_and_interims(0.875);
    }
    assert_eq!(server.connections(), 4);
}

#[tokio::test]
async fn a_cut_connection_loses_no_word() {
    let server = DeepgramServer::start(KEY, IDLE_TIMEOUT).await.unwrap();
    server.set(Fault::CutAfter(Duration::from_millis(8300)));
    let call = Call::of(20, Format::linear(8000));
    let received = call.run(deepgram(&server)).await;
    received.assert_words(&call.words);
    assert!(matches!(
        received.errors()[..],
        [SpeechError::Broken { .. }, ..]
    ));
}

#[tokio::test(start_paused = true)]
async fn a_call_without_audio_keeps_its_connection() {
    let server = DeepgramServer::start(KEY, IDLE_TIMEOUT).await.unwrap();
    let call = Call::of(2, Format::linear(8000));
    let (mut input, mut events) = call.start(deepgram(&server));
    sleep(Duration::from_secs(60)).await;
    let second = Duration::from_secs(60);
    input.push(second, &call.samples);
    input.finish();
    let again = call.words.iter().cloned().map(|mut it| {
        it.start += second;
        it.end += second;
        it
    });
    let said: Vec<_> = call.words.iter().cloned().chain(again).collect();
    Events::all(&mut events).await.assert_words(&said);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_not_shown() {
    let server = DeepgramServer::start("another", IDLE_TIMEOUT)
        .await
        .unwrap();
    let deepgram = deepgram(&server);
    assert!(!format!("{deepgram:?}").contains(KEY));
    let (input, mut events) = transcribe(deepgram, Format::linear(8000));
    let mut input = input;
    input.push(Duration::ZERO, &[0; 800]);
    let Some(SpeechEvent::Failed(error)) = events.next().await else {
        panic!("it was not refused");
    };
    assert!(matches!(error, SpeechError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("credentials"), "{error}");
    assert!(!error.to_string().contains(KEY), "{error}");
}

#[tokio::test]
async fn an_account_without_credit_is_final_and_too_many_requests_are_not() {
    let server = DeepgramServer::start(KEY, IDLE_TIMEOUT).await.unwrap();
    let call = Call::of(1, Format::linear(8000));
    server.set(Fault::Refuse(402));
    let received = call.run(deepgram(&server)).await;
    assert!(matches!(
        received.failure(),
        Some(SpeechError::Refused { .. })
    ));

    server.set(Fault::Refuse(429));
    let (input, mut events) = call.start(deepgram(&server));
    input.finish();
    let Some(SpeechEvent::Retrying { error, .. }) = events.next().await else {
        panic!("no error");
    };
    assert!(matches!(error, SpeechError::Unavailable { .. }), "{error}");
    server.set(Fault::None);
    Events::all(&mut events).await.assert_words(&call.words);
}

#[tokio::test]
async fn settings_with_any_characters_reach_the_service() {
    let server = DeepgramServer::start(KEY, IDLE_TIMEOUT).await.unwrap();
    let call = Call::of(1, Format::linear(8000));
    let configured = deepgram(&server).language("de").phrases(["Grüße & more=?"]);
    call.run(configured).await.assert_words(&call.words);
    let older = deepgram(&server)
        .model("nova-2-phonecall")
        .phrases(["word"]);
    call.run(older).await.assert_words(&call.words);
    let received = call.run(deepgram(&server).model("nova 9&x=1")).await;
    assert!(matches!(
        received.failure(),
        Some(SpeechError::Refused { .. })
    ));
}

#[test]
fn a_missing_key_is_an_error_at_once() {
    let error = Deepgram::at("ws://127.0.0.1:1/v1/listen", "").unwrap_err();
    assert!(matches!(error, SpeechError::Settings(_)), "{error}");
}

fn deepgram(server: &DeepgramServer) -> Deepgram {
    Deepgram::at(&server.endpoint(), KEY).unwrap()
}
