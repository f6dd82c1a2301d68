//! What is said to have been heard is what the caller heard, to the sample.
#![allow(clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{
    IoBackend, builder, call, calls, id, millis, over_each_back_end, serve, sound,
};
use macro_rules_attribute::apply;
use sidetone::{
    Call, Clip, Event, Heard, PlayError, Rate, ServerBuilder, Utterance,
    callback::{self, CallInfo, Input, Reply},
};
use sidetone_audio::resample::resample_clip;
use sidetone_caller::{CallRecord, Caller, Codec, Voice, exact_runs, ramp};
use tokio::{sync::mpsc, time::sleep};

const LONG: Duration = Duration::from_secs(60);

/// Settings for each back end.
fn back_ends() -> Vec<ServerBuilder> {
    vec![builder(IoBackend::Epoll), builder(IoBackend::IoUring)]
}

/// Numbers that look random and are the same each time.
fn random(seed: u64, below: u64) -> u64 {
    ((ramp(seed, 7, 1)[0].unsigned_abs() as u64 * 0x9e37_79b9) >> 7) % below
}

fn samples(duration: Duration, rate: Rate) -> usize {
    (duration.as_secs_f64() * f64::from(rate.hz())).round() as usize
}

async fn heard_from<F, Fut>(
    io: IoBackend,
    caller: impl FnOnce(Caller) -> Caller,
    handler: F,
) -> CallRecord
where
    F: Fn(Call) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let server = serve(builder(io), handler).await;
    let record = call(caller(server.caller().hang_up_after(LONG))).await;
    server.end().await;
    record
}

/// Writes uneven pieces, slower or faster than they are heard, until it is over.
async fn write(mut utterance: Utterance, said: Vec<i16>, seed: u64, speed: f64) {
    let mut rest = &said[..];
    for n in 0.. {
        let most = utterance.hz() as usize * (20 + random(seed * 100 + n, 280) as usize) / 1_000;
        let (piece, behind) = rest.split_at(most.min(rest.len()));
        rest = behind;
        match utterance.play(piece).await {
            Err(PlayError::Cleared) => return,
            played => played.unwrap(),
        }
        if rest.is_empty() {
            break;
        }
        sleep(Duration::from_secs_f64(
            piece.len() as f64 / f64::from(utterance.hz()) / speed,
        ))
        .await;
    }
    sleep(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_utterance_that_is_stopped_was_heard_as_far_as_it_says() {
    for settings in back_ends() {
        let told = Arc::<Mutex<Vec<(u128, u64, Heard)>>>::default();
        let tell = Arc::clone(&told);
        let server = serve(settings, move |mut call: Call| {
            let tell = Arc::clone(&tell);
            async move {
                while !matches!(call.next().await, Some(Event::Audio(_)) | None) {}
                let number = call.id().as_u128();
                for round in 0..12 {
                    let seed = number as u64 * 1_000 + round;
                    let hz = if round % 3 == 0 {
                        24_000
                    } else {
                        call.rate().hz()
                    };
                    let utterance = call.utterance(hz).unwrap();
                    let playback = utterance.playback();
                    let said = ramp(seed, 0, hz as usize * 2);
                    let speed = [0.5, 1.0, 10.0][round as usize % 3];
                    let writing = tokio::spawn(write(utterance, said, seed, speed));
                    sleep(millis(random(seed, 900))).await;
                    let heard = playback.stop().await;
                    assert!(playback.is_finished());
                    tell.lock().unwrap().push((number, round, heard));
                    writing.abort();
                }
            }
        })
        .await;
        let callers = (0..6).map(|n| {
            let rate = [Rate::Slin, Rate::Slin16][n % 2];
            let caller = server.caller().uuid(id(n as u128)).codec(Codec::Slin(rate));
            caller
                .say(Voice::Ramp(9))
                .start_after(millis(13 * n as u64))
                .hang_up_after(LONG)
        });
        let records = calls(callers.collect()).await;
        let mut interrupted = 0;
        for (number, round, heard) in told.lock().unwrap().iter() {
            let rate = [Rate::Slin, Rate::Slin16][*number as usize % 2];
            let hz = if round % 3 == 0 { 24_000 } else { rate.hz() };
            let said = ramp(*number as u64 * 1_000 + round, 0, hz as usize * 2);
            let said = resample_clip(&said, hz, rate.hz()).unwrap();
            let record = records
                .iter()
                .find(|record| record.uuid == id(*number))
                .unwrap();
            let runs = exact_runs(&said, record.heard_samples());
            let length: usize = runs.iter().map(|run| run.length).sum();
            assert_eq!(
                length,
                samples(heard.heard, rate),
                "{number} {round} {heard:?}: {runs:?}"
            );
            let end = runs.last().map_or(0, |run| run.source + run.length);
            assert_eq!(end, length, "all of it, and once");
            assert_eq!(heard.uncertainty, Duration::ZERO);
            interrupted += usize::from(length > 0);
        }
        assert_eq!(told.lock().unwrap().len(), 6 * 12);
        assert!(interrupted > 50, "{interrupted}");
        server.end().await;
    }
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn an_utterance_that_is_ended_plays_to_its_end_before_what_is_behind_it(io: IoBackend) {
    let record = heard_from(
        io,
        |caller| caller,
        |mut call: Call| async move {
            let mut utterance = call.utterance(8_000).unwrap();
            utterance.play(&ramp(1, 0, 1_000)).await.unwrap();
            let clip = Clip::from_samples(8_000, ramp(2, 0, 500)).unwrap();
            let behind = call.player(8_000).unwrap().play_clip(&clip).await.unwrap();
            sleep(millis(300)).await;
            assert!(!behind.is_finished(), "the utterance keeps its place");
            utterance.play(&ramp(1, 1_000, 1_000)).await.unwrap();
            let all = utterance.end().finished().await;
            assert_eq!((all.heard, all.unheard), (millis(250), millis(0)));
            assert_eq!(behind.finished().await.heard, Rate::Slin.duration(500));
            while let Some(event) = call.next().await {
                if let Event::PlaybackDrained = event {
                    return;
                }
            }
            panic!("never drained");
        },
    )
    .await;
    let first = record.find(&ramp(1, 0, 2_000));
    assert_eq!(first.iter().map(|run| run.length).sum::<usize>(), 2_000);
    assert!(first.len() == 2, "with a pause in the middle: {first:?}");
    assert_eq!(
        record.find(&ramp(2, 0, 500))[0].heard,
        first[1].heard + first[1].length
    );
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn an_utterance_that_is_dropped_stops_and_one_that_never_began_is_over_at_once(
    io: IoBackend,
) {
    let record = heard_from(
        io,
        |caller| caller,
        |call: Call| async move {
            let mut utterance = call.utterance(8_000).unwrap();
            let playback = utterance.playback();
            utterance.play(&ramp(1, 0, 8_000)).await.unwrap();
            sleep(millis(200)).await;
            drop(utterance);
            let heard = playback.finished().await;
            assert!(heard.heard > millis(0) && heard.heard + heard.unheard == millis(1_000));

            let never = call.utterance(8_000).unwrap();
            assert_eq!(never.end().finished().await, Heard::default());
            let mut late = call.utterance(8_000).unwrap();
            assert_eq!(late.playback().stop().await, Heard::default());
            assert_eq!(late.play(&[1; 160]).await, Err(PlayError::Cleared));
            assert_eq!(late.end().finished().await, Heard::default());

            // A clear of what was before the first piece is not one of it.
            let mut patient = call.utterance(8_000).unwrap();
            call.clear().await.unwrap();
            patient.play(&ramp(2, 0, 400)).await.unwrap();
            assert_eq!(patient.end().finished().await.heard, millis(50));
        },
    )
    .await;
    assert_eq!(record.find(&ramp(2, 0, 400))[0].length, 400);
}

/// The case of the report: 960 ms were heard, and 100 told.
#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_clear_tells_of_all_pieces_that_a_player_wrote_and_of_nothing_that_had_not_begun(
    io: IoBackend,
) {
    let (told, mut tell) = mpsc::unbounded_channel();
    let record = heard_from(
        io,
        |caller| caller,
        move |call: Call| {
            let told = told.clone();
            async move {
                let mut player = call.player(8_000).unwrap();
                let prompt = Clip::from_samples(8_000, ramp(9, 0, 4_000)).unwrap();
                player.play_clip(&prompt).await.unwrap().finished().await;
                player.play(&ramp(8, 0, 160)).await.unwrap();
                let nothing = player.clear().await.unwrap();
                for piece in ramp(1, 0, 5 * 1_720).chunks(1_720) {
                    player.play(piece).await.unwrap();
                    sleep(millis(230)).await;
                }
                player.play(&ramp(2, 0, 4_000)).await.unwrap();
                sleep(millis(100)).await;
                let all = player.clear().await.unwrap();
                told.send((nothing, all)).unwrap();
            }
        },
    )
    .await;
    let (nothing, all) = tell.recv().await.unwrap();
    let length = |said: &[i16]| -> usize { record.find(said).iter().map(|run| run.length).sum() };
    assert!(nothing.heard <= millis(20) && nothing.heard + nothing.unheard == millis(20));
    assert_eq!(length(&ramp(1, 0, 5 * 1_720)), 5 * 1_720);
    let heard = 5 * 1_720 + length(&ramp(2, 0, 4_000));
    assert_eq!(samples(all.heard, Rate::Slin), heard);
    assert_eq!(all.heard + all.unheard, millis(5 * 215 + 500));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn drained_is_told_once_at_the_end_and_not_after_an_underrun_a_stop_or_a_clear(
    io: IoBackend,
) {
    let (told, mut tell) = mpsc::unbounded_channel();
    heard_from(
        io,
        |caller| caller.hang_up_after(millis(4_000)),
        move |mut call: Call| {
            let told = told.clone();
            async move {
                let writer = call.handle();
                let step = told.clone();
                let speaking = tokio::spawn(async move {
                    let mut player = writer.player(8_000).unwrap();
                    let clip = Clip::from_samples(8_000, vec![1; 800]).unwrap();
                    let playing = player.play_clip(&clip).await.unwrap();
                    playing.stop().await;
                    sleep(millis(60)).await;
                    step.send("stopped").unwrap();
                    player.play(&[1; 1_600]).await.unwrap();
                    sleep(millis(60)).await;
                    player.clear().await.unwrap();
                    sleep(millis(60)).await;
                    step.send("cleared").unwrap();
                    let mut utterance = writer.utterance(8_000).unwrap();
                    for _ in 0..3 {
                        utterance.play(&[1; 400]).await.unwrap();
                        sleep(millis(150)).await;
                    }
                    step.send("ending").unwrap();
                    utterance.play(&[1; 800]).await.unwrap();
                    utterance.end();
                    // What is queued behind it goes on without a pause, so that it has drained with the last of them.
                    for _ in 0..2 {
                        player.play_clip(&clip).await.unwrap();
                    }
                    player.drained().await.unwrap();
                });
                while let Some(event) = call.next().await {
                    if let Event::PlaybackDrained = event {
                        told.send("drained").unwrap();
                    }
                }
                speaking.await.unwrap();
            }
        },
    )
    .await;
    let mut all = Vec::new();
    while let Some(told) = tell.recv().await {
        all.push(told);
    }
    assert_eq!(all, ["stopped", "cleared", "ending", "drained"]);
}

/// Waits for the mark; false if the call is over before.
async fn reaches_mark(call: &mut Call) -> bool {
    loop {
        match call.next().await {
            Some(Event::MarkReached(_)) => return true,
            Some(_) => {}
            None => return false,
        }
    }
}

/// Connects as Asterisk does, with little room for what comes, and reads nothing until told.
fn deaf_caller(server: &crate::support::Running) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&server.address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(&[1, 0, 16]).unwrap();
    stream.write_all(&[7; 16]).unwrap();
    stream
}

/// The samples in whole messages of 160.
fn spoken(bytes: &[u8]) -> Vec<i16> {
    let messages = bytes
        .chunks_exact(323)
        .flat_map(|message| message[3..].chunks_exact(2));
    messages
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_socket_of_a_slow_peer_was_not_heard() {
    for settings in back_ends() {
        let (told, mut tell) = mpsc::unbounded_channel();
        let (go_on, read) = mpsc::channel::<()>(1);
        let read = Arc::new(tokio::sync::Mutex::new(read));
        let server = serve(settings, move |mut call: Call| {
            let (told, read) = (told.clone(), Arc::clone(&read));
            async move {
                let mut player = call.player(8_000).unwrap();
                let clip = Clip::from_samples(8_000, ramp(1, 0, 16_000)).unwrap();
                let playing = player.play_clip(&clip).await.unwrap();
                player.mark().unwrap();
                sleep(millis(1_500)).await;
                let heard = playing.stop().await;
                told.send(Some(heard)).unwrap();
                let waited = tokio::time::timeout(millis(300), reaches_mark(&mut call));
                assert!(waited.await.is_err(), "what is before the mark waits");
                told.send(None).unwrap();
                read.lock().await.recv().await.unwrap();
                assert!(reaches_mark(&mut call).await);
                told.send(None).unwrap();
            }
        })
        .await;
        let stream = deaf_caller(&server);
        let heard = tell.recv().await.unwrap().unwrap();
        assert_eq!(tell.recv().await, Some(None));
        // All that has come, without taking more.
        let arrived = rustix::io::ioctl_fionread(&stream).unwrap() as usize;
        let mut bytes = vec![0; arrived];
        let peeked = stream.peek(&mut bytes).unwrap();
        assert_eq!(peeked, arrived);
        let came = exact_runs(&ramp(1, 0, 16_000), &spoken(&bytes));
        let length = came.iter().map(|run| run.length).sum::<usize>();
        assert_eq!(length, samples(heard.heard, Rate::Slin), "{heard:?}");
        assert_eq!(heard.heard + heard.unheard, millis(2_000));
        assert!(
            heard.heard < millis(800) && heard.heard > millis(40),
            "{heard:?}"
        );
        // It could not be taken back: once there is room, it comes.
        let mut reader = stream.try_clone().unwrap();
        let reading = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            bytes
        });
        go_on.send(()).await.unwrap();
        assert_eq!(tell.recv().await, Some(None), "the mark is reached");
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let bytes = reading.await.unwrap();
        let all = exact_runs(&ramp(1, 0, 16_000), &spoken(&bytes));
        assert!(all[0].length > length, "{all:?}");
        server.end().await;
    }
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn the_first_prompt_of_a_wideband_call_is_wideband_from_its_second_frame_on(io: IoBackend) {
    let said = ramp(1, 0, 16_000);
    let saying = said.clone();
    let server = serve(builder(io), move |call: Call| {
        let said = saying.clone();
        async move {
            let number = call.id().as_u128();
            let mut player = call.player(16_000).unwrap();
            match number % 3 {
                0 => drop(
                    player
                        .play_clip(&Clip::from_samples(16_000, said).unwrap())
                        .await,
                ),
                1 => player.play(&said).await.unwrap(),
                _ => {
                    let mut utterance = call.utterance(16_000).unwrap();
                    utterance.play(&said).await.unwrap();
                    utterance.end();
                }
            }
        }
    })
    .await;
    let callers = (0..60).map(|n| {
        let caller = server.caller().uuid(id(n)).codec(Codec::Slin(Rate::Slin16));
        // What it says first comes at any time within the first slots.
        let caller = caller.mute_between(Duration::ZERO, millis(3 * (n as u64 / 3)));
        caller
            .say(Voice::Ramp(3))
            .start_after(millis(11 * n as u64))
            .hang_up_after(LONG)
    });
    for record in calls(callers.collect()).await {
        let narrow = record
            .heard
            .iter()
            .take_while(|heard| heard.rate == Rate::Slin)
            .count();
        assert!(narrow < 10, "{narrow}");
        let rest = &record.heard[narrow..];
        assert!(rest.iter().all(|heard| heard.rate == Rate::Slin16));
        let run = record.find(&said).pop().unwrap();
        assert_eq!(run.source + run.length, said.len());
        assert!(
            run.source <= 320 * narrow,
            "{narrow} frames at 8 kHz, {run:?}"
        );
    }
    server.end().await;
}

#[apply(over_each_back_end)]
#[test]
fn a_callback_queues_a_sentence_and_is_told_what_was_heard_of_it(io: IoBackend) {
    let said = ramp(1, 0, 24_000);
    let (told, tell) = std::sync::mpsc::channel();
    let sentence = said.clone();
    let server = callback::start(
        builder(io),
        move |_: &CallInfo| {
            let (sentence, told) = (sentence.clone(), told.clone());
            move |input: Input<'_>, reply: &mut Reply| match input {
                // Longer than live audio is ever kept.
                Input::Started => reply.queue(&sentence),
                Input::Dtmf('1') => reply.clear(),
                Input::Cleared(heard) => {
                    told.send(heard).unwrap();
                    reply.queue(&ramp(2, 0, 800));
                    reply.queue(&ramp(2, 800, 800));
                }
                Input::PlaybackDrained => reply.finish(),
                _ => {}
            }
        },
        |_, error| panic!("{error}"),
        "127.0.0.1:0",
    )
    .unwrap();
    let caller = Caller::new(server.local_addr()).hang_up_after(LONG);
    let cut = caller.dtmf("1", millis(900)).call().unwrap();
    let heard = tell.recv().unwrap();
    let runs = cut.find(&said);
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].length, samples(heard.heard, Rate::Slin));
    assert_eq!(heard.heard + heard.unheard, Duration::from_secs(3));
    assert_eq!(cut.find(&ramp(2, 0, 1_600))[0].length, 1_600, "joined");
    let whole = Caller::new(server.local_addr())
        .hang_up_after(LONG)
        .call()
        .unwrap();
    assert_eq!(sound(&whole), said);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_looped_clip_has_no_gap_and_a_finished_call_ends_with_its_round(io: IoBackend) {
    let round = ramp(1, 0, 1_234);
    let clip = Clip::from_samples(8_000, round.clone()).unwrap().looped();
    let record = heard_from(
        io,
        |caller| caller,
        move |call: Call| {
            let clip = clip.clone();
            async move {
                let playing = call.player(8_000).unwrap().play_clip(&clip).await.unwrap();
                sleep(millis(1_000)).await;
                assert!(!playing.is_finished());
            }
        },
    )
    .await;
    let rounds = sound(&record).len() / 1_234;
    assert!(rounds >= 6, "{rounds}");
    assert!(
        sound(&record) == round.repeat(rounds),
        "whole rounds, without a gap"
    );
}
