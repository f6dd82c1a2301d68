//! Calls to each serving command.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
    time::Duration,
};

use sidetone_audio::tone;

use crate::kit::{
    Running, assert_ended_by_caller, best_match, last_event, read_stereo, run, sidetone,
    similarity, stderr, write_mono,
};

#[test]
fn echo_gives_a_caller_its_own_voice() {
    let directory = tempfile::tempdir().unwrap();
    let (voice, heard) = (
        directory.path().join("voice.wav"),
        directory.path().join("heard.wav"),
    );
    let said = tone::caller_voice(8000, Duration::from_secs(2), 3);
    write_mono(&voice, 8000, &said);
    let (_server, address) = Running::serve("echo");
    let call = run(&format!(
        "call {address} --play {} --record {} --expect-audio",
        voice.display(),
        heard.display()
    ));
    assert_eq!(call.status.code(), Some(0), "{}", stderr(&call));
    assert_eq!(last_event(&call)["ended_by"], "caller");
    let (rate, left, right) = read_stereo(&heard);
    assert_eq!(rate, 8000);
    let (_, left) = best_match(&said, &left);
    assert!(left > 0.999, "its own side: {left}");
    let echo = similarity(&said, &right);
    assert!(echo > 0.9, "its echo: {echo}");
}

#[test]
fn play_plays_the_whole_file_and_hangs_up() {
    let directory = tempfile::tempdir().unwrap();
    let (sound, heard) = (
        directory.path().join("sound.wav"),
        directory.path().join("heard.wav"),
    );
    let greeting = tone::greeting(8000);
    write_mono(&sound, 8000, &greeting);
    let (mut server, address) = Running::serve(&format!("play {}", sound.display()));
    let call = run(&format!(
        "call {address} --record {} --seconds 30 --expect-audio",
        heard.display()
    ));
    assert_eq!(call.status.code(), Some(0), "{}", stderr(&call));
    assert_eq!(last_event(&call)["ended_by"], "server");
    assert_eq!(server.wait_for("call_ended")["reason"], "finished");
    let (_, _, right) = read_stereo(&heard);
    let played = similarity(&greeting, &right);
    assert!(played > 0.95, "{played}");
}

#[test]
fn play_in_a_loop_goes_on_until_the_caller_hangs_up() {
    let directory = tempfile::tempdir().unwrap();
    let sound = directory.path().join("sound.wav");
    write_mono(
        &sound,
        16_000,
        &tone::caller_voice(16_000, Duration::from_millis(300), 1),
    );
    let (mut server, address) = Running::serve(&format!("play {} --loop", sound.display()));
    let call = run(&format!("call {address} --seconds 2 --expect-audio"));
    assert_eq!(call.status.code(), Some(0), "{}", stderr(&call));
    assert_ended_by_caller(&server.wait_for("call_ended"));
    assert!(last_event(&call)["duration_ms"].as_u64().unwrap() >= 2000);
}

#[test]
fn record_writes_a_complete_file_and_plays_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let voice = directory.path().join("voice.wav");
    let said = tone::caller_voice(8000, Duration::from_secs(1), 5);
    write_mono(&voice, 8000, &said);
    let recordings = directory.path().join("recordings");
    let (mut server, address) = Running::serve(&format!("record {}", recordings.display()));
    let call = run(&format!(
        "call {address} --play {} --expect-audio",
        voice.display()
    ));
    assert_eq!(call.status.code(), Some(1));
    assert!(
        stderr(&call).contains("nothing but silence"),
        "{}",
        stderr(&call)
    );
    let recorded = server.wait_for("recorded");
    assert!(recorded["failure"].is_null(), "{recorded}");
    let file = recorded["files"][0].as_str().unwrap();
    let (rate, left, right) = read_stereo(file.as_ref());
    assert_eq!(rate, 8000);
    let heard = similarity(&said, &left);
    assert!(heard > 0.9, "{heard}");
    assert!(right.iter().all(|sample| *sample == 0));
}

#[test]
fn echo_records_with_the_option_record() {
    let directory = tempfile::tempdir().unwrap();
    let (mut server, address) =
        Running::serve(&format!("echo --record {}", directory.path().display()));
    run(&format!("call {address} --seconds 1"));
    server.wait_for("call_ended");
    let events = server.stop();
    let recorded = events
        .iter()
        .find(|event| event["event"] == "recorded")
        .unwrap();
    assert!(
        recorded["files"][0].as_str().unwrap().ends_with(".wav"),
        "{recorded}"
    );
    assert_eq!(events.last().unwrap()["event"], "stopped");
}

#[test]
fn a_call_that_fails_is_reported_with_asterisks_log_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        connection.read_exact(&mut [0; 19]).unwrap();
        // Asterisk drops the call on audio of length 0.
        connection.write_all(&[0x10, 0, 0]).unwrap();
        let _ = connection.read_to_end(&mut Vec::new());
    });
    let call = run(&format!("call {address}"));
    server.join().unwrap();
    assert_eq!(call.status.code(), Some(1));
    let text = stderr(&call);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("Invalid message length"), "{text}");
    assert!(
        last_event(&call)["asterisk_log"]
            .as_str()
            .unwrap()
            .contains("Invalid message length")
    );
}

/// The bytes that a flooding server sends: far more than the caller may keep, and soon sent, as other tests run at the
/// same time.
const FLOOD: usize = 300_000_000;
/// The caller's limit of virtual memory, in kilobytes.
const MEMORY: usize = 200_000;

/// A server that floods the caller, and then sends nothing until it hangs up.
fn flooding() -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let flooding = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let messages = [&[0x10, 0x1F, 0xFE][..], &[1; 0x1FFE]].concat().repeat(4);
        for _ in 0..FLOOD / messages.len() {
            if connection.write_all(&messages).is_err() {
                return;
            }
        }
        let _ = connection.read_to_end(&mut Vec::new());
    });
    (address, flooding)
}

#[test]
fn a_server_that_floods_fills_neither_the_memory_nor_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (address, server) = flooding();
    let heard = directory.path().join("heard.wav");
    let script = format!("ulimit -v {MEMORY} && exec \"$0\" \"$@\"");
    let call = std::process::Command::new("bash")
        .args(["-c", &script])
        .arg(assert_cmd::cargo::cargo_bin!("sidetone"))
        .args(["call", &address, "--seconds", "3", "--record"])
        .arg(&heard)
        // Memory that threads reserve counts, too.
        .envs([("TOKIO_WORKER_THREADS", "1"), ("MALLOC_ARENA_MAX", "1")])
        .output()
        .unwrap();
    server.join().unwrap();
    let finished = last_event(&call);
    // On a busy machine a message may be late, and the call fails as one of Asterisk's would.
    match call.status.code() {
        Some(0) => assert_eq!(finished["ended_by"], "caller", "{finished}"),
        code => {
            assert_eq!(code, Some(1), "{}", stderr(&call));
            assert!(
                stderr(&call).contains("inside a message"),
                "{}",
                stderr(&call)
            );
        }
    }
    let stdout = String::from_utf8(call.stdout.clone()).unwrap();
    let recorded = stdout
        .lines()
        .find(|line| line.contains("\"recorded\""))
        .unwrap();
    let recorded: serde_json::Value = serde_json::from_str(recorded).unwrap();
    let count = |name: &str| recorded[name].as_u64().unwrap();
    assert!(count("surplus_ms") + count("lost_frames") > 0, "{recorded}");
    // The length of the call, and the five seconds that are kept of audio that comes too early.
    let (_, left, _) = read_stereo(&heard);
    let call_ms = finished["duration_ms"].as_u64().unwrap() as usize;
    assert!(left.len() <= (call_ms + 6_000) * 8, "{recorded}");
}

#[test]
fn a_call_beyond_the_limit_is_rejected() {
    let (mut server, address) = Running::serve("echo --max-calls 1");
    let mut first = Running::start(crate::kit::sidetone(["call", &address, "--seconds", "60"]));
    server.wait_for("call_started");
    let second = run(&format!("call {address} --seconds 60"));
    assert_eq!(last_event(&second)["ended_by"], "server");
    assert_eq!(server.wait_for("rejected")["reason"], "full");
    first.terminate();
    assert_eq!(first.exit_code(), 0);
    assert_ended_by_caller(&server.wait_for("call_ended"));
}

#[test]
fn a_call_from_elsewhere_is_rejected() {
    let (mut server, address) = Running::serve("echo --allow 10.0.0.0/8 --allow 192.168.0.0/16");
    let call = run(&format!("call {address} --seconds 60"));
    assert_eq!(last_event(&call)["ended_by"], "server");
    assert_eq!(server.wait_for("rejected")["reason"], "not_allowed");
}

/// A server on both families, and its port.
fn serve_on_both(allow: &str) -> (Running, String) {
    let mut server = Running::start(sidetone(["echo", "--listen", "[::]:0", "--allow", allow]));
    let listening = server.wait_for("listening");
    let (_, port) = listening["address"]
        .as_str()
        .unwrap()
        .rsplit_once(':')
        .unwrap();
    let port = port.to_owned();
    (server, port)
}

#[test]
fn an_ipv4_address_is_allowed_in_every_form_and_on_an_ipv6_socket() {
    for allow in [
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:127.0.0.0/104",
        "localhost",
    ] {
        let (mut server, port) = serve_on_both(allow);
        run(&format!("call 127.0.0.1:{port} --seconds 0.3"));
        let peer = server.wait_for("call_started")["peer"].clone();
        assert!(
            peer.as_str().unwrap().starts_with("127.0.0.1:"),
            "{allow}: {peer}"
        );
        server.wait_for("call_ended");
        server.stop();
    }
    let (mut server, port) = serve_on_both("::ffff:10.0.0.0/104");
    run(&format!("call 127.0.0.1:{port} --seconds 0.3"));
    assert_eq!(server.wait_for("rejected")["reason"], "not_allowed");
}

#[test]
fn a_name_that_may_connect_is_reported_with_its_addresses() {
    let (mut server, address) = Running::serve("echo --allow localhost");
    run(&format!("call {address} --seconds 0.3"));
    server.wait_for("call_started");
    let allowed = &server.seen[0];
    assert_eq!(
        (&allowed["event"], &allowed["name"]),
        (&"allowed".into(), &"localhost".into())
    );
    let addresses = allowed["addresses"].as_array().unwrap();
    assert!(addresses.contains(&"127.0.0.1".into()), "{allowed}");
}

#[test]
fn call_presses_keys_at_the_given_times() {
    let (mut server, address) = Running::serve("echo --log-digits");
    // The keys without a time are pressed after one second.
    let call = run(&format!("call {address} --dtmf #@1.6,42,1@0.3"));
    assert_eq!(call.status.code(), Some(0), "{}", stderr(&call));
    let digits: Vec<_> = (0..4)
        .map(|_| server.wait_for("dtmf")["digit"].clone())
        .collect();
    assert_eq!(digits, ["1", "4", "2", "#"]);
    let finished = last_event(&call);
    assert_eq!(finished["digits"], 4);
    // Two seconds after the last key has been pressed.
    assert!(
        finished["duration_ms"].as_u64().unwrap() >= 3850,
        "{finished}"
    );
}
