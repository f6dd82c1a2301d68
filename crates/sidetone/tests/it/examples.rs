//! The examples do what their headers say.
#![allow(clippy::unwrap_used)]
#![allow(
    dead_code,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "examples have a main and print"
)]

#[path = "../../examples/bridge.rs"]
mod bridge;
#[path = "../../examples/echo.rs"]
mod echo;
#[path = "../../examples/ivr.rs"]
mod ivr;
#[path = "../../examples/playback.rs"]
mod playback;
#[path = "../../examples/streamed_speech.rs"]
mod streamed_speech;
#[path = "../../examples/voicemail.rs"]
mod voicemail;

use std::time::Duration;

use crate::support::{
    IoBackend, builder, call, calls, id, millis, over_each_back_end, serve, sound,
};
use macro_rules_attribute::apply;
use sidetone::{Clip, Rate};
use sidetone_audio::tone;
use sidetone_caller::{CallRecord, Caller, EndCause, Voice, call_all, exact_runs, ramp};

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
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
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
        assert_eq!(record.ended.cause, EndCause::ServerHungUp);
        let runs = record.find(&said);
        let length: usize = runs.iter().map(|run| run.length).sum();
        // A live line drops what comes too late: where the machine stands still, not all of it is heard.
        assert!(runs[0].source < said.len() / 4, "{runs:?}");
        assert!(length >= said.len() / 2, "{runs:?}");
    }
}

/// The menu with sounds that can be told apart in a recording, and what a caller hears who does this.
async fn heard_in_menu(io: IoBackend, behave: impl FnOnce(Caller) -> Caller) -> CallRecord {
    let sounds = ivr::Sounds {
        menu: Clip::from_samples(8_000, ramp(6, 0, 80_000)).unwrap(),
        news: Clip::from_samples(8_000, ramp(7, 0, 16_000)).unwrap(),
        beep: Clip::from_samples(8_000, ramp(8, 0, 800)).unwrap(),
    };
    let server = serve(builder(io), move |call| ivr::menu(call, sounds.clone())).await;
    call(behave(server.caller()).hang_up_after(LONG)).await
}

fn found(record: &CallRecord, seed: u64, length: usize) -> usize {
    let runs = record.find(&ramp(seed, 0, length));
    runs.iter().map(|run| run.length).sum()
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn ivr_stops_the_menu_for_a_key_and_plays_what_was_chosen(io: IoBackend) {
    let keys = |caller: Caller| caller.dtmf("1", millis(1_000)).dtmf("#", millis(6_000));
    let record = heard_in_menu(io, keys).await;
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    assert_eq!(record.find(&ramp(6, 0, 80_000))[0].source, 0);
    assert!(found(&record, 7, 16_000) > 15_000);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn ivr_stops_the_menu_for_a_voice(io: IoBackend) {
    let voice = tone::caller_voice(8_000, Duration::from_secs(3), 1);
    let speech = [vec![0; 4_000], voice].concat();
    let record = heard_in_menu(io, |caller| caller.say(speech).dtmf("#", millis(5_000))).await;
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    let until_speech = found(&record, 6, 80_000);
    assert!(until_speech > 0 && until_speech < 24_000, "{until_speech}");
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn ivr_beeps_as_often_as_the_digits_say(io: IoBackend) {
    let record = heard_in_menu(io, |caller| caller.dtmf("212##", millis(200))).await;
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    let beeps = record.find(&ramp(8, 0, 800));
    assert_eq!(beeps.iter().map(|run| run.length).sum::<usize>(), 3 * 800);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn voicemail_keeps_what_was_said_and_plays_it_back(io: IoBackend) {
    let directory = tempfile::tempdir().unwrap();
    let (greeting, path) = (ramp(6, 0, 8_000), directory.path().to_owned());
    let clip = Clip::from_samples(8_000, greeting.clone()).unwrap();
    let server = serve(builder(io), move |call| {
        voicemail::mailbox(call, clip.clone(), path.clone())
    })
    .await;
    let said = [vec![0; 12_000], ramp(9, 0, 16_000)].concat();
    let caller = server
        .caller()
        .uuid(id(5))
        .say(said)
        .dtmf("#", millis(4_000));
    let record = call(caller.hang_up_after(LONG)).await;
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    assert_eq!(found(&record, 6, 8_000), 8_000);
    let file = directory.path().join(format!("{}.wav", id(5)));
    let kept: Vec<i16> = hound::WavReader::open(file)
        .unwrap()
        .into_samples()
        .map(Result::unwrap)
        .collect();
    let found_in = |samples: &[i16]| -> usize {
        exact_runs(&ramp(9, 0, 16_000), samples)
            .iter()
            .map(|run| run.length)
            .sum()
    };
    assert_eq!(found_in(&kept), 16_000);
    assert_eq!(found(&record, 9, 16_000), 16_000);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn bridge_connects_callers_in_pairs_and_lets_the_one_left_wait_again(io: IoBackend) {
    let (waiting, music) = (bridge::Waiting::default(), ramp(6, 0, 8_000));
    let clip = Clip::from_samples(8_000, music).unwrap();
    let server = serve(builder(io), move |call| {
        bridge::pair(call, waiting.clone(), clip.clone())
    })
    .await;
    let first = server
        .caller()
        .say(ramp(1, 0, 64_000))
        .hang_up_after(millis(3_000));
    let second = server
        .caller()
        .say(ramp(2, 0, 64_000))
        .start_after(millis(1_000));
    let third = server
        .caller()
        .say(ramp(3, 0, 64_000))
        .start_after(millis(4_500));
    let ended = |caller: Caller, at| caller.hang_up_after(millis(at));
    let records = calls(vec![first, ended(second, 5_500), ended(third, 2_000)]).await;
    let [first, second, third] = &records[..] else {
        unreachable!()
    };
    assert!(found(first, 6, 8_000) > 0 && found(first, 2, 64_000) > 8_000);
    assert!(found(second, 1, 64_000) > 8_000 && found(second, 3, 64_000) > 4_000);
    assert!(found(second, 6, 8_000) > 0 && found(third, 2, 64_000) > 4_000);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn streamed_speech_is_whole_and_ends_at_once_for_a_key(io: IoBackend) {
    let server = serve(builder(io), streamed_speech::tell).await;
    let all = call(server.caller().hang_up_after(LONG)).await;
    assert_eq!(all.ended.cause, EndCause::ServerHungUp);
    let whole = heard(&all);
    let sentences = (0..3).flat_map(|number| tone::caller_voice(8_000, millis(2_000), number));
    let said = sentences.filter(|sample| *sample != 0).count();
    let said = Rate::Slin.duration(said as u64);
    assert!(whole.abs_diff(said) < said / 10, "{whole:?} of {said:?}");
    let cut = call(server.caller().dtmf("1", millis(1_200)).hang_up_after(LONG)).await;
    assert_eq!(cut.ended.cause, EndCause::ServerHungUp);
    let cut = heard(&cut);
    assert!(cut < whole && cut > whole / 2, "{cut:?} of {whole:?}");
    let ended = call(server.caller().dtmf("#", millis(1_200)).hang_up_after(LONG)).await;
    assert!(heard(&ended) < whole / 3);
}
