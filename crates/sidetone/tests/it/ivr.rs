//! Menus, judged by what simulated callers heard.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use crate::support::{IoBackend, builder, call, calls, millis, over_each_back_end, serve, until};
use macro_rules_attribute::apply;
use parking_lot::Mutex;
use sidetone::{
    Call, Clip, PlayError,
    ivr::{
        Digits, DigitsEnd, Interrupt, InterruptedBy, Ivr, Left, Message, MessageEnd, Prompted,
        bridge,
    },
};
use sidetone_audio::tone;
use sidetone_caller::{CallRecord, Caller, Voice, ramp};

const LONG: Duration = Duration::from_secs(30);

/// What the operation gave that a caller went through, and what the caller heard.
async fn through<T, Fut>(
    io: IoBackend,
    behave: impl FnOnce(Caller) -> Caller,
    operation: impl Fn(Ivr) -> Fut + Send + Sync + 'static,
) -> (T, CallRecord)
where
    T: Send + 'static,
    Fut: Future<Output = Result<T, PlayError>> + Send,
{
    let result = Arc::new(Mutex::new(None));
    let given = Arc::clone(&result);
    let operation = Arc::new(operation);
    let handler = move |call: Call| {
        let (given, operation) = (Arc::clone(&given), Arc::clone(&operation));
        async move {
            *given.lock() = Some(operation(Ivr::new(call)).await?);
            Ok::<(), PlayError>(())
        }
    };
    let server = serve(builder(io), handler).await;
    let record = call(behave(server.caller())).await;
    until(|| result.lock().is_some()).await;
    let result = result.lock().take().unwrap();
    (result, record)
}

/// 10 s of samples of which each place can be told.
fn prompt() -> (Vec<i16>, Clip) {
    let samples = ramp(6, 0, 80_000);
    let clip = Clip::from_samples(8_000, samples.clone()).unwrap();
    (samples, clip)
}

async fn prompted(
    io: IoBackend,
    behave: impl FnOnce(Caller) -> Caller,
    interrupt: Interrupt,
) -> (Prompted, usize) {
    let (samples, clip) = prompt();
    let (prompted, record) = through(io, behave, move |mut ivr| {
        let clip = clip.clone();
        async move { ivr.prompt(&clip).interrupted_by(interrupt).await }
    })
    .await;
    let heard = record.find(&samples).iter().map(|run| run.length).sum();
    (prompted, heard)
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_ends_at_a_key_and_says_what_was_heard(io: IoBackend) {
    let caller = |caller: Caller| caller.dtmf("7", millis(1_000)).hang_up_after(LONG);
    let (prompted, heard) = prompted(io, caller, Interrupt::KEYS).await;
    assert_eq!(prompted.interrupted_by, Some(InterruptedBy::Key('7')));
    assert!(heard > 0 && heard < 40_000, "{heard}");
    let said = sidetone::Rate::Slin.samples_in(prompted.heard.heard);
    assert_eq!(said as usize, heard);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_ends_at_speech_and_not_at_a_key_unless_told(io: IoBackend) {
    let voice = tone::caller_voice(8_000, Duration::from_secs(3), 1);
    let speech = [vec![0; 4_000], voice].concat();
    let caller = |caller: Caller| {
        let caller = caller.dtmf("7", millis(100)).say(speech);
        caller.hang_up_after(LONG)
    };
    let (prompted, heard) = prompted(io, caller, Interrupt::SPEECH).await;
    assert_eq!(prompted.interrupted_by, Some(InterruptedBy::Speech));
    assert!(heard > 0 && heard < 40_000, "{heard}");
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_key_typed_ahead_skips_the_next_prompt_and_is_a_digit(io: IoBackend) {
    let (samples, clip) = prompt();
    let short = Clip::from_samples(8_000, ramp(7, 0, 16_000)).unwrap();
    let ((second, digits), record) = through(
        io,
        |caller| caller.dtmf("12#", millis(300)).hang_up_after(LONG),
        move |mut ivr| {
            let (clip, short) = (clip.clone(), short.clone());
            async move {
                ivr.prompt(&short).await?;
                let second = ivr.prompt(&clip).interrupted_by(Interrupt::KEYS).await?;
                Ok((second, ivr.digits(4).end('#').await?))
            }
        },
    )
    .await;
    assert_eq!(second.interrupted_by, Some(InterruptedBy::Key('1')));
    assert!(record.find(&samples).is_empty());
    assert_eq!(
        (digits.digits.as_str(), digits.ended_by),
        ("12", DigitsEnd::EndKey)
    );
}

async fn digits(io: IoBackend, keys: &'static str) -> (Digits, Digits) {
    let behave = move |caller: Caller| caller.dtmf(keys, millis(200)).hang_up_after(LONG);
    let operation = |mut ivr: Ivr| async move {
        let first = ivr.digits(3).between(millis(600)).end('#').await?;
        Ok((first, ivr.digits(3).first(millis(600)).await?))
    };
    through(io, behave, operation).await.0
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn digits_end_with_enough_of_them_with_the_key_or_in_time(io: IoBackend) {
    let (full, rest) = digits(io, "1234").await;
    assert_eq!(
        (full.digits.as_str(), full.ended_by),
        ("123", DigitsEnd::Full)
    );
    assert_eq!(
        (rest.digits.as_str(), rest.ended_by),
        ("4", DigitsEnd::Timeout)
    );
    let (none, rest) = digits(io, "#").await;
    assert_eq!(
        (none.digits.as_str(), none.ended_by),
        ("", DigitsEnd::EndKey)
    );
    assert_eq!(
        (rest.digits.as_str(), rest.ended_by),
        ("", DigitsEnd::Timeout)
    );
    let (some, _) = digits(io, "12").await;
    assert_eq!(
        (some.digits.as_str(), some.ended_by),
        ("12", DigitsEnd::Timeout)
    );
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn digits_that_are_cancelled_stay_typed_ahead(io: IoBackend) {
    let behave = |caller: Caller| caller.dtmf("12", millis(200)).hang_up_after(LONG);
    let operation = |mut ivr: Ivr| async move {
        let cancelled = tokio::time::timeout(millis(1_500), ivr.digits(3).into_future()).await;
        assert!(cancelled.is_err());
        ivr.digits(2).await
    };
    let (digits, _) = through(io, behave, operation).await;
    assert_eq!(digits.digits, "12");
}

async fn message(
    io: IoBackend,
    behave: impl FnOnce(Caller) -> Caller,
    longest: Duration,
) -> Message {
    let (message, _) = through(io, behave, move |mut ivr| async move {
        let message = ivr.message().until_key('#').until_silence(millis(1_500));
        Ok(message.longest(longest).await)
    })
    .await;
    message
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_message_ends_at_the_key_or_when_it_is_too_long_or_with_the_call(io: IoBackend) {
    let talk = |caller: Caller| caller.say(tone::caller_voice(8_000, LONG, 3));
    let keyed = |caller| talk(caller).dtmf("5#", millis(1_000)).hang_up_after(LONG);
    let keyed = message(io, keyed, millis(4_000)).await;
    assert_eq!(keyed.ended_by, MessageEnd::Key);
    assert!(keyed.duration() > millis(500) && keyed.duration() < millis(4_000));
    let long = message(io, |caller| talk(caller).hang_up_after(LONG), millis(4_000)).await;
    assert_eq!(
        (long.ended_by, long.duration()),
        (MessageEnd::Longest, millis(4_000))
    );
    let ended = |caller| talk(caller).hang_up_after(millis(1_000));
    let ended = message(io, ended, millis(4_000)).await;
    assert_eq!(ended.ended_by, MessageEnd::CallEnded);
    assert!(ended.duration() > millis(500) && ended.duration() <= millis(1_000));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_message_ends_with_silence_and_a_mute_leaves_a_gap_of_its_length(io: IoBackend) {
    let said = tone::caller_voice(8_000, millis(1_500), 4);
    let silent = |caller: Caller| caller.say(said.clone()).hang_up_after(LONG);
    let silent = message(io, silent, LONG).await;
    assert_eq!(silent.ended_by, MessageEnd::Silence);
    let said = ramp(9, 0, 8 * 2_500);
    let mute = |caller: Caller| {
        let caller = caller
            .say(Voice::from(said.clone()))
            .mute_between(millis(500), millis(1_500));
        caller.hang_up_after(millis(2_500))
    };
    let (muted, _) = through(io, mute, |mut ivr| async move { Ok(ivr.message().await) }).await;
    assert!(muted.duration() > millis(2_200), "{:?}", muted.duration());
    let silence = muted.samples.iter().filter(|sample| **sample == 0).count();
    assert!((7_000..9_500).contains(&silence), "{silence}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("message.wav");
    muted.write_wav(&file).unwrap();
    let mut read = hound::WavReader::open(&file).unwrap();
    assert_eq!((read.spec().channels, read.spec().sample_rate), (1, 8_000));
    assert_eq!(
        read.samples::<i16>()
            .map(Result::unwrap)
            .collect::<Vec<_>>(),
        muted.samples
    );
    // What was there stays.
    assert!(muted.write_wav(&file).is_err());
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_message_ends_when_the_caller_is_muted_in_the_middle_of_a_word(io: IoBackend) {
    let mut voice = tone::caller_voice(8_000, Duration::from_secs(2), 1);
    let loud = voice.iter().rposition(|sample| sample.abs() > 4_000);
    voice.truncate(loud.unwrap());
    let speech = [vec![0; 4_000], voice].concat();
    let length = sidetone::Rate::Slin.duration(speech.len() as u64);
    let caller = |caller: Caller| {
        caller
            .say(speech)
            .mute_between(length, LONG)
            .hang_up_after(LONG)
    };
    let message = message(io, caller, LONG).await;
    assert_eq!(message.ended_by, MessageEnd::Silence);
    assert!(
        message.duration() >= length + millis(1_000),
        "{:?}",
        message.duration()
    );
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_caller_who_sends_nothing_ends_with_the_silence(io: IoBackend) {
    let caller = |caller: Caller| {
        caller
            .mute_between(Duration::ZERO, LONG)
            .hang_up_after(LONG)
    };
    let message = message(io, caller, LONG).await;
    assert_eq!(message.ended_by, MessageEnd::Silence);
    assert!(message.samples.iter().all(|sample| *sample == 0));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_connects_two_calls_and_tells_who_left(io: IoBackend) {
    let waiting = Arc::new(Mutex::new(None::<Call>));
    let left = Arc::new(Mutex::new(None));
    let (first, told) = (Arc::clone(&waiting), Arc::clone(&left));
    let handler = move |mut call: Call| {
        let (first, told) = (Arc::clone(&first), Arc::clone(&told));
        async move {
            let Some(mut other) = first.lock().take() else {
                *first.lock() = Some(call);
                return;
            };
            let left = bridge(&mut other, &mut call).await;
            *told.lock() = Some(left);
            // The one who stays hears something more.
            let sound = Clip::from_samples(8_000, ramp(11, 0, 4_000)).unwrap();
            let _ = call.player(8_000).unwrap().play_clip(&sound).await;
        }
    };
    let server = serve(builder(io), handler).await;
    let first = server
        .caller()
        .say(ramp(1, 0, 40_000))
        .hang_up_after(millis(3_000));
    let second = server
        .caller()
        .say(ramp(2, 0, 40_000))
        .start_after(millis(300));
    let records = calls(vec![first, second.hang_up_after(LONG)]).await;
    assert!(matches!(*left.lock(), Some(Left::First(_))), "{left:?}");
    let heard = |record: &CallRecord, seed| -> usize {
        let runs = record.find(&ramp(seed, 0, 40_000));
        runs.iter().map(|run| run.length).sum()
    };
    assert!(heard(&records[0], 2) > 8_000, "{}", heard(&records[0], 2));
    assert!(heard(&records[1], 1) > 8_000, "{}", heard(&records[1], 1));
    assert!(!records[1].find(&ramp(11, 0, 4_000)).is_empty());
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_fails_when_the_call_ends_before(io: IoBackend) {
    let operation = |mut ivr: Ivr| async move {
        let (_, clip) = prompt();
        Ok(ivr.prompt(&clip).await)
    };
    let (prompted, _) = through(io, |caller| caller.hang_up_after(millis(1_000)), operation).await;
    assert_eq!(prompted, Err(PlayError::Closed));
}
