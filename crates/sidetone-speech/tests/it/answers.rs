//! The WebSocket recognizers and replies other than transcripts, including those that never end.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sidetone_services::{Fault, deepgram::DeepgramServer, vosk::VoskServer};
use sidetone_speech::{
    Format, Recognizer, SpeechError, SpeechEvent, deepgram::Deepgram, transcribe, vosk::Vosk,
};
use tokio::time::timeout;

use crate::support::Call;

const KEY: &str = "0123456789abcdef";
/// More than all the buffers of a connection hold together.
const FLOOD: usize = 256 << 20;

/// Both servers with the same fault, and their recognizers.
struct Servers {
    vosk: VoskServer,
    deepgram: DeepgramServer,
}

impl Servers {
    async fn with(fault: Fault) -> Self {
        let vosk = VoskServer::start().await.unwrap();
        let deepgram = DeepgramServer::start(KEY, Duration::from_secs(3600)).await;
        let deepgram = deepgram.unwrap();
        vosk.set(fault);
        deepgram.set(fault);
        Self { vosk, deepgram }
    }

    fn recognizers(&self) -> [Box<dyn FnOnce() -> std::sync::Arc<dyn Recognizer> + '_>; 2] {
        [
            Box::new(|| std::sync::Arc::new(Vosk::new(&self.vosk.endpoint()).unwrap())),
            Box::new(|| std::sync::Arc::new(Deepgram::at(&self.deepgram.endpoint(), KEY).unwrap())),
        ]
    }

    /// Each recognizer's first error in a call with a few words that goes on.
    async fn first_errors(&self) -> Vec<SpeechError> {
        let mut all = Vec::new();
        for recognizer in self.recognizers() {
            let call = Call::of(3, Format::linear(8000));
            let (mut input, mut events) = transcribe(recognizer(), call.format);
            input.push(Duration::ZERO, &call.samples);
            all.push(loop {
                match events.next().await.unwrap() {
                    SpeechEvent::Failed(error) | SpeechEvent::Retrying { error, .. } => {
                        break error;
                    }
                    _ => {}
                }
            });
        }
        all
    }
}

#[tokio::test]
async fn a_refusal_quotes_the_service_without_the_key() {
    let reply = r#"{"err_code":"NO","err_msg":"Key 0123456789abcdef has no access to it."}"#;
    for (status, is_final) in [(400, true), (401, true), (403, true), (503, false)] {
        let servers = Servers::with(Fault::RefuseWith(status, reply)).await;
        for error in servers.first_errors().await {
            assert_eq!(error.is_final(), is_final, "{error}");
            let text = error.to_string();
            assert!(text.contains(&status.to_string()), "{text}");
            assert!(text.contains("has no access to it."), "{text}");
        }
        let [_, deepgram] = &servers.first_errors().await[..] else {
            panic!("two recognizers")
        };
        assert!(!deepgram.to_string().contains(KEY), "{deepgram}");
    }
    let page = "<html><title>502 Bad Gateway</title></html>";
    for error in Servers::with(Fault::RefuseWith(502, page))
        .await
        .first_errors()
        .await
    {
        assert!(error.to_string().contains("\"502 Bad Gateway\""), "{error}");
    }
    for error in Servers::with(Fault::RefuseWith(200, "hello"))
        .await
        .first_errors()
        .await
    {
        let text = error.to_string();
        assert!(
            text.contains("not as a WebSocket") && text.contains("hello"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_redirect_is_reported_with_its_target() {
    for (location, expected) in [
        (
            "wss://elsewhere.example/v2",
            "moved to wss://elsewhere.example/v2",
        ),
        ("/v2", "moved to ws://127.0.0.1:"),
    ] {
        for error in Servers::with(Fault::Moved(location))
            .await
            .first_errors()
            .await
        {
            assert!(error.is_final(), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

#[tokio::test]
async fn a_foreign_message_is_quoted() {
    for (reply, expected) in [
        (
            r#"{"type":"Error","description":"out of workers"}"#,
            "says: out of workers",
        ),
        (
            r#"{"error":{"message":"out of workers"}}"#,
            "says: out of workers",
        ),
        ("out of workers", "says: out of workers"),
        ("", "an empty message"),
    ] {
        for error in Servers::with(Fault::Reply(reply))
            .await
            .first_errors()
            .await
        {
            let text = error.to_string();
            assert!(text.ends_with(expected), "{reply}: {text}");
            assert!(matches!(error, SpeechError::Broken { .. }), "{error}");
        }
    }
}

#[tokio::test]
async fn the_best_of_several_alternatives_is_the_transcript() {
    let reply =
        r#"{"alternatives":[{"confidence":220.5,"text":"good","result":[]},{"text":"god"}]}"#;
    let servers = Servers::with(Fault::Reply(reply)).await;
    let [vosk, _] = servers.recognizers();
    let call = Call::of(1, Format::linear(8000));
    let (_input, mut events) = call.start(vosk());
    let Some(SpeechEvent::Transcript(transcript)) = events.next().await else {
        panic!("no transcript");
    };
    assert_eq!(
        (transcript.text.as_str(), transcript.is_final),
        ("good", true)
    );
}

/// Virtual time advances only while no task has work.
#[tokio::test(start_paused = true)]
async fn a_service_that_floods_pings_and_takes_no_pongs_is_not_read() {
    let servers = Servers::with(Fault::Pings(FLOOD)).await;
    for recognizer in servers.recognizers() {
        // Without audio nothing else is sent that might fail.
        let (mut input, mut events) = transcribe(recognizer(), Format::linear(8000));
        input.push(Duration::ZERO, &[0; 160]);
        let event = timeout(Duration::from_secs(30), events.next()).await;
        let Ok(Some(SpeechEvent::Retrying { error, .. })) = event else {
            panic!("{event:?}, {} MB", servers.vosk.flooded_bytes() >> 20);
        };
        assert!(matches!(error, SpeechError::Broken { .. }), "{error}");
    }
    let flooded = [
        servers.vosk.flooded_bytes(),
        servers.deepgram.flooded_bytes(),
    ];
    assert!(
        flooded.iter().all(|it| (1..FLOOD).contains(it)),
        "{flooded:?}"
    );
}

#[tokio::test]
async fn an_endless_handshake_fails_after_16_kb() {
    let servers = Servers::with(Fault::EndlessHandshake(FLOOD)).await;
    for error in servers.first_errors().await {
        let text = error.to_string();
        assert!(text.contains("longer than the handshake"), "{text}");
    }
    let flooded = [
        servers.vosk.flooded_bytes(),
        servers.deepgram.flooded_bytes(),
    ];
    assert!(flooded.iter().all(|it| *it < FLOOD), "{flooded:?}");
}

#[tokio::test]
async fn a_message_that_is_too_long_is_an_error() {
    let long = Box::leak(format!("[{}]", "0,".repeat(200_000)).into_boxed_str());
    for error in Servers::with(Fault::Reply(long)).await.first_errors().await {
        let text = error.to_string();
        assert!(text.contains("exceeds the limit of 262144"), "{text}");
    }
}
