//! The two-callback style: each call's closure lives and ends with its call, whatever others do.
#![allow(clippy::unwrap_used)]

use std::{
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use crate::support::{IoBackend, builder, over_each_back_end};
use macro_rules_attribute::apply;
use sidetone::{
    Admission, CallError, CallHandle, Clip, EndReason, HandlerError, Server, Sides, Uuid,
    callback::{self, CallInfo, Input, Reply},
};
use sidetone_caller::{Caller, EndCause, Voice, call_all, ramp};

use crate::support::is_callers_end;

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
                    Input::Dtmf(_) => {
                        reply.hang_up();
                        "digit"
                    }
                    Input::Ended(_) => "ended",
                    // On a busy machine audio may even be missing.
                    _ => return,
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
                if let Input::Audio(frame) = input {
                    frames += 1;
                    assert!(!fails || frames < 10, "as this test wants it");
                    reply.send(frame.samples());
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
                if let Input::Audio(frame) = input {
                    reply.send(frame.samples());
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

#[test]
fn admission_refuses_and_gives_data_and_ends_are_reported() {
    const GUEST: u128 = 1;
    let (told, ends) = channel();
    let (greeted, guests) = channel();
    let settings = Server::builder()
        .admit(async |call| match call.id.as_u128() {
            GUEST => Admission::accept_with("a guest"),
            _ => Admission::reject(),
        })
        .on_call_end(move |summary| told.send((summary.id.as_u128(), summary.reason)).unwrap());
    let on_call = move |call: &CallInfo| {
        let (greeted, id) = (greeted.clone(), call.id.as_u128());
        move |input: Input<'_>, reply: &mut Reply| {
            if let Input::Started = input {
                greeted.send((id, *reply.data::<&str>().unwrap())).unwrap();
                reply.finish();
            }
        }
    };
    let server = callback::start(settings, on_call, |_, _| {}, "127.0.0.1:0").unwrap();
    for number in [GUEST, 2] {
        let caller = Caller::new(server.local_addr()).uuid(Uuid::from_u128(number));
        let record = caller.hang_up_after(SOON).call().unwrap();
        assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    }
    let stats = server.handle().stats();
    assert_eq!((stats.calls, stats.rejected), (1, 1));
    drop(server);
    assert_eq!(guests.iter().collect::<Vec<_>>(), [(GUEST, "a guest")]);
    let mut ends: Vec<_> = ends.iter().collect();
    ends.sort_by_key(|(id, _)| *id);
    assert_eq!(
        ends,
        [(GUEST, EndReason::Finished), (2, EndReason::Refused)]
    );
}

#[test]
fn a_shutdown_is_reported_and_waits_for_the_calls() {
    const HOUR: Duration = Duration::from_secs(3600);
    let good_bye = ramp(2, 0, 4_000);
    let clip = Clip::from_samples(8_000, good_bye.clone()).unwrap();
    let (told, tell) = channel();
    let on_call = move |_: &CallInfo| {
        let (told, clip) = (told.clone(), clip.clone());
        move |input: Input<'_>, reply: &mut Reply| match input {
            Input::Started => told.send("started").unwrap(),
            Input::Closing(notice) => {
                assert_eq!(notice.reason, EndReason::Shutdown);
                assert!(notice.remaining > HOUR / 2 && notice.remaining <= HOUR);
                reply.play(&clip);
                reply.finish();
                told.send("closing").unwrap();
            }
            Input::Ended(_) => told.send("ended").unwrap(),
            _ => {}
        }
    };
    let server = callback::start_server(on_call, |_, _| {}, "127.0.0.1:0").unwrap();
    let caller = Caller::new(server.local_addr()).hang_up_after(SOON);
    let calling = std::thread::spawn(|| caller.call().unwrap());
    assert_eq!(tell.recv(), Ok("started"));
    server.handle().shutdown(HOUR);
    server.wait();
    assert_eq!(all(tell), ["closing", "ended"]);
    let record = calling.join().unwrap();
    assert_eq!(record.find(&good_bye)[0].length, good_bye.len());
}

#[test]
fn audio_has_its_place_and_marks_are_reached_in_order() {
    let (told, tell) = channel();
    let on_call = move |_: &CallInfo| {
        let told = told.clone();
        let (mut marks, mut next) = (Vec::new(), None);
        move |input: Input<'_>, reply: &mut Reply| match input {
            Input::Started => {
                for _ in 0..2 {
                    reply.queue(&[1; 1_600]);
                    marks.push(reply.mark());
                }
            }
            Input::Audio(frame) => {
                let place = next.replace(frame.offset() + frame.duration());
                assert!(place.is_none_or(|place| frame.offset() >= place));
            }
            Input::MarkReached(mark) => {
                told.send(marks.iter().position(|one| *one == mark))
                    .unwrap();
                if marks.last() == Some(&mark) {
                    reply.hang_up();
                }
            }
            Input::Ended(_) => assert!(next.is_some(), "some audio came"),
            _ => {}
        }
    };
    let server =
        callback::start_server(on_call, |_, error| panic!("{error}"), "127.0.0.1:0").unwrap();
    let caller = Caller::new(server.local_addr()).say(Voice::Ramp(1));
    let record = caller.hang_up_after(SOON).call().unwrap();
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    drop(server);
    assert_eq!(tell.iter().collect::<Vec<_>>(), [Some(0), Some(1)]);
}

#[test]
fn a_tick_comes_once_for_each_that_was_asked_for() {
    let (told, tell) = channel();
    let on_call = move |_: &CallInfo| {
        let told = told.clone();
        let mut ticks = 0;
        move |input: Input<'_>, reply: &mut Reply| match input {
            Input::Started => {
                // The last one counts.
                reply.tick_after(SOON);
                reply.tick_after(Duration::from_millis(20));
            }
            Input::Tick => {
                ticks += 1;
                told.send("tick").unwrap();
                match ticks {
                    1 => reply.tick_after(Duration::ZERO),
                    2 => {
                        reply.queue(&[1; 8_000]);
                        reply.clear();
                        reply.tick_after(SHORT);
                        reply.cancel_tick();
                    }
                    _ => {}
                }
            }
            // A clear in a tick has its figures, too.
            Input::Cleared(_) => {
                told.send("cleared").unwrap();
                reply.hang_up();
            }
            _ => {}
        }
    };
    let server =
        callback::start_server(on_call, |_, error| panic!("{error}"), "127.0.0.1:0").unwrap();
    // Nothing comes in that could wake a worker.
    let caller = Caller::new(server.local_addr()).say(Voice::Nothing);
    let record = caller.hang_up_after(SOON).call().unwrap();
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    drop(server);
    assert_eq!(all(tell), ["tick", "tick", "cleared"]);
}

#[test]
fn another_thread_speaks_through_a_handle() {
    let said = ramp(5, 0, 4_000);
    let (give, handles) = channel::<CallHandle>();
    let on_call = move |_: &CallInfo| {
        let give = give.clone();
        move |input: Input<'_>, reply: &mut Reply| match input {
            Input::Started => give.send(reply.handle()).unwrap(),
            Input::PlaybackDrained => reply.hang_up(),
            _ => {}
        }
    };
    let server =
        callback::start_server(on_call, |_, error| panic!("{error}"), "127.0.0.1:0").unwrap();
    let speech = said.clone();
    let speaking = std::thread::spawn(move || {
        let handle = handles.recv().unwrap();
        let mut player = handle.player(8_000).unwrap();
        player.try_play(&speech).unwrap();
    });
    let caller = Caller::new(server.local_addr()).hang_up_after(SOON);
    let record = caller.call().unwrap();
    speaking.join().unwrap();
    assert_eq!(record.find(&said)[0].length, said.len());
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
}

#[test]
fn a_callback_that_panics_is_a_failure_for_the_hook() {
    let (told, failures) = channel();
    let (ended, ends) = channel();
    let settings = Server::builder()
        .on_handler_error(move |_, error| told.send(error).unwrap())
        .on_call_end(move |summary| ended.send(summary.reason).unwrap());
    let on_call = |call: &CallInfo| {
        let fails = call.id.as_u128() == 1;
        move |input: Input<'_>, _: &mut Reply| {
            let is_digit = matches!(input, Input::Dtmf(_));
            assert!(!(is_digit && fails), "as this test wants it");
        }
    };
    let server = callback::start(settings, on_call, |_, _| {}, "127.0.0.1:0").unwrap();
    for number in [1, 2] {
        let caller = Caller::new(server.local_addr()).uuid(Uuid::from_u128(number));
        let caller = caller.dtmf("1", Duration::ZERO).hang_up_after(SHORT);
        caller.call().unwrap();
    }
    drop(server);
    let failures: Vec<_> = failures.iter().collect();
    let [HandlerError::Panicked(text)] = &failures[..] else {
        panic!("{failures:?}");
    };
    assert_eq!(text, "as this test wants it");
    let ends: Vec<_> = ends.iter().collect();
    assert_eq!(ends[0], EndReason::HandlerFailed);
    assert!(is_callers_end(ends[1]), "{ends:?}");
}

#[test]
fn a_monitor_made_as_a_call_starts_begins_with_its_uuid() {
    let (give, monitors) = channel();
    // Hooks may use time and I/O of the server's own runtime.
    let settings = Server::builder().admit(async |_| {
        tokio::time::sleep(SHORT).await;
        Admission::accept()
    });
    let on_call = move |_: &CallInfo| {
        let give = give.clone();
        move |input: Input<'_>, reply: &mut Reply| {
            if let Input::Started = input {
                give.send(reply.handle().monitor(Sides::Server).unwrap())
                    .unwrap();
            }
        }
    };
    let server = callback::start(
        settings,
        on_call,
        |_, error| panic!("{error}"),
        "127.0.0.1:0",
    )
    .unwrap();
    let caller = Caller::new(server.local_addr()).hang_up_after(3 * SHORT);
    caller.call().unwrap();
    let mut monitor = monitors.recv().unwrap();
    let (_, first) = crate::support::runtime(1).block_on(monitor.next()).unwrap();
    assert!(first.offset() < Duration::from_millis(20), "{first:?}");
}
