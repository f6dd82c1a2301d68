//! Output that nobody reads: pipes that are full, a terminal that is stopped.

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

use crate::kit::{PATIENCE, run, sidetone};

/// Calls of which the story does not fit into a small pipe.
const CALLS: usize = 20;

/// A server whose output is read up to its address, and no further.
struct Unread {
    child: Child,
    address: String,
    /// Kept, or what is written would fail instead of waiting.
    _reader: Box<dyn Read>,
}

impl Unread {
    fn serve(mut command: Command, reader: File) -> Self {
        let child = command.spawn().unwrap();
        // The writing end that this process has, or a server that fails would never end the reading.
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
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("it goes on for ever");
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

/// A pipe that takes nothing more.
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
fn a_pipe_that_nobody_reads_does_not_keep_the_server() {
    let mut server = serve(&["echo"]);
    server.calls();
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn a_standard_error_that_nobody_reads_does_not_either() {
    let (_unread, full) = full_pipe();
    let (reader, writer) = small_pipe();
    let mut command = sidetone(["echo", "--listen", "127.0.0.1:0"]);
    command.stdout(writer).stderr(full);
    let mut server = Unread::serve(command, reader);
    server.calls();
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), 0);
    // What can't begin ends, too.
    let (_unread, full) = full_pipe();
    let mut refused = sidetone(["echo", "--listen", "nonsense"]);
    let status = refused.stdout(Stdio::null()).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_second_signal_ends_it_at_once_whatever_is_blocked() {
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
    placed.recv_timeout(PATIENCE).unwrap();
    server.signal(Signal::TERM);
    // That the first one was heeded is not to be seen here but by this: new calls are rejected.
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
fn a_terminal_that_is_stopped_does_not_keep_the_server() {
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
fn of_calls_rejected_by_the_hundred_the_number_is_told() {
    let (reader, writer) = small_pipe();
    let mut command = sidetone(["echo", "--listen", "127.0.0.1:0", "--allow", "10.0.0.0/8"]);
    command.stdout(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut lines = BufReader::with_capacity(1, reader).lines();
    let listening: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let address = listening["address"].as_str().unwrap().to_owned();
    // Each is rejected; of a hundred in a second each is told, of the others the number.
    const TURNED_AWAY: u64 = 400;
    for _ in 0..TURNED_AWAY {
        let mut connection = std::net::TcpStream::connect(&address).unwrap();
        connection
            .write_all(b"\x01\x00\x100123456789abcdef")
            .unwrap();
        connection.read_to_end(&mut Vec::new()).unwrap();
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut told = 0;
    for line in lines {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        told += match event["event"].as_str().unwrap() {
            "rejected" => 1,
            "counted" => {
                assert_eq!(event["of"], "rejected");
                event["count"].as_u64().unwrap()
            }
            _ => 0,
        };
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(told, TURNED_AWAY);
}
