//! One call of each kind, end to end over loopback.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::support::{IoBackend, builder, over_each_back_end};
use macro_rules_attribute::apply;
use sidetone::{Call, Clip, EndedBy, Event, callback};
use sidetone_caller::{CallRecord, Caller, ramp};

async fn echo(mut call: Call) {
    let mut line = call.live();
    while let Some(event) = call.next().await {
        if let Event::Audio(frame) = event {
            line.push(frame.samples());
        }
    }
}

/// Most of what was said came back, bit for bit and in order. Not all: where the machine stands still for
/// longer than the 80 ms that a live line holds, the oldest is dropped.
fn assert_echoed(record: &CallRecord, said: usize) {
    let echoes = record.echo();
    let echoed: usize = echoes.iter().map(|run| run.length).sum();
    assert!(echoed >= said / 2, "{echoes:?}");
    assert!(echoes.is_sorted_by_key(|run| run.source), "{echoes:?}");
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_echo_comes_back(io: IoBackend) {
    let server = builder(io).bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr();
    tokio::spawn(server.serve(echo));
    let record = tokio::task::spawn_blocking(move || {
        let caller = Caller::new(address)
            .say(ramp(1, 0, 16_000))
            .hang_up_after(Duration::from_secs(3));
        caller.call().unwrap()
    })
    .await
    .unwrap();
    assert_echoed(&record, 16_000);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_clip_is_heard_whole_and_then_the_call_ends(io: IoBackend) {
    let said = ramp(7, 0, 8_000);
    let clip = Clip::from_samples(8_000, said.clone()).unwrap();
    let server = builder(io).bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr();
    let handler = move |call: Call| {
        let clip = clip.clone();
        async move {
            let playback = call.player(8_000).unwrap().play_clip(&clip).await.unwrap();
            playback.finished().await;
        }
    };
    tokio::spawn(server.serve(handler));
    let record = tokio::task::spawn_blocking(move || {
        Caller::new(address)
            .hang_up_after(Duration::from_secs(5))
            .call()
            .unwrap()
    })
    .await
    .unwrap();
    let runs = record.find(&said);
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].length, said.len());
}

#[apply(over_each_back_end)]
#[test]
fn callbacks_echo(io: IoBackend) {
    let (tell, ended) = std::sync::mpsc::channel();
    let server = callback::start(
        builder(io),
        move |_| {
            let tell = tell.clone();
            move |input: callback::Input<'_>, reply: &mut callback::Reply| match input {
                callback::Input::Audio(frame) => reply.send(frame.samples()),
                callback::Input::Ended(reason) => tell.send(reason).unwrap(),
                _ => {}
            }
        },
        // A caller who hangs up with audio unread resets the connection.
        |_, _| {},
        "127.0.0.1:0",
    )
    .unwrap();
    let caller = Caller::new(server.local_addr())
        .say(ramp(1, 0, 8_000))
        .hang_up_after(Duration::from_secs(2));
    let record = caller.call().unwrap();
    assert_echoed(&record, 8_000);
    assert_ne!(ended.recv().unwrap().by(), EndedBy::Server);
}
