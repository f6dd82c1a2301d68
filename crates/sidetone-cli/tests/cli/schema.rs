//! The output for programs: one JSON object per line, and its fields.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::Value;

use crate::kit::{Running, assert_ended_by_caller, run};

fn keys(event: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = event
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

#[test]
fn call_ended_has_its_fixed_fields() {
    let (mut server, address) = Running::serve("echo");
    run(&format!("call {address} --dtmf 1# --seconds 5"));
    let ended = server.wait_for("call_ended");
    assert_eq!(
        keys(&ended),
        [
            "codec",
            "digits",
            "duration_ms",
            "ended_by",
            "event",
            "frames_in",
            "frames_out",
            "gaps",
            "id",
            "lagged",
            "peer",
            "reason",
            "reset",
            "slips",
            "time",
            "underruns",
            "worst_lateness_ms",
        ]
    );
    assert_eq!(ended["codec"], "slin");
    assert_eq!(ended["digits"], 2);
    assert_ended_by_caller(&ended);
    assert!(ended["ended_by"].is_string());
    for number in ["duration_ms", "frames_in", "frames_out"] {
        assert!(ended[number].as_u64().unwrap() > 0, "{number} in {ended}");
    }
    for number in ["gaps", "slips", "underruns", "lagged"] {
        assert!(ended[number].is_u64(), "{number} in {ended}");
    }
    assert!(ended["worst_lateness_ms"].is_number());
    assert!(ended["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn the_events_of_a_call_come_in_order() {
    let id = "40325ec2-5efd-4bd3-805f-53576e581d13";
    let (mut server, address) = Running::serve("echo");
    run(&format!("call {address} --uuid {id} --dtmf 5 --seconds 4"));
    server.wait_for("call_ended");
    let events = server.stop();
    let names: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        // A busy machine makes frames late.
        .filter(|name| *name != "lagged")
        .collect();
    assert_eq!(
        names,
        [
            "listening",
            "call_started",
            "dtmf",
            "call_ended",
            "shutting_down",
            "stopped"
        ]
    );
    let of_the_call = events.iter().filter(|event| event.get("id").is_some());
    assert!(of_the_call.clone().count() >= 3);
    of_the_call.for_each(|event| assert_eq!(event["id"], id));
}

#[test]
fn digits_are_shown_only_with_log_digits() {
    for (option, shown) in [("", "*"), ("--log-digits", "7")] {
        let (mut server, address) = Running::serve(&format!("echo {option}"));
        run(&format!("call {address} --dtmf 7 --seconds 4"));
        assert_eq!(server.wait_for("dtmf")["digit"], shown);
    }
}

#[test]
fn a_reset_after_audio_is_the_callers_hang_up() {
    let (mut server, address) = Running::serve("echo --codec slin");
    let uuid = b"\x01\x00\x100123456789abcdef";
    let audio = [&[0x10, 1, 64][..], &[0; 320]].concat();
    for (sent, reason, by) in [
        (&[&uuid[..], &audio].concat(), "caller_hung_up", "caller"),
        (&uuid.to_vec(), "connection_reset", "connection"),
    ] {
        let mut connection = TcpStream::connect(&address).unwrap();
        connection.write_all(sent).unwrap();
        server.wait_for("call_started");
        // Closed with unread audio, the connection is reset.
        connection.peek(&mut [0; 1]).unwrap();
        drop(connection);
        let seen = server.seen.len();
        let ended = server.wait_for("call_ended");
        assert_eq!(
            (&ended["reason"], &ended["ended_by"]),
            (&reason.into(), &by.into())
        );
        assert_eq!(ended["reset"], by == "caller");
        // The codec of the option, even without any audio.
        assert_eq!(ended["codec"], "slin");
        let errors = server.seen[seen..]
            .iter()
            .filter(|event| event["event"] == "error");
        assert_eq!(errors.count(), usize::from(by == "connection"));
    }
}

#[test]
fn a_call_without_audio_has_the_codec_of_the_option() {
    for codec in ["slin", "ulaw", "alaw", "auto"] {
        let (mut server, address) = Running::serve(&format!("echo --codec {codec}"));
        let mut connection = TcpStream::connect(&address).unwrap();
        connection
            .write_all(b"\x01\x00\x100123456789abcdef")
            .unwrap();
        server.wait_for("call_started");
        drop(connection);
        assert_eq!(server.wait_for("call_ended")["codec"], codec);
    }
}

#[test]
fn a_flood_of_digits_is_reported_by_its_number() {
    const DIGITS: u64 = 30_000;
    let (mut server, address) = Running::serve("echo");
    let mut connection = TcpStream::connect(&address).unwrap();
    let flood = b"\x03\x00\x015".repeat(100);
    let uuid = b"\x01\x00\x100123456789abcdef";
    connection.write_all(uuid).unwrap();
    let mut heard = [0; 4096];
    for _ in 0..DIGITS / 100 {
        connection.write_all(&flood).unwrap();
        // After a frame the handler has had time to read the digits.
        connection.read_exact(&mut heard[..323]).unwrap();
    }
    connection.write_all(&[0, 0, 0]).unwrap();
    let ended = server.wait_for("call_ended");
    assert_eq!(ended["digits"], DIGITS);
    let reported = server.count("dtmf");
    let suppressed: u64 = server
        .seen
        .iter()
        .filter(|event| event["event"] == "suppressed")
        .inspect(|event| assert_eq!((&event["of"], &event["id"]), (&"dtmf".into(), &ended["id"])))
        .map(|event| event["count"].as_u64().unwrap())
        .sum();
    assert_eq!(reported as u64 + suppressed, DIGITS);
    let seconds = ended["duration_ms"].as_u64().unwrap() as usize / 1000 + 2;
    assert!(reported <= 20 * seconds, "{reported} in {seconds} s");
}

#[test]
fn the_dialplan_lines_name_the_address() {
    let (server, address) = Running::serve("echo");
    let listening = &server.seen[0];
    let dialplan = listening["dialplan"].as_array().unwrap();
    let line = format!(" same => n,AudioSocket(${{CALL_ID}},{address})");
    assert!(
        dialplan.iter().any(|text| *text == line.as_str()),
        "{listening}"
    );
}

#[test]
fn a_wideband_call_is_reported_with_the_name_of_its_codec() {
    let (mut server, address) = Running::serve("echo");
    run(&format!("call {address} --rate 16000 --seconds 1"));
    assert_eq!(server.wait_for("call_ended")["codec"], "slin16");
}

#[test]
fn a_connection_without_a_uuid_is_reported_once() {
    let (mut server, address) = Running::serve("echo");
    for _ in 0..3 {
        TcpStream::connect(&address).unwrap();
    }
    let notice = server.wait_for("notice");
    assert!(
        notice["text"].as_str().unwrap().contains("Answer()"),
        "{notice}"
    );
    let events = server.stop();
    let notices = events.iter().filter(|event| event["event"] == "notice");
    assert_eq!(notices.count(), 1);
}
