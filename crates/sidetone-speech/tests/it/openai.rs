//! The OpenAI-compatible engine against a service that refuses what the real one refuses.
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

/// A call in which these are said one after the other, after a silence.
fn call(utterances: &[&[&str]]) -> Vec<i16> {
    let mut samples = vec![0; HZ as usize * 9 / 10];
    for words in utterances {
        samples.extend(synthesize(words, HZ));
        samples.extend([0; HZ as usize / 5]);
    }
    samples
}

async fn run(engine: OpenAi, samples: &[i16]) -> Vec<SpeechEvent> {
    let (mut input, mut events) = transcribe(engine, Format::linear(HZ));
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

fn engine(service: &Service) -> OpenAi {
    OpenAi::new(&service.url()).unwrap()
}

#[tokio::test]
async fn an_utterance_comes_whole_with_its_words_where_they_were_said() {
    let service = Service::start(Rules::default()).await.unwrap();
    let engine = engine(&service)
        .language("en-GB")
        .phrases(["sidetone", "asterisk"]);
    let events = run(engine, &call(&[&["first", "words"]])).await;
    let heard = transcripts(&events);
    assert_eq!(heard.len(), 1, "{events:?}");
    assert_eq!(heard[0].text, "first words");
    assert!(heard[0].is_final);
    // Five letters twice, 40 ms each, with 80 ms between the words.
    for (time, said) in [
        (heard[0].start, LEAD),
        (heard[0].end, LEAD + Duration::from_millis(480)),
    ] {
        assert!(time.abs_diff(said) < Duration::from_millis(150), "{time:?}");
    }
    assert!((0.77..0.79).contains(&heard[0].confidence.unwrap()));
    assert_eq!(
        heard[0].language, None,
        "an English word is no language tag"
    );
    for (word, said) in heard[0]
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
    // What comes before the first sound is there, but not the whole silence.
    let before = upload
        .samples
        .iter()
        .take_while(|sample| sample.abs() < 1000);
    assert!((1200..=3600).contains(&before.count()));
}

#[tokio::test]
async fn transcripts_come_in_order_whichever_answer_comes_first() {
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
    let events = run(engine(&service), &call(&said)).await;
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
async fn who_never_pauses_is_cut_between_two_words() {
    let service = Service::start(Rules::default()).await.unwrap();
    let words: Vec<String> = (100..160).map(|number| format!("word{number}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let events = run(engine(&service), &call(&[&words])).await;
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
async fn only_the_utterance_that_was_not_answered_is_sent_again() {
    let rules = Rules {
        // One of four, which is tried three times more.
        fault: |number| {
            [None, Some(429), None, None, Some(429), Some(408)]
                .get(number)
                .copied()?
        },
        ..Rules::default()
    };
    let service = Service::start(rules).await.unwrap();
    let said: [&[&str]; 4] = [&["one"], &["two"], &["three"], &["four"]];
    let events = run(engine(&service), &call(&said)).await;
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
async fn an_utterance_that_stays_in_trouble_is_given_up_and_those_after_it_come() {
    let rules = Rules {
        // With detail, without it, and once more.
        fault: |number| (number < 3).then_some(500),
        ..Rules::default()
    };
    let service = Service::start(rules).await.unwrap();
    let (mut input, mut events) = transcribe(engine(&service), Format::linear(HZ));
    let samples = call(&[&["never"]]);
    input.push(Duration::ZERO, &samples);
    let trouble = events.next().await.unwrap();
    assert!(
        matches!(trouble, SpeechEvent::Retrying { .. }),
        "{trouble:?}"
    );
    // As if half a minute passed until it is tried again.
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
    let engine = OpenAi::new(&format!("http://{address}")).unwrap();
    let (mut input, mut events) = transcribe(engine, Format::linear(HZ));
    input.push(Duration::ZERO, &call(&[&["early"]]));
    let Some(SpeechEvent::Retrying { error, .. }) = events.next().await else {
        panic!("no trouble without a service");
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
async fn a_service_is_not_said_to_be_back_before_it_has_answered() {
    let rules = Rules {
        // Of the first try, with detail and without it, and of the second.
        fault: |number| (number < 3).then_some(503),
        ..Rules::default()
    };
    let service = Service::start(rules).await.unwrap();
    let events = run(engine(&service), &call(&[&["patience"]])).await;
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| match event {
            SpeechEvent::Retrying { .. } => "trouble",
            SpeechEvent::Recovered => "recovered",
            SpeechEvent::Transcript(_) => "transcript",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["trouble", "trouble", "recovered", "transcript"]);
}

#[tokio::test]
async fn a_model_that_knows_no_more_than_the_text_is_asked_for_that() {
    let rules = Rules {
        verbose: false,
        model: "gpt-4o-transcribe".into(),
        ..Rules::default()
    };
    let service = Service::start(rules).await.unwrap();
    let engine = engine(&service).model("gpt-4o-transcribe");
    let events = run(
        engine,
        &call(&[&["plain"], &["text"], &["again"], &["more"], &["end"]]),
    )
    .await;
    assert_eq!(texts(&events), ["plain", "text", "again", "more", "end"]);
    assert!(transcripts(&events).iter().all(|it| it.words.is_empty()));
    // Only those that were on their way at first had to ask twice.
    assert!(service.requests() <= 5 + 4, "{}", service.requests());
}

#[tokio::test]
async fn a_wrong_key_is_final_and_never_told() {
    for (key, status) in [(Some("sk-wrong"), "401"), (None, "401")] {
        let rules = Rules {
            key: Some("sk-right".into()),
            ..Rules::default()
        };
        let service = Service::start(rules).await.unwrap();
        let mut engine = engine(&service);
        if let Some(key) = key {
            engine = engine.key(key).unwrap();
        }
        assert!(!format!("{engine:?}").contains("sk-wrong"));
        let events = run(engine, &call(&[&["secret"]])).await;
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
async fn the_right_key_opens() {
    let rules = Rules {
        key: Some("sk-right".into()),
        ..Rules::default()
    };
    let service = Service::start(rules).await.unwrap();
    let engine = engine(&service).key("sk-right").unwrap();
    assert_eq!(texts(&run(engine, &call(&[&["open"]])).await), ["open"]);
}

#[tokio::test]
async fn a_model_that_is_not_there_is_final() {
    let service = Service::start(Rules::default()).await.unwrap();
    let events = run(engine(&service).model("whisper-9"), &call(&[&["word"]])).await;
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
async fn a_server_that_answers_with_nothing_but_text_is_understood() {
    let service = serving(Form::Text).await;
    let events = run(engine(&service), &call(&[&["plain", "text"], &["more"]])).await;
    assert_eq!(texts(&events), ["plain text", "more"]);
    assert_eq!(events.len(), 2, "{events:?}");
}

#[tokio::test]
async fn words_inside_segments_come_with_their_times() {
    let service = serving(Form::WordsInSegments).await;
    let events = run(engine(&service), &call(&[&["first", "words"]])).await;
    let heard = transcripts(&events);
    assert_eq!(heard[0].text, "first words");
    assert_eq!(heard[0].language.as_deref(), Some("en"));
    assert_eq!(heard[0].words.len(), 2, "{heard:?}");
    for (word, said) in heard[0]
        .words
        .iter()
        .zip(word_times(&["first", "words"], LEAD))
    {
        assert_eq!((&word.text, word.confidence), (&said.text, Some(0.75)));
        assert!(word.start.abs_diff(said.start) < Duration::from_millis(20));
    }
}

#[tokio::test]
async fn a_server_that_fails_with_detail_is_asked_without_it() {
    for status in [500, 501, 502] {
        let service = serving(Form::NotVerbose(status)).await;
        let words: [&[&str]; 3] = [&["never"], &["mind"], &["it"]];
        let events = run(engine(&service), &call(&words)).await;
        assert_eq!(texts(&events), ["never", "mind", "it"], "{status}");
        assert_eq!(events.len(), 3, "without a word of trouble: {events:?}");
        // Only those that were on their way at first had to ask twice.
        assert!(service.requests() <= 3 + 3, "{}", service.requests());
    }
}

#[tokio::test]
async fn an_error_that_comes_as_a_success_is_told_in_its_own_words() {
    let service = serving(Form::Error("CUDA failed with error out of memory".into())).await;
    let (mut input, mut events) = transcribe(engine(&service), Format::linear(HZ));
    input.push(Duration::ZERO, &call(&[&["lost"]]));
    for tried in 1..=3 {
        let Some(SpeechEvent::Retrying { error, .. }) = events.next().await else {
            panic!("no trouble");
        };
        assert!(matches!(error, SpeechError::Unavailable { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.ends_with("had: CUDA failed with error out of memory"),
            "{text}"
        );
        // Without detail once, and not with each try.
        assert_eq!(service.requests(), 1 + tried);
    }
}

#[tokio::test]
async fn a_server_that_has_moved_names_its_new_address_and_is_not_followed() {
    let elsewhere = Service::start(Rules::default()).await.unwrap();
    let service = serving(Form::Moved(format!(
        "{}/audio/transcriptions",
        elsewhere.url()
    )))
    .await;
    let events = run(engine(&service), &call(&[&["here"]])).await;
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
async fn an_answer_without_end_is_given_up_at_a_megabyte() {
    let service = serving(Form::Endless).await;
    let (mut input, mut events) = transcribe(engine(&service), Format::linear(HZ));
    input.push(Duration::ZERO, &call(&[&["word"]]));
    let Some(SpeechEvent::Retrying { error, .. }) = events.next().await else {
        panic!("no trouble");
    };
    let text = error.to_string();
    assert!(text.contains("more than a transcript can be"), "{text}");
}
