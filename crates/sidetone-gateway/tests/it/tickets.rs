//! Who gets in.

use std::time::Duration;

use serde_json::json;
use sidetone_caller::EndCause;
use uuid::Uuid;

use crate::kit::{ECHO, OPEN, TestGateway};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_ticket_lets_its_call_in_with_what_the_dialplan_says_of_it() {
    let gateway = TestGateway::start("", ECHO);
    let answer = gateway.get("/v1/tickets?route=echo&from=%2B49%2030%2C1&name=Ann+%22B%22");
    assert_eq!(answer.status, 200);
    let (id, address) = answer.body.split_once(',').unwrap();
    assert_eq!(address, gateway.address.to_string());
    let id: Uuid = id.parse().unwrap();
    let record = gateway.call(id, SHORT).join().unwrap();
    assert_eq!(record.ended.cause, EndCause::HungUp);
    assert!(record.heard_samples().iter().any(|sample| *sample != 0));
    for kind in ["call.started", "call.ended"] {
        let data = gateway.of(kind, id);
        assert_eq!(data["route"], "echo");
        assert_eq!(
            data["params"],
            json!({"from": "+49 30,1", "name": "Ann \"B\""})
        );
    }
}

#[test]
fn a_ticket_comes_in_the_form_that_is_asked_for() {
    let gateway = TestGateway::start("advertise = \"pbx.example:9092\"", ECHO);
    let dial = gateway.get("/v1/tickets?route=echo&format=dial").body;
    assert!(dial.starts_with("AudioSocket/pbx.example:9092/"), "{dial}");
    let headers = [("accept", "application/json")];
    let json = gateway.request("GET", "/v1/tickets?route=echo", &headers, None);
    let json = json.json();
    assert_eq!(json["address"], "pbx.example:9092");
    assert_eq!(json["expires_in_ms"], 30_000);
    let id = json["id"].as_str().unwrap();
    assert_eq!(json["dial"], format!("AudioSocket/pbx.example:9092/{id}"));
}

/// What becomes of a call that has this UUID: the reason in the log.
fn rejected(gateway: &TestGateway, id: Uuid) -> String {
    let record = gateway.call(id, LONG).join().unwrap();
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    let data = gateway.of("call.rejected", id);
    data["reason"].as_str().unwrap().to_owned()
}

#[test]
fn without_a_good_ticket_a_call_is_rejected_each_for_its_own_reason() {
    let gateway = TestGateway::start("ticket_lifetime = \"1s\"", ECHO);
    assert_eq!(rejected(&gateway, Uuid::new_v4()), "no_ticket");

    let used = gateway.ticket("route=echo");
    gateway.call(used, SHORT).join().unwrap();
    gateway.of("call.ended", used);
    assert_eq!(rejected(&gateway, used), "ticket_used");

    let connected = gateway.ticket("route=echo");
    let call = gateway.call(connected, LONG);
    gateway.wait_for_call(connected);
    assert_eq!(rejected(&gateway, connected), "already_connected");
    // The first call goes on.
    gateway.wait_for_call(connected);
    gateway.admin("POST", &format!("/v1/calls/{connected}/hangup"), None);
    call.join().unwrap();

    let late = gateway.ticket("route=echo");
    while gateway.admin("GET", "/v1/status", None).json()["unused_tickets"] != 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(rejected(&gateway, late), "ticket_expired");

    let status = gateway.admin("GET", "/v1/status", None).json();
    let each =
        json!({"no_ticket": 1, "ticket_used": 1, "already_connected": 1, "ticket_expired": 1});
    assert_eq!(status["rejected"], each);
}

#[test]
fn an_unused_ticket_holds_the_place_of_its_call() {
    let gateway = TestGateway::start(&format!("max_calls = 2\n{OPEN}"), ECHO);
    let ticket = gateway.ticket("route=echo");
    let first = Uuid::new_v4();
    let call = gateway.call(first, LONG);
    gateway.wait_for_call(first);
    // The ticket's call is missing, and there is no place for another one.
    let answer = gateway.get("/v1/tickets?route=echo");
    assert_eq!((answer.status, answer.body.as_str()), (503, ""));
    assert_eq!(gateway.get("/readyz").status, 503);
    assert_eq!(rejected(&gateway, Uuid::new_v4()), "full");
    let with_ticket = gateway.call(ticket, SHORT).join().unwrap();
    assert_eq!(with_ticket.ended.cause, EndCause::HungUp);
    gateway.admin("POST", &format!("/v1/calls/{first}/hangup"), None);
    call.join().unwrap();
    gateway.of("call.ended", first);
    assert_eq!(gateway.get("/readyz").status, 200);
}

#[test]
fn a_route_has_as_many_calls_as_it_may_and_others_go_on() {
    let routes = "[route.echo]\necho = {}\nmax_calls = 2\n[route.other]\necho = {}\n";
    let gateway = TestGateway::start(OPEN, routes);
    let ticket = gateway.ticket("route=echo");
    // One that needs no ticket has the other place.
    let first = Uuid::new_v4();
    let call = gateway.call(first, LONG);
    gateway.wait_for_call(first);
    let answer = gateway.get("/v1/tickets?route=echo");
    assert_eq!((answer.status, answer.body.as_str()), (503, ""));
    assert_eq!(rejected(&gateway, Uuid::new_v4()), "route_full");
    assert_eq!(gateway.get("/readyz").status, 200);
    let other = gateway.ticket("route=other");
    for ticket in [ticket, other] {
        let record = gateway.call(ticket, SHORT).join().unwrap();
        assert_eq!(record.ended.cause, EndCause::HungUp);
    }
    gateway.admin("POST", &format!("/v1/calls/{first}/hangup"), None);
    call.join().unwrap();
    gateway.of("call.ended", first);
    gateway.ticket("route=echo");
}

#[test]
fn unused_tickets_are_bounded_for_each_token() {
    let gateway = TestGateway::start("max_calls = 8", ECHO);
    // Half of the calls, unless the file says otherwise.
    for _ in 0..4 {
        gateway.ticket("route=echo");
    }
    let answer = gateway.get("/v1/tickets?route=echo");
    assert_eq!((answer.status, answer.body.as_str()), (429, ""));
}

#[test]
fn a_failure_has_an_empty_body_unless_json_is_asked_for() {
    let gateway = TestGateway::start("", ECHO);
    for query in [
        "",
        "?route=nowhere",
        "?route=echo&a=1&a=2",
        "?route=echo&format=x",
    ] {
        let path = format!("/v1/tickets{query}");
        let answer = gateway.get(&path);
        assert_eq!((answer.status, answer.body.as_str()), (400, ""), "{query}");
        let headers = [("accept", "application/json")];
        let answer = gateway.request("GET", &path, &headers, None);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.json()["status"], 400);
    }
}

#[test]
fn a_draining_gateway_gives_no_tickets_and_keeps_its_promises() {
    let gateway = TestGateway::start("", ECHO);
    let promised = gateway.ticket("route=echo");
    let drain = gateway.admin("POST", "/v1/drain", Some(json!({"deadline_s": 60})));
    assert_eq!(drain.status, 202);
    assert_eq!(gateway.get("/v1/tickets?route=echo").status, 503);
    let ready = gateway.get("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "draining\n"));
    let record = gateway.call(promised, SHORT).join().unwrap();
    assert_eq!(record.ended.cause, EndCause::HungUp);
    assert_eq!(gateway.admin("DELETE", "/v1/drain", None).status, 204);
    assert_eq!(gateway.get("/readyz").status, 200);
}

#[test]
fn a_gateway_that_ends_without_a_successor_promises_nothing_more() {
    let gateway = TestGateway::start("", ECHO);
    let id = gateway.ticket("route=echo");
    let call = gateway.call(id, Duration::from_secs(2));
    gateway.wait_for_call(id);
    gateway.handle.shut_down();
    let answer = gateway.get("/v1/tickets?route=echo");
    assert_eq!((answer.status, answer.body.as_str()), (503, ""));
    assert_eq!(call.join().unwrap().ended.cause, EndCause::HungUp);
}

#[test]
fn calls_are_hung_up_when_a_drain_is_over() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let id = Uuid::new_v4();
    let call = gateway.call(id, LONG);
    gateway.wait_for_call(id);
    gateway.admin("POST", "/v1/drain", Some(json!({"deadline_s": 0})));
    assert_eq!(call.join().unwrap().ended.cause, EndCause::ServerHungUp);
}
