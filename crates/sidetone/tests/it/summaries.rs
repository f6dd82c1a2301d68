//! What every part of a call says of it, and its summary.
#![allow(clippy::unwrap_used)]

use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    sync::Arc,
    time::Duration,
};

use macro_rules_attribute::apply;
use sidetone::{Admission, Call, CallInfo, CallSummary, EndReason, Rate};
use sidetone_caller::{Voice, ramp};
use tokio::sync::mpsc::unbounded_channel;

use crate::support::{IoBackend, builder, call, id, millis, over_each_back_end, run, serve};

#[derive(Debug, PartialEq)]
struct Account(u32);

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn data_is_shared_by_call_halves_handle_and_summary(io: IoBackend) {
    let (told, mut from_handler) = unbounded_channel();
    let (summarize, mut from_summary) = unbounded_channel();
    let server = builder(io)
        .admit(|_: CallInfo| async { Admission::accept_with(Account(7)) })
        .on_call_end(move |summary: CallSummary| summarize.send(summary.data::<Account>()).unwrap())
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let handle = server.handle();
    let server = run(server, move |call: Call| {
        let (told, server) = (told.clone(), handle.clone());
        async move {
            let whole = call.data::<Account>().unwrap();
            let (reader, writer) = call.split();
            let found = server.call(writer.id()).unwrap();
            let shared = [
                reader.data(),
                writer.data(),
                writer.handle().data(),
                found.data(),
            ];
            told.send((shared, whole)).unwrap();
            assert_eq!(writer.data::<String>(), None, "it is no text");
        }
    });
    call(server.caller().hang_up_after(millis(30_000))).await;
    let (shared, whole) = from_handler.recv().await.unwrap();
    assert_eq!(*whole, Account(7));
    for data in shared {
        assert!(Arc::ptr_eq(&data.unwrap(), &whole));
    }
    assert!(Arc::ptr_eq(
        &from_summary.recv().await.unwrap().unwrap(),
        &whole
    ));
    server.end().await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn halves_know_their_call_and_either_can_finish_it(io: IoBackend) {
    let server = serve(builder(io), |call: Call| async {
        let (id, peer) = (call.id(), call.peer());
        let (reader, writer) = call.split();
        assert_eq!((reader.id(), writer.id()), (id, id));
        assert_eq!((reader.peer(), writer.peer()), (peer, peer));
        assert_eq!((reader.rate(), writer.rate()), (Rate::Slin, Rate::Slin));
        assert_eq!(writer.handle().rate(), Rate::Slin);
        let mut player = writer.player(8_000).unwrap();
        player.play(&ramp(1, 0, 4_000)).await.unwrap();
        assert!(!writer.stats().buffered.is_zero() && !reader.stats().buffered.is_zero());
        drop(player);
        // The other half is still there.
        match id == crate::support::id(1) {
            true => assert_eq!(writer.finish().await, EndReason::Finished),
            false => assert_eq!(reader.finish().await, EndReason::Finished),
        }
    })
    .await;
    for number in [1, 2] {
        let caller = server.caller().uuid(id(number));
        let record = call(caller.hang_up_after(millis(30_000))).await;
        assert_eq!(record.find(&ramp(1, 0, 4_000))[0].length, 4_000);
    }
    let ended = server.end().await;
    assert!(ended.iter().all(|it| it.reason == EndReason::Finished));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_handle_has_live_audio_too(io: IoBackend) {
    let server = serve(builder(io), |call: Call| async move {
        assert!(call.handle().live_at(1).is_err());
        let mut live = call.handle().live_at(8_000).unwrap();
        for frame in ramp(1, 0, 8_000).chunks(160) {
            live.push(frame);
            tokio::time::sleep(millis(20)).await;
        }
    })
    .await;
    let record = call(server.caller().hang_up_after(millis(30_000))).await;
    let heard: usize = record
        .find(&ramp(1, 0, 8_000))
        .iter()
        .map(|run| run.length)
        .sum();
    assert!(heard > 2_000, "{heard}");
    server.end().await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_playback_stops_with_its_guard_and_plays_on_without(io: IoBackend) {
    let (told, mut outcomes) = unbounded_channel();
    let server = serve(builder(io), move |call: Call| {
        let told = told.clone();
        async move {
            let clip = |seed| sidetone::Clip::from_samples(8_000, ramp(seed, 0, 80_000)).unwrap();
            let mut player = call.player(8_000).unwrap();
            let guard = player.play_clip(&clip(1)).await.unwrap().stop_on_drop();
            let guarded = guard.playback().clone();
            let short = sidetone::Clip::from_samples(8_000, ramp(2, 0, 1_600)).unwrap();
            let kept = player
                .play_clip(&short)
                .await
                .unwrap()
                .stop_on_drop()
                .keep();
            tokio::time::sleep(millis(200)).await;
            drop(guard);
            told.send((guarded.finished().await, kept.finished().await))
                .unwrap();
        }
    })
    .await;
    call(server.caller().hang_up_after(millis(30_000))).await;
    let (stopped, kept) = outcomes.recv().await.unwrap();
    assert!(!stopped.unheard.is_zero(), "{stopped:?}");
    assert_eq!(stopped.heard + stopped.unheard, Duration::from_secs(10));
    assert_eq!((kept.heard, kept.unheard), (millis(200), Duration::ZERO));
    server.end().await;
}

/// The summary of one short call.
#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_uuid_are_reported_each_with_its_reason(io: IoBackend) {
    let (tell, mut told) = unbounded_channel();
    let settings = builder(io).on_unidentified(move |peer, reason| {
        tell.send((peer, reason)).unwrap();
    });
    let server = serve(settings, |_: Call| async {}).await;
    for (says, reason) in [
        (&b""[..], EndReason::NoIdentity),
        (b"\x01\x00\x01x", EndReason::MalformedIdentity),
        (
            b"GET / HTTP/1.1\r\n\r\n",
            EndReason::OtherProtocol(sidetone::OtherProtocol::Http),
        ),
    ] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(says).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let peer = stream.local_addr().unwrap();
        assert_eq!(told.recv().await, Some((peer, reason)));
    }
    server.end().await;
}

async fn summary() -> CallSummary {
    let server = serve(builder(IoBackend::Auto), crate::support::listen).await;
    let caller = server.caller().uuid(id(5)).say(Voice::Ramp(1));
    call(caller.hang_up_after(millis(500))).await;
    server.end().await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_is_shown_on_one_line() {
    let summary = summary().await;
    let line = summary.to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    let (frames, reason) = (summary.counters.frames_in, summary.reason.to_string());
    for part in [
        &summary.id.to_string(),
        &summary.peer.to_string(),
        "slin",
        &reason,
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(line.contains(&format!("{frames} frames in")), "{line}");
}

#[cfg(feature = "serde")]
#[tokio::test(flavor = "multi_thread")]
async fn summaries_and_statistics_are_serialized_with_their_names() {
    let summary = summary().await;
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(json["id"], summary.id.to_string());
    assert_eq!(json["peer"], summary.peer.to_string());
    assert_eq!(
        (&json["rate"], &json["codec"]),
        (&"slin".into(), &"slin".into())
    );
    assert_eq!(json["reason"], summary.reason.name());
    assert_eq!(json["counters"]["frames_in"], summary.counters.frames_in);
    assert!(json.get("data").is_none());
    let server = builder(IoBackend::Auto).bind("127.0.0.1:0").await.unwrap();
    let json = serde_json::to_value(server.handle().stats()).unwrap();
    assert_eq!(
        (&json["calls"], &json["other_protocols"]["web_socket"]),
        (&0.into(), &0.into())
    );
}
