//! What each signal does to the process and to its calls.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::mpsc::channel,
    thread::{self, JoinHandle},
};

use rustix::process::Signal;
use sidetone_caller::{CallRecord, Caller, EndCause, Event, Voice, call_all};

use crate::kit::{Running, TIMEOUT, assert_ended_by_caller, sidetone};

const CALLS: usize = 20;

/// Places calls that talk until the server ends them. Returns when each has received audio and has its handler.
fn talking(server: &mut Running, address: &str) -> JoinHandle<Vec<CallRecord>> {
    let (sender, heard) = channel();
    let callers: Vec<Caller> = (0..CALLS)
        .map(|number| {
            let (sender, mut is_first) = (sender.clone(), true);
            Caller::new(address.parse().unwrap())
                .say(Voice::Ramp(number as u64))
                .hang_up_after(TIMEOUT)
                .observe(move |event| {
                    if matches!(event, Event::Heard { .. }) && std::mem::take(&mut is_first) {
                        sender.send(()).unwrap();
                    }
                })
        })
        .collect();
    let calling = thread::spawn(|| call_all(callers));
    for _ in 0..CALLS {
        heard.recv_timeout(TIMEOUT).unwrap();
        server.wait_for("call_started");
    }
    thread::spawn(|| {
        let records = calling.join().unwrap().into_iter();
        records.map(|record| record.unwrap()).collect()
    })
}

fn assert_hung_up(calling: JoinHandle<Vec<CallRecord>>) {
    for record in calling.join().unwrap() {
        assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    }
}

#[test]
fn every_call_is_sent_its_hang_up_when_a_second_signal_ends_the_server() {
    for (signal, option) in [
        (Signal::TERM, ""),
        (Signal::INT, "--reset-when-killed"),
        (Signal::HUP, ""),
    ] {
        let (mut server, address) = Running::serve(&format!("echo --grace 600 {option}"));
        let calling = talking(&mut server, &address);
        server.signal(signal);
        server.wait_for("shutting_down");
        server.signal(signal);
        assert_eq!(server.exit_code(), 128 + signal.as_raw());
        assert_hung_up(calling);
    }
}

#[test]
fn sigquit_ends_at_once_and_hangs_up_calls() {
    let (mut server, address) = Running::serve("echo --grace 600");
    let calling = talking(&mut server, &address);
    server.signal(Signal::QUIT);
    assert_eq!(server.exit_code(), 128 + 3);
    assert_hung_up(calling);
}

#[test]
fn a_closed_terminal_lets_calls_end_and_recordings_be_complete() {
    let directory = tempfile::tempdir().unwrap();
    let (mut server, address) =
        Running::serve(&format!("record {} --grace 1", directory.path().display()));
    let calling = talking(&mut server, &address);
    server.signal(Signal::HUP);
    assert_eq!(server.wait_for("shutting_down")["running"], CALLS);
    assert_eq!(server.exit_code(), 0);
    assert_hung_up(calling);
    let names: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(names.len(), CALLS);
    for name in names {
        assert_eq!(name.extension().unwrap(), "wav", "{}", name.display());
    }
}

#[test]
fn ignored_signals_end_nothing() {
    let (mut server, address) = Running::serve("echo");
    let mut call = Running::start(sidetone(["call", &address, "--seconds", "60"]));
    server.wait_for("call_started");
    call.wait_for("call_placed");
    for process in [&server, &call] {
        for signal in [
            Signal::USR1,
            Signal::USR2,
            Signal::XFSZ,
            Signal::PIPE,
            Signal::ALARM,
            Signal::VTALARM,
            Signal::PROF,
            Signal::IO,
        ] {
            process.signal(signal);
        }
    }
    call.terminate();
    assert_eq!(call.wait_for("call_finished")["ended_by"], "caller");
    assert_eq!(call.exit_code(), 0);
    assert_ended_by_caller(&server.wait_for("call_ended"));
    server.stop();
}

#[test]
fn a_server_that_was_started_with_nohup_outlives_its_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("nohup");
    command
        .arg(assert_cmd::cargo::cargo_bin!("sidetone"))
        .args(["echo", "--listen", "127.0.0.1:0"])
        .current_dir(&directory);
    let mut server = Running::start(command);
    server.wait_for("listening");
    server.signal(Signal::HUP);
    // If SIGHUP had counted, this would be the second signal, with another exit code.
    server.terminate();
    assert_eq!(server.exit_code(), 0);
}

/// What a client that reads everything gets from a server that is killed.
fn killed(option: &str) -> std::io::Result<usize> {
    let (mut server, address) = Running::serve(&format!("echo {option}"));
    let mut connection = TcpStream::connect(address).unwrap();
    connection
        .write_all(b"\x01\x00\x100123456789abcdef")
        .unwrap();
    server.wait_for("call_started");
    server.signal(Signal::KILL);
    connection.read_to_end(&mut Vec::new())
}

#[test]
fn what_the_kernel_does_with_the_calls_of_a_killed_server_can_be_chosen() {
    assert!(killed("").is_ok());
    let reset = killed("--reset-when-killed").unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
}
