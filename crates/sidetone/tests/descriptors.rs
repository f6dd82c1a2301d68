//! A process that has no descriptors left answers new callers all the same. It is a process of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::{
    env,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::FileExt,
    process::{Child, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sidetone::Server;
use sidetone_caller::{Caller, EndCause, Voice, call_all};
use support::{IoBackend, another_process, assert_named, echo, millis, runtime, serve};

const CHILD: &str = "SIDETONE_TEST_CHILD";
/// What it does: it has no descriptors left.
const WITHOUT: &str = "without";
/// It can accept nothing for a while.
const STARVED: &str = "starved";
const LIMIT: u64 = 64;
/// Descriptors of a process that has some left.
const FEW: u64 = 200;

fn main() {
    match env::var(CHILD).as_deref() {
        Ok(WITHOUT) => return runtime(1).block_on(serve_without_descriptors()),
        Ok(STARVED) => return runtime(1).block_on(serve_starved()),
        Ok(_) => return runtime(1).block_on(serve_with_few_descriptors()),
        Err(_) => {}
    }
    support::run_tests(
        1,
        &[
            (
                "callers_beyond_the_last_descriptor_hear_a_hang_up_and_the_others_are_served",
                callers_beyond_the_last_descriptor_hear_a_hang_up_and_the_others_are_served,
            ),
            (
                "six_hundred_callers_in_a_second_without_descriptors_hear_a_hang_up",
                six_hundred_callers_in_a_second_without_descriptors_hear_a_hang_up,
            ),
            (
                "silent_connections_keep_no_call_out_and_the_oldest_goes_first",
                silent_connections_keep_no_call_out_and_the_oldest_goes_first,
            ),
            (
                "a_server_that_can_accept_nothing_rests_and_goes_on_when_it_can",
                a_server_that_can_accept_nothing_rests_and_goes_on_when_it_can,
            ),
        ],
    );
}

/// Another process that serves, and what it says.
struct Other {
    child: Child,
    said: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Other {
    fn start(io: IoBackend, kind: &str) -> Self {
        let mut child = another_process(io)
            .env(CHILD, kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let address = next(&mut said, "listening").parse().unwrap();
        Self {
            child,
            said,
            address,
        }
    }

    /// Ends it, and answers what it counted.
    fn end(mut self) -> usize {
        drop(self.child.stdin.take());
        let counted = next(&mut self.said, "counted").parse().unwrap();
        assert!(self.child.wait().unwrap().success());
        counted
    }
}

/// What stands behind this word in the next line that begins with it.
fn next(said: &mut BufReader<ChildStdout>, word: &str) -> String {
    let mut lines = said.lines().map(|line| line.unwrap());
    let found = lines.find_map(|line| line.strip_prefix(word).map(str::to_owned));
    found.unwrap().trim().to_owned()
}

/// Waits in the other process until this one has had enough.
async fn wait() {
    let wait = || std::io::stdin().read_to_end(&mut Vec::new());
    tokio::task::spawn_blocking(wait).await.unwrap().unwrap();
}

fn allow_descriptors(count: u64) {
    let limit = Rlimit {
        current: Some(count),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// What the other process does.
async fn serve_with_few_descriptors() {
    allow_descriptors(FEW);
    let server = serve(Server::builder(), echo).await;
    assert_named(&server.handle);
    println!("\nlistening {}", server.address);
    wait().await;
    println!("\ncounted {}", server.handle.stats().crowded_out);
    server.end().await;
}

/// What the other process does.
async fn serve_without_descriptors() {
    let server = serve(Server::builder(), echo).await;
    assert_named(&server.handle);
    allow_descriptors(LIMIT);
    // All but a few, for the calls that are to run.
    let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    taken.truncate(taken.len() - 5);
    println!("\nlistening {}", server.address);
    wait().await;
    println!("\ncounted {}", server.handle.stats().out_of_descriptors);
    drop(taken);
    server.end().await;
}

/// What the other process does: for a second it can accept nothing, not even with its spare descriptors.
async fn serve_starved() {
    let server = serve(Server::builder(), echo).await;
    assert_named(&server.handle);
    let switches = MediaThreadSwitches::open();
    let usual = getrlimit(Resource::Nofile).current.unwrap();
    // No descriptor has so low a number but those of standard input and output.
    allow_descriptors(1);
    println!("\nlistening {}", server.address);
    line().await;
    let (began, before) = (Instant::now(), switches.count());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (waits, time) = (switches.count() - before, began.elapsed());
    println!("\nwaited {waits} {}", time.as_millis());
    allow_descriptors(usual);
    line().await;
    allow_descriptors(LIMIT);
    let taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    println!("\ntaken");
    wait().await;
    println!("\ncounted {}", server.handle.stats().out_of_descriptors);
    drop(taken);
    server.end().await;
}

/// Waits until the other process has said a line.
async fn line() {
    let line = || std::io::stdin().read_line(&mut String::new());
    tokio::task::spawn_blocking(line).await.unwrap().unwrap();
}

/// How often the media thread has waited for something. The file stays open, for a process without descriptors.
struct MediaThreadSwitches(File);

impl MediaThreadSwitches {
    fn open() -> Self {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let mut threads = threads.map(|thread| thread.unwrap().path());
        let is_media = |comm: String| comm.starts_with("sidetone-media");
        let media =
            threads.find(|thread| is_media(std::fs::read_to_string(thread.join("comm")).unwrap()));
        Self(File::open(media.unwrap().join("status")).unwrap())
    }

    fn count(&self) -> u128 {
        let mut status = [0; 8192];
        let length = self.0.read_at(&mut status, 0).unwrap();
        let status = String::from_utf8_lossy(&status[..length]).into_owned();
        let mut lines = status.lines();
        let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.unwrap().trim().parse().unwrap()
    }
}

fn a_server_that_can_accept_nothing_rests_and_goes_on_when_it_can(io: IoBackend) {
    let mut other = Other::start(io, STARVED);
    let address = other.address;
    let go_on = |other: &mut Other| {
        let stdin = other.child.stdin.as_mut().unwrap();
        stdin.write_all(b"\n").unwrap();
    };
    let mut caller = TcpStream::connect(address).unwrap();
    go_on(&mut other);
    let waited = next(&mut other.said, "waited");
    let (waits, millis) = waited.split_once(' ').unwrap();
    let (waits, millis): (u128, u128) = (waits.parse().unwrap(), millis.parse().unwrap());
    // A thread that every waiting connection wakes goes round a thousand times a second.
    assert!(waits <= 10 + millis / 20, "{waits} in {millis} ms");
    // It can accept again, and takes the one that waited.
    caller
        .write_all(&[&[1, 0, 16][..], &[7; 16]].concat())
        .unwrap();
    let mut first = [0];
    caller.read_exact(&mut first).unwrap();
    assert_eq!(first, [0x10]);
    // It has its spare descriptors again, too.
    go_on(&mut other);
    next(&mut other.said, "taken");
    for record in call_all((0..20).map(|_| Caller::new(address)).collect()) {
        assert_eq!(record.unwrap().ended.cause, EndCause::ServerHungUp);
    }
    drop(caller);
    assert_eq!(other.end(), 20);
}

fn callers_beyond_the_last_descriptor_hear_a_hang_up_and_the_others_are_served(io: IoBackend) {
    let other = Other::start(io, WITHOUT);
    let address = other.address;
    let served = (0..5).map(|n| {
        Caller::new(address)
            .say(Voice::Ramp(n))
            .hang_up_after(millis(2_000))
    });
    // One after the other, and then all at once.
    let beyond = (0..20).map(|n| Caller::new(address).start_after(millis(500 + 20 * n.min(10))));
    let records = call_all(served.chain(beyond).collect());
    assert_eq!(other.end(), 20);
    for (n, record) in records.into_iter().enumerate() {
        let record = record.unwrap();
        if n < 5 {
            assert_eq!(record.ended.cause, EndCause::HungUp);
            assert!(!record.echo().is_empty());
        } else {
            assert_eq!(record.ended.cause, EndCause::ServerHungUp);
            assert_eq!(record.counts.frames_heard, 0);
        }
    }
}

fn six_hundred_callers_in_a_second_without_descriptors_hear_a_hang_up(io: IoBackend) {
    let other = Other::start(io, WITHOUT);
    let address = other.address;
    let held: Vec<TcpStream> = (0..5)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    // 600 at once: faster than any rate.
    let callers = (0..600).map(|_| Caller::new(address)).collect();
    for record in call_all(callers) {
        assert_eq!(record.unwrap().ended.cause, EndCause::ServerHungUp);
    }
    drop(held);
    assert_eq!(other.end(), 600);
}

fn silent_connections_keep_no_call_out_and_the_oldest_goes_first(io: IoBackend) {
    let other = Other::start(io, "few");
    let address = other.address;
    // More than there are descriptors.
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..2 * FEW {
        silent.push(TcpStream::connect(address).unwrap());
    }
    let callers = (0..20).map(|n| {
        Caller::new(address)
            .say(Voice::Ramp(n))
            .hang_up_after(millis(500))
    });
    for record in call_all(callers.collect()) {
        let record = record.unwrap();
        assert_eq!(record.ended.cause, EndCause::HungUp);
        assert!(!record.echo().is_empty());
    }
    // A quarter of them is left, the newest.
    let is_open = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let read = stream.peek(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    let open: Vec<bool> = silent.iter().map(is_open).collect();
    let closed = open.iter().filter(|open| !**open).count();
    assert!(open[closed..].iter().all(|open| *open), "{open:?}");
    assert!(open.len() - closed <= FEW as usize / 4, "{open:?}");
    assert!(other.end() >= closed);
}
