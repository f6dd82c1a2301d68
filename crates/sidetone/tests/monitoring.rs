//! Listening in on what a call's other side hears.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use sidetone::{Call, Server};
use sidetone_audio::tone;
use support::{call, serve};
use tokio::sync::mpsc;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_gives_what_was_played_on_the_calls_clock() {
    let (sender, mut monitored) = mpsc::unbounded_channel();
    let server = serve(Server::builder(), move |call: Call| {
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
        offsets.push(frame.offset);
        samples.extend(frame.samples);
    }
    assert!(offsets.is_sorted());
    let sound =
        |samples: &[i16]| -> Vec<i16> { samples.iter().copied().filter(|it| *it != 0).collect() };
    assert!(!samples.is_empty());
    assert_eq!(sound(&samples), sound(heard.heard_samples()));
}
