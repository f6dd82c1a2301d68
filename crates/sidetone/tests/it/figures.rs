//! What a program can see of calls while they run: how late audio leaves, and how far its handler is behind.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use macro_rules_attribute::apply;
use sidetone::{
    Call, LatenessHistogram,
    callback::{self, Input, Reply},
};
use sidetone_caller::{Caller, Voice, ramp};
use tokio::sync::mpsc::unbounded_channel;

use crate::support::{
    IoBackend, builder, call, calls, id, listen, millis, over_each_back_end, serve, until,
};

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn every_frame_that_is_sent_counts_in_the_histogram_of_lateness(io: IoBackend) {
    const CALLS: u128 = 4;
    let server = serve(builder(io).media_threads(2), |call: Call| async move {
        let mut player = call.player(8_000).unwrap();
        player.play(&ramp(1, 0, 8_000)).await.unwrap();
        call.finish().await;
    })
    .await;
    assert_eq!(server.handle.lateness(), LatenessHistogram::default());
    let caller = |number| {
        let caller = server.caller().uuid(id(number));
        caller.hang_up_after(millis(30_000))
    };
    let records = calls((0..CALLS).map(caller).collect()).await;
    let heard: u64 = records
        .iter()
        .map(|record| record.counts.frames_heard)
        .sum();
    let lateness = server.handle.lateness();
    assert!(heard >= 50 * CALLS as u64, "{heard}");
    assert_eq!(lateness.count(), heard, "{lateness:?}");
    let ended = server.end().await;
    let worst = ended.iter().map(|summary| summary.counters.worst_lateness);
    let worst = worst.max().unwrap();
    assert!(
        lateness.sum <= worst * lateness.count() as u32,
        "{lateness:?}"
    );
    // The worst of all calls is in the last bucket that is not empty.
    let last = lateness
        .counts
        .iter()
        .rposition(|count| *count > 0)
        .unwrap();
    let bound = lateness.bounds.get(last).copied();
    assert!(
        worst <= bound.unwrap_or(Duration::MAX),
        "{worst:?}: {lateness:?}"
    );
    let before = last.checked_sub(1).map(|before| lateness.bounds[before]);
    assert!(
        before.is_none_or(|before| worst > before),
        "{worst:?}: {lateness:?}"
    );
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn running_calls_are_in_the_histogram_of_lateness(io: IoBackend) {
    let server = serve(builder(io), listen).await;
    let handle = server.handle.clone();
    let watching = async move {
        until(|| handle.lateness().count() >= 20).await;
        handle.stats().running
    };
    let caller = server.caller().hang_up_after(millis(2_000));
    let (running, _) = tokio::join!(watching, call(caller));
    assert_eq!(running, 1);
    server.end().await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_does_not_read_is_seen_to_be_behind(io: IoBackend) {
    let (told, mut lags) = unbounded_channel();
    let handler = move |mut call: Call| {
        let told = told.clone();
        async move {
            let handle = call.handle();
            let lag = move || handle.stats().handler_lag;
            until(|| lag() >= millis(200)).await;
            // It takes all that waits, and looks at the first event of it.
            call.next().await;
            let taken = lag();
            while call.next().await.is_some() {}
            told.send((taken, lag())).unwrap();
        }
    };
    let server = serve(builder(io), handler).await;
    let caller = server.caller().say(Voice::Ramp(1));
    call(caller.hang_up_after(millis(1_500))).await;
    let (taken, at_last) = lags.recv().await.unwrap();
    // The receive buffer of 250 ms holds the most, and one frame has been read.
    assert!(taken >= millis(150), "{taken:?}");
    assert_eq!(at_last, Duration::ZERO);
    server.end().await;
}

#[apply(over_each_back_end)]
#[test]
fn callbacks_that_have_read_everything_are_not_behind(io: IoBackend) {
    let (told, lags) = std::sync::mpsc::channel();
    let server = callback::start(
        builder(io),
        move |_: &callback::CallInfo| {
            let told = told.clone();
            move |input: Input<'_>, reply: &mut Reply| {
                if let Input::Ended(_) = input {
                    told.send(reply.stats().handler_lag).unwrap();
                }
            }
        },
        |_, error| panic!("{error}"),
        "127.0.0.1:0",
    )
    .unwrap();
    let caller = Caller::new(server.local_addr()).say(Voice::Ramp(1));
    caller.hang_up_after(millis(500)).call().unwrap();
    assert_eq!(lags.recv().unwrap(), Duration::ZERO);
}
