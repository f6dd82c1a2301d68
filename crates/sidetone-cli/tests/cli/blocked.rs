//! Output that is not read: full pipes and a stopped terminal.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use serde_json::Value;

use crate::kit::{TIMEOUT, run, sidetone};

/// Calls whose events do not fit into a small pipe.
const CALLS: usize = 20;

/// A server whose output is read up to its address, and no further.
struct Unread {
    child: Child,
    address: String,
    /// Kept open, so that writing waits instead of failing.
    _reader: Box<dyn Read>,
}

impl Unread {
    fn serve(mut command: Command, reader: File) -> Self {
        let child = command.spawn().unwrap();
        // Close this process's writing end. Otherwise reading from a server that fails would never end.
        drop(command);
        let mut reader = BufReader::with_capacity(1, reader);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap();
        Self {
            child,
            address: listening["address"].as_str().unwrap().to_owned(),
            _reader: Box::new(reader),
        }
    }

    fn calls(&self) {
        for _ in 0..CALLS {
            let call = run(&format!("call {} --seconds 0.1", self.address));
            assert_eq!(call.status.code(), Some(0));
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[track_caller]
    fn exit_code(&mut self) -> i32 {
        let began = Instant::now();
        while began.elapsed() < TIMEOUT {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the server does not end");
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pipe of the smallest size.
fn small_pipe() -> (File, OwnedFd) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    fcntl_setpipe_size(&writer, 4096).unwrap();
    (reader.into(), writer)
}

/// A pipe that is full.
fn full_pipe() -> (File, OwnedFd) {
    let (reader, writer) = small_pipe();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&writer, b"x") != Err(Errno::AGAIN) {}
    rustix::fs::fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

fn serve(words: &[&str]) -> Unread {
    let (reader, writer) = small_pipe();
    let mut command = sidetone(words.iter().chain(&["--listen", "127.0.0.1:0"]));
    command.stdout(writer);
    Unread::serve(command, reader)
}

#[test]
fn a_pipe_that_is_not_read_does_not_block_the_server() {
    let mut server = serve(&["echo"]);
    server.calls();
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn standard_error_that_is_not_read_does_not_block_the_server() {
    let (_unread, full) = full_pipe();
    let (reader, writer) = small_pipe();
    let mut command = sidetone(["echo", "--listen", "127.0.0.1:0"]);
    command.stdout(writer).stderr(full);
    let mut server = Unread::serve(command, reader);
    server.calls();
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), 0);
    // A command that can't start ends, too.
    let (_unread, full) = full_pipe();
    let mut refused = sidetone(["echo", "--listen", "nonsense"]);
    let status = refused.stdout(Stdio::null()).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_second_signal_ends_a_blocked_server_at_once() {
    let mut server = serve(&["echo", "--grace", "600"]);
    server.calls();
    let address = server.address.clone();
    let (connected, placed) = channel();
    let caller = sidetone_caller::Caller::new(address.parse().unwrap()).observe(move |event| {
        if let sidetone_caller::Event::Heard { .. } = event {
            let _ = connected.send(());
        }
    });
    let calling = thread::spawn(|| caller.call().unwrap());
    placed.recv_timeout(TIMEOUT).unwrap();
    server.signal(Signal::TERM);
    // As the output is not read, only rejected calls show that the first signal was handled.
    while !is_rejected(&address) {}
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), 128 + 15);
    let record = calling.join().unwrap();
    assert_eq!(record.ended.cause, sidetone_caller::EndCause::ServerHungUp);
}

fn is_rejected(address: &str) -> bool {
    let call = run(&format!("call {address} --seconds 0.5"));
    crate::kit::last_event(&call)["ended_by"] == "server"
}

#[test]
fn a_stopped_terminal_does_not_block_the_server() {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let mut child = sidetone(["echo", "--listen", "127.0.0.1:0"])
        .stdout(slave.try_clone().unwrap())
        .stderr(slave)
        .spawn()
        .unwrap();
    let mut master = File::from(master);
    let mut lines = BufReader::new(master.try_clone().unwrap()).lines();
    let listening = lines.next().unwrap().unwrap();
    let address = listening
        .split_whitespace()
        .find_map(|word| word.strip_suffix(';'))
        .unwrap()
        .to_owned();
    // Ctrl-S.
    master.write_all(b"\x13").unwrap();
    let call = run(&format!("call {address} --seconds 0.6"));
    assert_eq!(call.status.code(), Some(0));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut server = Unread {
        child: std::mem::replace(&mut child, Command::new("true").spawn().unwrap()),
        address,
        _reader: Box::new(master),
    };
    child.wait().unwrap();
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn many_rejected_calls_are_reported_by_their_number() {
    let (reader, writer) = small_pipe();
    let mut command = sidetone(["echo", "--listen", "127.0.0.1:0", "--allow", "10.0.0.0/8"]);
    command.stdout(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut lines = BufReader::with_capacity(1, reader).lines();
    let listening: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let address = listening["address"].as_str().unwrap().to_owned();
    // The first hundred in a second are reported one by one, the others by their number.
    const REJECTED: u64 = 400;
    for _ in 0..REJECTED {
        let mut connection = std::net::TcpStream::connect(&address).unwrap();
        connection
            .write_all(b"\x01\x00\x100123456789abcdef")
            .unwrap();
        connection.read_to_end(&mut Vec::new()).unwrap();
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut reported = 0;
    for line in lines {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        reported += match event["event"].as_str().unwrap() {
            "rejected" => 1,
            "suppressed" => {
                assert_eq!(event["of"], "rejected");
                event["count"].as_u64().unwrap()
            }
            _ => 0,
        };
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(reported, REJECTED);
}
