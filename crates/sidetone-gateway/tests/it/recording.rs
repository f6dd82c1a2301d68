//! Recordings, with what is known of their calls beside them.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::kit::{OPEN, TestGateway};

const RECORD: &str = "[recording]\ndir = \"recordings\"\n[route.echo]\necho = {}\nrecord = true\n";
const LONG: Duration = Duration::from_secs(60);

fn side_file(gateway: &TestGateway, id: Uuid) -> Value {
    let text = std::fs::read_to_string(gateway.path(&format!("recordings/{id}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_recording_has_its_calls_data_beside_it() {
    let gateway = TestGateway::start("", RECORD);
    let id = gateway.ticket("route=echo&from=100");
    gateway.call(id, Duration::from_millis(500)).join().unwrap();
    let ended = gateway.of("recording.ended", id);
    assert_eq!(ended["failure"], Value::Null);
    let side = side_file(&gateway, id);
    assert_eq!(side["params"], json!({"from": "100"}));
    let file = side["recordings"][0]["files"][0].as_str().unwrap();
    assert!(gateway.path("recordings").join(file).is_file());
    assert!(file.contains(&id.to_string()));
}

#[test]
fn recording_is_paused_resumed_and_stopped_while_the_call_goes_on() {
    let gateway = TestGateway::start(OPEN, RECORD);
    let id = Uuid::new_v4();
    let call = gateway.call(id, LONG);
    gateway.wait_for_call(id);
    let act = |action: &str| {
        let path = format!("/v1/calls/{id}/record");
        gateway.admin("POST", &path, Some(json!({"action": action})))
    };
    let state = |action: &str| act(action).json()["recording"].clone();
    assert_eq!(state("pause"), "paused");
    assert_eq!(gateway.wait_for_call(id)["recording"], "paused");
    assert_eq!(state("resume"), "on");
    assert_eq!(state("stop"), "off");
    assert_eq!(act("pause").status, 409);
    assert_eq!(act("resume").status, 409);
    // A second recording of the same call, before the first is complete.
    assert_eq!(state("start"), "on");
    gateway.of("recording.ended", id);
    assert_eq!(gateway.wait_for_call(id)["recording"], "on");
    gateway.admin("POST", &format!("/v1/calls/{id}/hangup"), None);
    call.join().unwrap();
    gateway.of("call.ended", id);
    let both = |events: Vec<Value>| {
        let ended = events.iter();
        ended.filter(|it| it["type"] == "recording.ended").count() == 2
    };
    while !both(gateway.events()) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(
        side_file(&gateway, id)["recordings"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_disk_that_is_almost_full_leaves_calls_unrecorded_and_raises_the_alarm() {
    let record = RECORD.replace("dir", "min_free = \"1000000TB\"\ndir");
    let gateway = TestGateway::start(OPEN, &record);
    let alarm = gateway.event("alarm", |it| it["name"] == "recording_disk");
    assert_eq!(alarm["active"], true);
    let ready = gateway.get("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "disk\n"));
    let id = Uuid::new_v4();
    let record = gateway.call(id, Duration::from_millis(300)).join().unwrap();
    assert!(record.heard_samples().iter().any(|sample| *sample != 0));
    assert!(
        gateway.of("call.notice", id)["text"]
            .to_string()
            .contains("min_free")
    );
    gateway.of("call.ended", id);
    let files = std::fs::read_dir(gateway.path("recordings")).unwrap();
    assert_eq!(files.count(), 0);
}
