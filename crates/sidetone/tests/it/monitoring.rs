//! Listening in on what a call's other side hears.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::support::{
    IoBackend, builder, call, id, millis, over_each_back_end, serve, short_call, until,
};
use macro_rules_attribute::apply;
use sidetone::Call;
use sidetone_audio::tone;
use tokio::sync::mpsc;

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_gives_what_was_played_on_the_calls_clock(io: IoBackend) {
    let (sender, mut monitored) = mpsc::unbounded_channel();
    let server = serve(builder(io), move |call: Call| {
        let sender = sender.clone();
        async move {
            let mut monitor = call.handle().monitor().unwrap();
            let mut player = call.player(8000).unwrap();
            player.play(&tone::greeting(8000)).await.unwrap();
            player.drained().await.unwrap();
            drop(call);
            while let Some(frame) = monitor.next().await {
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
    let mut monitor = call.handle().monitor().unwrap();
    let mut offsets = Vec::new();
    while let Some(frame) = monitor.next().await {
        assert!(frame.samples().iter().all(|sample| *sample == 0));
        offsets.push(frame.offset());
    }
    assert!(offsets[0] < millis(20), "{offsets:?}");
    assert!(offsets.len() as u64 >= call.stats().counters.frames_out - 1);
}
