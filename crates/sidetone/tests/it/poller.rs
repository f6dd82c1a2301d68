//! Callbacks that run where the program polls, on payloads as they come, with answers whose bursts are kept.
#![allow(clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::Duration,
};

use crate::support::{IoBackend, builder, over_each_back_end};
use macro_rules_attribute::apply;
use sidetone::{
    Codec, EndReason, ServerBuilder,
    callback::{self, CallInfo, Input, Poller, Reply},
};
use sidetone_caller::{Caller, EndCause, Mode, Voice, call_all};

const SHORT: Duration = Duration::from_millis(600);
const SOON: Duration = Duration::from_secs(20);

/// A server that is polled when it says so.
fn poller<H>(
    settings: ServerBuilder,
    on_call: impl Fn(&CallInfo) -> H + Send + Sync + 'static,
) -> (Poller, Receiver<()>)
where
    H: FnMut(Input<'_>, &mut Reply) + Send + 'static,
{
    let (notify, notified) = sync_channel(1);
    let tell = move || {
        let _ = notify.try_send(());
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let poller = callback::poller(settings, on_call, |_, _| {}, listener, tell).unwrap();
    (poller, notified)
}

/// Polls until the server has ended.
fn run(poller: &mut Poller, notified: &Receiver<()>) {
    while !poller.has_ended() {
        notified.recv_timeout(SOON).unwrap();
        poller.poll();
    }
}

fn message(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], payload].concat()
}

#[apply(over_each_back_end)]
#[test]
fn callbacks_run_on_the_thread_that_polls(io: IoBackend) {
    let threads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&threads);
    let (mut poller, notified) = poller(builder(io), move |_: &CallInfo| {
        let seen = Arc::clone(&seen);
        move |input: Input<'_>, reply: &mut Reply| match input {
            Input::Audio(frame) => reply.send(frame.samples()),
            Input::Ended(_) => seen.lock().unwrap().push(thread::current().id()),
            _ => {}
        }
    });
    let address = poller.local_addr();
    let handle = poller.handle();
    let calling = thread::spawn(move || {
        let caller = |seed| {
            Caller::new(address)
                .say(Voice::Ramp(seed))
                .hang_up_after(SHORT)
        };
        let records = call_all((1..=5).map(caller).collect());
        handle.shutdown(SOON);
        records
    });
    run(&mut poller, &notified);
    for record in calling.join().unwrap() {
        assert!(
            record
                .unwrap()
                .echo()
                .iter()
                .map(|run| run.length)
                .sum::<usize>()
                > 2_400
        );
    }
    assert_eq!(*threads.lock().unwrap(), [thread::current().id(); 5]);
}

#[apply(over_each_back_end)]
#[test]
fn a_poller_that_is_dropped_hangs_up_and_calls_nobody(io: IoBackend) {
    let (mut poller, notified) = poller(builder(io), |_: &CallInfo| {
        |input: Input<'_>, _: &mut Reply| assert!(!matches!(input, Input::Ended(_)))
    });
    let caller = Caller::new(poller.local_addr()).say(Voice::Ramp(1));
    let calling = thread::spawn(|| caller.hang_up_after(SOON).call().unwrap());
    notified.recv_timeout(SOON).unwrap();
    poller.poll();
    drop(poller);
    assert_eq!(calling.join().unwrap().ended.cause, EndCause::ServerHungUp);
}

#[apply(over_each_back_end)]
#[test]
fn a_tick_is_due_when_poll_says_so(io: IoBackend) {
    let (mut poller, notified) = poller(builder(io), |_: &CallInfo| {
        |input: Input<'_>, reply: &mut Reply| match input {
            Input::Started => reply.tick_after(SHORT),
            Input::Tick => reply.hang_up(),
            _ => {}
        }
    });
    let caller = Caller::new(poller.local_addr()).say(Voice::Nothing);
    let handle = poller.handle();
    let calling = thread::spawn(move || {
        let record = caller.hang_up_after(SOON).call().unwrap();
        handle.shutdown(SOON);
        record
    });
    let mut next_tick = None;
    while !poller.has_ended() {
        // Whether it was notified or it is time.
        let _ = notified.recv_timeout(next_tick.unwrap_or(SOON));
        next_tick = poller.poll();
        assert!(next_tick.is_none_or(|delay| delay <= SHORT));
    }
    let ended = calling.join().unwrap().ended;
    assert_eq!(ended.cause, EndCause::ServerHungUp);
    assert!(ended.at >= SHORT, "{ended:?}");
}

#[apply(over_each_back_end)]
#[test]
fn raw_payloads_come_as_they_were_sent(io: IoBackend) {
    let payloads: Vec<Vec<u8>> = [1, 2, 3, 160, 161, 320, 33, 65_535, 7]
        .iter()
        .map(|&length| (0..length).map(|at| (at % 251 + 1) as u8).collect())
        .collect();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    let settings = builder(io).codec(Codec::Raw).receive_buffer(SOON);
    let (mut poller, notified) = poller(settings, move |_: &CallInfo| {
        let hearing = Arc::clone(&hearing);
        move |input: Input<'_>, _: &mut Reply| {
            if let Input::Audio(frame) = input {
                let mut payload = vec![0; frame.payload_len()];
                frame.write_payload(&mut payload);
                hearing.lock().unwrap().push(payload);
            }
        }
    });
    let mut stream = TcpStream::connect(poller.local_addr()).unwrap();
    stream.write_all(&message(1, &[7; 16])).unwrap();
    for (number, payload) in payloads.iter().enumerate() {
        // Also of kinds that name a rate.
        let kind = if number == 4 { 0x12 } else { 0x10 };
        stream.write_all(&message(kind, payload)).unwrap();
    }
    stream.write_all(&message(0, &[])).unwrap();
    let handle = poller.handle();
    let reading = thread::spawn(move || {
        let _ = stream.read_to_end(&mut Vec::new());
        handle.shutdown(SOON);
    });
    run(&mut poller, &notified);
    reading.join().unwrap();
    assert!(*heard.lock().unwrap() == payloads);
}

#[apply(over_each_back_end)]
#[test]
fn raw_mu_law_is_not_decoded_and_no_gap_is_seen_in_it(io: IoBackend) {
    let heard = Arc::new(Mutex::new((Vec::new(), None)));
    let hearing = Arc::clone(&heard);
    let settings = builder(io).codec(Codec::Raw);
    let (mut poller, notified) = poller(settings, move |_: &CallInfo| {
        let hearing = Arc::clone(&hearing);
        move |input: Input<'_>, reply: &mut Reply| {
            let mut hearing = hearing.lock().unwrap();
            match input {
                Input::Audio(frame) => hearing.0.push(frame.payload_len()),
                Input::Ended(_) => hearing.1 = Some(reply.stats()),
                _ => {}
            }
        }
    });
    let caller = Caller::new(poller.local_addr())
        .mode(Mode::Channel)
        .codec(sidetone_caller::Codec::Ulaw)
        .say(Voice::Ramp(1))
        .hang_up_after(2 * SHORT);
    let handle = poller.handle();
    let calling = thread::spawn(move || {
        caller.call().unwrap();
        handle.shutdown(SOON);
    });
    run(&mut poller, &notified);
    calling.join().unwrap();
    let (lengths, stats) = &*heard.lock().unwrap();
    assert!(lengths.len() > 50 && lengths.iter().all(|length| *length == 160));
    let stats = stats.unwrap();
    assert_eq!((stats.codec, stats.counters.gaps), (Codec::Raw, 0));
}

#[apply(over_each_back_end)]
#[test]
fn what_is_pushed_at_once_is_heard_whole_and_then_the_call_finishes(io: IoBackend) {
    let sound = sidetone_caller::ramp(9, 0, 16_000);
    let said = sound.clone();
    let (mut poller, notified) = poller(builder(io), move |_: &CallInfo| {
        let said = said.clone();
        move |input: Input<'_>, reply: &mut Reply| match input {
            Input::Started => {
                let mut line = reply.handle().live();
                line.keep_bursts();
                // In more pieces than commands are queued at once.
                said.chunks(100).for_each(|piece| line.push(piece));
                reply.finish();
            }
            Input::Ended(reason) => assert_eq!(reason, EndReason::Finished),
            _ => {}
        }
    });
    let caller = Caller::new(poller.local_addr()).say(Voice::Ramp(1));
    let handle = poller.handle();
    let calling = thread::spawn(move || {
        let record = caller.hang_up_after(SOON).call().unwrap();
        handle.shutdown(SOON);
        record
    });
    run(&mut poller, &notified);
    let record = calling.join().unwrap();
    assert_eq!(record.find(&sound)[0].length, sound.len());
}
