use std::time::Duration;

use sidetone_services::google::Service;
use sidetone_speech::{Format, Law, SpeechEvent};

use super::caller::{Caller, assert_nothing_refused, recognizer_for, service};

const MINUTE: Duration = Duration::from_secs(60);

/// Numbers as words, so that each occurs once.
fn words(from: usize, count: usize) -> Vec<String> {
    (from..from + count).map(|it| format!("n{it}")).collect()
}

async fn talk(caller: &mut Caller, until: Duration, pausing: bool) {
    while caller.at < until {
        let words = words(caller.said.len(), 3 + caller.said.len() % 6);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match pausing {
            true => caller.say(&words).await,
            false => caller.say_without_pause(&words).await,
        }
    }
}

fn max_stream(service: &Service) -> Duration {
    let longest = service.calls().iter().map(|it| it.audio.len()).max();
    Duration::from_secs_f64(longest.unwrap() as f64 / 16_000.0)
}

#[tokio::test(start_paused = true)]
async fn twelve_minutes_lose_no_word_and_repeat_none() {
    let service = service();
    let mut caller = Caller::new(recognizer_for(&service), Format::linear(8000));
    talk(&mut caller, MINUTE * 4, true).await;
    // Without a pause to split the streams in.
    talk(&mut caller, MINUTE * 5, false).await;
    talk(&mut caller, MINUTE * 9, true).await;
    talk(&mut caller, MINUTE * 12, false).await;
    caller.say(&["that", "is", "all"]).await;
    let outcome = caller.hang_up().await;
    outcome.assert_complete();
    assert!(
        outcome.other_events().is_empty(),
        "{:?}",
        outcome.other_events()
    );
    assert_nothing_refused(&service);
    assert_eq!(service.calls().len(), 3);
    assert!(max_stream(&service) < MINUTE * 5);
}

#[tokio::test(start_paused = true)]
async fn no_word_is_cut_wherever_streams_are_split() {
    // The split moves through the words by 7 ms at a time.
    for offset in 0..40 {
        let service = service();
        let recognizer = recognizer_for(&service).stream_limit(Duration::from_secs(5));
        let mut caller = Caller::new(recognizer, Format::linear(8000));
        caller.send(&vec![0; 56 * offset]).await;
        talk(&mut caller, Duration::from_secs(12), false).await;
        let outcome = caller.hang_up().await;
        outcome.assert_complete();
        assert_nothing_refused(&service);
        assert!(service.calls().len() > 2, "{}", service.calls().len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_quarter_of_an_hour_of_silence_loses_no_word_after_it() {
    let service = service();
    let mut caller = Caller::new(recognizer_for(&service), Format::linear(8000));
    caller.send(&vec![0; 8000 * 60 * 15]).await;
    caller.say(&["still", "there"]).await;
    let outcome = caller.hang_up().await;
    outcome.assert_complete();
    assert!(
        outcome.other_events().is_empty(),
        "{:?}",
        outcome.other_events()
    );
    assert_nothing_refused(&service);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_early_loses_no_word() {
    let service = service();
    service.change(|rules| rules.max_stream = Duration::from_secs(50));
    let mut caller = Caller::new(recognizer_for(&service), Format::linear(8000));
    talk(&mut caller, MINUTE * 2, true).await;
    let outcome = caller.hang_up().await;
    outcome.assert_complete();
    assert!(
        outcome.other_events().is_empty(),
        "{:?}",
        outcome.other_events()
    );
    assert!(service.calls()[0].refusal.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_muted_caller_keeps_no_stream_open_and_gets_the_last_word() {
    let service = service();
    let mut caller = Caller::new(recognizer_for(&service), Format::linear(8000));
    // Muted within the word's utterance: no pause makes it final.
    caller.say_without_pause(&["one", "two"]).await;
    let muted = caller.at;
    caller.mute(MINUTE).await;
    assert!(
        service.calls().iter().all(|it| it.ended),
        "closed meanwhile"
    );
    caller.say(&["three"]).await;
    let outcome = caller.hang_up().await;
    outcome.assert_complete();
    assert!(
        outcome.other_events().is_empty(),
        "{:?}",
        outcome.other_events()
    );
    assert_nothing_refused(&service);
    assert_eq!(service.calls().len(), 2);
    let first = outcome.events.iter().find(
        |(_, event)| matches!(event, SpeechEvent::Transcript(transcript) if transcript.is_final),
    );
    let waited = first.unwrap().0 - muted;
    assert!(waited < Duration::from_secs(4), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn g711_arrives_as_it_came() {
    for (law, encoding) in [(Law::Ulaw, "MULAW"), (Law::Alaw, "ALAW")] {
        let service = service();
        let format = Format {
            hz: 8000,
            law: Some(law),
        };
        // Every code there is.
        let sent: Vec<u8> = (0..16_000).map(|it: u32| (it * 31 % 256) as u8).collect();
        let mut samples = Vec::new();
        law.decode(&sent, &mut samples);
        let mut caller = Caller::new(recognizer_for(&service), format);
        caller.send(&samples).await;
        caller.hang_up().await;
        let call = &service.calls()[0];
        assert_eq!(call.encoding, encoding);
        // µ-law has two zeros, which are the same sample.
        let plain = |code: u8| {
            if law == Law::Ulaw && code == 0x7F {
                0xFF
            } else {
                code
            }
        };
        let plain = |codes: &[u8]| codes.iter().map(|it| plain(*it)).collect::<Vec<u8>>();
        assert!(call.audio == plain(&sent), "{law:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn wideband_keeps_to_the_size_of_a_request() {
    let service = service();
    let mut caller = Caller::new(recognizer_for(&service), Format::linear(48_000));
    caller.say(&["high", "fidelity"]).await;
    let outcome = caller.hang_up().await;
    outcome.assert_complete();
    assert_nothing_refused(&service);
    let call = &service.calls()[0];
    assert_eq!((call.hz, call.model.as_str()), (48_000, "long"));
}
