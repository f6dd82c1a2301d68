//! SIGKILL in the middle of many recordings.
//!
//! The server runs in a process of its own: this test's binary, started again for that one test.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sidetone::{Call, Server, Uuid, record::Recorder};
use sidetone_caller::{Caller, Event, Voice, call_all, exact_runs};
use support::{IoBackend, another_process, assert_named, runtime};

const CALLS: u128 = 50;

/// Where the server is to record. Set only in its process.
const DIRECTORY: &str = "SIDETONE_TEST_RECORD_INTO";

/// One second of 8 kHz.
const SECOND: usize = 8_000;

fn main() {
    if let Ok(directory) = env::var(DIRECTORY) {
        return runtime(1).block_on(record_until_killed(directory));
    }
    support::run_tests(
        2,
        &[(
            "sigkill_costs_no_recording_more_than_its_last_second",
            sigkill_costs_no_recording_more_than_its_last_second,
        )],
    );
}

/// What the other process does.
async fn record_until_killed(directory: String) {
    let recorder = Recorder::new(directory).unwrap();
    let server = Server::builder().bind("127.0.0.1:0").await.unwrap();
    assert_named(&server.handle());
    println!("\nlistening on {}", server.local_addr());
    let serving = server.serve(move |call: Call| {
        recorder.record(&call.handle()).unwrap();
        async move {
            call.closed().await;
        }
    });
    // Whatever becomes of the test, this process ends.
    let _ = tokio::time::timeout(Duration::from_secs(60), serving).await;
}

fn start_server(io: IoBackend, directory: &Path) -> (Child, SocketAddr) {
    let mut child = another_process(io)
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines
        .find_map(|line| Some(line.unwrap().strip_prefix("listening on ")?.to_owned()))
        .unwrap();
    // Dropped, the pipe would end the process early at its next word.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address.parse().unwrap())
}

/// Every file in `directory` by the UUID in its name.
fn files_in(directory: &Path) -> HashMap<Uuid, PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let by_uuid = entries.map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let uuid = name.split_once("Z-").unwrap().1;
        let uuid = uuid.strip_suffix(".wav.part").unwrap().parse().unwrap();
        (uuid, path)
    });
    by_uuid.collect()
}

/// Kills the server when the last caller has said `frames`, and looks at what is left.
fn kill_after(io: IoBackend, frames: u64) {
    let directory = tempfile::tempdir().unwrap();
    let (child, address) = start_server(io, directory.path());
    let child = Arc::new(Mutex::new(child));
    let said = Arc::new(AtomicU64::new(0));
    let standstill = Arc::new(Standstill::default());
    let callers = (0..CALLS).map(|number| {
        let (child, said) = (Arc::clone(&child), Arc::clone(&said));
        let standstill = Arc::clone(&standstill);
        let is_last = number == CALLS - 1;
        Caller::new(address)
            .uuid(Uuid::from_u128(number))
            .say(Voice::Ramp(number as u64))
            .jitter(number as u64)
            .start_after(Duration::from_millis(7) * number as u32)
            .hang_up_after(Duration::from_secs(50))
            .observe(move |event| {
                if !is_last || !matches!(event, Event::Sent { .. }) {
                    return;
                }
                standstill.look();
                if said.fetch_add(1, Ordering::Relaxed) + 1 == frames {
                    // SIGKILL, to this one process.
                    child.lock().unwrap().kill().unwrap();
                }
            })
    });
    let calls = call_all(callers.collect());
    child.lock().unwrap().wait().unwrap();
    let files = files_in(directory.path());
    assert_eq!(files.len() as u128, CALLS);
    let mut worst = 0;
    for call in calls.into_iter().map(Result::unwrap) {
        let mut reader = hound::WavReader::open(&files[&call.uuid]).unwrap();
        let left: Vec<i16> = reader.samples().map(Result::unwrap).step_by(2).collect();
        let runs = exact_runs(call.sent_samples(), &left);
        // A busy machine starts the handler late, and frames that come late may leave silence within.
        let begun = runs.first().map_or(0, |first| first.source);
        let there: usize = runs.iter().map(|run| run.length).sum();
        let kept = runs.last().map_or(0, |last| last.source + last.length);
        // A sample that is repeated against drift counts twice.
        let missed = (kept - begun).saturating_sub(there);
        assert!(missed < SECOND / 2, "{}: {runs:?}", call.uuid);
        let sent = call.sent_samples().len();
        let said = call.ended;
        assert!(
            kept > 0,
            "{}: nothing of {sent} samples in {}, {} of them sound; {said:?}",
            call.uuid,
            left.len(),
            left.iter().filter(|sample| **sample != 0).count()
        );
        worst = worst.max(sent - kept);
    }
    let stood = standstill.longest();
    println!(
        "killed after {frames} frames: {} ms lost, the callers stood still for {stood:?}",
        worst / 8
    );
    // Where the machine stood still, the recorder did, too.
    let bound = SECOND + 8 * stood.as_millis() as usize;
    assert!(
        worst <= bound,
        "{worst} samples lost, {stood:?} stood still"
    );
}

/// How long the thread of all callers stood still.
#[derive(Default)]
struct Standstill(Mutex<(Option<Instant>, Duration)>);

impl Standstill {
    /// To be called every 20 ms.
    fn look(&self) {
        let now = Instant::now();
        let (last, longest) = &mut *self.0.lock().unwrap();
        if let Some(last) = last.replace(now) {
            *longest = (*longest).max((now - last).saturating_sub(Duration::from_millis(20)));
        }
    }

    fn longest(&self) -> Duration {
        self.0.lock().unwrap().1
    }
}

fn sigkill_costs_no_recording_more_than_its_last_second(io: IoBackend) {
    for frames in [150, 203, 257] {
        kill_after(io, frames);
    }
}
