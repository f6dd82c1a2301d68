//! What operators do to calls.

use std::{net::SocketAddr, sync::OnceLock, time::Duration};

use serde_json::json;
use sidetone_caller::EndCause;
use uuid::Uuid;

use crate::kit::{ADMIN, ECHO, OPEN, TestGateway};

const LONG: Duration = Duration::from_secs(60);

/// Writes a sound of this many seconds that is nowhere silent.
fn write_sound(path: &std::path::Path, seconds: u32) {
    let samples = (0..8_000 * seconds).map(|at| if at % 8 < 4 { 3_000_i16 } else { -3_000 });
    let samples: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
    std::fs::write(path, samples).unwrap();
}

#[test]
fn a_call_is_hung_up_and_the_log_says_by_whom() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let id = Uuid::new_v4();
    let call = gateway.call(id, LONG);
    gateway.wait_for_call(id);
    let answer = gateway.admin("POST", &format!("/v1/calls/{id}/hangup"), None);
    assert_eq!(answer.status, 204);
    assert_eq!(call.join().unwrap().ended.cause, EndCause::ServerHungUp);
    let control = gateway.of("control", id);
    assert_eq!(
        (&control["token"], &control["action"]),
        (&json!("admin"), &json!("hangup"))
    );
    let again = gateway.of("call.ended", id);
    assert_eq!(again["ended_by"], "server");
    let answer = gateway.admin("POST", &format!("/v1/calls/{id}/hangup"), None);
    assert_eq!(answer.status, 404);
}

#[test]
fn a_call_is_hung_up_before_it_is_handled() {
    static HTTP: OnceLock<SocketAddr> = OnceLock::new();
    let folder = tempfile::tempdir().unwrap();
    // While it is said that the call has started, nothing handles it.
    let gateway = TestGateway::start_watched(folder, OPEN, ECHO, |event| {
        if event["type"] == "call.started" {
            let id = event["data"]["call"].as_str().unwrap();
            let url = format!("http://{}/v1/calls/{id}/hangup", HTTP.get().unwrap());
            let request = ureq::post(url).header("authorization", format!("Bearer {ADMIN}"));
            assert_eq!(request.send_empty().unwrap().status(), 204);
        }
    });
    HTTP.set(gateway.http).unwrap();
    let id = Uuid::new_v4();
    let call = gateway.call(id, LONG).join().unwrap();
    assert_eq!(call.ended.cause, EndCause::ServerHungUp);
    assert_eq!(gateway.of("call.ended", id)["ended_by"], "server");
}

#[test]
fn a_sound_is_played_and_cleared() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sounds")).unwrap();
    write_sound(&folder.path().join("sounds/long.sln"), 30);
    let server = format!("{OPEN}\nsounds_dir = \"sounds\"");
    let recording = "[recording]\ndir = \"recordings\"\n[route.echo]\nrecord = true\n";
    let gateway = TestGateway::start_in(folder, &server, recording);
    let id = Uuid::new_v4();
    let call = gateway.call(id, LONG);
    gateway.wait_for_call(id);
    let play = |file: &str| {
        let body = json!({"file": file});
        gateway.admin("POST", &format!("/v1/calls/{id}/play"), Some(body))
    };
    for outside in [
        "../admin.key",
        "/etc/passwd",
        ".",
        "",
        "sounds/long.sln",
        "nothing.wav",
    ] {
        let status = play(outside).status;
        assert!([400, 404].contains(&status), "{outside}: {status}");
    }
    let answer = play("long.sln");
    assert_eq!(
        (answer.status, answer.json()),
        (202, json!({"duration_ms": 30_000}))
    );
    while gateway.wait_for_call(id)["queued_ms"].as_u64() == Some(0) {}
    let cleared = gateway.admin("POST", &format!("/v1/calls/{id}/clear"), None);
    let cleared = cleared.json();
    let of = |key: &str| cleared[key].as_u64().unwrap();
    assert!(of("discarded_ms") > 0, "{cleared}");
    assert_eq!(of("heard_ms") + of("discarded_ms"), 30_000, "{cleared}");
    gateway.admin("POST", &format!("/v1/calls/{id}/hangup"), None);
    let record = call.join().unwrap();
    let heard = record.heard_samples().iter().filter(|it| **it != 0).count() as u64;
    // What the caller's log says decides.
    assert!(
        heard.abs_diff(of("heard_ms") * 8) <= 160,
        "{heard} {cleared}"
    );
}

#[test]
fn a_body_that_is_wrong_is_a_problem_and_changes_nothing() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let id = Uuid::new_v4();
    let call = gateway.call(id, LONG);
    gateway.wait_for_call(id);
    for (method, path) in [("POST", "play"), ("POST", "record"), ("PUT", "result")] {
        for body in [
            json!(null),
            json!([]),
            json!({}),
            json!({"action": "explode"}),
            json!({"unknown": 1}),
        ] {
            let path = format!("/v1/calls/{id}/{path}");
            let answer = gateway.admin(method, &path, Some(body));
            assert!((400..500).contains(&answer.status), "{answer:?}");
            assert_eq!(answer.headers["content-type"], "application/problem+json");
        }
    }
    gateway.wait_for_call(id);
    gateway.admin("POST", &format!("/v1/calls/{id}/hangup"), None);
    call.join().unwrap();
}
