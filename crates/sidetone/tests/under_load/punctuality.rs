//! What one call does or suffers makes no other call late. Each test compares the calls beside a disturbed
//! one with the same calls undisturbed.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{Arc, OnceLock, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use crate::support::{
    IoBackend, builder, calls, echo, id, millis, over_each_back_end, runtime, serve,
};
use crate::{alone, beside_others};
use macro_rules_attribute::apply;
use sidetone::{Call, Clip, Event, Handler};
use sidetone_caller::{CallRecord, Caller, EndCause, Spread, Voice, ramp};

const BESIDE: u64 = 8;
const LENGTH: Duration = Duration::from_secs(5);
const DISTURBANCE: Duration = Duration::from_secs(3);
/// What one waits for another is nothing beside the disturbance itself; a busy machine makes this much of a
/// difference between two runs.
const NOTHING: Duration = Duration::from_millis(300);
/// The call that is disturbed.
const DISTURBED: u128 = 1000;

/// Places calls that say something of their own each, and one more, to a server with this handler.
fn run(
    io: IoBackend,
    handler: impl Handler,
    disturbed: impl FnOnce(Caller) -> Option<Caller>,
) -> (Vec<CallRecord>, Option<CallRecord>) {
    let runtime = runtime(4);
    runtime.block_on(async {
        let server = serve(builder(io), handler).await;
        let beside = (0..BESIDE).map(|seed| {
            let start = millis(5 * seed);
            let caller = server.caller().uuid(id(seed.into())).start_after(start);
            caller
                .say(Voice::Ramp(seed))
                .jitter(seed)
                .hang_up_after(LENGTH)
        });
        let mut callers: Vec<Caller> = beside.collect();
        callers.extend(disturbed(
            server
                .caller()
                .uuid(id(DISTURBED))
                .say(Voice::Ramp(99))
                .hang_up_after(LENGTH),
        ));
        let mut beside = calls(callers).await;
        let disturbed = beside.split_off(BESIDE as usize).pop();
        (beside, disturbed)
    })
}

/// The control, once for each back end.
fn undisturbed(io: IoBackend) -> &'static [CallRecord] {
    static EPOLL: OnceLock<Vec<CallRecord>> = OnceLock::new();
    static IO_URING: OnceLock<Vec<CallRecord>> = OnceLock::new();
    let control = match io {
        IoBackend::Epoll => &EPOLL,
        _ => &IO_URING,
    };
    control.get_or_init(|| run(io, echo, |_| None).0)
}

fn delays(records: &[CallRecord]) -> Spread {
    let delays = records.iter().flat_map(CallRecord::echo_delays);
    Spread::of(delays.map(|echo| echo.delay))
}

fn echoed(records: &[CallRecord]) -> Vec<usize> {
    let samples = |record: &CallRecord| record.echo().iter().map(|run| run.length).sum();
    records.iter().map(samples).collect()
}

/// The content of these calls came back as punctually, and as much of it, as in the control run.
fn assert_as_punctual(records: &[CallRecord], control: &[CallRecord]) {
    let (delays, usual) = (delays(records), delays(control));
    let report = format!("{delays:?}, undisturbed {usual:?}");
    assert!(delays.p99 <= usual.p99 + NOTHING, "{report}");
    let least = echoed(control).into_iter().min().unwrap() * 9 / 10;
    for (record, echoed) in records.iter().zip(echoed(records)) {
        assert_eq!(record.ended.cause, EndCause::HungUp);
        assert_eq!(record.counts.in_pieces, 0);
        assert!(echoed >= least, "{echoed} of at least {least}");
    }
}

#[apply(over_each_back_end)]
#[test]
fn a_handler_that_blocks_its_thread_delays_no_other_call(io: IoBackend) {
    let _running = beside_others();
    let control = undisturbed(io);
    let (records, blocked) = run(
        io,
        |call: Call| async {
            if call.id() == id(DISTURBED) {
                std::thread::sleep(DISTURBANCE);
            }
            echo(call).await;
        },
        Some,
    );
    assert_as_punctual(&records, control);
    let blocked = blocked.unwrap();
    assert_eq!(blocked.ended.cause, EndCause::HungUp);
    assert!(!blocked.echo().is_empty(), "it echoes again");
}

#[apply(over_each_back_end)]
#[test]
fn a_handler_that_panics_delays_no_other_call(io: IoBackend) {
    let _running = beside_others();
    let control = undisturbed(io);
    let (records, failed) = run(
        io,
        |mut call: Call| async {
            if call.id() == id(DISTURBED) {
                for _ in 0..20 {
                    call.next().await;
                }
                panic!("as this test wants it");
            }
            echo(call).await;
        },
        Some,
    );
    assert_as_punctual(&records, control);
    assert_eq!(failed.unwrap().ended.cause, EndCause::ServerHungUp);
}

#[apply(over_each_back_end)]
#[test]
fn a_handler_that_does_not_read_delays_no_other_call_and_is_told_what_it_missed(io: IoBackend) {
    let _running = beside_others();
    let control = undisturbed(io);
    let (read, missed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (reads, misses) = (Arc::clone(&read), Arc::clone(&missed));
    let handler = move |mut call: Call| {
        let (reads, misses) = (Arc::clone(&reads), Arc::clone(&misses));
        async move {
            if call.id() != id(DISTURBED) {
                return echo(call).await;
            }
            tokio::time::sleep(DISTURBANCE).await;
            while let Some(event) = call.next().await {
                match event {
                    Event::Audio(_) => reads.fetch_add(1, Ordering::Relaxed),
                    Event::Lagged { frames } => misses.fetch_add(frames, Ordering::Relaxed),
                    _ => 0,
                };
            }
        }
    };
    let (records, deaf) = run(io, handler, Some);
    assert_as_punctual(&records, control);
    let (read, missed) = (read.load(Ordering::Relaxed), missed.load(Ordering::Relaxed));
    assert!(missed > 100, "{missed}");
    assert_eq!(read + missed, deaf.unwrap().counts.frames_sent);
}

#[apply(over_each_back_end)]
#[test]
fn a_peer_that_stops_reading_delays_no_other_call_and_hears_little_that_is_stale(io: IoBackend) {
    let _running = beside_others();
    let control = undisturbed(io);
    let reads_again = millis(500) + DISTURBANCE;
    let (records, deaf) = run(io, echo, |caller| {
        Some(
            caller
                .receive_buffer(1024)
                .stop_reading_between(millis(500), reads_again),
        )
    });
    assert_as_punctual(&records, control);
    let deaf = deaf.unwrap();
    assert_eq!(
        deaf.ended.cause,
        EndCause::HungUp,
        "every message came whole"
    );
    let usual = delays(control).p99;
    let stale = deaf.echo_delays();
    let stale = stale
        .iter()
        .filter(|echo| echo.at >= reads_again && echo.delay > 4 * usual);
    let stale = millis(20) * stale.count() as u32;
    assert!(stale <= millis(300), "{stale:?} of stale audio");
    let last = deaf.echo_delays().pop().unwrap();
    assert!(
        last.at > reads_again + millis(500),
        "it hears again: {last:?}"
    );
}

#[apply(over_each_back_end)]
#[test]
fn a_handler_that_clears_without_end_delays_no_other_call(io: IoBackend) {
    let _alone = alone();
    let control = undisturbed(io);
    let handler = |call: Call| async {
        if call.id() == id(DISTURBED) {
            let clears = call.handle();
            let clear = move || {
                while clears.ended().is_none() {
                    drop(clears.clear());
                }
            };
            let clearing = tokio::task::spawn_blocking(clear);
            call.closed().await;
            clearing.await.unwrap();
        } else {
            echo(call).await;
        }
    };
    let (records, _) = run(io, handler, |caller| {
        Some(caller.hang_up_after(DISTURBANCE))
    });
    assert_as_punctual(&records, control);
}

#[apply(over_each_back_end)]
#[test]
fn a_handler_that_blocks_every_worker_lets_queued_playback_go_on(io: IoBackend) {
    let _running = beside_others();
    let said: Arc<[i16]> = ramp(5, 0, 8_000 * LENGTH.as_secs() as usize).into();
    let lateness = |blocks: bool| {
        let runtime = runtime(2);
        let clip = Clip::from_samples(8_000, &said[..]).unwrap();
        let handler = move |call: Call| {
            let clip = clip.clone();
            async move {
                call.player(8_000).unwrap().play_clip(&clip).await?;
                tokio::time::sleep(millis(500)).await;
                if blocks && call.id() == id(DISTURBED) {
                    // One task on each worker.
                    let block = || tokio::spawn(async { std::thread::sleep(DISTURBANCE) });
                    let (one, other) = (block(), block());
                    let _ = (one.await, other.await);
                }
                call.finish().await;
                Ok::<(), sidetone::PlayError>(())
            }
        };
        let records = runtime.block_on(async {
            let server = serve(builder(io), handler).await;
            let uuids = (0..BESIDE).map(|n| id(DISTURBED + u128::from(n)));
            let callers = uuids.map(|uuid| server.caller().uuid(uuid));
            calls(callers.collect()).await
        });
        for record in &records {
            let runs = record.find(&said);
            assert_eq!(runs.len(), 1, "{runs:?}");
            assert_eq!(runs[0].length, said.len());
        }
        let lateness = records.iter().flat_map(CallRecord::lateness);
        Spread::of(lateness.map(|late| Duration::from_nanos(late.unsigned_abs())))
    };
    let usual = lateness(false);
    let blocked = lateness(true);
    assert!(
        blocked.p99 <= usual.p99 + NOTHING,
        "{blocked:?}, undisturbed {usual:?}"
    );
}
