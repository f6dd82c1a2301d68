//! Ending with grace, and restarts.

use std::{net::TcpListener, os::fd::AsRawFd, process::Command};

use rustix::io::{FdFlags, fcntl_setfd};

use crate::kit::{Running, assert_ended_by_caller, last_event, run, sidetone};

fn call_for(seconds: &str, address: &str) -> Running {
    let mut call = Running::start(sidetone(["call", address, "--seconds", seconds]));
    call.wait_for("call_placed");
    call
}

#[test]
fn a_signal_rejects_new_calls_and_lets_the_running_one_end() {
    let (mut server, address) = Running::serve("echo --grace 60");
    let mut running = call_for("60", &address);
    server.wait_for("call_started");
    server.terminate();
    assert_eq!(server.wait_for("shutting_down")["running"], 1);
    let late = run(&format!("call {address} --seconds 60"));
    assert_eq!(last_event(&late)["ended_by"], "server");
    assert_eq!(server.wait_for("rejected")["reason"], "shutdown");
    // The running call goes on until its caller hangs up.
    assert_eq!(server.count("call_ended"), 0);
    running.terminate();
    assert_eq!(running.exit_code(), 0);
    assert_ended_by_caller(&server.wait_for("call_ended"));
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn a_call_is_hung_up_when_its_grace_is_over() {
    let (mut server, address) = Running::serve("echo --grace 1");
    let mut running = call_for("60", &address);
    server.wait_for("call_started");
    server.terminate();
    assert_eq!(server.wait_for("call_ended")["reason"], "shutdown");
    assert_eq!(running.wait_for("call_finished")["ended_by"], "server");
    assert_eq!(running.exit_code(), 0);
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn recordings_are_complete_when_the_server_is_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let (mut server, address) =
        Running::serve(&format!("record {} --grace 0", directory.path().display()));
    let _running = call_for("60", &address);
    server.wait_for("call_started");
    server.terminate();
    assert_eq!(server.exit_code(), 0);
    let names: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(names[0].extension().unwrap(), "wav");
    assert!(hound::WavReader::open(&names[0]).is_ok());
}

#[test]
fn a_restart_with_systemds_socket_refuses_no_call() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    fcntl_setfd(&socket, FdFlags::empty()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let activated = || {
        let mut command = Command::new("bash");
        let script = format!(
            "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" echo 3<&{}",
            socket.as_raw_fd()
        );
        command
            .args(["-c", &script])
            .arg(assert_cmd::cargo::cargo_bin!("sidetone"));
        Running::start(command)
    };
    let mut first = activated();
    assert_eq!(first.wait_for("listening")["address"], address.as_str());
    assert_eq!(
        run(&format!("call {address} --seconds 1")).status.code(),
        Some(0)
    );
    first.terminate();
    assert_eq!(first.exit_code(), 0);
    // No process serves now, but systemd holds the socket. The call waits for the next process.
    let mut between = call_for("1", &address);
    let mut second = activated();
    second.wait_for("call_started");
    assert_eq!(between.exit_code(), 0);
    assert_ended_by_caller(&second.wait_for("call_ended"));
}
