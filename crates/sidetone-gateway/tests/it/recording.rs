//! Recordings in sound and in words, with what is known of their calls beside them.

use std::{
    os::unix::fs::PermissionsExt,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sidetone_services::realtime::{Answer, RealtimeServer, Script, Turn};
use uuid::Uuid;

use crate::kit::{OPEN, PATIENCE, TestGateway};

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

/// A bot that is said something after three seconds of each call, and answers.
struct Talkative {
    gateway: TestGateway,
    _service: RealtimeServer,
    _runtime: tokio::runtime::Runtime,
}

impl Talkative {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let script = Script {
            turns: [Turn {
                after: Duration::from_secs(3),
                speech: Duration::from_millis(200),
                answer: Answer::Speech(Duration::from_millis(400)),
            }]
            .into(),
            ..Script::default()
        };
        let service = runtime.block_on(RealtimeServer::start("sk-test", script));
        let service = service.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("openai.key"), "sk-test").unwrap();
        let file = format!(
            "[recording]\ndir = \"recordings\"\n[route.talk]\nsave_transcript = true\nbot.dialect = \"openai\"\n\
             bot.url = \"{}\"\n[route.talk.bot.openai]\nkey = {{ file = \"openai.key\" }}\n\
             model = \"gpt-realtime\"\ntranscribe = \"gpt-4o-transcribe\"\n",
            service.endpoint()
        );
        Self {
            gateway: TestGateway::start_in(folder, "", &file),
            _service: service,
            _runtime: runtime,
        }
    }

    /// A call in which both have spoken. Returns its side file and what is written down.
    fn talk(&self, meanwhile: impl FnOnce(Uuid)) -> (Value, String) {
        let gateway = &self.gateway;
        let id = gateway.ticket("route=talk&from=100");
        let call = gateway.call(id, LONG);
        gateway.wait_for_call(id);
        meanwhile(id);
        for speaker in ["caller", "bot"] {
            gateway.event("transcript", |data| {
                data["call"] == id.to_string() && data["speaker"] == speaker
            });
        }
        gateway.admin("POST", &format!("/v1/calls/{id}/hangup"), None);
        call.join().unwrap();
        let file = gateway.path(&format!("recordings/{id}.json"));
        let deadline = Instant::now() + PATIENCE;
        while !file.exists() {
            assert!(Instant::now() < deadline, "the transcript is not complete");
            thread::sleep(Duration::from_millis(5));
        }
        let side = side_file(gateway, id);
        let name = side["transcript"].as_str().unwrap();
        assert!(name.ends_with(&format!("Z-{id}.txt")), "{name}");
        let path = gateway.path(&format!("recordings/{name}"));
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        (side, std::fs::read_to_string(path).unwrap())
    }
}

#[test]
fn what_both_say_is_written_down_if_the_file_says_so() {
    let bot = Talkative::start();
    let (side, text) = bot.talk(|id| {
        assert_eq!(bot.gateway.wait_for_call(id)["recording"], "on");
    });
    let said: Vec<_> = text.lines().map(|line| line.split_once("] ")).collect();
    let said: Vec<_> = said.into_iter().map(|line| line.unwrap().1).collect();
    assert_eq!(said.len(), 2, "{text}");
    for line in ["caller: Hello.", "bot: word word"] {
        assert!(said.contains(&line), "{text}");
    }
    assert_eq!(
        (&side["route"], &side["params"]),
        (&json!("talk"), &json!({"from": "100"}))
    );
    assert_eq!(side["recordings"], json!([]));
    // The log does not have it.
    assert!(!format!("{:?}", bot.gateway.events()).contains("word word"));
}

#[test]
fn nothing_is_written_down_while_the_recording_is_paused_nor_what_may_have_been_said_then() {
    let bot = Talkative::start();
    let (_, text) = bot.talk(|id| {
        let act = |action: &str| {
            let path = format!("/v1/calls/{id}/record");
            bot.gateway
                .admin("POST", &path, Some(json!({"action": action})))
                .json()["recording"]
                .clone()
        };
        assert_eq!(act("pause"), "paused");
        // The words of what is said in the pause may come after it.
        assert_eq!(act("resume"), "on");
    });
    assert_eq!(text, "");
}
