//! A process that has no descriptors left answers new callers all the same. It is a process of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::{
    env,
    fs::File,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Command, Stdio},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sidetone::Server;
use sidetone_caller::{Caller, Voice, Why, call_all};
use support::{echo, millis, runtime, serve};

const CHILD: &str = "SIDETONE_TEST_CHILD";
const LIMIT: u64 = 64;

fn main() {
    if env::var_os(CHILD).is_some() {
        return runtime(1).block_on(serve_without_descriptors());
    }
    support::run_tests(&[(
        "callers_beyond_the_last_descriptor_hear_a_hang_up_and_the_others_are_served",
        callers_beyond_the_last_descriptor_hear_a_hang_up_and_the_others_are_served,
    )]);
}

/// What the other process does.
async fn serve_without_descriptors() {
    let server = serve(Server::builder(), echo).await;
    let limit = Rlimit {
        current: Some(LIMIT),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    // All but a few, for the calls that are to run.
    let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    taken.truncate(taken.len() - 5);
    println!("\nlistening {}", server.address);
    // Until the other process has had enough.
    let wait = || std::io::stdin().read_to_end(&mut Vec::new());
    tokio::task::spawn_blocking(wait).await.unwrap().unwrap();
    println!("\nturned away {}", server.handle.stats().out_of_descriptors);
    drop(taken);
    server.end().await;
}

fn callers_beyond_the_last_descriptor_hear_a_hang_up_and_the_others_are_served() {
    let mut child = Command::new(env::current_exe().unwrap())
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = |what: &str| {
        let mut lines = lines.by_ref().map(|line| line.unwrap());
        let found = lines.find_map(|line| line.strip_prefix(what).map(str::to_owned));
        found.unwrap().trim().to_owned()
    };
    let address: SocketAddr = said("listening").parse().unwrap();
    let served = (0..5).map(|n| {
        Caller::new(address)
            .say(Voice::Ramp(n))
            .hang_up_after(millis(2_000))
    });
    // One after the other, and then all at once.
    let beyond = (0..20).map(|n| Caller::new(address).start_after(millis(500 + 20 * n.min(10))));
    let records = call_all(served.chain(beyond).collect());
    drop(child.stdin.take());
    let turned_away: usize = said("turned away").parse().unwrap();
    assert!(child.wait().unwrap().success());
    for (n, record) in records.into_iter().enumerate() {
        let record = record.unwrap();
        if n < 5 {
            assert_eq!(record.ended.why, Why::HungUp);
            assert!(!record.echo().is_empty());
        } else {
            assert_eq!(record.ended.why, Why::ServerHungUp);
            assert_eq!(record.counts.frames_heard, 0);
        }
    }
    assert_eq!(turned_away, 20);
}
