//! What services with WebSocket answer besides transcripts, and what comes of services that never end.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::support::Call;
use sidetone_services::{Fault, deepgram::DeepgramServer, vosk::VoskServer};
use sidetone_speech::{
    Format, Recognizer, SpeechError, SpeechEvent, deepgram::Deepgram, transcribe, vosk::Vosk,
};
use tokio::time::timeout;

const KEY: &str = "0123456789abcdef";
/// More than all the buffers of a connection hold together.
const FLOOD: usize = 256 << 20;

/// Both services, with the same trouble, and their engines.
struct House {
    vosk: VoskServer,
    deepgram: DeepgramServer,
}

impl House {
    async fn with(trouble: Fault) -> Self {
        let vosk = VoskServer::start().await.unwrap();
        let deepgram = DeepgramServer::start(KEY, Duration::from_secs(3600)).await;
        let deepgram = deepgram.unwrap();
        vosk.set(trouble);
        deepgram.set(trouble);
        Self { vosk, deepgram }
    }

    fn engines(&self) -> [Box<dyn FnOnce() -> std::sync::Arc<dyn Recognizer> + '_>; 2] {
        [
            Box::new(|| std::sync::Arc::new(Vosk::new(&self.vosk.endpoint()).unwrap())),
            Box::new(|| std::sync::Arc::new(Deepgram::at(&self.deepgram.endpoint(), KEY).unwrap())),
        ]
    }

    /// What each engine says first of a call of a few words that goes on.
    async fn first_words(&self) -> Vec<SpeechError> {
        let mut all = Vec::new();
        for engine in self.engines() {
            let call = Call::of(3, Format::linear(8000));
            let (mut input, mut events) = transcribe(engine(), call.format);
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
async fn a_refusal_is_told_in_the_words_of_the_service_and_without_the_key() {
    let said = r#"{"err_code":"NO","err_msg":"Key 0123456789abcdef has no access to it."}"#;
    for (status, is_final) in [(400, true), (401, true), (403, true), (503, false)] {
        let house = House::with(Fault::RefuseWith(status, said)).await;
        for error in house.first_words().await {
            assert_eq!(error.is_final(), is_final, "{error}");
            let text = error.to_string();
            assert!(text.contains(&status.to_string()), "{text}");
            assert!(text.contains("has no access to it."), "{text}");
        }
        let [_, deepgram] = &house.first_words().await[..] else {
            panic!("two engines")
        };
        assert!(!deepgram.to_string().contains(KEY), "{deepgram}");
    }
    let page = "<html><title>502 Bad Gateway</title></html>";
    for error in House::with(Fault::RefuseWith(502, page))
        .await
        .first_words()
        .await
    {
        assert!(error.to_string().contains("\"502 Bad Gateway\""), "{error}");
    }
    for error in House::with(Fault::RefuseWith(200, "hello"))
        .await
        .first_words()
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
async fn a_service_that_has_moved_names_its_new_address() {
    for (location, told) in [
        (
            "wss://elsewhere.example/v2",
            "moved to wss://elsewhere.example/v2",
        ),
        ("/v2", "moved to ws://127.0.0.1:"),
    ] {
        for error in House::with(Fault::Moved(location))
            .await
            .first_words()
            .await
        {
            assert!(error.is_final(), "{error}");
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}

#[tokio::test]
async fn what_is_no_message_of_the_service_is_told_as_it_said_it() {
    for (said, told) in [
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
        for error in House::with(Fault::Reply(said)).await.first_words().await {
            let text = error.to_string();
            assert!(text.ends_with(told), "{said}: {text}");
            assert!(matches!(error, SpeechError::Broken { .. }), "{error}");
        }
    }
}

#[tokio::test]
async fn a_vosk_server_that_gives_several_alternatives_is_understood() {
    let said =
        r#"{"alternatives":[{"confidence":220.5,"text":"good","result":[]},{"text":"god"}]}"#;
    let house = House::with(Fault::Reply(said)).await;
    let [vosk, _] = house.engines();
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

/// Time stands still while anybody has something to do.
#[tokio::test(start_paused = true)]
async fn who_floods_pings_and_takes_no_answer_is_read_no_further() {
    let house = House::with(Fault::Pings(FLOOD)).await;
    for engine in house.engines() {
        // Without audio nothing else is sent that might fail.
        let (mut input, mut events) = transcribe(engine(), Format::linear(8000));
        input.push(Duration::ZERO, &[0; 160]);
        let told = timeout(Duration::from_secs(30), events.next()).await;
        let Ok(Some(SpeechEvent::Retrying { error, .. })) = told else {
            panic!("{told:?}, {} MB", house.vosk.flooded_bytes() >> 20);
        };
        assert!(matches!(error, SpeechError::Broken { .. }), "{error}");
    }
    let flooded = [house.vosk.flooded_bytes(), house.deepgram.flooded_bytes()];
    assert!(
        flooded.iter().all(|it| (1..FLOOD).contains(it)),
        "{flooded:?}"
    );
}

#[tokio::test]
async fn a_handshake_without_end_is_given_up_after_16_kb() {
    let house = House::with(Fault::EndlessHandshake(FLOOD)).await;
    for error in house.first_words().await {
        let text = error.to_string();
        assert!(text.contains("longer than the handshake"), "{text}");
    }
    let flooded = [house.vosk.flooded_bytes(), house.deepgram.flooded_bytes()];
    assert!(flooded.iter().all(|it| *it < FLOOD), "{flooded:?}");
}

#[tokio::test]
async fn a_message_that_is_too_long_is_given_up() {
    let long = Box::leak(format!("[{}]", "0,".repeat(200_000)).into_boxed_str());
    for error in House::with(Fault::Reply(long)).await.first_words().await {
        let text = error.to_string();
        assert!(text.contains("exceeds the limit of 262144"), "{text}");
    }
}
