//! The session, in virtual time, with a recognizer that fails as planned.
#![allow(clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use sidetone_services::{Recognized, ToneDecoder, synthesize, text, word_times};
use sidetone_speech::{
    Audio, Format, Recognizer, SpeechError, SpeechEvent, SpeechEvents, SpeechInput, Transcript,
    Transcripts, Word, transcribe,
};
use tokio::time::{Instant, sleep, sleep_until};

const HZ: u32 = 8000;
const FRAME: Duration = Duration::from_millis(20);

#[tokio::test(start_paused = true)]
async fn no_word_is_lost_or_repeated_wherever_a_connection_is_cut() {
    let call = Call::of(8);
    for cut in (100..6000).step_by(90) {
        let cuts = [
            Plan::CutAfter(ms(cut)),
            Plan::CutAfter(ms(cut / 2)),
            Plan::CutAfter(ms(700)),
        ];
        let received = call.run(Fake::new(cuts)).await;
        assert_same(
            &received.words(),
            &call.words,
            &format!("cut after {cut} ms"),
        );
        assert_eq!(received.lost(), [], "cut after {cut} ms");
        assert_eq!(
            received.recovered(),
            received.errors().min(1).max(received.recovered())
        );
        assert!(received.errors() > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn twenty_seconds_without_the_recognizer_lose_nothing() {
    let call = Call::of(20);
    let back = Instant::now() + ms(21_000);
    let cut = Plan::CutAfter(ms(1000));
    let received = call.run(Fake::new([cut]).down_until(back)).await;
    assert_same(&received.words(), &call.words, "after 20 s");
    assert_eq!(received.lost(), []);
    assert_eq!(received.recovered(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_a_minute_without_the_recognizer_is_reported() {
    let call = Call::of(60);
    let (from, back) = (ms(5000), ms(65_000));
    // Jitter makes each backoff longer or shorter, so the loss ends between words, in one, or
    // between two letters.
    for seed in 0..30 {
        fastrand::seed(seed);
        let fake = Fake::new([Plan::CutAfter(from)]).down_until(Instant::now() + back);
        let received = call.run(fake).await;
        let lost = received.lost();
        let [(lost_from, lost_to)] = lost[..] else {
            panic!("{seed}: {lost:?}")
        };
        assert!(
            lost_from <= from && lost_from > ms(2000),
            "{seed}: {lost_from:?}"
        );
        // The last 30 s are kept, and the longest backoff is 10 s.
        assert!(
            lost_to >= back - ms(30_000) && lost_to <= back - ms(19_000),
            "{seed}: {lost_to:?}"
        );
        let touches = |word: &Word, (from, to)| word.start < to && from < word.end;
        let (gone, kept): (Vec<Word>, Vec<Word>) = call
            .words
            .iter()
            .cloned()
            .partition(|it| touches(it, (lost_from, lost_to)));
        // Of a word at either end of the loss a part is left, which decodes as another word.
        let is_piece =
            |received: &Word| gone.iter().any(|it| touches(received, (it.start, it.end)));
        let (pieces, whole): (Vec<Word>, Vec<Word>) =
            received.words().into_iter().partition(is_piece);
        assert_same(
            &whole,
            &kept,
            &format!("{seed}: outside of {lost_from:?} to {lost_to:?}"),
        );
        assert!(pieces.len() <= 2, "{seed}: {pieces:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final_and_loses_what_has_no_transcript() {
    let call = Call::of(5);
    let fake = Fake::new([Plan::CutAfter(ms(3000)), Plan::Refuse]);
    let connections = Arc::clone(&fake.connections);
    let received = call.run(fake).await;
    assert_eq!(*connections.lock().unwrap(), 2, "it is not asked again");
    let failed = received
        .0
        .iter()
        .position(|it| matches!(it, SpeechEvent::Failed(_)));
    assert!(
        received.0[failed.unwrap()..]
            .iter()
            .skip(1)
            .all(|it| matches!(it, SpeechEvent::Lost { .. }))
    );
    let last_end = received.words().last().unwrap().end;
    let lost = received.lost();
    assert_eq!(lost.len(), 1);
    assert!(
        lost[0].0 >= last_end && lost[0].0 <= ms(3000),
        "{lost:?} after {last_end:?}"
    );
    assert_eq!(lost[0].1, call.length(), "to the end of the call");
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_the_whole_rest_of_the_call_is_lost() {
    let call = Call::of(30);
    // At once, in the middle, and after a part of it was dropped.
    let minute = Instant::now() + ms(60_000);
    let fakes = [
        (Fake::new([Plan::Refuse]), 0),
        (Fake::new([Plan::CutAfter(ms(3000)), Plan::Refuse]), 3000),
        (Fake::new([Plan::RefuseAt(minute)]), 0),
    ];
    for (number, (fake, first_lost)) in fakes.into_iter().enumerate() {
        let (mut input, events) = transcribe(fake, Format::linear(HZ));
        // A part of it is missing, too.
        let gap = call.length() + ms(120_000);
        let feed = async {
            call.push(&mut input, ms(0)).await;
            call.push(&mut input, call.length()).await;
            sleep(ms(60_000)).await;
            call.push(&mut input, gap).await;
            input.finish();
        };
        let over = Instant::now();
        let ((), received) = tokio::join!(feed, Events::all(events));
        assert!(over.elapsed() < ms(3000) + gap + call.length(), "{number}");
        let lost = received.lost();
        let [(from, to)] = lost[..] else {
            panic!("{number}: {lost:?}")
        };
        assert!(from <= ms(first_lost), "{number}: {lost:?}");
        assert_eq!(to, gap + call.length(), "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_call_waits_ten_seconds_for_a_recognizer_that_is_down() {
    let call = Call::of(3);
    let fake = Fake::new([]).down_until(Instant::now() + ms(3_600_000));
    let (mut input, events) = transcribe(fake, Format::linear(HZ));
    input.push(ms(0), &call.samples);
    input.finish();
    let over = Instant::now();
    let received = Events::all(events).await;
    assert_eq!(over.elapsed().as_secs(), 10);
    assert_eq!(received.words(), []);
    assert_eq!(received.lost(), [(ms(0), call.length())]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_call_waits_ten_seconds_for_a_recognizer_that_hangs() {
    let call = Call::of(3);
    let (mut input, events) =
        transcribe(Fake::new([Plan::HangAfter(ms(2500))]), Format::linear(HZ));
    input.push(ms(0), &call.samples);
    input.finish();
    let over = Instant::now();
    let received = Events::all(events).await;
    assert_eq!(over.elapsed().as_secs(), 10);
    let last_end = received.words().last().unwrap().end;
    assert_eq!(
        received.lost(),
        [(last_end, call.length())],
        "what it has not finished is lost"
    );
}

#[tokio::test(start_paused = true)]
async fn words_still_come_if_the_connection_breaks_at_the_end() {
    let call = Call::of(3);
    let almost = call.length() - ms(10);
    let received = call.run(Fake::new([Plan::CutAfter(almost)])).await;
    assert_same(&received.words(), &call.words, "cut at the end");
    assert_eq!(received.lost(), []);
}

#[tokio::test(start_paused = true)]
async fn an_application_that_never_reads_gets_what_fits_and_the_rest_as_lost() {
    let call = Call::of(600);
    let (mut input, events) = transcribe(Fake::new([]), Format::linear(HZ));
    call.push(&mut input, ms(0)).await;
    input.finish();
    sleep(ms(60_000)).await;
    let received = Events::all(events).await;
    // The queued events, and what the last 30 s of audio then give, three for each utterance.
    assert!(
        received.0.len() < 64 + 100,
        "{} events were kept",
        received.0.len()
    );
    let (words, lost) = (received.words(), received.lost());
    let recognized = words.iter().filter(|it| !it.text.contains('?')).count();
    let missed = |it: &&Word| {
        lost.iter()
            .any(|(from, to)| it.end > *from && it.start < *to)
    };
    let missed = call.words.iter().filter(missed).count();
    assert_eq!(
        recognized + missed,
        call.words.len(),
        "each is recognized or reported as lost"
    );
    assert!(missed > 0);
}

#[tokio::test(start_paused = true)]
async fn a_recognizer_that_floods_is_rate_limited() {
    let (mut input, events) = transcribe(Flood, Format::linear(HZ));
    input.push(ms(0), &[0; 160]);
    let began = Instant::now();
    input.finish();
    let received = Events::all(events).await;
    // Ten seconds after the call the session ends: 16 s at once, and these.
    assert_eq!(began.elapsed().as_secs(), 10);
    let size = |it: &SpeechEvent| match it {
        SpeechEvent::Transcript(it) => it.text.len(),
        _ => 0,
    };
    let size: usize = received.0.iter().map(size).sum();
    assert!((1 << 20..27 * 64 * 1024).contains(&size), "{size}");
}

#[tokio::test(start_paused = true)]
async fn words_after_a_gap_in_the_audio_are_in_place() {
    for gap in [ms(50), ms(100), ms(599), ms(601), ms(5000), ms(600_000)] {
        let call = Call::of(4);
        let (mut input, events) = transcribe(Fake::new([]), Format::linear(HZ));
        input.push(ms(0), &call.samples);
        let second = call.length() + gap;
        input.push(second, &call.samples);
        input.finish();
        let received = Events::all(events).await;
        // The gap is too short to be noticed.
        let shift = if gap < ms(60) { call.length() } else { second };
        let again = call.words.iter().map(|it| shifted(it, shift));
        let expected: Vec<Word> = call.words.iter().cloned().chain(again).collect();
        assert_same(&received.words(), &expected, &format!("a gap of {gap:?}"));
    }
}

/// A muted phone sends nothing, not even silence.
#[tokio::test(start_paused = true)]
async fn words_before_a_mute_become_final_while_it_lasts() {
    let call = Call::of(1);
    // Not a sample after the last word.
    let said = &call.samples[..call.samples.len() - HZ as usize * 7 / 10];
    let (mut input, mut events) = transcribe(Fake::new([]), Format::linear(HZ));
    let (end, mut at) = (call.length() - ms(700), ms(0));
    for mute in [ms(3000), ms(600_000), ms(0)] {
        let began = Instant::now();
        for (frame, samples) in said.chunks(160).enumerate() {
            let offset = FRAME * frame as u32;
            sleep_until(began + offset).await;
            input.push(at + offset, samples);
        }
        if mute.is_zero() {
            break;
        }
        let final_words = async {
            loop {
                match events.next().await.unwrap() {
                    SpeechEvent::Transcript(it) if it.is_final => return it.words,
                    _ => {}
                }
            }
        };
        let muted = async {
            for stretch in 0..mute.as_millis() as u32 / 100 {
                sleep_until(began + end + ms(120) + ms(100) * stretch).await;
                input.push_silence(at + end + ms(100) * stretch, ms(100));
            }
        };
        let finals = async { (final_words.await, began.elapsed()) };
        let ((words, when), ()) = tokio::join!(finals, muted);
        let expected: Vec<Word> = call.words.iter().map(|it| shifted(it, at)).collect();
        assert_same(&words, &expected, &format!("muted for {mute:?}"));
        assert!(when <= end + ms(900), "it comes after {when:?} of {end:?}");
        at += end + mute;
    }
    input.finish();
    let last: Vec<Word> = call.words.iter().map(|it| shifted(it, at)).collect();
    assert_same(&Events::all(events).await.words(), &last, "after two mutes");
}

#[tokio::test(start_paused = true)]
async fn late_audio_is_in_place_after_silence_took_its_place() {
    for late in [ms(100), ms(500), ms(700), ms(1500), ms(5000)] {
        let call = Call::of(4);
        let (mut input, events) = transcribe(Fake::new([]), Format::linear(HZ));
        let second = call.length();
        let feed = async {
            call.push(&mut input, ms(0)).await;
            for stretch in 0..late.as_millis() as u32 / 100 {
                sleep(ms(100)).await;
                input.push_silence(second + ms(100) * stretch, ms(100));
            }
            // Everything that was held back, and what follows it.
            input.push(second, &call.samples);
            input.push(second * 2, &call.samples);
            input.finish();
        };
        let ((), received) = tokio::join!(feed, Events::all(events));
        let parts = [ms(0), second, second * 2].into_iter();
        let parts = parts.flat_map(|shift| call.words.iter().map(move |it| shifted(it, shift)));
        let expected: Vec<Word> = parts.collect();
        assert_same(&received.words(), &expected, &format!("late by {late:?}"));
        assert_eq!(received.lost(), []);
    }
}

/// Silence would make two words of one.
#[tokio::test(start_paused = true)]
async fn a_word_in_which_audio_is_late_is_whole() {
    let call = Call::of(1);
    let (mut input, events) = transcribe(Fake::new([]), Format::linear(HZ));
    let middle = ms(300);
    let (before, after) = call.samples.split_at(2400);
    input.push(ms(0), before);
    for stretch in 0..5 {
        sleep(ms(100)).await;
        input.push_silence(middle + ms(100) * stretch, ms(100));
    }
    input.push(middle, after);
    input.finish();
    assert_same(&Events::all(events).await.words(), &call.words, "late");
}

#[tokio::test(start_paused = true)]
async fn a_cut_next_to_a_gap_loses_nothing() {
    for cut in (5000..9000).step_by(170) {
        let call = Call::of(3);
        let (mut input, events) =
            transcribe(Fake::new([Plan::CutAfter(ms(cut))]), Format::linear(HZ));
        let second = call.length() + ms(3000);
        let feed = async {
            call.push(&mut input, ms(0)).await;
            sleep(ms(3000)).await;
            call.push(&mut input, second).await;
            input.finish();
        };
        let ((), received) = tokio::join!(feed, Events::all(events));
        let again = call.words.iter().map(|it| shifted(it, second));
        let expected: Vec<Word> = call.words.iter().cloned().chain(again).collect();
        assert_same(&received.words(), &expected, &format!("cut after {cut} ms"));
        assert_eq!(received.lost(), [], "cut after {cut} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn audio_sent_at_once_and_not_processed_is_replayed() {
    let call = Call::of(20);
    let fake =
        Fake::new([Plan::TakeAllAndCut, Plan::TakeAllAndCut]).down_until(Instant::now() + ms(3000));
    let (mut input, events) = transcribe(fake, Format::linear(HZ));
    input.push(ms(0), &call.samples);
    input.finish();
    let received = Events::all(events).await;
    assert_same(&received.words(), &call.words, "after two gulps");
    assert_eq!(received.lost(), []);
}

#[tokio::test(start_paused = true)]
async fn a_service_may_close_its_connections_in_order() {
    let call = Call::of(9);
    let received = call
        .run(Fake::new([Plan::EndAfterFinal, Plan::EndAfterFinal]))
        .await;
    assert_same(&received.words(), &call.words, "three connections");
    assert_eq!((received.errors(), received.recovered()), (0, 0));
    assert_eq!(received.lost(), []);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_takes_no_audio_is_not_polled_in_a_loop() {
    let call = Call::of(5);
    let fake = Fake::new(std::iter::repeat_n(Plan::EndAtOnce, 10_000));
    let connections = Arc::clone(&fake.connections);
    call.run(fake).await;
    let connections = *connections.lock().unwrap();
    let seconds = call.length().as_secs() as usize + 11;
    assert!(connections <= 4 * seconds, "{connections} in {seconds} s");
}

#[tokio::test(start_paused = true)]
async fn a_final_transcript_resets_the_backoff() {
    let call = Call::of(12);
    let received = call
        .run(Fake::new(std::iter::repeat_n(Plan::CutAfterFinal, 10)))
        .await;
    assert_same(&received.words(), &call.words, "ten cuts");
    let pauses = received.backoffs();
    assert_eq!(pauses.len(), 10);
    assert!(pauses.iter().all(|it| *it <= ms(250)), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_recognizer_without_final_transcripts_backs_off() {
    let call = Call::of(20);
    // In the middle of the second word, whose utterance is replayed.
    let cuts = std::iter::repeat_n(Plan::CutAfter(ms(300)), 6);
    let received = call.run(Fake::new(cuts)).await;
    assert_same(&received.words(), &call.words, "after six");
    for (pause, longest) in received
        .backoffs()
        .iter()
        .zip([250, 500, 1000, 2000, 4000, 8000])
    {
        let range = ms(longest / 2)..=ms(longest);
        assert!(range.contains(pause), "{:?}", received.backoffs());
    }
}

#[tokio::test(start_paused = true)]
async fn a_recognizer_may_report_an_error_and_mark_a_part_lost() {
    let (mut input, events) = transcribe(Hesitant, Format::linear(HZ));
    input.push(ms(0), &[0; 3 * HZ as usize]);
    input.finish();
    let received = Events::all(events).await;
    let [
        SpeechEvent::Retrying { retry_in, .. },
        SpeechEvent::Lost { from, to },
        SpeechEvent::Recovered,
        SpeechEvent::Transcript(transcript),
    ] = &received.0[..]
    else {
        panic!("{:?}", received.0)
    };
    assert!(*retry_in <= ms(250));
    assert_eq!((*from, *to), (ms(500), ms(1500)));
    assert_eq!(transcript.text, "after it");
}

#[tokio::test(start_paused = true)]
async fn a_reply_without_a_transcript_reports_recovery() {
    let fake = Fake::new([Plan::CutAfter(ms(1000))]);
    let (mut input, events) = transcribe(fake, Format::linear(HZ));
    for frame in 0..200 {
        input.push(FRAME * frame, &[0; 160]);
        sleep(FRAME).await;
    }
    input.finish();
    let received = Events::all(events).await;
    assert_eq!((received.errors(), received.recovered()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_events_drops_the_recognizer() {
    let fake = Fake::new([]);
    let connections = Arc::downgrade(&fake.connections);
    let call = Call::of(1);
    let (mut input, mut events) = transcribe(fake, Format::linear(HZ));
    call.push(&mut input, ms(0)).await;
    assert!(events.next().await.is_some());
    assert!(connections.upgrade().is_some());
    drop(events);
    sleep(ms(1)).await;
    assert!(connections.upgrade().is_none());
    input.push(call.length(), &[0; 160]);
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn shifted(word: &Word, by: Duration) -> Word {
    Word {
        start: word.start + by,
        end: word.end + by,
        ..word.clone()
    }
}

/// The same words, each within 5 ms of its place.
fn assert_same(received: &[Word], said: &[Word], context: &str) {
    let texts = |words: &[Word]| words.iter().map(|it| it.text.clone()).collect::<Vec<_>>();
    assert_eq!(texts(received), texts(said), "{context}");
    for (received, said) in received.iter().zip(said) {
        let off = received
            .start
            .abs_diff(said.start)
            .max(received.end.abs_diff(said.end));
        assert!(off < ms(5), "{context}: {received:?} was said as {said:?}");
    }
}

/// A call with utterances of two words, each word once.
struct Call {
    samples: Vec<i16>,
    words: Vec<Word>,
}

impl Call {
    fn of(utterances: usize) -> Self {
        let (mut samples, mut words) = (Vec::new(), Vec::new());
        for number in 0..utterances {
            let pair = [format!("a{number}"), format!("word{number}")];
            let pair = pair.each_ref().map(String::as_str);
            let start = Duration::from_micros(samples.len() as u64 * 125);
            words.extend(word_times(&pair, start).into_iter().map(|it| Word {
                text: it.text,
                start: it.start,
                end: it.end,
                confidence: None,
            }));
            samples.extend(synthesize(&pair, HZ));
        }
        Self { samples, words }
    }

    fn length(&self) -> Duration {
        Duration::from_micros(self.samples.len() as u64 * 125)
    }

    /// As in a call: a frame every 20 ms.
    async fn push(&self, input: &mut SpeechInput, at: Duration) {
        let began = Instant::now();
        for (frame, samples) in self.samples.chunks(160).enumerate() {
            let offset = FRAME * frame as u32;
            sleep_until(began + offset).await;
            input.push(at + offset, samples);
        }
    }

    async fn run(&self, fake: Fake) -> Events {
        let (mut input, events) = transcribe(fake, Format::linear(HZ));
        let feed = async {
            self.push(&mut input, ms(0)).await;
            input.finish();
        };
        let ((), received) = tokio::join!(feed, Events::all(events));
        received
    }
}

struct Events(Vec<SpeechEvent>);

impl Events {
    async fn all(mut events: SpeechEvents) -> Self {
        let mut received = Vec::new();
        while let Some(event) = events.next().await {
            received.push(event);
        }
        Self(received)
    }

    fn words(&self) -> Vec<Word> {
        let finals = self.0.iter().filter_map(|it| match it {
            SpeechEvent::Transcript(it) if it.is_final => Some(it.words.clone()),
            _ => None,
        });
        finals.flatten().collect()
    }

    fn lost(&self) -> Vec<(Duration, Duration)> {
        let lost = self.0.iter().filter_map(|it| match it {
            SpeechEvent::Lost { from, to } => Some((*from, *to)),
            _ => None,
        });
        lost.collect()
    }

    fn errors(&self) -> usize {
        let retrying = |it: &&SpeechEvent| matches!(it, SpeechEvent::Retrying { .. });
        self.0.iter().filter(retrying).count()
    }

    fn backoffs(&self) -> Vec<Duration> {
        let backoffs = self.0.iter().filter_map(|it| match it {
            SpeechEvent::Retrying { retry_in, .. } => Some(*retry_in),
            _ => None,
        });
        backoffs.collect()
    }

    fn recovered(&self) -> usize {
        let recovered = |it: &&SpeechEvent| matches!(it, SpeechEvent::Recovered);
        self.0.iter().filter(recovered).count()
    }
}

/// The behaviour of a connection.
#[derive(Clone, Copy, PartialEq)]
enum Plan {
    Work,
    /// After this much audio.
    CutAfter(Duration),
    CutAfterFinal,
    HangAfter(Duration),
    /// Takes all available audio, and is cut off.
    TakeAllAndCut,
    EndAfterFinal,
    EndAtOnce,
    Refuse,
    /// Refuses until then, and takes no audio.
    RefuseAt(Instant),
}

struct Fake {
    plans: Mutex<VecDeque<Plan>>,
    down_until: Instant,
    connections: Arc<Mutex<usize>>,
}

impl Fake {
    fn new(plans: impl IntoIterator<Item = Plan>) -> Self {
        Self {
            plans: Mutex::new(plans.into_iter().collect()),
            down_until: Instant::now(),
            connections: Arc::default(),
        }
    }

    /// The behaviour after its first connection.
    fn down_until(mut self, back: Instant) -> Self {
        self.down_until = back;
        self
    }

    async fn work(
        &self,
        mut audio: Audio,
        mut transcripts: Transcripts,
    ) -> Result<(), SpeechError> {
        *self.connections.lock().unwrap() += 1;
        let planned = self.plans.lock().unwrap().pop_front();
        if planned.is_none() && Instant::now() < self.down_until {
            return Err(unavailable());
        }
        let plan = planned.unwrap_or(Plan::Work);
        match plan {
            Plan::EndAtOnce => return Ok(()),
            Plan::Refuse => return Err(refused()),
            Plan::RefuseAt(when) => {
                sleep_until(when).await;
                return Err(refused());
            }
            Plan::TakeAllAndCut => {
                audio.read(ms(0), Duration::MAX, &mut Vec::new()).await;
                return Err(unavailable());
            }
            _ => {}
        }
        let mut decoder = ToneDecoder::new(audio.format().hz);
        let mut samples = Vec::new();
        while audio.read(ms(100), ms(200), &mut samples).await {
            match plan {
                Plan::CutAfter(limit) if audio.delivered() >= limit => return Err(unavailable()),
                Plan::HangAfter(limit) if audio.delivered() >= limit => {
                    std::future::pending().await
                }
                _ => {}
            }
            transcripts.mark_alive();
            for result in decoder.push(&samples) {
                let is_final = matches!(result, Recognized::Final(_));
                transcripts.send(transcript(&audio, result)).await;
                match plan {
                    Plan::EndAfterFinal if is_final => return Ok(()),
                    Plan::CutAfterFinal if is_final => return Err(unavailable()),
                    _ => {}
                }
            }
            samples.clear();
        }
        if let Some(words) = decoder.finish() {
            transcripts
                .send(transcript(&audio, Recognized::Final(words)))
                .await;
        }
        Ok(())
    }
}

fn transcript(audio: &Audio, result: Recognized) -> Transcript {
    let (is_final, result) = match result {
        Recognized::Interim(words) => (false, words),
        Recognized::Final(words) => (true, words),
    };
    let words = result.iter().map(|it| Word {
        text: it.text.clone(),
        start: audio.call_time(it.start),
        end: audio.call_time(it.end),
        confidence: None,
    });
    let words: Vec<Word> = words.collect();
    let (start, end) = (words[0].start, words[words.len() - 1].end);
    let mut transcript = Transcript::new(text(&result), is_final, start, end);
    transcript.words = words;
    transcript
}

impl Recognizer for Fake {
    fn destination(&self) -> String {
        "nowhere".into()
    }

    fn run<'a>(
        &'a self,
        audio: Audio,
        transcripts: Transcripts,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(self.work(audio, transcripts))
    }
}

/// Never recognizes the audio from 0.5 to 1.5 s, only what follows.
struct Hesitant;

impl Recognizer for Hesitant {
    fn destination(&self) -> String {
        "nowhere".into()
    }

    fn run<'a>(
        &'a self,
        mut audio: Audio,
        mut transcripts: Transcripts,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(async move {
            while audio.read(ms(0), ms(200), &mut Vec::new()).await {}
            transcripts.mark_alive();
            sleep(transcripts.report_error(unavailable()).await).await;
            transcripts.mark_lost(ms(500), ms(1500));
            sleep(ms(1)).await;
            let after = Transcript::new("after it", true, ms(1500), ms(3000));
            transcripts.send(after).await;
            Ok(())
        })
    }
}

/// Sends transcripts of what nobody said without end, up to 100 MB.
struct Flood;

impl Recognizer for Flood {
    fn destination(&self) -> String {
        "nowhere".into()
    }

    fn run<'a>(
        &'a self,
        _: Audio,
        mut transcripts: Transcripts,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(async move {
            for _ in 0..100_000 {
                let text = "never ".repeat(170);
                let transcript = Transcript::new(text, true, ms(0), ms(0));
                transcripts.send(transcript).await;
            }
            Ok(())
        })
    }
}

fn unavailable() -> SpeechError {
    SpeechError::Unavailable {
        service: "the fake",
        reason: "as planned".into(),
    }
}

fn refused() -> SpeechError {
    SpeechError::Refused {
        service: "the fake",
        reason: "as planned".into(),
    }
}
