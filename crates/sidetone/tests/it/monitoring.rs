//! Listening in on a call, and seeing how loud it is.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::support::{
    IoBackend, Running, builder, call, echo, id, millis, over_each_back_end, serve, short_call,
    until,
};
use macro_rules_attribute::apply;
use sidetone::{Call, CallHandle, PlayError, Rate, Side, Sides};
use sidetone_audio::{level::FLOOR_DBFS, tone};
use sidetone_caller::{Codec, Stop, Voice, exact_runs};
use tokio::sync::mpsc;

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_gives_what_was_played_on_the_calls_clock(io: IoBackend) {
    let (sender, mut monitored) = mpsc::unbounded_channel();
    let server = serve(builder(io), move |call: Call| {
        let sender = sender.clone();
        async move {
            let mut monitor = call.handle().monitor(Sides::Server).unwrap();
            let mut player = call.player(8000).unwrap();
            player.play(&tone::greeting(8000)).await.unwrap();
            player.drained().await.unwrap();
            drop(call);
            while let Some((_, frame)) = monitor.next().await {
                sender.send(frame).unwrap();
            }
        }
    })
    .await;
    let caller = server.caller().hang_up_after(Duration::from_secs(20));
    let heard = call(caller).await;
    server.end().await;
    let (mut samples, mut offsets) = (Vec::new(), Vec::new());
    while let Some(frame) = monitored.recv().await {
        offsets.push(frame.offset());
        samples.extend(frame.into_samples());
    }
    assert!(offsets.is_sorted());
    let sound =
        |samples: &[i16]| -> Vec<i16> { samples.iter().copied().filter(|it| *it != 0).collect() };
    assert!(!samples.is_empty());
    assert_eq!(sound(&samples), sound(heard.heard_samples()));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_begins_with_the_uuid_also_of_a_call_that_is_over(io: IoBackend) {
    let mut server = builder(io).bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr();
    let running = tokio::spawn(short_call(address, id(1), Vec::new(), millis(300)));
    let stats = || server.handle().stats();
    until(|| stats().calls == 1 && stats().running == 0).await;
    running.await.unwrap();
    let call = server.accept().await.unwrap();
    let mut monitor = call.handle().monitor(Sides::Server).unwrap();
    let mut offsets = Vec::new();
    while let Some((_, frame)) = monitor.next().await {
        assert!(frame.samples().iter().all(|sample| *sample == 0));
        offsets.push(frame.offset());
    }
    assert!(offsets[0] < millis(20), "{offsets:?}");
    assert!(offsets.len() as u64 >= call.stats().counters.frames_out - 1);
}

/// A server that echoes, and hands out each call.
async fn echoing(io: IoBackend) -> (Running, mpsc::UnboundedReceiver<CallHandle>) {
    let (give, handles) = mpsc::unbounded_channel();
    let server = serve(builder(io), move |call: Call| {
        give.send(call.handle()).unwrap();
        echo(call)
    })
    .await;
    (server, handles)
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn monitors_of_one_side_and_of_both_go_on_beside_each_other(io: IoBackend) {
    let (server, mut handles) = echoing(io).await;
    let caller = server.caller().say(Voice::Ramp(5));
    let calling = tokio::spawn(call(caller.hang_up_after(Duration::from_secs(2))));
    let handle = handles.recv().await.unwrap();
    let gathered = [Sides::Both, Sides::Caller, Sides::Server].map(|sides| {
        let mut monitor = handle.monitor(sides).unwrap();
        tokio::spawn(async move {
            let mut frames = Vec::new();
            while let Some(frame) = monitor.next().await {
                frames.push(frame);
            }
            frames
        })
    });
    let [both, caller, server_side] = gathered;
    let (both, caller) = (both.await.unwrap(), caller.await.unwrap());
    let server_side = server_side.await.unwrap();
    let record = calling.await.unwrap();
    server.end().await;
    let of = |side: Side| {
        let frames = both.iter().filter(move |frame| frame.0 == side);
        frames.cloned().collect::<Vec<_>>()
    };
    // The three were made one after the other.
    assert!(of(Side::Caller).ends_with(&caller));
    assert!(of(Side::Server).ends_with(&server_side));
    let samples = |frames: &[(Side, sidetone::OwnedFrame)]| -> Vec<i16> {
        frames
            .iter()
            .flat_map(|(_, frame)| frame.samples())
            .copied()
            .collect()
    };
    let (said, played) = (samples(&of(Side::Caller)), samples(&server_side));
    assert_eq!(exact_runs(record.sent_samples(), &said).len(), 1);
    assert!(!exact_runs(record.heard_samples(), &played).is_empty());
    for side in [Side::Caller, Side::Server] {
        assert!(of(side).is_sorted_by_key(|(_, frame)| frame.offset()));
    }
    // On the caller's side an offset is that of the call's events, which jitter does not move.
    let steps = caller.windows(2);
    let steps = steps.map(|pair| pair[1].1.offset() - pair[0].1.offset());
    assert!(steps.filter(|step| *step == millis(20)).count() > caller.len() / 2);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_can_be_listened_to_as_one_stream(io: IoBackend) {
    let (server, mut handles) = echoing(io).await;
    let wideband = Codec::Slin(Rate::Slin16);
    let caller = server.caller().say(Voice::Ramp(5)).codec(wideband);
    let calling = tokio::spawn(call(caller.hang_up_after(Duration::from_secs(3))));
    let handle = handles.recv().await.unwrap();
    let gathered = [
        (Sides::Caller, Rate::Slin16),
        (Sides::Both, Rate::Slin16),
        (Sides::Server, Rate::Slin),
    ]
    .map(|(sides, rate)| {
        let mut mix = handle.listen(sides, rate).unwrap();
        tokio::spawn(async move {
            let mut samples = Vec::new();
            while let Some(next) = mix.next().await {
                samples.extend_from_slice(next);
            }
            samples
        })
    });
    let [caller, both, server_side] = gathered;
    let (caller, both) = (caller.await.unwrap(), both.await.unwrap());
    let server_side = server_side.await.unwrap();
    let record = calling.await.unwrap();
    let lasted = server.end().await[0].duration;
    let heard: usize = exact_runs(record.sent_samples(), &caller)
        .iter()
        .map(|run| run.length)
        .sum();
    assert!(heard > 16_000, "{heard} of {} samples", caller.len());
    assert_ne!(caller, both);
    for (samples, rate) in [
        (&caller, Rate::Slin16),
        (&both, Rate::Slin16),
        (&server_side, Rate::Slin),
    ] {
        let length = rate.duration(samples.len() as u64);
        assert!(length <= lasted + millis(100), "{length:?} of {lasted:?}");
        assert!(sound_of(samples) > samples.len() / 2, "{rate:?}");
    }
    let late = handle.listen(Sides::Both, Rate::Slin).unwrap_err();
    assert_eq!(late, PlayError::Closed);
}

fn sound_of(samples: &[i16]) -> usize {
    samples.iter().filter(|sample| **sample != 0).count()
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_has_sixteen_monitors_and_says_so(io: IoBackend) {
    let (server, mut handles) = echoing(io).await;
    let calling = tokio::spawn(call(server.caller().hang_up_after(millis(700))));
    let handle = handles.recv().await.unwrap();
    let mut monitors: Vec<_> = (0..15)
        .map(|_| handle.monitor(Sides::Both).unwrap())
        .collect();
    let mix = handle.listen(Sides::Both, Rate::Slin).unwrap();
    let refused = handle.monitor(Sides::Caller).unwrap_err();
    assert_eq!(refused, PlayError::TooManyMonitors);
    assert!(refused.to_string().contains("drop one"), "{refused}");
    drop(mix);
    monitors.push(handle.monitor(Sides::Caller).unwrap());
    assert!(handle.listen(Sides::Both, Rate::Slin).is_err());
    for mut monitor in monitors {
        let mut frames = 0;
        while monitor.next().await.is_some() {
            frames += 1;
        }
        assert!(frames > 5, "{frames}");
    }
    calling.await.unwrap();
    server.end().await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_follow_both_sides(io: IoBackend) {
    let mut server = builder(io).bind("127.0.0.1:0").await.unwrap();
    // Half of full scale, which is -6 dBFS, for a second; then silence.
    let loud = Voice::made(|frame, bytes| {
        let sample: i16 = if frame < 50 { 16_384 } else { 0 };
        bytes.extend(sample.to_le_bytes().repeat(160));
    });
    let (stop, caller) = (Stop::new().unwrap(), server.local_addr());
    let (stopping, caller) = (stop.clone(), sidetone_caller::Caller::new(caller).say(loud));
    let calling = tokio::task::spawn_blocking(move || caller.call_until(&stopping).unwrap());
    let call = server.accept().await.unwrap();
    let handle = call.handle();
    let near = |level: f32, expected: f32| (level - expected).abs() < 1.5;
    until(|| near(handle.stats().caller_dbfs, -6.02)).await;
    assert_eq!(handle.stats().server_dbfs, FLOOR_DBFS);
    until(|| handle.stats().caller_dbfs == FLOOR_DBFS).await;
    // A quarter of full scale.
    let mut player = call.player(8_000).unwrap();
    player.play(&[-8_192; 16_000]).await.unwrap();
    until(|| near(handle.stats().server_dbfs, -12.04)).await;
    assert_eq!(handle.stats().caller_dbfs, FLOOR_DBFS);
    drop(call.clear());
    until(|| handle.stats().server_dbfs == FLOOR_DBFS).await;
    stop.stop();
    calling.await.unwrap();
}
