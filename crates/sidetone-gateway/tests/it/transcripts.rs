//! Transcripts of calls, with a recognizer that decodes tones.
#![cfg(feature = "vosk")]

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use sidetone_caller::{Caller, EndCause};
use sidetone_services::{Fault, synthesize, vosk::VoskServer};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::kit::{EventStream, OPEN, TestGateway};

const PATIENCE: Duration = Duration::from_secs(20);

struct Recognizer {
    service: VoskServer,
    _runtime: Runtime,
}

impl Recognizer {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        Self {
            service: runtime.block_on(VoskServer::start()).unwrap(),
            _runtime: runtime,
        }
    }

    /// A route that echoes and transcribes, with two hooks.
    fn file(&self, with: SocketAddr, without: SocketAddr) -> String {
        format!(
            "[recording]\ndir = \"recordings\"\n[route.echo]\necho = {{}}\ntranscribe = \"local\"\nsave_transcript = true\n\
             [transcriber.local]\nengine = \"vosk\"\nendpoint = \"{}\"\n\
             [[hook]]\nurl = \"http://{with}/\"\nevents = [\"call.ended\", \"transcript\"]\n\
             [[hook]]\nurl = \"http://{without}/\"\nevents = [\"call.ended\"]\n",
            self.service.endpoint()
        )
    }
}

/// An endpoint for hooks, and the messages that it gets.
fn endpoint() -> (SocketAddr, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, messages) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender) = (stream.unwrap(), sender.clone());
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while let Some(body) = body(&mut reader) {
                    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
                    if sender.send(serde_json::from_slice(&body).unwrap()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, messages)
}

fn body(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut length = 0;
    for line in reader.by_ref().lines() {
        let line = line.ok()?.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            return Some(body);
        }
    }
    None
}

/// The messages of a call until its end.
fn until_the_end(messages: &Receiver<Value>, id: Uuid) -> Vec<Value> {
    let mut found = Vec::new();
    loop {
        let message = messages.recv_timeout(PATIENCE).unwrap();
        if message["data"]["call"] == id.to_string() {
            let is_end = message["type"] == "call.ended";
            found.push(message);
            if is_end {
                return found;
            }
        }
    }
}

fn caller(gateway: &TestGateway, id: Uuid, words: &[&str]) -> Caller {
    let mut voice = vec![0; 4_000];
    voice.extend(synthesize(words, 8_000));
    let said = Duration::from_millis(voice.len() as u64 / 8);
    Caller::new(gateway.address)
        .uuid(id)
        .say(voice)
        .hang_up_after(said + Duration::from_millis(300))
}

#[test]
fn transcripts_reach_those_who_asked_and_no_log() {
    let recognizer = Recognizer::start();
    let ((with, asked), (without, not_asked)) = (endpoint(), endpoint());
    let gateway = TestGateway::start(OPEN, &recognizer.file(with, without));
    let events = EventStream::open(&gateway);
    let id = Uuid::new_v4();
    let record = gateway
        .place(caller(&gateway, id, &["hello", "world"]))
        .join()
        .unwrap();
    assert_eq!(record.ended.cause, EndCause::HungUp);

    // An administrator may listen, and so may read what was said.
    let watched = events.next("transcript")["data"].clone();
    assert_eq!(watched["text"], "hello world");
    let messages = until_the_end(&asked, id);
    let transcripts: Vec<&Value> = messages
        .iter()
        .filter(|it| it["type"] == "transcript")
        .collect();
    assert_eq!(transcripts.len(), 1, "{messages:#?}");
    let data = &transcripts[0]["data"];
    assert_eq!(
        (&data["text"], &data["route"]),
        (&"hello world".into(), &"echo".into())
    );
    // It began after half a second, and is as long as its ten letters.
    let times = ["start_ms", "end_ms"].map(|key| data[key].as_u64().unwrap());
    assert!(
        (400..=800).contains(&times[0]) && times[1] > times[0] + 300,
        "{data}"
    );

    let others = until_the_end(&not_asked, id);
    assert_eq!(others.len(), 1, "{others:#?}");
    gateway.of("call.ended", id);
    let log = format!("{:?}", gateway.events());
    assert!(!log.contains("hello") && !log.contains("world"), "{log}");
    gateway.of("transcript", id);

    // And it is where the file wants it.
    let side = gateway.path(&format!("recordings/{id}.json"));
    let deadline = Instant::now() + PATIENCE;
    while !side.exists() {
        assert!(Instant::now() < deadline, "the transcript is not complete");
        thread::sleep(Duration::from_millis(5));
    }
    let side: Value = serde_json::from_slice(&std::fs::read(side).unwrap()).unwrap();
    let name = side["transcript"].as_str().unwrap();
    let text = std::fs::read_to_string(gateway.path(&format!("recordings/{name}")));
    assert_eq!(text.unwrap(), "[0:00] caller: hello world\n");
}

#[test]
fn those_who_may_only_read_see_that_something_was_said_and_not_what() {
    let recognizer = Recognizer::start();
    let ((with, asked), (without, _)) = (endpoint(), endpoint());
    let rest = recognizer.file(with, without)
        + "[[http.token]]\nname = \"reader\"\nsecret = { file = \"reader.key\" }\nmay = [\"read\"]\n";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("reader.key"), "the-secret-of-reader").unwrap();
    let gateway = TestGateway::start_in(folder, OPEN, &rest);
    let mut stream = std::net::TcpStream::connect(gateway.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer the-secret-of-reader\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.next().unwrap().unwrap().contains("200"));
    let id = Uuid::new_v4();
    let call = gateway.place(caller(&gateway, id, &["secret"]));
    let mut seen = String::new();
    while !seen.contains("event: call.ended") {
        seen += &lines.next().unwrap().unwrap();
        seen += "\n";
    }
    call.join().unwrap();
    assert!(seen.contains("event: transcript"), "{seen}");
    assert!(!seen.contains("secret"), "{seen}");
    let said = until_the_end(&asked, id);
    assert!(
        said.iter().any(|it| it["data"]["text"] == "secret"),
        "{said:#?}"
    );
}

#[test]
fn a_call_goes_on_without_its_recognizer_and_it_is_said() {
    let recognizer = Recognizer::start();
    recognizer.service.set(Fault::Down);
    let ((with, asked), (without, _)) = (endpoint(), endpoint());
    let gateway = TestGateway::start(OPEN, &recognizer.file(with, without));
    let id = Uuid::new_v4();
    let call = gateway.place(
        Caller::new(gateway.address)
            .uuid(id)
            .say(
                [
                    vec![0; 16_000],
                    synthesize(&["again"], 8_000),
                    vec![0; 64_000],
                ]
                .concat(),
            )
            .hang_up_after(Duration::from_secs(6)),
    );
    let notice = gateway.of("call.notice", id)["text"].clone();
    assert!(
        notice
            .to_string()
            .contains("the recognizer is not available"),
        "{notice}"
    );
    recognizer.service.set(Fault::None);
    let record = call.join().unwrap();
    // The call heard itself all the while.
    assert_eq!(record.ended.cause, EndCause::HungUp);
    assert!(record.counts.frames_heard > 200, "{:?}", record.counts);
    // What was said meanwhile was kept for the recognizer.
    let messages = until_the_end(&asked, id);
    assert!(
        messages.iter().any(|it| it["data"]["text"] == "again"),
        "{messages:#?}"
    );
    let works_again = |data: &Value| data["text"] == "the recognizer works again";
    gateway.event("call.notice", works_again);
}
