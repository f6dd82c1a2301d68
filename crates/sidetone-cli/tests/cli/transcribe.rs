//! Transcription, with test services that are as strict as the real ones.

use std::{
    net::SocketAddr,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde_json::Value;
use sidetone_caller::{CallRecord, Caller, Voice};
use sidetone_services::{
    Fault,
    deepgram::DeepgramServer,
    openai::{Form, Rules, Service},
    synthesize,
    vosk::VoskServer,
};
use tokio::runtime::Runtime;

use crate::kit::{Running, assert_ended_by_caller, run, sidetone, stderr, write_mono};

const HZ: u32 = 8000;

/// A speech service, and the runtime that it runs on.
struct TestService<S = Service> {
    api: S,
    _runtime: Runtime,
}

impl<S> TestService<S> {
    fn start(starting: impl Future<Output = std::io::Result<S>>) -> Self {
        let runtime = Runtime::new().unwrap();
        let api = runtime.block_on(starting).unwrap();
        Self {
            api,
            _runtime: runtime,
        }
    }
}

impl TestService {
    fn with_rules(rules: Rules) -> Self {
        Self::start(Service::start(rules))
    }

    fn transcribe(&self, options: &str) -> (Running, SocketAddr) {
        let line = format!(
            "transcribe --engine openai --endpoint {} {options}",
            self.api.url()
        );
        let (server, address) = Running::serve(&line);
        (server, address.parse().unwrap())
    }
}

/// The voice of a caller: after `silence`, one utterance after the other.
fn voice(silence: Duration, utterances: &[&[&str]]) -> Vec<i16> {
    let mut samples = vec![0; silence.as_millis() as usize * 8];
    for words in utterances {
        samples.extend(synthesize(words, HZ));
    }
    samples
}

/// Places a call that says this and lasts this long.
fn call(address: SocketAddr, voice: Vec<i16>, seconds: u64) -> CallRecord {
    let caller = Caller::new(address).say(voice);
    let caller = caller.hang_up_after(Duration::from_secs(seconds));
    caller.call().unwrap()
}

fn soon() -> Duration {
    Duration::from_millis(500)
}

/// Checks all that the command reports of a call, with interim words.
fn assert_transcribes(engine: &str, endpoint: &str, options: &str, variables: &[(&str, &str)]) {
    let line =
        format!("transcribe --engine {engine} --endpoint {endpoint} --interim --json {options}");
    let (mut server, address) = Running::serve_with(&line, variables);
    let destination = find(&server.seen, "destination");
    assert_eq!(destination["provider"], engine);
    let place = destination["destination"].as_str().unwrap();
    assert!(place.contains(endpoint), "{destination}");
    let said = voice(soon(), &[&["hello", "world"], &["goodbye"]]);
    call(address.parse().unwrap(), said, 6);
    let transcribed = server.wait_for("transcribed");
    let events = server.stop();
    assert_eq!(transcribed["words"], 3, "{events:#?}");
    assert_eq!(transcribed["transcripts"], 2, "{events:#?}");
    assert_eq!(transcribed["lost_ms"], 0, "{events:#?}");
    assert!(transcribed["delay_ms"].is_u64(), "{transcribed}");
    let transcripts: Vec<&Value> = events
        .iter()
        .filter(|event| event["event"] == "transcript")
        .collect();
    let finals = transcripts.iter().filter(|it| it["final"] == true);
    let texts: Vec<&Value> = finals.map(|it| &it["text"]).collect();
    assert_eq!(texts, ["hello world", "goodbye"]);
    assert_eq!(transcripts[0]["text"], "hello", "{events:#?}");
    assert_eq!(transcripts[0]["final"], false);
    for (_, secret) in variables {
        assert!(!format!("{events:?}").contains(secret), "{events:#?}");
    }
}

fn find<'a>(events: &'a [Value], name: &str) -> &'a Value {
    let found = events.iter().find(|event| event["event"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {events:#?}"))
}

fn file(transcribed: &Value, extension: &str) -> (PathBuf, String) {
    let files = transcribed["files"].as_array().unwrap();
    let paths = files
        .iter()
        .map(|path| PathBuf::from(path.as_str().unwrap()));
    let path = paths
        .into_iter()
        .find(|path| path.extension().unwrap() == extension)
        .unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

fn count_files(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn a_call_is_written_in_every_format_and_summarised_but_not_printed() {
    let service = TestService::with_rules(Rules::default());
    let directory = tempfile::tempdir().unwrap();
    let (mut server, address) = service.transcribe(&format!(
        "--output {} --format json,text,vtt,srt",
        directory.path().display()
    ));
    let destination = find(&server.seen, "destination")["destination"].to_string();
    assert!(destination.contains(&service.api.url()), "{destination}");
    let said = voice(soon(), &[&["hello", "world"], &["goodbye"]]);
    call(address, said, 6);
    server.wait_for("call_ended");
    let events = server.stop();

    let transcribed = find(&events, "transcribed");
    assert_eq!(transcribed["words"], 3, "{events:#?}");
    assert_eq!(transcribed["transcripts"], 2);
    assert_eq!(transcribed["lost_ms"], 0);
    assert!(
        transcribed["delay_ms"].as_u64().unwrap() >= 300,
        "the pause at least"
    );
    // The caller's six seconds begin when it has connected, the server's with the UUID, a moment later.
    assert!(transcribed["duration_ms"].as_u64().unwrap() >= 5900);
    assert!(transcribed["failure"].is_null());
    let place = |name: &str| events.iter().position(|event| event["event"] == name);
    assert!(place("transcribed") < place("call_ended"));

    let (_, text) = file(transcribed, "txt");
    assert_eq!(text, "[0:00] hello world\n[0:01] goodbye\n");
    let (_, vtt) = file(transcribed, "vtt");
    assert!(vtt.starts_with("WEBVTT\n\n00:00:00."), "{vtt}");
    assert!(vtt.ends_with("\ngoodbye\n\n"), "{vtt}");
    let (_, srt) = file(transcribed, "srt");
    assert!(srt.starts_with("1\n00:00:00,"), "{srt}");
    assert!(srt.contains("\n\n2\n00:00:01,"), "{srt}");
    let (path, json) = file(transcribed, "jsonl");
    let lines: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["text"], "hello world");
    assert_eq!(lines[0]["side"], "caller");
    assert_eq!(lines[0]["final"], true);
    assert_eq!(lines[0]["words"][1]["text"], "world");
    assert_eq!(lines[0]["id"], transcribed["id"]);
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let id = transcribed["id"].as_str().unwrap();
    assert!(
        !name.contains(':') && name.ends_with(&format!("Z-{id}.jsonl")),
        "{name}"
    );
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(count_files(directory.path()), 4);

    let printed = format!("{events:?}");
    assert!(
        !printed.contains("hello") && !printed.contains("goodbye"),
        "{printed}"
    );
}

/// Checks a caller who mutes the phone with the last sample of a word, and does not hang up.
fn assert_finishes_before_a_mute(engine: &str, endpoint: &str, options: &str) {
    let line = format!(
        "transcribe --engine {engine} --endpoint {endpoint} --stop-word goodbye --json {options}"
    );
    let (mut server, address) = Running::serve(&line);
    let mut said = voice(soon(), &[&["say", "goodbye"]]);
    // Without the pause after them.
    said.truncate(said.len() - HZ as usize * 7 / 10);
    // No further frame is sent.
    let said = Voice::made(move |frame, payload| {
        let samples = said.chunks(160).nth(frame as usize).unwrap_or_default();
        payload.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    });
    let caller = Caller::new(address.parse().unwrap()).say(said);
    let caller = caller.hang_up_after(Duration::from_secs(600));
    let calling = thread::spawn(move || caller.call().unwrap());
    assert_eq!(server.wait_for("transcript")["text"], "say goodbye");
    assert_eq!(server.wait_for("hanging_up")["reason"], "stop_word");
    let transcribed = server.wait_for("transcribed");
    assert_eq!(transcribed["lost_ms"], 0, "{transcribed}");
    calling.join().unwrap();
}

#[test]
fn every_service_finishes_the_words_before_a_mute() {
    let vosk = TestService::start(VoskServer::start());
    assert_finishes_before_a_mute("vosk", &vosk.api.endpoint(), "");
    let deepgram = TestService::start(DeepgramServer::start("topsecret", Duration::from_secs(10)));
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "topsecret\n").unwrap();
    let options = format!("--credentials {}", key.display());
    assert_finishes_before_a_mute("deepgram", &deepgram.api.endpoint(), &options);
    let openai = TestService::with_rules(Rules::default());
    assert_finishes_before_a_mute("openai", &openai.api.url(), "");
}

#[test]
fn vosk_transcribes_a_call() {
    let service = TestService::start(VoskServer::start());
    assert_transcribes("vosk", &service.api.endpoint(), "", &[]);
    assert_eq!(service.api.connections(), 1);
}

#[test]
fn deepgram_transcribes_a_call_with_a_key_from_the_environment_or_a_file() {
    let service = TestService::start(DeepgramServer::start("topsecret", Duration::from_secs(10)));
    let endpoint = service.api.endpoint();
    let options = "--model nova-3 --language en-US";
    assert_transcribes(
        "deepgram",
        &endpoint,
        options,
        &[("DEEPGRAM_API_KEY", "topsecret")],
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    std::fs::write(&file, "topsecret\n").unwrap();
    let options = format!("{options} --credentials {}", file.display());
    assert_transcribes(
        "deepgram",
        &endpoint,
        &options,
        &[("DEEPGRAM_API_KEY", "another")],
    );
    assert_eq!(service.api.connections(), 2);
}

#[cfg(feature = "google")]
mod google {
    use sidetone_caller::Codec;
    use sidetone_services::google::{Rules, Service};
    use tokio::net::TcpListener;

    use super::*;

    /// With its address.
    fn start() -> (TestService<Service>, String) {
        let mut address = String::new();
        let service = TestService::start(async {
            let mut service = Service::new(Rules::default());
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            address = format!("http://{}", service.listen(listener)?);
            Ok(service)
        });
        (service, address)
    }

    #[test]
    fn google_transcribes_a_call() {
        let (service, address) = start();
        let options = "--language en-US --project test";
        assert_transcribes("google", &address, options, &[]);
        let call = &service.api.calls()[0];
        assert_eq!((call.encoding.as_str(), call.hz), ("LINEAR16", HZ));
    }

    #[test]
    fn google_finishes_the_words_before_a_mute() {
        let (_service, address) = start();
        let options = "--language en-US --project test";
        assert_finishes_before_a_mute("google", &address, options);
    }

    #[test]
    fn after_a_refusal_by_google_nothing_is_transcribed() {
        let (_service, address) = start();
        assert_nothing_is_transcribed("google", &address, "--language en-US --project other");
    }

    #[test]
    fn g711_is_sent_to_google_as_it_came() {
        let (service, address) = start();
        let (mut server, listening) = Running::serve(&format!(
            "transcribe --engine google --endpoint {address} --language en-US --project test --codec ulaw"
        ));
        let said = voice(soon(), &[&["hello"]]);
        let caller = Caller::new(listening.parse().unwrap()).codec(Codec::Ulaw);
        let caller = caller.say(said).hang_up_after(Duration::from_secs(4));
        caller.call().unwrap();
        assert_eq!(server.wait_for("transcribed")["words"], 1);
        let call = &service.api.calls()[0];
        assert_eq!((call.encoding.as_str(), call.hz), ("MULAW", HZ));
    }

    #[test]
    fn invalid_credentials_and_unencrypted_endpoints_are_refused() {
        let refusal = |options: &str| {
            let line = format!("transcribe --engine google --language en-US {options}");
            let output = run(&line);
            assert_eq!(output.status.code(), Some(2));
            stderr(&output)
        };
        assert!(refusal("--credentials no-such-file").contains("no-such-file"));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key.json");
        std::fs::write(&file, "\"topsecret\"").unwrap();
        let named = format!("--credentials {}", file.display());
        let text = refusal(&named);
        assert!(text.contains("service account"), "{text}");
        assert!(!text.contains("topsecret"), "{text}");
        let text = refusal(&format!("{named} --endpoint http://127.0.0.1:1"));
        assert!(text.contains("leave --credentials out"), "{text}");
    }
}

#[test]
fn json_prints_the_text() {
    let service = TestService::with_rules(Rules::default());
    let (mut server, address) = service.transcribe("--json --grace 0");
    let said = voice(soon(), &[&["hello", "world"]]);
    // Only the server ends this call.
    let calling = thread::spawn(move || call(address, said, 600));
    assert_eq!(server.wait_for("transcript")["text"], "hello world");
    server.stop();
    calling.join().unwrap();
}

#[test]
fn the_stop_word_hangs_up_when_it_is_a_whole_word() {
    let service = TestService::with_rules(Rules::default());
    let (mut server, address) = service.transcribe("--stop-word STOP --json");
    let said = voice(
        soon(),
        &[&["nonstop"], &["please", "stop", "here"], &["more"]],
    );
    call(address, said, 60);
    let hanging_up = server.wait_for("hanging_up");
    assert_eq!(hanging_up["reason"], "stop_word");
    assert_eq!(server.wait_for("call_ended")["ended_by"], "server");
    let texts: Vec<&Value> = server
        .seen
        .iter()
        .filter(|event| event["event"] == "transcript")
        .map(|event| &event["text"])
        .collect();
    assert_eq!(texts[..2], ["nonstop", "please stop here"]);
}

#[test]
fn the_time_limit_hangs_up() {
    let service = TestService::with_rules(Rules::default());
    let (mut server, address) = service.transcribe("--time-limit 1s");
    call(address, Vec::new(), 60);
    assert_eq!(server.wait_for("hanging_up")["reason"], "time_limit");
    let ended = server.wait_for("call_ended");
    assert_eq!(ended["ended_by"], "server");
    assert!(ended["duration_ms"].as_u64().unwrap() >= 1000);
}

#[test]
fn with_one_call_at_a_time_the_next_one_is_rejected() {
    let service = TestService::with_rules(Rules::default());
    let (mut server, address) = service.transcribe("--max-calls 1 --grace 0");
    let first = thread::spawn(move || call(address, Vec::new(), 600));
    server.wait_for("call_started");
    call(address, Vec::new(), 600);
    assert_eq!(server.wait_for("rejected")["reason"], "full");
    server.stop();
    first.join().unwrap();
}

#[test]
fn a_missing_service_costs_text_but_not_the_call() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let unused = free.local_addr().unwrap();
    drop(free);
    let directory = tempfile::tempdir().unwrap();
    let (mut server, address) = Running::serve(&format!(
        "transcribe --engine openai --endpoint http://{unused} --output {} --format text",
        directory.path().display()
    ));
    let said = voice(soon(), &[&["hello"]]);
    let record = call(address.parse().unwrap(), said, 3);
    let unavailable = server.wait_for("recognizer_unavailable");
    assert_eq!(unavailable["side"], "caller");
    let lost = server.wait_for("not_transcribed");
    assert!(lost["from_ms"].as_u64() < lost["to_ms"].as_u64(), "{lost}");
    let transcribed = server.wait_for("transcribed");
    assert!(
        transcribed["lost_ms"].as_u64().unwrap() > 500,
        "{transcribed}"
    );
    assert_ended_by_caller(&server.wait_for("call_ended"));
    assert_eq!(server.count("recognizer_unavailable"), 1, "reported once");
    // The caller heard audio to the end.
    assert!(record.heard_samples().len() >= 2 * HZ as usize);
    let (_, text) = file(&transcribed, "txt");
    assert!(text.contains("(not transcribed up to "), "{text}");
}

/// Checks a call of 3 s with a service that refuses: all of it is reported as missing, once.
fn assert_nothing_is_transcribed(engine: &str, endpoint: &str, options: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (mut server, address) = Running::serve_with(
        &format!(
            "transcribe --engine {engine} --endpoint {endpoint} {options} --output {} --format text,vtt",
            directory.path().display()
        ),
        &[("DEEPGRAM_API_KEY", "another")],
    );
    let said = voice(soon(), &[&["hello"], &["world"]]);
    call(address.parse().unwrap(), said, 3);
    let transcribed = server.wait_for("transcribed");
    let events = server.stop();
    find(&events, "recognizer_refused");
    let missing: Vec<&Value> = events
        .iter()
        .filter(|event| event["event"] == "not_transcribed")
        .collect();
    assert_eq!(missing.len(), 1, "{engine}: {events:#?}");
    let (from, to) = (&missing[0]["from_ms"], &missing[0]["to_ms"]);
    let (from, to) = (from.as_u64().unwrap(), to.as_u64().unwrap());
    // The command may detect by itself that the caller does not synthesize yet.
    assert!(from < 500, "{engine}: {events:#?}");
    // Up to the last frame, shortly before the end of the call.
    let duration = transcribed["duration_ms"].as_u64().unwrap();
    assert!(to + 500 > duration && to > 2500, "{engine}: {events:#?}");
    let lost = transcribed["lost_ms"].as_u64().unwrap();
    assert!(lost.abs_diff(to - from) <= 1, "{engine}: {transcribed}");
    let (_, text) = file(&transcribed, "txt");
    assert!(
        text.starts_with("[0:00] (not transcribed up to 0:0"),
        "{text}"
    );
    let (_, vtt) = file(&transcribed, "vtt");
    assert!(
        vtt.contains("NOTE not transcribed from 0:00 to 0:0"),
        "{vtt}"
    );
}

#[test]
fn after_a_refusal_by_openai_nothing_is_transcribed() {
    let key = Rules {
        key: Some("sk-right".into()),
        ..Rules::default()
    };
    let moved = Rules {
        form: Form::Moved("http://127.0.0.1:1/v1".into()),
        ..Rules::default()
    };
    for (rules, options) in [(key, ""), (moved, ""), (Rules::default(), "--model none")] {
        let service = TestService::with_rules(rules);
        assert_nothing_is_transcribed("openai", &service.api.url(), options);
    }
}

#[test]
fn after_a_refusal_by_vosk_nothing_is_transcribed() {
    let vosk = TestService::start(VoskServer::start());
    for status in [200, 308, 403] {
        vosk.api.set(Fault::Refuse(status));
        assert_nothing_is_transcribed("vosk", &vosk.api.endpoint(), "");
    }
}

#[test]
fn after_a_refusal_by_deepgram_nothing_is_transcribed() {
    let timeout = Duration::from_secs(10);
    let deepgram = TestService::start(DeepgramServer::start("topsecret", timeout));
    let endpoint = deepgram.api.endpoint();
    assert_nothing_is_transcribed("deepgram", &endpoint, "");
    deepgram.api.set(Fault::Refuse(402));
    assert_nothing_is_transcribed("deepgram", &endpoint, "");
}

#[test]
fn text_from_a_service_is_neither_a_cue_nor_a_terminal_command() {
    let evil = concat!(
        r#"{"text":"00:00:00,000 --> 00:00:09,000\n\n2\n<b>forged\u001b[2J\u007f\u009b2J\u0085\u2028\u202eend","#,
        r#""result":[{"word":"\u009b2Jend\u007f\n\u202e","start":0.1,"end":0.2,"conf":1}]}"#
    );
    let service = TestService::start(VoskServer::start());
    service.api.set(Fault::Reply(evil));
    // A name that is not text, and would clear the screen.
    let base = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"\xc2\x9b2J\x1b[2J\xff");
    let directory = base.path().join(name);
    let endpoint = service.api.endpoint();
    let mut command = sidetone(["transcribe", "--engine", "vosk", "--json", "--endpoint"]);
    command.args([
        &endpoint,
        "--listen",
        "127.0.0.1:0",
        "--format",
        "json,text,vtt,srt",
    ]);
    command.arg("--output").arg(&directory);
    let mut server = Running::start(command);
    let address = server.wait_for("listening")["address"].clone();
    let said = voice(soon(), &[&["hello"]]);
    call(address.as_str().unwrap().parse().unwrap(), said, 2);
    let transcript = server.wait_for("transcript");
    let texts = [&transcript["text"], &transcript["words"][0]["text"]];
    let harmful = |it: char| it.is_control() || matches!(it, '\u{2028}' | '\u{202e}');
    for text in texts {
        let text = text.as_str().unwrap();
        assert!(text.contains("end") && !text.contains(harmful), "{text:?}");
    }
    let transcribed = server.wait_for("transcribed");
    assert_eq!(transcribed["files"].as_array().unwrap().len(), 4);
    server.stop();
    let files = std::fs::read_dir(&directory).unwrap();
    for path in files.map(|it| it.unwrap().path()) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            !text.replace('\n', "").contains(harmful),
            "{path:?}: {text:?}"
        );
        let extension = path.extension().unwrap().to_str().unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let cues = lines.iter().filter(|it| it.contains("-->")).count();
        let count = match extension {
            // A cue has four lines in SubRip. In WebVTT it has three, after a head of two.
            "srt" => lines.len() / 4,
            "vtt" => (lines.len() - 2) / 3,
            _ => cues,
        };
        assert!(count >= 1 && cues == count, "{path:?}: {text}");
    }
}

#[test]
fn both_sides_are_named() {
    let service = TestService::with_rules(Rules::default());
    let directory = tempfile::tempdir().unwrap();
    let greeting = directory.path().join("greeting.wav");
    write_mono(&greeting, HZ, &synthesize(&["welcome"], HZ));
    let transcripts = directory.path().join("transcripts");
    let (mut server, address) = service.transcribe(&format!(
        "--both --greeting {} --output {} --format text",
        greeting.display(),
        transcripts.display()
    ));
    call(address, voice(Duration::from_secs(2), &[&["thanks"]]), 5);
    let transcribed = server.wait_for("transcribed");
    let (_, text) = file(&transcribed, "txt");
    let mut lines: Vec<&str> = text.lines().map(|line| &line[7..]).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["caller: thanks", "heard: welcome"], "{text}");
}

#[test]
fn nothing_is_transcribed_before_the_announcement_has_ended() {
    let service = TestService::with_rules(Rules::default());
    let directory = tempfile::tempdir().unwrap();
    let notice = directory.path().join("notice.wav");
    write_mono(&notice, HZ, &vec![2000; 2 * HZ as usize]);
    let (mut server, address) =
        service.transcribe(&format!("--json --announce={}", notice.display()));
    let mut said = voice(Duration::from_millis(200), &[&["before"]]);
    said.resize(6 * HZ as usize, 0);
    said.extend(synthesize(&["after"], HZ));
    call(address, said, 9);
    assert_eq!(server.wait_for("transcript")["text"], "after");
    assert_eq!(server.wait_for("transcribed")["transcripts"], 1);
    let sent: Duration = service.api.uploads().iter().map(|it| it.duration()).sum();
    assert!(sent < Duration::from_secs(2), "{sent:?}");
}

#[test]
fn a_key_is_used_and_never_printed() {
    let rules = Rules {
        key: Some("sk-topsecret".into()),
        ..Rules::default()
    };
    let service = TestService::with_rules(rules);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    std::fs::write(&file, "sk-topsecret\n").unwrap();
    let said = || voice(soon(), &[&["hello"]]);

    let (mut server, address) = service.transcribe(&format!("--credentials {}", file.display()));
    call(address, said(), 3);
    assert_eq!(server.wait_for("transcribed")["words"], 1);
    assert!(!format!("{:?}", server.stop()).contains("topsecret"));

    std::fs::write(&file, "sk-topsecret-of-another-user").unwrap();
    let (mut server, address) = service.transcribe(&format!("--credentials {}", file.display()));
    let record = call(address, said(), 3);
    let refused = server.wait_for("recognizer_refused");
    assert!(
        refused["text"].as_str().unwrap().contains("key"),
        "{refused}"
    );
    assert_eq!(server.wait_for("transcribed")["words"], 0);
    assert!(!format!("{:?}", server.stop()).contains("topsecret"));
    assert!(record.heard_samples().len() >= 2 * HZ as usize);
}

#[test]
fn invalid_options_are_reported_in_one_line_before_listening() {
    let refusal = |line: &str| {
        let output = run(&format!("transcribe {line}"));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{line}: {text}");
        assert_eq!(text.lines().count(), 1, "{line}: {text}");
        assert!(output.stdout.is_empty(), "{line}: it started");
        text
    };
    let choices = refusal("");
    for engine in ["google", "vosk", "openai", "deepgram"] {
        assert!(choices.contains(engine), "{choices}");
    }
    assert!(refusal("--engine siri").contains("--help"));
    assert!(refusal("--engine openai --credentials no-such-file").contains("no-such-file"));
    assert!(refusal("--engine vosk --model small").contains("leave --model out"));
    assert!(refusal("--engine vosk --project p").contains("only for google"));
    assert!(refusal("--engine vosk --phrases no-such-file").contains("no-such-file"));
    assert!(refusal("--engine vosk --endpoint nonsense").contains("ws://"));
    let local = "--engine openai --endpoint http://127.0.0.1:1";
    assert!(refusal(&format!("{local} --interim")).contains("leave --interim out"));
    assert!(refusal(&format!("{local} --time-limit 30")).contains("30s"));
    assert!(refusal(&format!("{local} --stop-word two,words")).contains("one word"));
    assert!(refusal(&format!("{local} --language de --language en")).contains("--language"));
    assert!(refusal(&format!("{local} --greeting no-such-file.wav")).contains("no such file"));
    assert!(refusal(&format!("{local} --output /proc/none")).contains("choose a directory"));
    if cfg!(not(feature = "google")) {
        assert!(refusal("--engine google --language en-US").contains("--features google"));
    }
}

#[test]
fn openai_needs_a_key_before_the_server_listens() {
    let output = sidetone(["transcribe", "--engine", "openai"])
        .env_remove("OPENAI_API_KEY")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.contains("OPENAI_API_KEY") && text.contains("--credentials"),
        "{text}"
    );
}
