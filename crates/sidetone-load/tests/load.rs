//! Loads against small servers that are correct, or wrong in one way.
#![allow(clippy::unwrap_used)]

use std::{
    env,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc},
    thread,
    time::{Duration, Instant},
};

use macro_rules_attribute::apply;
use sidetone_load::{IoBackend, Load, LoadError, Mode, Phases, Report, clip};

const MESSAGE: usize = 323;

/// Makes a test of an I/O back end two tests, `name::epoll` and `name::io_uring`.
macro_rules! over_each_back_end {
    ($(#[$attribute:meta])* fn $name:ident($io:ident: $Io:ty $(,)?) $body:block) => {
        fn $name($io: $Io) $body

        mod $name {
            use super::IoBackend;

            $(#[$attribute])*
            fn epoll() {
                super::$name(IoBackend::Epoll);
            }

            $(#[$attribute])*
            fn io_uring() {
                super::$name(IoBackend::IoUring);
            }
        }
    };
}

/// Falls back to epoll where io_uring is not available, except in CI, which must have it.
fn to_be_had(io: IoBackend) -> IoBackend {
    match io {
        IoBackend::IoUring if env::var_os("CI").is_none() => IoBackend::Auto,
        named => named,
    }
}

/// Small loads share this while they run; a load that takes the machine, or measures it, has it alone.
static MACHINE: RwLock<()> = RwLock::new(());

fn side_by_side() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Serves each connection on a thread of its own. The threads end with the connections.
fn serve(
    handler: impl Fn(TcpStream, usize) -> io::Result<()> + Clone + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (handler, stream) = (handler.clone(), stream.unwrap());
            stream.set_nodelay(true).unwrap();
            // An error means that the load hung up.
            thread::spawn(move || drop(handler(stream, number)));
        }
    });
    address
}

fn skip_uuid(stream: &mut TcpStream) -> io::Result<()> {
    let mut uuid = [0; 19];
    stream.read_exact(&mut uuid)?;
    assert_eq!(uuid[..3], [1, 0, 16]);
    Ok(())
}

/// An echo that sends back, for the `n`-th message, what `answer` makes of it.
fn echo(answer: impl Fn(usize, &[u8]) -> Vec<u8> + Clone + Send + 'static) -> SocketAddr {
    serve(move |mut stream, _| {
        skip_uuid(&mut stream)?;
        let mut message = [0; MESSAGE];
        for n in 0.. {
            stream.read_exact(&mut message)?;
            stream.write_all(&answer(n, &message))?;
        }
        Ok(())
    })
}

fn load(io: IoBackend, address: SocketAddr, calls: usize, mode: Mode) -> Load {
    Load::new(address, calls, mode)
        .io_backend(to_be_had(io))
        .warm_up_for(Duration::from_millis(100))
        .measure_for(Duration::from_millis(500))
}

fn run(load: &Load) -> Report {
    load.run(|_| {}).unwrap()
}

#[apply(over_each_back_end)]
#[test]
fn an_echo_gives_every_frame_back(io: IoBackend) {
    let _alone = alone();
    let address = echo(|_, message| message.to_vec());
    for (phases, jitter, busy) in [
        (Phases::Spread, 0, false),
        (Phases::Together, 0, true),
        (Phases::Spread, 2_750, false),
    ] {
        let load = load(io, address, 8, Mode::Echo)
            .phases(phases)
            .jitter(Duration::from_micros(jitter));
        let report = run(&if busy { load.busy_poll() } else { load });
        let frames = report.frames;
        assert!(frames.sent >= 8 * 20, "{frames:?}");
        assert_eq!(frames.returned, frames.sent);
        let wrong = [
            frames.lost,
            frames.duplicate,
            frames.corrupt,
            frames.foreign,
        ];
        assert_eq!((wrong, report.ended_early), ([0; 4], 0));
        let trip = report.round_trip_us.unwrap();
        assert!(trip.p50 > 0.0 && trip.p50 <= trip.p99 && trip.p99 <= trip.max);
        assert!(report.load_cpu_us_per_frame.unwrap() > 0.0);
    }
}

#[apply(over_each_back_end)]
#[test]
fn many_calls_share_wake_ups_and_the_report_shows_it(io: IoBackend) {
    let _alone = alone();
    let address = echo(|_, message| message.to_vec());
    for phases in [Phases::Spread, Phases::Together] {
        let report = run(&load(io, address, 200, Mode::Echo).phases(phases));
        let frames = report.frames;
        assert!(frames.sent >= 200 * 20, "{frames:?}");
        assert_eq!((frames.returned, frames.lost), (frames.sent, 0));
        assert_eq!(
            (report.wake_interval_us, report.resolution_us),
            (Some(500.0), Some(500.0))
        );
    }
    let report = run(&load(io, address, 200, Mode::Echo).busy_poll());
    assert_eq!(
        (report.wake_interval_us, report.resolution_us),
        (Some(500.0), None)
    );
    let report = run(&load(io, address, 8, Mode::Echo));
    assert_eq!(
        (report.wake_interval_us, report.resolution_us),
        (None, None)
    );
}

#[apply(over_each_back_end)]
#[test]
fn lost_doubled_and_damaged_frames_are_counted_apart(io: IoBackend) {
    let _others = side_by_side();
    // Of ten frames, one is dropped, one doubled, one damaged and one sent after silence.
    let address = echo(|n, message| match n % 10 {
        1 => vec![],
        3 => message.repeat(2),
        5 => {
            let mut damaged = message.to_vec();
            damaged[100] ^= 1;
            damaged
        }
        7 => {
            let mut silence = vec![0x10, 1, 64];
            silence.resize(MESSAGE, 0);
            silence.extend_from_slice(message);
            silence
        }
        _ => message.to_vec(),
    });
    let frames = run(&load(io, address, 4, Mode::Echo)).frames;
    // A damaged frame is also lost.
    assert!(frames.lost >= 2 * 4 * 2, "{frames:?}");
    assert_eq!(frames.returned + frames.lost, frames.sent);
    assert!(
        frames.duplicate >= 8 && frames.corrupt >= 8 && frames.silence >= 8,
        "{frames:?}"
    );
    assert_eq!((frames.foreign, frames.forbidden), (0, 0));
}

#[apply(over_each_back_end)]
#[test]
fn audio_of_another_call_is_foreign(io: IoBackend) {
    let _others = side_by_side();
    // Two calls that get each other's audio.
    let (left, right) = (TcpListener::bind("127.0.0.1:0").unwrap(), 2);
    let address = left.local_addr().unwrap();
    thread::spawn(move || {
        let calls: Vec<TcpStream> = left.incoming().take(right).map(Result::unwrap).collect();
        let mut ends = calls.iter().zip(calls.iter().rev());
        let (first, second) = (ends.next().unwrap(), ends.next().unwrap());
        let cross = |(from, to): (&TcpStream, &TcpStream)| {
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            thread::spawn(move || {
                let crossed = skip_uuid(&mut from).and_then(|()| io::copy(&mut from, &mut to));
                drop(crossed);
            })
        };
        let (first, second) = (cross(first), cross(second));
        first.join().unwrap();
        second.join().unwrap();
    });
    let frames = run(&load(io, address, 2, Mode::Echo)).frames;
    assert!(frames.foreign >= 40, "{frames:?}");
    assert_eq!((frames.returned, frames.lost), (0, frames.sent));
}

#[apply(over_each_back_end)]
#[test]
fn messages_cut_anywhere_are_put_together(io: IoBackend) {
    let _others = side_by_side();
    let address = serve(|mut stream, _| {
        skip_uuid(&mut stream)?;
        let mut bytes = [0; 100];
        loop {
            let count = stream.read(&mut bytes)?;
            if count == 0 {
                return Ok(());
            }
            stream.write_all(&bytes[..count])?;
        }
    });
    let frames = run(&load(io, address, 3, Mode::Echo)).frames;
    assert!(frames.sent > 0);
    assert_eq!((frames.returned, frames.corrupt), (frames.sent, 0));
}

/// Plays a clip to each caller, a frame every `slot`, without the frames for which `is_sent` is false.
fn player(slot: Duration, is_sent: impl Fn(usize) -> bool + Clone + Send + 'static) -> SocketAddr {
    let samples = clip(200);
    serve(move |mut stream, _| {
        skip_uuid(&mut stream)?;
        let begin = Instant::now();
        for (n, frame) in samples.chunks_exact(160).enumerate() {
            let due = begin + slot * n as u32;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if is_sent(n) {
                let mut message = vec![0x10, 1, 64];
                message.extend(frame.iter().flat_map(|sample| sample.to_le_bytes()));
                stream.write_all(&message)?;
            }
        }
        Ok(())
    })
}

#[apply(over_each_back_end)]
#[test]
fn a_clip_at_a_steady_pace_has_no_underrun(io: IoBackend) {
    let _others = side_by_side();
    let address = player(Duration::from_millis(20), |_| true);
    // Long, so that a stall of the machine adds less drift than a server that plays too slowly.
    let load = load(io, address, 3, Mode::Playout).measure_for(Duration::from_secs(3));
    let report = run(&load);
    let frames = report.frames;
    assert!(frames.returned >= 3 * 20, "{frames:?}");
    let wrong = [
        frames.lost,
        frames.duplicate,
        frames.corrupt,
        frames.unverified,
    ];
    assert_eq!(wrong, [0; 4]);
    let pace = report.pace.unwrap();
    assert!(pace.drift_ppm.abs() < 150_000.0, "{pace:?}");
}

#[apply(over_each_back_end)]
#[test]
fn frames_left_out_of_a_clip_are_lost_and_leave_underruns(io: IoBackend) {
    let _others = side_by_side();
    let address = player(Duration::from_millis(20), |n| n % 5 != 4);
    let report = run(&load(io, address, 3, Mode::Playout));
    assert!(report.frames.lost >= 3 * 3, "{report:?}");
    assert!(report.pace.unwrap().underruns >= 3 * 3, "{report:?}");
}

#[apply(over_each_back_end)]
#[test]
fn a_server_that_plays_too_slowly_drifts(io: IoBackend) {
    let _others = side_by_side();
    let address = player(Duration::from_millis(25), |_| true);
    // Long, so that a stall of the machine hides few of the missing frames.
    let load = load(io, address, 2, Mode::Playout).measure_for(Duration::from_secs(3));
    let pace = run(&load).pace.unwrap();
    assert!(pace.drift_ppm > 150_000.0, "{pace:?}");
    assert!(pace.underruns >= 2 * 3, "{pace:?}");
}

#[apply(over_each_back_end)]
#[test]
fn calls_are_set_up_one_after_another(io: IoBackend) {
    let _others = side_by_side();
    let address = echo(|_, message| message.to_vec());
    let report = run(&load(io, address, 4, Mode::Setup).calls_per_second(200));
    let setup = report.setup.unwrap();
    assert!(setup.placed >= 20, "{setup:?}");
    assert_eq!((setup.answered, setup.failed), (setup.placed, 0));
    assert!(setup.first_frame_us.unwrap().p50 > 0.0);
    assert_eq!(report.frames.corrupt, 0);
}

#[apply(over_each_back_end)]
#[test]
fn a_call_that_gets_no_frame_is_not_answered(io: IoBackend) {
    let _others = side_by_side();
    let address = serve(|mut stream, _| io::copy(&mut stream, &mut io::sink()).map(drop));
    let load = load(io, address, 2, Mode::Setup).measure_for(Duration::from_millis(1300));
    let setup = run(&load).setup.unwrap();
    assert_eq!((setup.placed, setup.answered), (2, 0));
}

#[apply(over_each_back_end)]
#[test]
fn an_idle_load_reports_the_servers_memory_for_each_call(io: IoBackend) {
    let _alone = alone();
    // Much more than what the threads of other tests give back meanwhile, and so much that malloc itself keeps none of it.
    const MEMORY_KIB: usize = 40 * 1024;
    let (freed, all_freed) = mpsc::channel();
    let address = serve(move |mut stream, number| {
        let memory = vec![number as u8 | 1; MEMORY_KIB * 1024];
        let end = io::copy(&mut stream, &mut io::sink());
        assert_ne!(memory[end.unwrap_or(0) as usize], 0);
        drop(memory);
        freed.send(()).unwrap();
        Ok(())
    });
    let load = load(io, address, 2, Mode::Idle).watch_process(std::process::id());
    let server = run(&load).server.unwrap();
    assert!(
        server.rss_kib_per_call > 0.8 * MEMORY_KIB as f64,
        "{server:?}"
    );
    assert_eq!(server.cpu_us_per_frame, None);
    // The next load must not see this one's memory go.
    for _ in 0..2 {
        all_freed.recv_timeout(Duration::from_secs(30)).unwrap();
    }
}

#[apply(over_each_back_end)]
#[test]
fn calls_that_the_server_ends_are_counted(io: IoBackend) {
    let _others = side_by_side();
    let address = serve(|mut stream, number| {
        skip_uuid(&mut stream)?;
        let mut message = [0; MESSAGE];
        for _ in 0..if number == 0 { 12 } else { usize::MAX } {
            stream.read_exact(&mut message)?;
            stream.write_all(&message)?;
        }
        stream.write_all(&[0, 0, 0])
    });
    let report = run(&load(io, address, 3, Mode::Echo));
    assert_eq!(report.ended_early, 1);
    let closing = serve(|mut stream, _| skip_uuid(&mut stream));
    let error = load(io, closing, 3, Mode::Echo).run(|_| {}).unwrap_err();
    assert!(matches!(error, LoadError::NoCalls), "{error}");
}

#[apply(over_each_back_end)]
#[test]
fn an_address_that_nothing_listens_on_is_an_error_at_once(io: IoBackend) {
    let _others = side_by_side();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for mode in [Mode::Echo, Mode::Setup] {
        let error = load(io, address, 2, mode).run(|_| {}).unwrap_err();
        assert!(error.to_string().contains("nothing listens"), "{error}");
    }
}

#[apply(over_each_back_end)]
#[test]
fn progress_is_reported_from_connecting_to_measuring(io: IoBackend) {
    let _others = side_by_side();
    let address = echo(|_, message| message.to_vec());
    let mut reports = vec![];
    load(io, address, 2, Mode::Echo)
        .run(|progress| reports.push(*progress))
        .unwrap();
    assert!(reports.len() >= 2);
    assert_eq!((reports[0].calls, reports[0].measuring), (0, false));
    assert!(
        reports
            .iter()
            .any(|progress| progress.calls == 2 && progress.measuring)
    );
}
