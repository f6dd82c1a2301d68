//! A process that has no descriptors left answers new callers all the same. It is a process of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::{
    env,
    fs::File,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdout, Stdio},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sidetone::Server;
use sidetone_caller::{Caller, EndCause, Voice, call_all};
use support::{IoBackend, another_process, assert_named, echo, millis, runtime, serve};

const CHILD: &str = "SIDETONE_TEST_CHILD";
/// What it does: it has no descriptors left.
const WITHOUT: &str = "without";
const LIMIT: u64 = 64;
/// Descriptors of a process that has some left.
const FEW: u64 = 200;

fn main() {
    match env::var(CHILD).as_deref() {
        Ok(WITHOUT) => return runtime(1).block_on(serve_without_descriptors()),
        Ok(_) => return runtime(1).block_on(serve_with_few_descriptors()),
        Err(_) => {}
    }
    support::run_tests(&[
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
    ]);
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
