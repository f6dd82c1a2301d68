//! What watchers and the log are told.

use std::time::Duration;

use sidetone_caller::{Caller, Voice};
use uuid::Uuid;

use crate::kit::{ECHO, EventStream, OPEN, TestGateway};

fn dtmf_call(gateway: &TestGateway, id: Uuid) {
    let caller = Caller::new(gateway.address)
        .uuid(id)
        .say(Voice::Ramp(1))
        .dtmf("7", Duration::from_millis(200))
        .hang_up_after(Duration::from_millis(600));
    gateway.place(caller).join().unwrap();
}

#[test]
fn digits_are_hidden_in_the_log_and_shown_to_those_who_may_listen() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let events = EventStream::open(&gateway);
    let id = Uuid::new_v4();
    dtmf_call(&gateway, id);
    assert_eq!(events.next("dtmf")["data"]["digit"], "7");
    assert_eq!(gateway.of("dtmf", id)["digit"], "*");
}

#[test]
fn the_operator_can_ask_for_digits() {
    let gateway = TestGateway::start(&format!("{OPEN}\nlog_digits = true"), ECHO);
    let id = Uuid::new_v4();
    dtmf_call(&gateway, id);
    assert_eq!(gateway.of("dtmf", id)["digit"], "7");
}

#[test]
fn watchers_see_calls_and_what_happens_to_them() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let events = EventStream::open(&gateway);
    let id = Uuid::new_v4();
    let call = gateway.call(id, Duration::from_secs(60));
    assert_eq!(events.next("call.started")["data"]["call"], id.to_string());
    loop {
        let calls = events.next("calls");
        if let Some(shown) = calls["calls"].as_array().unwrap().first() {
            assert_eq!(shown["id"], id.to_string());
            assert_eq!(calls["status"]["running"], 1);
            break;
        }
    }
    let levels = events.next("levels");
    assert_eq!(levels[0][0], id.to_string());
    gateway.admin("POST", &format!("/v1/calls/{id}/hangup"), None);
    call.join().unwrap();
    assert_eq!(events.next("call.ended")["data"]["call"], id.to_string());
}

#[test]
fn nothing_is_reported_of_a_call_after_its_end() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let ids: Vec<Uuid> = (0..20).map(|_| Uuid::new_v4()).collect();
    let calls: Vec<_> = ids
        .iter()
        .map(|id| gateway.call(*id, Duration::from_millis(200)))
        .collect();
    calls
        .into_iter()
        .for_each(|call| drop(call.join().unwrap()));
    for id in ids {
        gateway.of("call.ended", id);
        let kinds = gateway.events().into_iter();
        let kinds = kinds.filter(|event| event["data"]["call"] == id.to_string());
        let kinds: Vec<_> = kinds.map(|event| event["type"].clone()).collect();
        assert_eq!(kinds.first().unwrap(), "call.started");
        assert_eq!(kinds.last().unwrap(), "call.ended");
    }
}
