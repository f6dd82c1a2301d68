//! The file, read again while calls run.

use std::time::Duration;

use sidetone_caller::EndCause;
use uuid::Uuid;

use crate::kit::{ECHO, OPEN, TestGateway};

#[test]
fn what_can_change_does_so_for_new_calls() {
    let gateway = TestGateway::start("", ECHO);
    let running = gateway.ticket("route=echo");
    let call = gateway.call(running, Duration::from_secs(60));
    gateway.wait_for_call(running);
    let orphan = gateway.ticket("route=echo");
    let routes = "[route.other]\necho = {}\nresult = \"hangup\"\n";
    gateway.reload("", routes).unwrap();
    assert_eq!(gateway.get("/v1/tickets?route=echo").status, 400);
    let record = gateway
        .call(orphan, Duration::from_secs(60))
        .join()
        .unwrap();
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    assert_eq!(gateway.of("call.rejected", orphan)["reason"], "route_gone");
    let new = gateway.ticket("route=other");
    gateway
        .call(new, Duration::from_millis(200))
        .join()
        .unwrap();
    assert_eq!(gateway.of("call.ended", new)["result"], "hangup");
    // The call that was there goes on as it began.
    gateway.wait_for_call(running);
    gateway.admin("POST", &format!("/v1/calls/{running}/hangup"), None);
    call.join().unwrap();
    assert_eq!(gateway.of("call.ended", running)["result"], "continue");
}

#[test]
fn what_cannot_change_is_said() {
    let gateway = TestGateway::start(OPEN, ECHO);
    gateway
        .reload(
            &format!("{OPEN}\ncodec = \"ulaw\"\nstate_dir = \"state\""),
            ECHO,
        )
        .unwrap();
    let text = gateway.event("reloaded", |_| true)["text"].to_string();
    assert!(text.contains("server.codec, server.state_dir"), "{text}");
}

#[test]
fn a_bad_file_changes_nothing_and_is_said() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let errors = gateway.reload("max_cals = 1", ECHO).unwrap_err();
    gateway.handle.report_bad_file(&errors);
    let alarm = gateway.event("alarm", |it| it["name"] == "configuration");
    assert!(alarm["text"].to_string().contains("max_calls"), "{alarm}");
    let alarms = || gateway.admin("GET", "/v1/status", None).json()["alarms"].clone();
    assert_eq!(alarms()[0]["name"], "configuration");
    gateway.reload(OPEN, ECHO).unwrap();
    assert_eq!(alarms(), serde_json::json!([]));
    let id = Uuid::new_v4();
    let record = gateway.call(id, Duration::from_millis(200)).join().unwrap();
    assert_eq!(record.ended.cause, EndCause::HungUp);
}
