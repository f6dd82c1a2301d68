//! How calls and servers end.
#![allow(clippy::unwrap_used)]

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use crate::support::{
    IoBackend, builder, call, calls, echo, id, is_callers_end, listen, millis, over_each_back_end,
    serve, short_call, until,
};
use macro_rules_attribute::apply;
use sidetone::{Call, EndReason, EndedBy, Event, Handler, IntoOutcome, PlayError, ServerBuilder};
use sidetone_caller::{CallRecord, Caller, EndCause, Voice, call_all, ramp};

/// What a caller of this handler hears, and why its call ended by the server's account.
async fn outcome(io: IoBackend, handler: impl Handler) -> (CallRecord, EndReason) {
    let server = serve(builder(io), handler).await;
    let record = call(server.caller().hang_up_after(Duration::from_secs(30))).await;
    let ended = server.end().await;
    assert_eq!(ended.len(), 1);
    (record, ended[0].reason)
}

/// Samples of a sound that is to be heard whole, and of one that is to be cut short.
const SHORT: usize = 8_000;
const LONG: usize = 80_000;

async fn play(call: &Call, length: usize) -> Result<(), PlayError> {
    call.player(8_000).unwrap().play(&ramp(1, 0, length)).await
}

fn heard_of_it(record: &CallRecord) -> usize {
    let runs = record.find(&ramp(1, 0, LONG));
    runs.iter().map(|run| run.length).sum()
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn after_ok_what_is_queued_plays_out(io: IoBackend) {
    let (record, reason) = outcome(io, |call: Call| async move { play(&call, SHORT).await }).await;
    assert_eq!((heard_of_it(&record), reason), (SHORT, EndReason::Finished));
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    assert_eq!(record.ended.by(), EndedBy::Server);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn after_an_error_the_call_ends_at_once(io: IoBackend) {
    let (record, reason) = outcome(io, |call: Call| async move {
        play(&call, LONG).await?;
        tokio::time::sleep(millis(200)).await;
        Err::<(), Box<dyn std::error::Error + Send + Sync>>("as this test wants it".into())
    })
    .await;
    assert_eq!(reason, EndReason::HandlerFailed);
    assert!(heard_of_it(&record) < LONG);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn after_a_panic_the_call_ends_at_once(io: IoBackend) {
    let (record, reason) = outcome(io, |call: Call| async move {
        play(&call, LONG).await.unwrap();
        tokio::time::sleep(millis(200)).await;
        assert!(call.id().is_nil(), "as this test wants it");
    })
    .await;
    assert_eq!(reason, EndReason::HandlerFailed);
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    assert!(heard_of_it(&record) < LONG);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_call_is_a_normal_end_for_a_handler_that_plays(io: IoBackend) {
    let closed: Result<(), PlayError> = Err(PlayError::Closed);
    assert_eq!(format!("{:?}", closed.into_outcome()), "Outcome(Ok(()))");
    let (told, mut result) = tokio::sync::mpsc::channel(1);
    let settings = builder(io).playback_buffer(millis(200));
    let server = serve(settings, move |call: Call| {
        let told = told.clone();
        async move { told.send(play(&call, LONG).await).await.unwrap() }
    })
    .await;
    call(server.caller().hang_up_after(millis(1_000))).await;
    assert_eq!(result.recv().await, Some(Err(PlayError::Closed)));
    assert!(is_callers_end(server.end().await[0].reason));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn hang_up_ends_the_call_at_once_and_finish_when_all_is_played(io: IoBackend) {
    let (record, reason) = outcome(io, |call: Call| async move {
        play(&call, LONG).await.unwrap();
        tokio::time::sleep(millis(200)).await;
        call.hang_up();
        assert_eq!(call.closed().await, EndReason::HungUp);
    })
    .await;
    assert!(heard_of_it(&record) < LONG);
    assert_eq!(reason, EndReason::HungUp);
    let (record, reason) = outcome(io, |call: Call| async move {
        play(&call, SHORT).await.unwrap();
        assert_eq!(call.finish().await, EndReason::Finished);
    })
    .await;
    assert_eq!((heard_of_it(&record), reason), (SHORT, EndReason::Finished));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_call_that_is_dropped_is_hung_up_at_once(io: IoBackend) {
    let mut server = builder(io).bind("127.0.0.1:0").await.unwrap();
    let caller = Caller::new(server.local_addr()).hang_up_after(Duration::from_secs(30));
    let calling = tokio::spawn(call(caller));
    let accepted = server.accept().await.unwrap();
    play(&accepted, LONG).await.unwrap();
    tokio::time::sleep(millis(200)).await;
    drop(accepted);
    let record = calling.await.unwrap();
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    assert!(heard_of_it(&record) < LONG);
    server.handle().shutdown(Duration::ZERO);
    assert!(server.accept().await.is_none());
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_ended_before_it_was_accepted_is_handed_out_with_what_was_said(io: IoBackend) {
    let mut server = builder(io).bind("127.0.0.1:0").await.unwrap();
    let said = || (1..=3).map(|frame| vec![frame; 160]).collect();
    short_call(server.local_addr(), id(1), said(), Duration::ZERO).await;
    // The caller knows of the end before the server does.
    let stats = || server.handle().stats();
    until(|| stats().calls == 1 && stats().running == 0).await;
    let running = Caller::new(server.local_addr())
        .uuid(id(2))
        .hang_up_after(Duration::from_secs(30));
    let running = tokio::spawn(call(running));
    let mut over = server.accept().await.unwrap();
    assert_eq!(over.id(), id(1));
    let chunk = over.audio(Duration::MAX).await.unwrap();
    assert_eq!(chunk.samples(), said().concat());
    assert!(over.next().await.is_none());
    assert_eq!(over.closed().await, EndReason::CallerHungUp);
    assert_eq!(server.accept().await.unwrap().id(), id(2));
    running.await.unwrap();
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_summary_says_what_the_caller_lived_through(io: IoBackend) {
    // Whatever else the machine does, nothing is dropped because the handler comes to it late.
    let settings = builder(io).receive_buffer(millis(5_000));
    let (began, server) = (Instant::now(), serve(settings, echo).await);
    let caller = server
        .caller()
        .uuid(id(5))
        .say(Voice::Ramp(1))
        .dtmf("12#", millis(100));
    let record = call(caller.hang_up_after(millis(1_000))).await;
    let summary = server.end().await.remove(0);
    let most = began.elapsed();
    assert_eq!(summary.id, id(5));
    assert!(summary.peer.ip().is_loopback());
    assert!(is_callers_end(summary.reason));
    assert_eq!(summary.codec, sidetone::Codec::Slin);
    let digits = record.counts.digits_sent;
    assert_eq!((summary.lagged, summary.counters.digits), (0, digits));
    assert_eq!(summary.counters.frames_in, record.counts.frames_sent);
    // What the server wrote in the moment of the hang-up may have been read by nobody.
    let (out, heard) = (summary.counters.frames_out, record.counts.frames_heard);
    assert!(heard <= out && heard >= out / 2, "{heard} of {out}");
    let lived = summary.duration;
    assert!(lived > record.ended.at / 2 && lived < most, "{lived:?}");
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn after_a_shutdown_new_calls_are_rejected_and_running_ones_may_end(io: IoBackend) {
    let server = serve(builder(io), echo).await;
    let (address, handle) = (server.address, server.handle.clone());
    let running = server
        .caller()
        .say(Voice::Ramp(1))
        .hang_up_after(millis(3_000));
    let running = tokio::spawn(call(running));
    until(|| handle.stats().running == 1).await;
    handle.shutdown(Duration::from_secs(60));
    let late = call(Caller::new(address)).await;
    assert_eq!(
        (late.ended.cause, late.counts.frames_heard),
        (EndCause::ServerHungUp, 0)
    );
    let record = running.await.unwrap();
    assert_eq!(record.ended.cause, EndCause::HungUp);
    let last = record
        .echo()
        .last()
        .map_or(0, |run| run.source + run.length);
    assert!(
        last > record.sent_samples().len() / 2,
        "it was served to its end, not to {last}"
    );
    server.served.await.unwrap().unwrap();
    assert_eq!(handle.stats().running, 0);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn when_the_grace_time_is_over_running_calls_are_hung_up_cleanly(io: IoBackend) {
    let server = serve(builder(io), listen).await;
    let callers = (0..5).map(|_| server.caller().say(Voice::Ramp(1)));
    let running = tokio::spawn(calls(callers.collect()));
    until(|| server.handle.stats().running == 5).await;
    server.handle.shutdown(Duration::from_secs(60));
    // A second, shorter one counts.
    let ended = server.end().await;
    assert!(
        ended
            .iter()
            .all(|summary| summary.reason == EndReason::Shutdown)
    );
    assert_eq!(ended.len(), 5);
    for record in running.await.unwrap() {
        assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    }
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_for_its_admission_ends_with_the_server(io: IoBackend) {
    let settings = builder(io).admit(|_| std::future::pending());
    let server = serve(settings, echo).await;
    let running = tokio::spawn(call(server.caller()));
    until(|| server.handle.stats().running == 1).await;
    assert_eq!(server.end().await[0].reason, EndReason::Shutdown);
    assert_eq!(running.await.unwrap().ended.cause, EndCause::ServerHungUp);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_dropped_hangs_up_its_calls(io: IoBackend) {
    let server = serve(builder(io), echo).await;
    let running = tokio::spawn(call(server.caller().say(Voice::Ramp(1))));
    until(|| server.handle.stats().running == 1).await;
    server.served.abort();
    assert_eq!(running.await.unwrap().ended.cause, EndCause::ServerHungUp);
}

/// An echo on a duplicate of this listener.
fn successor(listener: &TcpListener, settings: ServerBuilder) -> crate::support::Running {
    let server = settings
        .from_listener(listener.try_clone().unwrap())
        .unwrap();
    crate::support::run(server, echo)
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_are_accepted_in_one_go_are_all_accepted(io: IoBackend) {
    const CALLERS: usize = 100;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let waiting = [(); CALLERS].map(|()| TcpStream::connect(address).unwrap());
    // None comes after those that wait already.
    let server = successor(&listener, builder(io));
    until(|| server.handle.stats().connections == CALLERS).await;
    drop(waiting);
    server.end().await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_is_handed_over_under_new_calls_and_none_is_refused(io: IoBackend) {
    const CALLS: u64 = 100;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let old = successor(&listener, builder(io));
    let address = old.address;
    let callers = (0..CALLS).map(move |n| {
        let caller = Caller::new(address)
            .say(Voice::Ramp(n))
            .hang_up_after(millis(1_000));
        // Some say their UUID long after they connected, as with ARI.
        let late = if n % 10 == 0 {
            millis(500)
        } else {
            Duration::ZERO
        };
        caller.uuid_after(late).start_after(millis(20 * n))
    });
    let callers: Vec<Caller> = callers.collect();
    let calling = tokio::task::spawn_blocking(move || call_all(callers));
    tokio::time::sleep(millis(1_000)).await;
    let new = successor(&listener, builder(io));
    old.handle.hand_over(Duration::from_secs(30));
    old.served.await.unwrap().unwrap();
    let before = old.handle.stats();
    for record in calling.await.unwrap() {
        let record = record.unwrap();
        assert_eq!(record.ended.cause, EndCause::HungUp);
        assert!(!record.echo().is_empty(), "somebody served it");
    }
    let after = new.handle.stats();
    assert_eq!(before.rejected + after.rejected, 0);
    assert_eq!(before.calls + after.calls, CALLS as usize);
    assert!(before.calls > 0 && after.calls > 0);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn the_handler_is_not_cancelled_when_the_caller_hangs_up_and_ended_is_last(io: IoBackend) {
    let (told, mut events) = tokio::sync::mpsc::unbounded_channel();
    let server = serve(builder(io), move |mut call: Call| {
        let told = told.clone();
        async move {
            while let Some(event) = call.next().await {
                if let Event::Ended(reason) = event {
                    told.send(Some(reason)).unwrap();
                }
            }
            assert!(call.next().await.is_none());
            tokio::time::sleep(millis(100)).await;
            told.send(None).unwrap();
        }
    })
    .await;
    call(server.caller().hang_up_after(millis(1_000))).await;
    let ended = events.recv().await.unwrap().unwrap();
    assert!(is_callers_end(ended), "{ended}");
    assert_eq!(events.recv().await, Some(None), "it went on to its end");
    server.end().await;
}

/// What comes of a call that presses so many keys, all at once, to a handler that reads none until the end:
/// those that it reads then, and why the call ended.
async fn pressed_and_unread(io: IoBackend, count: usize) -> (String, EndReason) {
    let (told, mut tell) = tokio::sync::mpsc::channel(1);
    let server = serve(builder(io), move |mut call: Call| {
        let told = told.clone();
        async move {
            let mut digits = String::new();
            told.send(digits.clone()).await.unwrap();
            call.closed().await;
            while let Some(event) = call.next().await {
                if let Event::Dtmf(digit) = event {
                    digits.push(digit);
                }
            }
            told.send(digits).await.unwrap();
        }
    })
    .await;
    let mut stream = TcpStream::connect(server.address).unwrap();
    let uuid = [&[0x01, 0, 16][..], &[7; 16]].concat();
    stream.write_all(&uuid).unwrap();
    assert_eq!(tell.recv().await.unwrap(), "", "the handler has it");
    let press = move || {
        let keys = (0..count).flat_map(|n| [0x03, 0, 1, b'0' + (n % 10) as u8]);
        // A server that has hung up does not listen to the rest for ever.
        let _ = stream.write_all(&keys.collect::<Vec<u8>>());
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    };
    tokio::task::spawn_blocking(press).await.unwrap();
    (tell.recv().await.unwrap(), server.end().await[0].reason)
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn no_digit_is_dropped_and_a_flood_of_unread_ones_ends_the_call(io: IoBackend) {
    let all: String = (0..50_000)
        .map(|n| char::from(b'0' + (n % 10) as u8))
        .collect();
    let (digits, reason) = pressed_and_unread(io, 4_096).await;
    assert_eq!(
        (digits.as_str(), reason),
        (&all[..4_096], EndReason::CallerHungUp)
    );
    let (digits, reason) = pressed_and_unread(io, 50_000).await;
    assert_eq!(
        (reason, digits.as_str()),
        (EndReason::Flooded, &all[..digits.len()])
    );
    assert!(
        digits.len() > 4_096 && digits.len() < 50_000,
        "{}",
        digits.len()
    );
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_said_with_advice(io: IoBackend) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = builder(io).bind(address).await.unwrap_err();
    assert!(
        error.to_string().contains("another program listens there"),
        "{error}"
    );
    let sidetone::ServeError::Bind { source, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_queues_and_clears_without_end_can_be_hung_up(io: IoBackend) {
    let server = serve(builder(io), |call: Call| async move {
        let (_reader, writer) = call.split();
        let spin = move || {
            let (mut line, call) = (writer.live(), writer.handle());
            while call.ended().is_none() {
                line.push(&[1; 160]);
                drop(writer.clear());
            }
        };
        tokio::task::spawn_blocking(spin).await.unwrap();
    })
    .await;
    let running = tokio::spawn(call(server.caller().hang_up_after(Duration::from_secs(60))));
    until(|| !server.handle.calls().is_empty()).await;
    tokio::time::sleep(millis(500)).await;
    server.handle.calls()[0].hang_up();
    assert_eq!(running.await.unwrap().ended.cause, EndCause::ServerHungUp);
    assert_eq!(server.end().await[0].reason, EndReason::HungUp);
}
