//! The examples do what their headers say.
#![allow(clippy::unwrap_used)]
#![allow(
    dead_code,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "examples have a main and print"
)]

#[path = "../../examples/barge_in.rs"]
mod barge_in;
#[path = "../../examples/echo.rs"]
mod echo;
#[path = "../../examples/playback.rs"]
mod playback;
#[path = "../../examples/streamed_speech.rs"]
mod streamed_speech;
#[path = "../../examples/two_tasks.rs"]
mod two_tasks;

use std::time::Duration;

use crate::support::{IoBackend, builder, call, millis, over_each_back_end, serve, sound};
use macro_rules_attribute::apply;
use sidetone::{Clip, EndReason, Rate};
use sidetone_audio::tone;
use sidetone_caller::{CallRecord, Caller, Voice, Why, call_all, ramp};

const LONG: Duration = Duration::from_secs(30);

/// How much else than silence was heard.
fn heard(record: &CallRecord) -> Duration {
    Rate::Slin.duration(sound(record).len() as u64)
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn echo_says_what_the_caller_says_until_the_key(io: IoBackend) {
    let server = serve(builder(io), echo::echo).await;
    let caller = server.caller().say(Voice::Ramp(1)).dtmf("#", millis(1_000));
    let record = call(caller.hang_up_after(LONG)).await;
    assert_eq!(record.ended.why, Why::ServerHungUp);
    assert!(!record.echo().is_empty());
}

#[test]
fn playback_gives_each_call_the_sound_from_its_beginning_and_hangs_up() {
    let said = ramp(5, 0, 8_000);
    let server = playback::serve(said.clone().into(), "127.0.0.1:0").unwrap();
    let caller = |n: u64| {
        Caller::new(server.local_addr())
            .start_after(millis(300 * n))
            .hang_up_after(LONG)
    };
    for record in call_all((0..3).map(caller).collect()) {
        let record = record.unwrap();
        assert_eq!(record.ended.why, Why::ServerHungUp);
        let runs = record.find(&said);
        let length: usize = runs.iter().map(|run| run.length).sum();
        // A live line drops what comes too late: where the machine stands still, not all of it is heard.
        assert!(runs[0].said < said.len() / 4, "{runs:?}");
        assert!(length >= said.len() / 2, "{runs:?}");
    }
}

/// How much of a prompt of 10 s a caller hears who does this.
async fn heard_of_prompt(io: IoBackend, behave: impl FnOnce(Caller) -> Caller) -> usize {
    let prompt = ramp(6, 0, 80_000);
    let clip = Clip::from_samples(8_000, prompt.clone()).unwrap();
    let server = serve(builder(io), move |call| {
        barge_in::prompt(call, clip.clone())
    })
    .await;
    let record = call(behave(server.caller()).hang_up_after(millis(5_000))).await;
    let runs = record.find(&prompt);
    assert_eq!(runs[0].said, 0);
    runs.iter().map(|run| run.length).sum()
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn barge_in_stops_the_prompt_for_a_key(io: IoBackend) {
    let all = heard_of_prompt(io, |caller| caller).await;
    let until_key = heard_of_prompt(io, |caller| caller.dtmf("1", millis(1_000))).await;
    assert!(until_key < all / 2, "{until_key} of {all}");
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn barge_in_stops_the_prompt_for_a_voice(io: IoBackend) {
    let voice = tone::caller_voice(8_000, Duration::from_secs(3), 1);
    let speech = [vec![0; 4_000], voice].concat();
    let all = heard_of_prompt(io, |caller| caller).await;
    let until_speech = heard_of_prompt(io, |caller| caller.say(speech)).await;
    assert!(until_speech < all * 3 / 4, "{until_speech} of {all}");
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn barge_in_begins_anew_when_the_caller_is_muted_in_the_middle_of_a_word(io: IoBackend) {
    let mut voice = tone::caller_voice(8_000, Duration::from_secs(2), 1);
    let loud = voice.iter().rposition(|sample| sample.abs() > 4_000);
    voice.truncate(loud.unwrap());
    let speech = [vec![0; 4_000], voice].concat();
    let said = speech.len();
    let length = Rate::Slin.duration(said as u64);
    let prompt = ramp(6, 0, 80_000);
    let clip = Clip::from_samples(8_000, prompt.clone()).unwrap();
    let server = serve(builder(io), move |call| {
        barge_in::prompt(call, clip.clone())
    })
    .await;
    let caller = server.caller().say(speech).mute_between(length, LONG);
    let record = call(caller.hang_up_after(length + millis(2_500))).await;
    let mut begins = record.find(&prompt).into_iter().filter(|run| run.said == 0);
    let last = begins.next_back().unwrap();
    assert!(
        last.heard > said,
        "{last:?} is not after the mute at {said}"
    );
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn two_tasks_beep_as_often_as_the_digits_say(io: IoBackend) {
    let server = serve(builder(io), two_tasks::beeps).await;
    let caller = server.caller().dtmf("12#", millis(200)).hang_up_after(LONG);
    let record = call(caller).await;
    assert_eq!(record.ended.why, Why::ServerHungUp);
    let tone = two_tasks::beep()
        .iter()
        .filter(|sample| **sample != 0)
        .count();
    assert_eq!(sound(&record).len(), 3 * tone);
    assert_eq!(server.end().await[0].reason, EndReason::Finished);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn streamed_speech_is_whole_and_ends_at_once_for_a_key(io: IoBackend) {
    let server = serve(builder(io), streamed_speech::tell).await;
    let all = call(server.caller().hang_up_after(LONG)).await;
    assert_eq!(all.ended.why, Why::ServerHungUp);
    let whole = heard(&all);
    let sentences = (0..3).flat_map(|number| tone::caller_voice(8_000, millis(2_000), number));
    let said = sentences.filter(|sample| *sample != 0).count();
    let said = Rate::Slin.duration(said as u64);
    assert!(whole.abs_diff(said) < said / 10, "{whole:?} of {said:?}");
    let cut = call(server.caller().dtmf("1", millis(1_200)).hang_up_after(LONG)).await;
    assert_eq!(cut.ended.why, Why::ServerHungUp);
    let cut = heard(&cut);
    assert!(cut < whole && cut > whole / 2, "{cut:?} of {whole:?}");
    let ended = call(server.caller().dtmf("#", millis(1_200)).hang_up_after(LONG)).await;
    assert!(heard(&ended) < whole / 3);
}
