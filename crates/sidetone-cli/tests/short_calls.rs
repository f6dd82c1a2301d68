//! A hundred thousand very short calls beside long ones: the binary reports each once, and records all audio. The client's
//! own log is the reference. This is a test binary of its own, as it takes the whole machine.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    runtime::{Builder, Runtime},
    task::JoinSet,
    time::{MissedTickBehavior, interval_at, sleep},
};
use uuid::Uuid;

/// Calls that end 0 to 20 ms after their UUID, and how many of them are placed between two measurements of the server.
const SHORT: u64 = 100_000;
const BATCH: u64 = 20_000;

/// The most short calls at a time, and the most whose recordings are not complete: the disk limits the rate.
const CONCURRENT: u64 = 48;
const MAX_UNRECORDED: u64 = 1_000;

/// Long calls, and how many of them send their frames at the same moment.
const LONG: u64 = 300;
const GROUP: u64 = 15;

/// Longer than the server takes to report what has happened.
const TIMEOUT: Duration = Duration::from_secs(60);

const SLOT: Duration = Duration::from_millis(20);

/// What the client sent in one of its calls.
struct SentCall {
    id: Uuid,
    frames: u64,
    /// The audio messages that it received, if it read to the end.
    received: Option<u64>,
}

/// What the server reported of one call.
#[derive(Default)]
struct ReportedCall {
    started: u64,
    ended: u64,
    recorded: u64,
    frames_in: u64,
    frames_out: u64,
    /// The recording of a long call.
    file: Option<PathBuf>,
}

/// All that the server has reported.
#[derive(Default)]
struct Log {
    calls: Mutex<HashMap<Uuid, ReportedCall>>,
    other: Mutex<Vec<Value>>,
    ended: AtomicU64,
    recorded: AtomicU64,
}

/// The server's process.
struct Server {
    child: Child,
    address: SocketAddr,
    log: Arc<Log>,
    reading: Option<thread::JoinHandle<()>>,
}

/// The resources that a process has used.
#[derive(Debug)]
struct Usage {
    /// Without the time in the kernel, as creating a file takes longer the more files the directory has had.
    cpu_ticks: u64,
    rss_kib: u64,
    descriptors: usize,
}

#[test]
fn a_hundred_thousand_short_calls_are_each_reported_and_recorded_once() {
    let directory = directory();
    let server = Server::start(directory.path());
    let over = Arc::new(AtomicBool::new(false));
    let (address, ending) = (server.address, Arc::clone(&over));
    // On a thread of its own, so that they send their frames in time.
    let talking = thread::spawn(move || runtime().block_on(talk_all(address, ending)));
    let mut sent = runtime().block_on(place_all_short(&server));
    over.store(true, Ordering::Release);
    sent.extend(talking.join().unwrap());
    let log = server.stop();

    let mut reported = log.calls.lock().unwrap();
    assert_eq!(reported.len() as u64, SHORT + LONG);
    for sent in sent.drain(..) {
        let reported = reported.remove(&sent.id).unwrap();
        assert_eq!(
            (reported.started, reported.ended, reported.recorded),
            (1, 1, 1)
        );
        assert_eq!(reported.frames_in, sent.frames, "{}", sent.id);
        if let Some(received) = sent.received {
            assert_eq!(reported.frames_out, received, "{}", sent.id);
        }
        if let Some(file) = reported.file {
            let frames = frames_in(&file);
            let mut numbers = (1..).zip(&frames);
            let wrong = numbers.find(|(number, frame)| number != *frame);
            assert_eq!(
                (wrong, frames.len() as u64),
                (None, sent.frames),
                "{}",
                sent.id
            );
        }
    }
    assert!(reported.is_empty());
    let other: Vec<_> = log.other.lock().unwrap().drain(..).collect();
    let names: Vec<_> = other.iter().map(|event| event["event"].as_str()).collect();
    assert_eq!(
        names,
        [Some("shutting_down"), Some("stopped")],
        "{other:#?}"
    );
}

/// In memory, if there is enough: creating a hundred thousand files takes a disk longer than the calls take.
fn directory() -> TempDir {
    const MEMORY: &str = "/dev/shm";
    const NEEDED: u64 = 4 << 30;
    let free = rustix::fs::statvfs(MEMORY).map_or(0, |memory| memory.f_bavail * memory.f_frsize);
    if free < NEEDED {
        return tempfile::tempdir().unwrap();
    }
    tempfile::tempdir_in(MEMORY).unwrap()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Places all short calls once the long ones are running, and measures the server.
async fn place_all_short(server: &Server) -> Vec<SentCall> {
    until(|| server.log.calls.lock().unwrap().len() as u64 == LONG).await;

    let mut sent = Vec::new();
    let mut samples = Vec::new();
    for from in (0..SHORT).step_by(BATCH as usize) {
        let before = server.usage();
        let began = Instant::now();
        sent.extend(place_short(server, from, from + BATCH).await);
        let count = from + BATCH;
        until(|| server.log.ended.load(Ordering::Acquire) == count).await;
        until(|| server.log.recorded.load(Ordering::Acquire) == count).await;
        let after = server.usage();
        let cpu = after.cpu_ticks - before.cpu_ticks;
        println!("{count} in {:?}: {cpu} ticks, {after:?}", began.elapsed());
        samples.push((cpu, after));
    }
    // The first batch warms up. The lower of two measurements leaves out what other processes, or the allocator, add for a
    // while.
    let least = |samples: &[(u64, Usage)]| {
        let cpu = samples.iter().map(|(cpu, _)| *cpu).min().unwrap();
        let rss_kib = samples
            .iter()
            .map(|(_, usage)| usage.rss_kib)
            .min()
            .unwrap();
        (cpu, rss_kib)
    };
    let (before, after) = (least(&samples[1..3]), least(&samples[samples.len() - 2..]));
    assert!(2 * after.0 < 3 * before.0, "{samples:#?}");
    assert!(after.1 < before.1 + 6_000, "{samples:#?}");
    let descriptors = samples
        .iter()
        .map(|(_, usage)| usage.descriptors)
        .min()
        .unwrap();
    assert!(descriptors >= 2 * LONG as usize, "{samples:#?}");
    until(|| server.usage().descriptors <= descriptors).await;
    sent
}

/// Places these short calls.
async fn place_short(server: &Server, from: u64, to: u64) -> Vec<SentCall> {
    let next = Arc::new(AtomicU64::new(from));
    let mut callers = JoinSet::new();
    for _ in 0..CONCURRENT {
        let (next, log, address) = (Arc::clone(&next), Arc::clone(&server.log), server.address);
        callers.spawn(async move {
            let mut sent = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= to {
                    return sent;
                }
                until(|| number < log.recorded.load(Ordering::Acquire) + MAX_UNRECORDED).await;
                sent.push(short_call(address, number).await);
            }
        });
    }
    callers.join_all().await.into_iter().flatten().collect()
}

/// Sends its UUID and up to three frames in one write, and ends in one of the ways in which calls end.
async fn short_call(address: SocketAddr, number: u64) -> SentCall {
    let chance = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let (frames, lasting, way) = (chance % 4, chance / 4 % 21, chance / 84 % 8);
    let id = Uuid::from_u128(u128::from(number) << 8 | u128::from(frames) << 1);
    let mut stream = connect(address, number).await;
    let mut message = identity(id);
    (1..=frames).for_each(|value| push_frame(value, &mut message));
    stream.write_all(&message).await.unwrap();
    if lasting > 0 {
        sleep(Duration::from_millis(lasting)).await;
    }
    let mut received = None;
    // One in eight closes with unread audio, which resets the connection.
    if way > 0 {
        if way == 1 {
            stream.write_all(&[0, 0, 0]).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        received = Some(audio_messages(&rest));
    }
    SentCall {
        id,
        frames,
        received,
    }
}

/// Places the long calls, which last until `over`.
async fn talk_all(address: SocketAddr, over: Arc<AtomicBool>) -> Vec<SentCall> {
    let mut groups = JoinSet::new();
    for group in 0..LONG / GROUP {
        groups.spawn(talk(address, group, Arc::clone(&over)));
    }
    groups.join_all().await.into_iter().flatten().collect()
}

/// Places a group of long calls, which send their frames at the same moment.
async fn talk(address: SocketAddr, group: u64, over: Arc<AtomicBool>) -> Vec<SentCall> {
    let mut calls = Vec::new();
    for number in group * GROUP..(group + 1) * GROUP {
        let mut stream = connect(address, number).await;
        let id = Uuid::from_u128(u128::from(number) << 8 | 1);
        stream.write_all(&identity(id)).await.unwrap();
        calls.push((id, stream, Vec::new()));
    }
    let first = tokio::time::Instant::now() + Duration::from_millis(group);
    let mut slots = interval_at(first, SLOT);
    slots.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut frames = 0;
    while !over.load(Ordering::Acquire) {
        slots.tick().await;
        frames += 1;
        let mut message = Vec::new();
        push_frame(frames, &mut message);
        for (_, stream, received) in &mut calls {
            stream.write_all(&message).await.unwrap();
            while stream.try_read_buf(received).is_ok_and(|count| count > 0) {}
        }
    }
    let mut sent = Vec::new();
    for (id, mut stream, mut received) in calls {
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut received).await.unwrap();
        let received = Some(audio_messages(&received));
        sent.push(SentCall {
            id,
            frames,
            received,
        });
    }
    sent
}

/// Connects from one of many addresses, as one address does not have enough ports for a minute of calls.
async fn connect(address: SocketAddr, number: u64) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let source = [127, 0, 1, (number % 64) as u8];
    socket.bind((source, 0).into()).unwrap();
    let stream = socket.connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn identity(id: Uuid) -> Vec<u8> {
    [&[0x01, 0, 16][..], id.as_bytes()].concat()
}

/// A recording may leave out samples below this when a side is late.
const QUIET: u64 = 64;

/// A frame of 20 ms whose samples all contain its number.
fn push_frame(number: u64, message: &mut Vec<u8>) {
    message.extend([0x10, 1, 64]);
    message.extend(((QUIET + number) as u16).to_le_bytes().repeat(160));
}

fn audio_messages(mut received: &[u8]) -> u64 {
    let mut count = 0;
    while let [kind, high, low, rest @ ..] = received {
        count += u64::from(*kind == 0x10);
        received = &rest[usize::from(u16::from_be_bytes([*high, *low]))..];
    }
    count
}

/// The numbers of the frames on the caller's side of a recording, in order.
fn frames_in(file: &Path) -> Vec<u64> {
    let mut wav = hound::WavReader::open(file).unwrap();
    let samples = wav.samples::<i16>().map(Result::unwrap).step_by(2);
    let mut values: Vec<_> = samples
        .filter(|value| *value != 0)
        .map(|value| u64::from(value as u16) - QUIET)
        .collect();
    values.dedup();
    values
}

/// Waits until a condition is true.
#[track_caller]
fn until(is_so: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let began = Instant::now();
        while !is_so() {
            assert!(
                began.elapsed() < TIMEOUT,
                "{caller}: the condition never became true"
            );
            sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Server {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("sidetone"))
            .args(["record", "--listen", "127.0.0.1:0"])
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        let listening: Value = serde_json::from_str(&first).unwrap();
        let address = listening["address"].as_str().unwrap().parse().unwrap();
        let log = Arc::<Log>::default();
        let reading = Arc::clone(&log);
        Self {
            child,
            address,
            log,
            reading: Some(thread::spawn(move || reading.read(lines))),
        }
    }

    fn usage(&self) -> Usage {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let stat = fs::read_to_string(process.join("stat")).unwrap();
        let (_, stat) = stat.rsplit_once(')').unwrap();
        let ticks = stat.split_whitespace().nth(11).unwrap();
        let status = fs::read_to_string(process.join("status")).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Usage {
            cpu_ticks: ticks.parse().unwrap(),
            rss_kib: rss.unwrap().trim_end_matches("kB").trim().parse().unwrap(),
            descriptors: fs::read_dir(process.join("fd")).unwrap().count(),
        }
    }

    /// Ends it as its operator would.
    fn stop(mut self) -> Arc<Log> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0));
        self.reading.take().unwrap().join().unwrap();
        Arc::clone(&self.log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It usually has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Log {
    fn read(&self, lines: BufReader<ChildStdout>) {
        for line in lines.lines() {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if !self.take(&event) {
                self.other.lock().unwrap().push(event);
            }
        }
    }

    /// Adds an event that belongs to every call. Returns false for other events.
    fn take(&self, event: &Value) -> bool {
        let Some(id) = event["id"].as_str().map(|id| id.parse::<Uuid>().unwrap()) else {
            return false;
        };
        let mut calls = self.calls.lock().unwrap();
        let reported = calls.entry(id).or_default();
        match event["event"].as_str().unwrap() {
            "call_started" => reported.started += 1,
            "call_ended" => {
                assert_eq!(reported.started, 1, "{event}");
                reported.ended += 1;
                reported.frames_in = event["frames_in"].as_u64().unwrap();
                reported.frames_out = event["frames_out"].as_u64().unwrap();
                self.ended.fetch_add(1, Ordering::Release);
            }
            "recorded" => {
                assert_eq!(reported.started, 1, "{event}");
                reported.recorded += 1;
                reported.file = check_recording(id, event);
                self.recorded.fetch_add(1, Ordering::Release);
            }
            // After a reset, and on a machine so busy that a handler is late.
            "error" | "lagged" => {}
            _ => return false,
        }
        true
    }
}

/// Checks that the recording of a short call has all that it sent, from the first sample on, and removes it. Returns the
/// recording of a long call.
fn check_recording(id: Uuid, event: &Value) -> Option<PathBuf> {
    assert!(event["failure"].is_null(), "{event}");
    assert_eq!(event["lost_frames"], 0, "{event}");
    assert_eq!(event["files"].as_array().unwrap().len(), 1, "{event}");
    let file = PathBuf::from(event["files"][0].as_str().unwrap());
    if id.as_u128() & 1 == 1 {
        return Some(file);
    }
    let frames = (id.as_u128() >> 1 & 0x7f) as usize;
    let mut wav = hound::WavReader::open(&file).unwrap();
    let left: Vec<i16> = wav.samples().map(Result::unwrap).step_by(2).collect();
    let sent = (1..=frames as i16).flat_map(|number| [QUIET as i16 + number; 160]);
    let sent: Vec<i16> = sent.collect();
    assert!(left.starts_with(&sent), "{event}: {left:?}");
    assert!(left[sent.len()..].iter().all(|sample| *sample == 0));
    fs::remove_file(file).unwrap();
    None
}
