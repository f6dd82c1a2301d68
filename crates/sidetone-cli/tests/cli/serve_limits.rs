//! `sidetone serve` with few descriptors, and without any.

use std::{
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use sidetone_caller::{Caller, EndCause, Voice};

use crate::kit::{Running, TIMEOUT};

const FILE: &str = "[server]\nlisten = \"127.0.0.1:0\"\ntickets = \"optional\"\ndefault_route = \"echo\"\n\
                    [http]\nlisten = \"127.0.0.1:0\"\n[route.echo]\necho = {}\n";

/// A gateway that may have so many descriptors, its addresses for calls and for HTTP, and what it said of its limits.
struct Limited {
    process: Running,
    address: String,
    http: String,
    said: Vec<String>,
}

impl Limited {
    fn start(soft: u64, hard: u64, server: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sidetone.toml");
        std::fs::write(
            &path,
            FILE.replacen("[server]", &format!("[server]\n{server}"), 1),
        )
        .unwrap();
        let mut command = Command::new("bash");
        let script = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" serve \"$1\"");
        command
            .args(["-c", &script])
            .arg(assert_cmd::cargo::cargo_bin!("sidetone"))
            .arg(&path);
        let mut process = Running::start(command);
        let listening = process.wait_for("listening")["data"].clone();
        let http = listening["http"].as_str().unwrap();
        let said = process
            .seen
            .iter()
            .filter(|event| event["type"] == "limits");
        Self {
            address: listening["address"].as_str().unwrap().into(),
            http: http
                .trim_start_matches("http://")
                .trim_end_matches('/')
                .into(),
            said: said
                .map(|event| event["data"]["text"].as_str().unwrap().into())
                .collect(),
            process,
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32).unwrap()
    }

    /// The soft limit, which the process itself has raised.
    fn set_soft_limit(&self, soft: u64) -> u64 {
        let limit = Rlimit {
            current: Some(soft),
            maximum: Some(self.limits()[1]),
        };
        prlimit(Some(self.pid()), Resource::Nofile, limit)
            .unwrap()
            .current
            .unwrap()
    }

    /// The soft and the hard limit.
    fn limits(&self) -> [u64; 2] {
        let limits =
            std::fs::read_to_string(format!("/proc/{}/limits", self.process.id())).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        [words[3], words[4]].map(|word| word.parse().unwrap())
    }

    /// The CPU time of all its threads.
    fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // A hundred a second on every Linux.
        Duration::from_millis(10 * ticks)
    }
}

#[test]
fn the_limit_on_descriptors_is_raised_and_max_calls_follows_from_it() {
    let few = Limited::start(64, 128, "");
    assert_eq!(few.limits()[0], 128);
    assert_eq!(few.said.len(), 1, "{:?}", few.said);
    let text = &few.said[0];
    assert!(text.starts_with("max_calls is 32, not 2000"), "{text}");
    assert!(
        text.contains("128 files") && text.contains("LimitNOFILE=5024"),
        "{text}"
    );
    let asked = Limited::start(64, 4096, "max_calls = 3000");
    assert!(
        asked.said[0].starts_with("max_calls is 1536, not 3000"),
        "{:?}",
        asked.said
    );
    // Nothing is said where there is enough.
    let enough = Limited::start(64, 4096, "max_calls = 1536");
    assert_eq!((enough.limits()[0], enough.said.len()), (4096, 0));
}

#[test]
fn a_gateway_without_descriptors_rests_and_goes_on_when_it_has_some() {
    let mut gateway = Limited::start(128, 128, "");
    let usual = gateway.set_soft_limit(3);
    let (calls, http): (Vec<_>, Vec<_>) = (0..20)
        .map(|_| {
            let connect = |address: &str| TcpStream::connect(address).unwrap();
            (connect(&gateway.address), connect(&gateway.http))
        })
        .unzip();
    let before = gateway.cpu_time();
    let began = Instant::now();
    thread::sleep(Duration::from_secs(2));
    let (used, passed) = (gateway.cpu_time() - before, began.elapsed());
    // A thread that tries again and again takes all of it.
    assert!(used < passed / 4, "{used:?} of {passed:?}");
    gateway.set_soft_limit(usual);
    drop((calls, http));
    let record = Caller::new(gateway.address.parse().unwrap())
        .say(Voice::Ramp(1))
        .hang_up_after(Duration::from_millis(500))
        .call()
        .unwrap();
    assert_eq!(record.ended.cause, EndCause::HungUp);
    gateway.process.wait_for("call.ended");
    assert!(is_alive(&gateway.http));
}

fn is_alive(http: &str) -> bool {
    use std::io::{Read, Write};

    let mut stream = TcpStream::connect(http).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    write!(
        stream,
        "GET /livez HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.starts_with("HTTP/1.1 200")
}
