//! Disks that are slow or full, and what that costs a call: nothing.
#![allow(clippy::unwrap_used)]
use std::{
    io::{Seek, SeekFrom, Write},
    net::SocketAddr,
    sync::{
        Arc, Condvar, Mutex as StdMutex, Once,
        atomic::{AtomicBool, Ordering},
    },
};

use sidetone_caller::{CallRecord, Caller, Spread, call_all, exact_runs, ramp};
use tempfile::TempDir;
use tracing::{field::Visit, span};

use super::{file::RecordingFile, *};
use crate::{Call, Event, Server};

/// A file on a disk with something wrong.
struct FaultyFile<W> {
    file: Box<dyn RecordingFile>,
    /// Called before each write of so many bytes.
    before: W,
}

impl<W: FnMut(usize) -> io::Result<()>> Write for FaultyFile<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.before)(bytes.len())?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl<W> Seek for FaultyFile<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// A disk on which each file has room for one second.
fn open_full(path: &Path) -> io::Result<Box<dyn RecordingFile>> {
    let mut room = 32_000;
    Ok(Box::new(FaultyFile {
        file: file::open_new(path)?,
        before: move |bytes| {
            // Every header is written to the same place.
            if bytes != 44 {
                room -= bytes as i64;
            }
            if room < 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        },
    }))
}

/// Whether the disk stands still.
static STALLED: (StdMutex<bool>, Condvar) = (StdMutex::new(true), Condvar::new());

fn open_stalled(path: &Path) -> io::Result<Box<dyn RecordingFile>> {
    Ok(Box::new(FaultyFile {
        file: file::open_new(path)?,
        before: |_| {
            let stalled = STALLED.0.lock().unwrap();
            // A test that fails does not hang.
            let long = Duration::from_secs(60);
            let stalled = STALLED
                .1
                .wait_timeout_while(stalled, long, |stalled| *stalled);
            drop(stalled.unwrap());
            Ok(())
        },
    }))
}

/// Everything that was warned of, one line each.
static WARNINGS: StdMutex<Vec<String>> = StdMutex::new(Vec::new());

struct Warnings;

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "sidetone::record"
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{field}={value:?} ");
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        WARNINGS.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn warnings_about(call: Uuid) -> Vec<String> {
    let warnings = WARNINGS.lock().unwrap();
    let about = warnings
        .iter()
        .filter(|line| line.contains(&call.to_string()));
    about.cloned().collect()
}

fn recorder(open: fn(&Path) -> io::Result<Box<dyn RecordingFile>>) -> (TempDir, Recorder) {
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| tracing::subscriber::set_global_default(Warnings).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let disk = Storage {
        directory: directory.path().to_owned(),
        limit: u32::MAX,
        open,
    };
    let recorder = Recorder::with_disk(disk).unwrap();
    (directory, recorder)
}

/// Calls a server that echoes and, if there is a recorder, records.
fn echoed(
    recorder: Option<Arc<Recorder>>,
    callers: impl FnOnce(SocketAddr) -> Vec<Caller>,
) -> (Vec<CallRecord>, Vec<Recording>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let recordings = Arc::new(StdMutex::new(Vec::new()));
    let kept = Arc::clone(&recordings);
    let handler = move |mut call: Call| {
        if let Some(recorder) = &recorder {
            let recording = recorder.record(&call.handle()).unwrap();
            kept.lock().unwrap().push(recording);
        }
        async move {
            let mut line = call.live();
            while let Some(event) = call.next().await {
                if let Event::Audio(frame) = event {
                    line.push(frame.samples());
                }
            }
        }
    };
    let server = runtime.block_on(Server::builder().bind("127.0.0.1:0"));
    let server = server.unwrap();
    let callers = callers(server.local_addr());
    runtime.spawn(server.serve(handler));
    let records = call_all(callers).into_iter().map(Result::unwrap).collect();
    let recordings = std::mem::take(&mut *recordings.lock().unwrap());
    (records, recordings)
}

/// One caller for each duration, with a voice of its own.
fn callers(seconds: &[u64]) -> impl FnOnce(SocketAddr) -> Vec<Caller> {
    move |address| {
        let caller = |(seed, seconds): (usize, &u64)| {
            Caller::new(address)
                .say(sidetone_caller::Voice::Ramp(seed as u64))
                .uuid(Uuid::from_u128(seed as u128 + 1))
                .hang_up_after(Duration::from_secs(*seconds))
        };
        seconds.iter().enumerate().map(caller).collect()
    }
}

fn left(path: &Path) -> Vec<i16> {
    let reader = hound::WavReader::open(path).unwrap();
    reader
        .into_samples::<i16>()
        .map(Result::unwrap)
        .step_by(2)
        .collect()
}

fn ended(recordings: &[Recording]) -> Vec<(Uuid, Report)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let ended = recordings
        .iter()
        .map(|recording| (recording.call(), runtime.block_on(recording.ended())));
    let mut ended: Vec<_> = ended.collect();
    ended.sort_by_key(|(call, _)| *call);
    ended
}

#[test]
fn a_disk_that_stands_still_costs_no_call_anything() {
    // The last one waits longer than audio is kept.
    let seconds = [3, 3, 3, 3, 8];
    // At the same time, on a server of its own: what else the machine does is the same for both.
    let control = std::thread::spawn(move || echoed(None, callers(&seconds)).0);
    let (_directory, recorder) = recorder(open_stalled);
    let recorder = Arc::new(recorder);
    let (calls, recordings) = echoed(Some(Arc::clone(&recorder)), callers(&seconds));
    let control = control.join().unwrap();
    *STALLED.0.lock().unwrap() = false;
    STALLED.1.notify_all();

    let heard = |calls: &[CallRecord]| -> usize {
        let runs = calls.iter().flat_map(CallRecord::echo);
        runs.map(|run| run.length).sum()
    };
    let delays = |calls: &[CallRecord]| {
        let delays = calls.iter().flat_map(CallRecord::echo_delays);
        Spread::of(delays.map(|echo| echo.delay))
    };
    let (whole, with_recording) = (heard(&control), heard(&calls));
    assert!(
        with_recording * 10 >= whole * 8,
        "{with_recording} samples, without recording {whole}"
    );
    let (punctual, recorded) = (delays(&control), delays(&calls));
    // Who waited for the disk would wait for seconds; a busy machine makes this much of a difference.
    assert!(
        recorded.p99 <= punctual.p99 + Duration::from_millis(300),
        "{recorded:?}, without recording {punctual:?}"
    );

    let ended = ended(&recordings);
    for (seed, (call, report)) in ended.iter().enumerate() {
        let left = left(&report.files[0]);
        let whole = ramp(seed as u64, 0, seconds[seed] as usize * 8_000);
        let runs = exact_runs(&whole, &left);
        if seconds[seed] == 3 {
            assert_eq!(report.lost_frames, 0, "{report:?}");
            let kept: usize = runs.iter().map(|run| run.length).sum();
            assert!(kept > 8_000 * 5 / 2, "{runs:?}");
            assert_eq!(warnings_about(*call), Vec::<String>::new());
        } else {
            assert!(report.lost_frames > 0, "{report:?}");
            let kept: usize = runs.iter().map(|run| run.length).sum();
            assert!((4 * 8_000..6 * 8_000).contains(&kept), "{runs:?}");
            assert_eq!(warnings_about(*call).len(), 1);
        }
        assert!(report.ended && report.failure.is_none());
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_call() {
    let (directory, recorder) = recorder(open_full);
    let uuid = Uuid::from_u128(77);
    let (calls, recordings) = echoed(Some(Arc::new(recorder)), |address| {
        let caller = Caller::new(address)
            .say(sidetone_caller::Voice::Ramp(9))
            .uuid(uuid)
            .hang_up_after(Duration::from_secs(4));
        vec![caller]
    });
    let echo: usize = calls[0].echo().iter().map(|run| run.length).sum();
    assert!(echo > 2 * 8_000, "{echo}");
    let ended = ended(&recordings);
    let (_, report) = &ended[0];
    assert!(report.failure.is_some() && report.ended, "{report:?}");
    assert!(report.duration <= Duration::from_secs(1), "{report:?}");
    let name = report.files[0].file_name().unwrap().to_str().unwrap();
    assert!(name.ends_with(".wav.part"), "{name}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    let runs = exact_runs(&ramp(9, 0, 4 * 8_000), &left(&report.files[0]));
    assert!(!runs.is_empty());
    let warnings = warnings_about(uuid);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("disk"), "{warnings:?}");
}

/// A disk on which it takes long to make a file.
fn open_late(path: &Path) -> io::Result<Box<dyn RecordingFile>> {
    std::thread::sleep(Duration::from_millis(20));
    file::open_new(path)
}

#[test]
fn a_burst_of_new_recordings_costs_those_that_are_open_nothing() {
    let (_directory, recorder) = recorder(open_late);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (running_call, burst) = runtime.block_on(async {
        let mut server = Server::builder().bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr();
        let place = |seconds| {
            let [caller] = callers(&[seconds])(address).try_into().unwrap();
            tokio::task::spawn_blocking(move || Caller::call(caller).unwrap())
        };
        let short = place(0);
        let over = server.accept().await.unwrap();
        over.handle().closed().await;
        short.await.unwrap();
        let running = place(7);
        let mut running_call = server.accept().await.unwrap();
        let recording = recorder.record(&running_call.handle()).unwrap();
        while recording.report().files.is_empty() {
            assert!(running_call.next().await.is_some());
        }
        // On this disk they take 6 s together, and a call loses what nobody fetches for 5.
        let burst = (0..300).map(|_| recorder.record(&over.handle()).unwrap());
        let burst: Vec<_> = burst.collect();
        while running_call.next().await.is_some() {}
        running.await.unwrap();
        (recording, burst)
    });
    let (_, report) = ended(&[running_call]).remove(0);
    assert_eq!((report.lost_frames, report.failure), (0, None));
    for (_, report) in ended(&burst) {
        assert_eq!((report.files.len(), report.failure), (1, None));
    }
}

/// Nothing can be written while somebody has this.
static HELD: StdMutex<()> = StdMutex::new(());

/// Somebody waits for that.
static WAITED_FOR: AtomicBool = AtomicBool::new(false);

fn open_held(path: &Path) -> io::Result<Box<dyn RecordingFile>> {
    WAITED_FOR.store(true, Ordering::Release);
    drop(HELD.lock());
    file::open_new(path)
}

#[test]
fn recordings_that_wait_for_a_disk_that_stands_still_are_bounded() {
    // So few of each that it soon has a name for its file.
    const CALLS: usize = 64;
    let (_directory, recorder) = recorder(open_held);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut server = runtime
        .block_on(Server::builder().bind("127.0.0.1:0"))
        .unwrap();
    let stop = sidetone_caller::Stop::new().unwrap();
    let calling: Vec<_> = callers(&[60; CALLS])(server.local_addr())
        .into_iter()
        .map(|caller| {
            let stopping = stop.clone();
            std::thread::spawn(move || caller.call_until(&stopping))
        })
        .collect();
    let calls = (0..CALLS).map(|_| runtime.block_on(server.accept()).unwrap());
    let calls: Vec<_> = calls.collect();

    let held = HELD.lock().unwrap();
    let first = recorder.record(&calls[0].handle()).unwrap();
    while !WAITED_FOR.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    // Each ends the one of its call before it.
    let more = |number: usize| recorder.record(&calls[number % CALLS].handle());
    let waiting: Vec<_> = (0..MAX_QUEUED).map(|it| more(it).unwrap()).collect();
    let refused = more(MAX_QUEUED).unwrap_err();
    assert!(matches!(refused, RecordError::DiskStalled), "{refused}");
    drop(held);

    // Those that waited are begun, and there is room again.
    let (over, running) = waiting.split_at(MAX_QUEUED - CALLS);
    for recording in std::iter::once(&first).chain(over) {
        runtime.block_on(recording.ended());
    }
    let last = more(MAX_QUEUED).unwrap();
    stop.stop();
    for call in calling {
        call.join().unwrap().unwrap();
    }
    for recording in running {
        runtime.block_on(recording.ended());
    }
    let report = runtime.block_on(last.ended());
    assert_eq!(report.failure, None);
}

/// No file can be opened while somebody has this.
static CLOSED: StdMutex<()> = StdMutex::new(());

fn open_late_enough(path: &Path) -> io::Result<Box<dyn RecordingFile>> {
    drop(CLOSED.lock());
    file::open_new(path)
}

#[test]
fn a_pause_holds_also_for_what_waits_for_the_disk_all_the_time() {
    let (_directory, recorder) = recorder(open_late_enough);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let closed = CLOSED.lock().unwrap();
    let (recording, parts) = runtime.block_on(async {
        let mut server = Server::builder().bind("127.0.0.1:0").await.unwrap();
        let [caller] = callers(&[60])(server.local_addr()).try_into().unwrap();
        let calling = tokio::task::spawn_blocking(move || Caller::call(caller).unwrap());
        let mut call = server.accept().await.unwrap();
        let recording = recorder.record(&call.handle()).unwrap();
        let mut parts = Vec::new();
        for part in 0..3 {
            match part {
                1 => recording.pause(),
                2 => recording.resume(),
                _ => {}
            }
            let begun = call.stats().duration;
            let mut frames = Vec::new();
            while frames.len() < 20 {
                let Some(Event::Audio(frame)) = call.next().await else {
                    continue;
                };
                // What came before the change is of neither part.
                if frame.arrived() > begun {
                    frames.push(frame.samples().to_vec());
                }
            }
            parts.push(frames);
        }
        call.hang_up();
        calling.await.unwrap();
        (recording, parts)
    });
    drop(closed);
    let (_, report) = ended(&[recording]).remove(0);
    assert_eq!((report.lost_frames, &report.failure), (0, &None));
    assert!(report.paused >= Duration::from_millis(380), "{report:?}");
    let left = left(&report.files[0]);
    let kept = |frames: &[Vec<i16>]| {
        let kept = |frame: &&Vec<i16>| !exact_runs(frame, &left).is_empty();
        frames.iter().filter(kept).count()
    };
    // The last frame before a change may be of both parts.
    assert!(kept(&parts[0]) >= 19 && kept(&parts[2]) >= 15, "{report:?}");
    assert_eq!(kept(&parts[1]), 0);
}
