//! The recognizer for OpenAI-compatible services against a stand-in that refuses what the real
//! service refuses.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sidetone_services::{
    openai::{Form, Rules, Service},
    synthesize, word_times,
};
use sidetone_speech::{Format, SpeechError, SpeechEvent, Transcript, openai::OpenAi, transcribe};
use tokio::{net::TcpListener, time};

const HZ: u32 = 8000;
const LEAD: Duration = Duration::from_millis(900);

/// A call with these utterances one after the other, after some silence.
fn call(utterances: &[&[&str]]) -> Vec<i16> {
    let mut samples = vec![0; HZ as usize * 9 / 10];
    for words in utterances {
        samples.extend(synthesize(words, HZ));
        samples.extend([0; HZ as usize / 5]);
    }
    samples
}

async fn run(recognizer: OpenAi, samples: &[i16]) -> Vec<SpeechEvent> {
    let (mut input, mut events) = transcribe(recognizer, Format::linear(HZ));
    input.push(Duration::ZERO, samples);
    input.finish();
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event);
    }
    all
}

fn transcripts(events: &[SpeechEvent]) -> Vec<&Transcript> {
    let transcripts = events.iter().filter_map(|event| match event {
        SpeechEvent::Transcript(transcript) => Some(transcript),
        _ => None,
    });
    transcripts.collect()
}

fn texts(events: &[SpeechEvent]) -> Vec<&str> {
    let texts = transcripts(events).into_iter();
    texts.map(|transcript| transcript.text.as_str()).collect()
}

fn recognizer(service: &Service) -> OpenAi {
    OpenAi::new(&service.url()).unwrap()
}

#[tokio::test]
async fn an_utterance_comes_whole_with_its_words_in_place() {
    let service = Service::start(Rules::default()).await.unwrap();
    let recognizer = recognizer(&service)
        .language("en-GB")
        .phrases(["sidetone", "asterisk"]);
    let events = run(recognizer, &call(&[&["first", "words"]])).await;
    let received = transcripts(&events);
    assert_eq!(received.len(), 1, "{events:?}");
    assert_eq!(received[0].text, "first words");
    assert!(received[0].is_final);
    // Five letters twice, 40 ms each, with 80 ms between the words.
    for (time, said) in [
        (received[0].start, LEAD),
        (received[0].end, LEAD + Duration::from_millis(480)),
    ] {
        assert!(time.abs_diff(said) < Duration::from_millis(150), "{time:?}");
    }
    assert!((0.77..0.79).contains(&received[0].confidence.unwrap()));
    assert_eq!(
        received[0].language, None,
        "an English word is no language tag"
    );
    for (word, said) in received[0]
        .words
        .iter()
        .zip(word_times(&["first", "words"], LEAD))
    {
        assert_eq!(word.text, said.text);
        assert!(
            word.start.abs_diff(said.start) < Duration::from_millis(20),
            "{word:?} {said:?}"
        );
        assert!(
            word.end.abs_diff(said.end) < Duration::from_millis(20),
            "{word:?} {said:?}"
        );
    }
    let upload = &service.uploads()[0];
    assert_eq!((upload.model.as_str(), upload.hz), ("whisper-1", HZ));
    assert_eq!(upload.language.as_deref(), Some("en"));
    assert_eq!(upload.prompt.as_deref(), Some("sidetone, asterisk"));
    // It includes some of the silence before the first sound, but not all.
    let before = upload
        .samples
        .iter()
        .take_while(|sample| sample.abs() < 1000);
    assert!((1200..=3600).contains(&before.count()));
}

#[tokio::test]
async fn transcripts_come_in_order_whichever_reply_comes_first() {
    let rules = Rules {
        reversed: 4,
        ..Rules::default()
    };
    let service = Service::start(rules).await.unwrap();
    let said: [&[&str]; 6] = [
        &["one"],
        &["two"],
        &["three"],
        &["four"],
        &["five"],
        &["six"],
    ];
    let events = run(recognizer(&service), &call(&said)).await;
    assert_eq!(
        texts(&events),
        ["one", "two", "three", "four", "five", "six"]
    );
    assert_eq!(service.max_concurrent(), 4);
    let places: Vec<_> = transcripts(&events)
        .iter()
        .map(|it| (it.start, it.end))
        .collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[tokio::test]
async fn speech_without_a_pause_is_split_between_two_words() {
    let service = Service::start(Rules::default()).await.unwrap();
    let words: Vec<String> = (100..160).map(|number| format!("word{number}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let events = run(recognizer(&service), &call(&[&words])).await;
    assert_eq!(texts(&events).join(" "), words.join(" "));
    let uploads = service.uploads();
    assert_eq!(uploads.len(), 2);
    assert!(
        uploads
            .iter()
            .all(|it| it.duration() < Duration::from_secs(16))
    );
}

#[tokio::test]
async fn only_the_utterance_without_a_reply_is_sent_again() {
    let rules = Rules {
        // One of four, which is retried three times.
        fault: |number| {
            [None, Some(429), None, None, Some(429), Some(408)]
                .get(number)
                .copied()?
        },
        ..Rules::default()
    };
    let service = Service::start(rules).await.unwrap();
    let said: [&[&str]; 4] = [&["one"], &["two"], &["three"], &["four"]];
    let events = run(recognizer(&service), &call(&said)).await;
    assert_eq!(
        texts(&events),
        ["one", "two", "three", "four"],
        "{events:?}"
    );
    assert_eq!((service.uploads().len(), service.requests()), (4, 4 + 3));
    let troubles = events.iter().filter(|it| {
        matches!(
            it,
            SpeechEvent::Retrying {
                error: SpeechError::Unavailable { .. },
                ..
            }
        )
    });
    assert!((2..=3).contains(&troubles.count()), "{events:?}");
    assert!(events.contains(&SpeechEvent::Recovered));
    assert!(
        !events
            .iter()
            .any(|it| matches!(it, SpeechEvent::Lost { .. }))
    );
}

#[tokio::test]
async fn an_utterance_that_keeps_failing_is_lost_and_those_after_it_come() {
    let rules = Rules {
        // With detail, without it, and once more.
        fault: |number| (number < 3).then_some(500),
        ..Rules::default()
    };
    let service = Service::start(rules).await.unwrap();
    let (mut input, mut events) = transcribe(recognizer(&service), Format::linear(HZ));
    let samples = call(&[&["never"]]);
    input.push(Duration::ZERO, &samples);
    let retry = events.next().await.unwrap();
    assert!(matches!(retry, SpeechEvent::Retrying { .. }), "{retry:?}");
    // As if half a minute passed before the retry.
    time::pause();
    time::advance(Duration::from_secs(30)).await;
    time::resume();
    let Some(SpeechEvent::Lost { from, to }) = events.next().await else {
        panic!("not said to be lost");
    };
    // Five letters.
    let word_times = (LEAD, LEAD + Duration::from_millis(200));
    assert!(
        from <= word_times.0 && word_times.1 <= to,
        "{from:?} to {to:?}"
    );
    let length = Duration::from_micros(samples.len() as u64 * 125);
    input.push(length, &call(&[&["after"]]));
    input.finish();
    assert_eq!(events.next().await, Some(SpeechEvent::Recovered));
    let Some(SpeechEvent::Transcript(transcript)) = events.next().await else {
        panic!("no transcript");
    };
    assert_eq!(transcript.text, "after");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_service_that_comes_later_gets_everything() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let recognizer = OpenAi::new(&format!("http://{address}")).unwrap();
    let (mut input, mut events) = transcribe(recognizer, Format::linear(HZ));
    input.push(Duration::ZERO, &call(&[&["early"]]));
    let Some(SpeechEvent::Retrying { error, .. }) = events.next().await else {
        panic!("no retry without a service");
    };
    assert!(matches!(error, SpeechError::Unavailable { .. }), "{error}");
    let listener = TcpListener::bind(address).await.unwrap();
    let _service = Service::on(listener, Rules::default()).unwrap();
    loop {
        match events.next().await.unwrap() {
            SpeechEvent::Transcript(transcript) => break assert_eq!(transcript.text, "early"),
            SpeechEvent::Retrying { .. } | SpeechEvent::Recovered => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn recovery_is_reported_only_after_a_reply() {
    let rules = Rules {
        // Of the first attempt, with detail and without it, and of the second.
        fault: |number| (number < 3).then_some(503),
        ..Rules::default()
    };
    let service = Service::start(rules).await.unwrap();
    let events = run(recognizer(&service), &call(&[&["patience"]])).await;
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| match event {
            SpeechEvent::Retrying { .. } => "retrying",
            SpeechEvent::Recovered => "recovered",
            SpeechEvent::Transcript(_) => "transcript",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["retrying", "retrying", "recovered", "transcript"]);
}

#[tokio::test]
async fn a_model_without_detail_gets_requests_for_text() {
    let rules = Rules {
        verbose: false,
        model: "gpt-4o-transcribe".into(),
        ..Rules::default()
    };
    let service = Service::start(rules).await.unwrap();
    let recognizer = recognizer(&service).model("gpt-4o-transcribe");
    let events = run(
        recognizer,
        &call(&[&["plain"], &["text"], &["again"], &["more"], &["end"]]),
    )
    .await;
    assert_eq!(texts(&events), ["plain", "text", "again", "more", "end"]);
    assert!(transcripts(&events).iter().all(|it| it.words.is_empty()));
    // Only those in flight at first were sent twice.
    assert!(service.requests() <= 5 + 4, "{}", service.requests());
}

#[tokio::test]
async fn a_wrong_key_is_final_and_never_quoted() {
    for (key, status) in [(Some("sk-wrong"), "401"), (None, "401")] {
        let rules = Rules {
            key: Some("sk-right".into()),
            ..Rules::default()
        };
        let service = Service::start(rules).await.unwrap();
        let mut recognizer = recognizer(&service);
        if let Some(key) = key {
            recognizer = recognizer.key(key).unwrap();
        }
        assert!(!format!("{recognizer:?}").contains("sk-wrong"));
        let events = run(recognizer, &call(&[&["secret"]])).await;
        let Some(SpeechEvent::Failed(error)) = events.first() else {
            panic!("{events:?}");
        };
        assert!(matches!(error, SpeechError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(status), "{error}");
        assert!(!format!("{events:?}").contains("sk-wrong"));
        assert_eq!(service.requests(), 1);
    }
}

#[tokio::test]
async fn the_right_key_is_accepted() {
    let rules = Rules {
        key: Some("sk-right".into()),
        ..Rules::default()
    };
    let service = Service::start(rules).await.unwrap();
    let recognizer = recognizer(&service).key("sk-right").unwrap();
    assert_eq!(texts(&run(recognizer, &call(&[&["open"]])).await), ["open"]);
}

#[tokio::test]
async fn an_unknown_model_is_final() {
    let service = Service::start(Rules::default()).await.unwrap();
    let events = run(recognizer(&service).model("whisper-9"), &call(&[&["word"]])).await;
    let Some(SpeechEvent::Failed(error)) = events.first() else {
        panic!("{events:?}");
    };
    assert!(error.to_string().contains("whisper-9"), "{error}");
}

async fn serving(form: Form) -> Service {
    let rules = Rules {
        form,
        ..Rules::default()
    };
    Service::start(rules).await.unwrap()
}

#[tokio::test]
async fn a_reply_of_plain_text_is_a_transcript() {
    let service = serving(Form::Text).await;
    let events = run(
        recognizer(&service),
        &call(&[&["plain", "text"], &["more"]]),
    )
    .await;
    assert_eq!(texts(&events), ["plain text", "more"]);
    assert_eq!(events.len(), 2, "{events:?}");
}

#[tokio::test]
async fn words_inside_segments_come_with_their_times() {
    let service = serving(Form::WordsInSegments).await;
    let events = run(recognizer(&service), &call(&[&["first", "words"]])).await;
    let received = transcripts(&events);
    assert_eq!(received[0].text, "first words");
    assert_eq!(received[0].language.as_deref(), Some("en"));
    assert_eq!(received[0].words.len(), 2, "{received:?}");
    for (word, said) in received[0]
        .words
        .iter()
        .zip(word_times(&["first", "words"], LEAD))
    {
        assert_eq!((&word.text, word.confidence), (&said.text, Some(0.75)));
        assert!(word.start.abs_diff(said.start) < Duration::from_millis(20));
    }
}

#[tokio::test]
async fn a_server_that_fails_with_detail_gets_requests_without_it() {
    for status in [500, 501, 502] {
        let service = serving(Form::NotVerbose(status)).await;
        let words: [&[&str]; 3] = [&["never"], &["mind"], &["it"]];
        let events = run(recognizer(&service), &call(&words)).await;
        assert_eq!(texts(&events), ["never", "mind", "it"], "{status}");
        assert_eq!(events.len(), 3, "without a word of retry: {events:?}");
        // Only those in flight at first were sent twice.
        assert!(service.requests() <= 3 + 3, "{}", service.requests());
    }
}

#[tokio::test]
async fn an_error_with_the_status_of_a_success_is_quoted() {
    let service = serving(Form::Error("CUDA failed with error out of memory".into())).await;
    let (mut input, mut events) = transcribe(recognizer(&service), Format::linear(HZ));
    input.push(Duration::ZERO, &call(&[&["lost"]]));
    for tried in 1..=3 {
        let Some(SpeechEvent::Retrying { error, .. }) = events.next().await else {
            panic!("no retry");
        };
        assert!(matches!(error, SpeechError::Unavailable { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.ends_with("unavailable: CUDA failed with error out of memory"),
            "{text}"
        );
        // Without detail once, and not on each attempt.
        assert_eq!(service.requests(), 1 + tried);
    }
}

#[tokio::test]
async fn a_redirect_is_reported_and_not_followed() {
    let elsewhere = Service::start(Rules::default()).await.unwrap();
    let service = serving(Form::Moved(format!(
        "{}/audio/transcriptions",
        elsewhere.url()
    )))
    .await;
    let events = run(recognizer(&service), &call(&[&["here"]])).await;
    let Some(SpeechEvent::Failed(error)) = events.first() else {
        panic!("{events:?}");
    };
    let text = error.to_string();
    assert!(
        text.contains(&elsewhere.url()) && text.contains("308"),
        "{text}"
    );
    assert_eq!((service.requests(), elsewhere.requests()), (1, 0));
}

#[tokio::test]
async fn an_endless_reply_fails_after_a_megabyte() {
    let service = serving(Form::Endless).await;
    let (mut input, mut events) = transcribe(recognizer(&service), Format::linear(HZ));
    input.push(Duration::ZERO, &call(&[&["word"]]));
    let Some(SpeechEvent::Retrying { error, .. }) = events.next().await else {
        panic!("no retry");
    };
    let text = error.to_string();
    assert!(text.contains("longer than a transcript can be"), "{text}");
}
