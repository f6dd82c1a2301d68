//! What is queued is heard: once, whole, in order and no longer than wanted.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::support::{
    IoBackend, builder, call, calls, echo, id, millis, over_each_back_end, serve, sound, until,
};
use macro_rules_attribute::apply;
use sidetone::{Call, Clip, Event, PlayError, Rate};
use sidetone_caller::{CallRecord, Codec, Run, Voice, exact_runs, ramp};

/// The one stretch in which it was heard.
#[track_caller]
fn only(runs: Vec<Run>) -> Run {
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs[0]
}

fn second(seed: u64) -> Vec<i16> {
    ramp(seed, 0, 8_000)
}

async fn heard_from<F, Fut>(settings: sidetone::ServerBuilder, handler: F) -> CallRecord
where
    F: Fn(Call) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let server = serve(settings, handler).await;
    let record = call(server.caller().hang_up_after(Duration::from_secs(30))).await;
    server.end().await;
    record
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_clear_ends_a_writer_that_waits_and_nothing_of_it_is_heard_any_more(io: IoBackend) {
    let said = ramp(1, 0, 80_000);
    let saying = said.clone();
    let settings = builder(io).playback_buffer(millis(1_000));
    let (told, mut tell) = tokio::sync::mpsc::channel(1);
    let record = heard_from(settings, move |call: Call| {
        let (told, said) = (told.clone(), saying.clone());
        async move {
            let mut player = call.player(8_000).unwrap();
            let writing = tokio::spawn(async move { player.play(&said).await });
            tokio::time::sleep(millis(400)).await;
            let cleared = call.clear().await.unwrap();
            let written = writing.await.unwrap();
            call.player(8_000)
                .unwrap()
                .play(&ramp(2, 0, 400))
                .await
                .unwrap();
            told.send((cleared, written)).await.unwrap();
        }
    })
    .await;
    let (cleared, written) = tell.recv().await.unwrap();
    assert_eq!(written, Err(PlayError::Cleared));
    let before = only(record.find(&said));
    assert_eq!(before.source, 0);
    assert_eq!(
        Rate::Slin.duration(before.length as u64),
        cleared.heard,
        "to the slot"
    );
    assert!(cleared.unheard <= millis(1_000) && !cleared.unheard.is_zero());
    let after = only(record.find(&ramp(2, 0, 400)));
    assert!(after.heard >= before.heard + before.length && after.length == 400);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_right_after_a_clear_is_heard(io: IoBackend) {
    let record = heard_from(builder(io), |call: Call| async move {
        for round in 0..50 {
            let mut player = call.player(8_000).unwrap();
            player.play(&second(1)).await.unwrap();
            drop(call.clear());
            player.play(&ramp(100 + round, 0, 160)).await.unwrap();
            player.drained().await.unwrap();
        }
    })
    .await;
    for round in 0..50 {
        assert_eq!(only(record.find(&ramp(100 + round, 0, 160))).length, 160);
    }
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn marks_are_reached_in_order_and_before_the_end_of_the_playback(io: IoBackend) {
    let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
    let record = heard_from(builder(io), move |mut call: Call| {
        let told = told.clone();
        async move {
            let mut player = call.player(8_000).unwrap();
            player.play(&ramp(1, 0, 1_000)).await.unwrap();
            let first = player.mark().unwrap();
            player.play(&ramp(1, 1_000, 1_000)).await.unwrap();
            let second = player.mark().unwrap();
            while let Some(event) = call.next().await {
                match event {
                    Event::MarkReached(mark) if mark == first => told.send("first").unwrap(),
                    Event::MarkReached(mark) if mark == second => told.send("second").unwrap(),
                    Event::PlaybackDrained => return told.send("drained").unwrap(),
                    _ => {}
                }
            }
        }
    })
    .await;
    for expected in ["first", "second", "drained"] {
        assert_eq!(tell.recv().await, Some(expected));
    }
    assert_eq!(only(record.find(&ramp(1, 0, 2_000))).length, 2_000);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_clip_makes_room_for_what_is_behind_it(io: IoBackend) {
    let record = heard_from(builder(io), |call: Call| async move {
        let (long, next) = (ramp(1, 0, 80_000), ramp(2, 0, 1_600));
        let mut player = call.player(8_000).unwrap();
        let long = Clip::from_samples(8_000, long).unwrap();
        let playing = player.play_clip(&long).await.unwrap();
        let next = Clip::from_samples(8_000, next).unwrap();
        let behind = player.play_clip(&next).await.unwrap();
        tokio::time::sleep(millis(300)).await;
        assert!(!playing.is_finished() && !behind.is_finished());
        let stopped = playing.stop().await;
        assert_eq!(stopped.heard + stopped.unheard, Duration::from_secs(10));
        assert_eq!(playing.finished().await, stopped);
        assert_eq!(behind.finished().await.heard, millis(200));
        assert!(behind.is_finished());
    })
    .await;
    let begun = only(record.find(&ramp(1, 0, 80_000)));
    let next = only(record.find(&ramp(2, 0, 1_600)));
    assert!(begun.length < 16_000);
    assert_eq!(begun.heard + begun.length, next.heard, "without a pause");
    assert_eq!(next.length, 1_600);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_goes_on_where_it_was(io: IoBackend) {
    let said = second(1);
    let saying = said.clone();
    let (told, mut tell) = tokio::sync::mpsc::channel(1);
    let record = heard_from(builder(io), move |mut call: Call| {
        let (told, saying) = (told.clone(), saying.clone());
        async move {
            let handle = call.handle();
            let mut player = call.player(8_000).unwrap();
            player.play(&saying).await.unwrap();
            listen(&mut call, 10).await;
            handle.pause_playout().unwrap();
            let mark = player.mark().unwrap();
            listen(&mut call, 5).await;
            let paused_at = player.buffered();
            listen(&mut call, 50).await;
            assert_eq!(player.buffered(), paused_at);
            handle.resume_playout().unwrap();
            while !matches!(call.next().await, Some(Event::MarkReached(it)) if it == mark) {}
            // A clear does not end a pause, the end of the call does.
            handle.pause_playout().unwrap();
            call.clear().await.unwrap();
            player.play(&ramp(2, 0, 400)).await.unwrap();
            listen(&mut call, 5).await;
            told.send(player.buffered()).await.unwrap();
        }
    })
    .await;
    assert_eq!(tell.recv().await, Some(millis(50)));
    let [before, after] = record.find(&said)[..] else {
        panic!("{:?}", record.find(&said));
    };
    assert_eq!((before.source, after.source), (0, before.length));
    assert_eq!(before.length + after.length, said.len());
    assert_eq!(before.length % 160, 0);
    assert!(after.heard - (before.heard + before.length) >= 45 * 160);
    assert_eq!(only(record.find(&ramp(2, 0, 400))).length, 400);
}

/// Waits until so many frames of the caller have come.
async fn listen(call: &mut Call, frames: usize) {
    let mut heard = 0;
    while heard < frames {
        heard += usize::from(matches!(call.next().await, Some(Event::Audio(_))));
    }
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn two_players_queue_behind_each_other(io: IoBackend) {
    let record = heard_from(builder(io), |call: Call| async move {
        let mut one = call.player(8_000).unwrap();
        let mut other = call.player(8_000).unwrap();
        one.play(&ramp(1, 0, 5_000)).await.unwrap();
        other.play(&ramp(2, 0, 5_000)).await.unwrap();
        one.play(&ramp(1, 5_000, 5_000)).await.unwrap();
    })
    .await;
    let expected = [ramp(1, 0, 5_000), ramp(2, 0, 5_000), ramp(1, 5_000, 5_000)].concat();
    assert_eq!(only(record.find(&expected)).length, 15_000);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn with_a_prebuffer_uneven_speech_is_heard_in_one_piece(io: IoBackend) {
    let record = heard_from(builder(io), |call: Call| async move {
        let mut player = call.player(8_000).unwrap();
        player.set_prebuffer(millis(800)).unwrap();
        for piece in second(1).chunks(1_600) {
            player.play(piece).await.unwrap();
            // Slower than real time at first, and never slower than the prebuffer covers.
            tokio::time::sleep(millis(220)).await;
        }
    })
    .await;
    assert_eq!(only(record.find(&second(1))).length, 8_000);
}

async fn wideband(io: IoBackend, rate: Rate) {
    let said = ramp(1, 0, rate.hz() as usize);
    let playing = said.clone();
    let server = serve(builder(io), move |mut call: Call| {
        let said = playing.clone();
        async move {
            // The kind is known from the first frame on.
            while !matches!(call.next().await, Some(Event::Audio(_)) | None) {}
            assert_eq!(call.rate(), rate);
            let mut player = call.player(rate.hz()).unwrap();
            player.play(&said).await.unwrap();
        }
    })
    .await;
    let caller = server.caller().codec(Codec::Slin(rate)).say(Voice::Ramp(3));
    let record = call(caller).await;
    assert_eq!(only(record.find(&said)).length, said.len());
    assert!(record.heard.iter().skip(5).all(|heard| heard.rate == rate));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_16_khz_caller_hears_16_khz(io: IoBackend) {
    wideband(io, Rate::Slin16).await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_48_khz_caller_hears_48_khz(io: IoBackend) {
    wideband(io, Rate::Slin48).await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn what_an_other_rate_needs_is_resampled_and_plays_to_its_end(io: IoBackend) {
    let record = heard_from(builder(io), |call: Call| async move {
        let tone = sidetone_audio::tone::caller_voice(24_000, Duration::from_secs(1), 1);
        call.player(24_000).unwrap().play(&tone).await.unwrap();
    })
    .await;
    let begin = record
        .heard_samples()
        .iter()
        .position(|sample| *sample != 0)
        .unwrap();
    let end = record
        .heard_samples()
        .iter()
        .rposition(|sample| *sample != 0)
        .unwrap();
    let length = Rate::Slin.duration((end - begin) as u64);
    assert!(length > millis(900) && length < millis(1_010), "{length:?}");
}

/// It leaves when the UUID has come, and what comes so early is mostly lost in Dial.
#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn the_first_frame_is_silence_however_quick_the_handler_is(io: IoBackend) {
    let server = serve(builder(io), |call: Call| async move {
        let mut player = call.player(8_000).unwrap();
        player.try_play(&ramp(1, 0, 800)).unwrap();
    })
    .await;
    let callers = (0..200).map(|n| server.caller().start_after(millis(5 * n)));
    for record in calls(callers.collect()).await {
        assert_eq!(record.heard_samples()[..160], [0; 160]);
        assert_eq!(sound(&record), ramp(1, 0, 800));
    }
    server.end().await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn try_play_queues_all_or_nothing(io: IoBackend) {
    let settings = builder(io).playback_buffer(millis(2_000));
    let record = heard_from(settings, |call: Call| async move {
        let mut player = call.player(8_000).unwrap();
        assert_eq!(player.try_play(&ramp(1, 0, 16_001)), Err(PlayError::Full));
        assert_eq!(player.try_play(&ramp(2, 0, 15_000)), Ok(()));
        assert_eq!(player.try_play(&ramp(3, 0, 15_000)), Err(PlayError::Full));
    })
    .await;
    assert_eq!(sound(&record), ramp(2, 0, 15_000));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_write_takes_what_fits_and_a_player_outlives_its_call_without_harm(io: IoBackend) {
    let settings = builder(io).playback_buffer(millis(200));
    let (told, mut tell) = tokio::sync::mpsc::channel(1);
    let server = serve(settings, move |call: Call| {
        let told = told.clone();
        async move {
            let mut player = call.player(8_000).unwrap();
            let written = player.write(&second(1)).await.unwrap();
            assert_eq!(written, 1_600);
            told.send(player).await.unwrap();
            call.closed().await;
        }
    })
    .await;
    let record = call(server.caller().uuid(id(1)).hang_up_after(millis(2_000))).await;
    assert_eq!(
        only(exact_runs(&second(1), record.heard_samples())).length,
        1_600
    );
    let mut player = tell.recv().await.unwrap();
    server.end().await;
    assert_eq!(player.play(&second(1)).await, Err(PlayError::Closed));
    assert_eq!(player.mark(), Err(PlayError::Closed));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_the_queue_fails_when_the_call_ends_before(io: IoBackend) {
    let (results, mut received) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |call: Call| {
        let results = results.clone();
        async move {
            let mut player = call.player(8_000).unwrap();
            player.play(&second(1)).await.unwrap();
            results.send(player.drained().await).unwrap();
            player.play(&ramp(2, 0, 80_000)).await.unwrap();
            results.send(player.drained().await).unwrap();
        }
    };
    let server = serve(builder(io), handler).await;
    call(server.caller().hang_up_after(millis(2_500))).await;
    assert_eq!(received.recv().await, Some(Ok(())));
    assert_eq!(received.recv().await, Some(Err(PlayError::Closed)));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn another_task_plays_into_a_call_that_echoes_and_takes_it_back(io: IoBackend) {
    let (give, mut handles) = tokio::sync::mpsc::channel(1);
    let server = serve(builder(io), move |call: Call| {
        give.try_send(call.handle()).unwrap();
        echo(call)
    })
    .await;
    let caller = server.caller().say(Voice::Ramp(9));
    let calling = tokio::spawn(call(caller.hang_up_after(Duration::from_secs(60))));
    let handle = handles.recv().await.unwrap();
    let lasts = async |time: u64| {
        let end = handle.stats().duration + millis(time);
        until(|| handle.stats().duration >= end).await;
    };
    lasts(500).await;

    let whole = Clip::from_samples(8_000, ramp(21, 0, 4_000)).unwrap();
    let cut = Clip::from_samples(8_000, ramp(22, 0, 80_000)).unwrap();
    let mut player = handle.player(8_000).unwrap();
    let playback = player.play_clip(&whole).await.unwrap();
    let heard = playback.finished().await;
    assert_eq!((heard.heard, heard.unheard), (millis(500), millis(0)));
    lasts(600).await;
    let playback = player.play_clip(&cut).await.unwrap();
    lasts(300).await;
    let cleared = handle.clear().await.unwrap();
    assert_eq!(playback.finished().await, cleared);
    assert_eq!(cleared.heard + cleared.unheard, millis(10_000));
    assert!(cleared.heard > millis(100) && cleared.heard < millis(5_000));

    lasts(600).await;
    handle.hang_up();
    let record = calling.await.unwrap();
    server.end().await;
    assert_eq!(only(record.find(&ramp(21, 0, 4_000))).length, 4_000);
    let part = only(record.find(&ramp(22, 0, 80_000)));
    assert_eq!(part.source, 0);
    assert_eq!(Rate::Slin.duration(part.length as u64), cleared.heard);
    // The echo of the handler goes on before, between and after.
    let whole = only(record.find(&ramp(21, 0, 4_000)));
    let echoed = record.echo();
    let is_echo = |from: usize, to: usize| {
        echoed
            .iter()
            .any(|run| run.heard >= from && run.heard + run.length <= to && run.length >= 800)
    };
    assert!(is_echo(0, whole.heard), "{echoed:?}");
    assert!(
        is_echo(whole.heard + whole.length, part.heard),
        "{echoed:?}"
    );
    assert!(is_echo(part.heard + part.length, usize::MAX), "{echoed:?}");
}
