//! The two-callback style: each call's closure lives and ends with its call, whatever others do.
#![allow(clippy::unwrap_used)]

use std::{
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use crate::support::{IoBackend, builder, over_each_back_end};
use macro_rules_attribute::apply;
use sidetone::{
    CallError, Clip, EndReason, Uuid,
    callback::{self, CallInfo, Input, Reply},
};
use sidetone_caller::{Caller, EndCause, Voice, call_all, ramp};

const SOON: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(500);

/// Says when it is dropped.
struct Tells(std::sync::mpsc::Sender<&'static str>, &'static str);

impl Drop for Tells {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

fn all(from: Receiver<&'static str>) -> Vec<&'static str> {
    from.iter().collect()
}

#[apply(over_each_back_end)]
#[test]
fn a_caller_who_says_nothing_is_greeted(io: IoBackend) {
    let said = ramp(4, 0, 4_000);
    let greeting = Clip::from_samples(8_000, said.clone()).unwrap();
    let server = callback::start(
        builder(io),
        move |_: &CallInfo| {
            let greeting = greeting.clone();
            move |input: Input<'_>, reply: &mut Reply| {
                if let Input::Started = input {
                    reply.play(&greeting);
                    reply.finish();
                }
            }
        },
        |_, error| panic!("{error}"),
        "127.0.0.1:0",
    )
    .unwrap();
    let caller = Caller::new(server.local_addr()).say(Voice::Nothing);
    let record = caller.hang_up_after(SOON).call().unwrap();
    assert_eq!(record.find(&said)[0].length, said.len());
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
}

#[apply(over_each_back_end)]
#[test]
fn started_is_told_once_and_before_all_else(io: IoBackend) {
    let (told, tell) = channel();
    let server = callback::start(
        builder(io),
        move |_: &CallInfo| {
            let told = told.clone();
            move |input: Input<'_>, reply: &mut Reply| {
                told.send(match input {
                    Input::Started => "started",
                    Input::Audio(_) => return,
                    Input::Dtmf(_) => {
                        reply.hang_up();
                        "digit"
                    }
                    _ => "ended",
                })
                .unwrap();
            }
        },
        |_, error| panic!("{error}"),
        "127.0.0.1:0",
    )
    .unwrap();
    let caller = Caller::new(server.local_addr()).say(Voice::Ramp(1));
    let caller = caller.dtmf("1", Duration::ZERO).hang_up_after(SOON);
    assert_eq!(caller.call().unwrap().ended.cause, EndCause::ServerHungUp);
    drop(server);
    assert_eq!(all(tell), ["started", "digit", "ended"]);
}

#[apply(over_each_back_end)]
#[test]
fn ended_is_told_once_and_then_the_closure_is_dropped(io: IoBackend) {
    let (told, tell) = channel();
    let server = callback::start(
        builder(io),
        move |_: &CallInfo| {
            let life = Tells(told.clone(), "dropped");
            move |input: Input<'_>, _: &mut Reply| {
                if let Input::Ended(reason) = input {
                    assert_ne!(reason, EndReason::HandlerFailed);
                    life.0.send("ended").unwrap();
                }
            }
        },
        |_, _| {},
        "127.0.0.1:0",
    )
    .unwrap();
    Caller::new(server.local_addr())
        .say(Voice::Ramp(1))
        .hang_up_after(SHORT)
        .call()
        .unwrap();
    assert_eq!(tell.recv_timeout(SOON), Ok("ended"));
    assert_eq!(
        tell.recv_timeout(SOON),
        Ok("dropped"),
        "while the server runs on"
    );
    drop(server);
    assert!(all(tell).is_empty());
}

#[apply(over_each_back_end)]
#[test]
fn a_callback_that_panics_ends_its_call_and_no_other(io: IoBackend) {
    let failing = Uuid::from_u128(1);
    let (told, errors) = channel();
    let server = callback::start(
        builder(io),
        move |call: &CallInfo| {
            let fails = call.id == failing;
            let mut frames = 0;
            move |input: Input<'_>, reply: &mut Reply| {
                if let Input::Audio(samples) = input {
                    frames += 1;
                    assert!(!fails || frames < 10, "as this test wants it");
                    reply.send(samples);
                }
            }
        },
        move |call: &CallInfo, error: &CallError| told.send((call.id, error.to_string())).unwrap(),
        "127.0.0.1:0",
    )
    .unwrap();
    let caller = |n, length| {
        let caller = Caller::new(server.local_addr()).uuid(Uuid::from_u128(n));
        caller.say(Voice::Ramp(n as u64)).hang_up_after(length)
    };
    let records = call_all(vec![caller(1, SOON), caller(2, 8 * SHORT)]);
    let [failed, other] = [0, 1].map(|index: usize| records[index].clone().unwrap());
    assert_eq!(
        (failed.ended.cause, other.ended.cause),
        (EndCause::ServerHungUp, EndCause::HungUp)
    );
    assert!(other.heard.last().unwrap().at > failed.ended.at);
    assert!(!other.echo().is_empty());
    let (id, error) = errors.recv_timeout(SOON).unwrap();
    assert_eq!(id, failing);
    assert!(error.contains("as this test wants it"), "{error}");
    drop(server);
    assert!(errors.recv().is_err(), "it is told once");
}

#[apply(over_each_back_end)]
#[test]
fn a_factory_that_panics_ends_its_call_and_no_other(io: IoBackend) {
    let server = callback::start(
        builder(io),
        |call: &CallInfo| {
            assert!(call.id != Uuid::from_u128(1), "as this test wants it");
            |input: Input<'_>, reply: &mut Reply| {
                if let Input::Audio(samples) = input {
                    reply.send(samples);
                }
            }
        },
        |_, _| {},
        "127.0.0.1:0",
    )
    .unwrap();
    let caller = |n| {
        let caller = Caller::new(server.local_addr()).uuid(Uuid::from_u128(n));
        caller.say(Voice::Ramp(1)).hang_up_after(8 * SHORT)
    };
    let records = call_all(vec![caller(1), caller(2)]);
    assert_eq!(
        records[0].as_ref().unwrap().ended.cause,
        EndCause::ServerHungUp
    );
    assert!(!records[1].as_ref().unwrap().echo().is_empty());
}

#[apply(over_each_back_end)]
#[test]
fn a_clip_is_played_to_its_end_and_then_the_call_is_finished(io: IoBackend) {
    let said = ramp(3, 0, 8_000);
    let clip = Clip::from_samples(8_000, said.clone()).unwrap();
    let server = callback::start(
        builder(io),
        move |_: &CallInfo| {
            let clip = clip.clone();
            move |input: Input<'_>, reply: &mut Reply| match input {
                Input::Dtmf('1') => {
                    reply.play(&clip);
                    reply.finish();
                }
                Input::Dtmf(_) => reply.hang_up(),
                _ => {}
            }
        },
        |_, error| panic!("{error}"),
        "127.0.0.1:0",
    )
    .unwrap();
    let caller = Caller::new(server.local_addr())
        .dtmf("1", SHORT)
        .hang_up_after(SOON);
    let record = caller.call().unwrap();
    assert_eq!(record.find(&said)[0].length, said.len());
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
}

#[apply(over_each_back_end)]
#[test]
fn a_server_that_is_dropped_hangs_up_and_tells_the_end(io: IoBackend) {
    let (told, tell) = channel();
    let server = callback::start(
        builder(io),
        move |_: &CallInfo| {
            let told = told.clone();
            move |input: Input<'_>, _: &mut Reply| match input {
                Input::Started => told.send(None).unwrap(),
                Input::Ended(reason) => told.send(Some(reason)).unwrap(),
                _ => {}
            }
        },
        |_, error| panic!("{error}"),
        "127.0.0.1:0",
    )
    .unwrap();
    let caller = Caller::new(server.local_addr())
        .say(Voice::Ramp(1))
        .hang_up_after(SOON);
    let calling = std::thread::spawn(|| caller.call().unwrap());
    assert_eq!(tell.recv(), Ok(None));
    drop(server);
    assert_eq!(calling.join().unwrap().ended.cause, EndCause::ServerHungUp);
    assert_eq!(tell.recv(), Ok(Some(EndReason::Shutdown)));
    assert!(tell.recv().is_err());
}
