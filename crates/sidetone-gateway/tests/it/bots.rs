//! Routes with bots: what a bot is told, what a caller hears, and what happens when it fails.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sidetone_audio::g711::Law;
use sidetone_caller::{CallRecord, Caller, EndCause, Voice, exact_runs};
use tokio::net::{TcpListener, TcpStream};
use tokio_websockets::{CloseCode, Message, ServerBuilder};
use uuid::Uuid;

use crate::kit::TestGateway;

const PATIENCE: Duration = Duration::from_secs(20);
const TOKEN: &str = "the-auth-token-of-the-account";
const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";

/// What a bot does upon a message.
enum Do {
    Say(Value),
    Close(u16),
    /// Cuts the connection off without a word.
    CutOff,
}

type Behavior = dyn Fn(&Value) -> Vec<Do> + Send + Sync;

/// A bot for Twilio's Media Streams, on a port of its own until it is dropped.
struct Bot {
    address: SocketAddr,
    messages: Receiver<Value>,
    _runtime: tokio::runtime::Runtime,
}

impl Bot {
    fn start(behavior: impl Fn(&Value) -> Vec<Do> + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), behavior)
    }

    fn start_on(
        address: SocketAddr,
        behavior: impl Fn(&Value) -> Vec<Do> + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        Self::serve(listener, behavior)
    }

    /// On a socket that may be there before and after the bot, as systemd holds one.
    fn serve(
        listener: std::net::TcpListener,
        behavior: impl Fn(&Value) -> Vec<Do> + Send + Sync + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let entered = runtime.enter();
        let listener = TcpListener::from_std(listener).unwrap();
        drop(entered);
        let (sender, messages) = channel();
        let behavior: Arc<Behavior> = Arc::new(behavior);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&behavior), sender.clone()));
            }
        });
        Self {
            address,
            messages,
            _runtime: runtime,
        }
    }

    /// Whether a message of this kind has come. Others before it are forgotten.
    fn has_received(&self, event: &str) -> bool {
        let mut messages = self.messages.try_iter();
        messages.any(|message| message["event"] == event)
    }

    /// A port that nothing listens on.
    fn away() -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    /// Waits for the next message of this kind.
    fn received(&self, event: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left);
            let message = message.unwrap_or_else(|_| panic!("no {event}"));
            if message["event"] == event {
                return message;
            }
        }
    }
}

async fn converse(stream: TcpStream, behavior: Arc<Behavior>, messages: Sender<Value>) {
    // Who waited for the bot may have gone.
    let Ok((_, mut socket)) = ServerBuilder::new().accept(stream).await else {
        return;
    };
    while let Some(Ok(message)) = socket.next().await {
        let Some(text) = message.as_text() else {
            continue;
        };
        let message: Value = serde_json::from_str(text).unwrap();
        let reaction = behavior(&message);
        let _ = messages.send(message);
        for what in reaction {
            match what {
                Do::Say(message) => {
                    let sent = socket.send(Message::text(message.to_string())).await;
                    if sent.is_err() {
                        return;
                    }
                }
                Do::Close(code) => {
                    let code = CloseCode::try_from(code).unwrap();
                    let _ = socket.send(Message::close(Some(code), "as told")).await;
                    while let Some(Ok(_)) = socket.next().await {}
                    return;
                }
                Do::CutOff => return,
            }
        }
    }
}

fn media(samples: &[i16]) -> Do {
    let mut audio = Vec::new();
    Law::Ulaw.encode(samples, &mut audio);
    Do::Say(json!({"event": "media", "media": {"payload": STANDARD.encode(audio)}}))
}

/// Gives the caller back what they say.
fn echo(message: &Value) -> Vec<Do> {
    match message["event"].as_str() {
        Some("media") => {
            let payload = &message["media"]["payload"];
            vec![Do::Say(
                json!({"event": "media", "media": {"payload": payload}}),
            )]
        }
        _ => Vec::new(),
    }
}

/// What a sound is after µ-law.
fn companded(samples: &[i16]) -> Vec<i16> {
    let code = samples
        .iter()
        .map(|sample| Law::Ulaw.encode_sample(*sample));
    code.map(|code| Law::Ulaw.decode_byte(code)).collect()
}

/// The longest run of `sound` that was heard.
fn heard_of(sound: &[i16], call: &CallRecord) -> usize {
    let runs = exact_runs(&companded(sound), call.heard_samples());
    runs.iter().map(|run| run.length).max().unwrap_or(0)
}

/// A route with a bot at this address, whose calls may be dialled on to 1XX.
fn route(address: SocketAddr, more: &str, when_fails: &str) -> String {
    format!(
        "[route.support]\nbot = {{ dialect = \"twilio\", url = \"ws://{address}/ws\", account_sid = \"{ACCOUNT}\", \
         auth_token = {{ file = \"twilio.key\" }}, {more} }}\nwhen_bot_fails = {{ {when_fails} }}\ndial = [\"_1XX\"]\n"
    )
}

fn gateway(file: &str) -> TestGateway {
    gateway_with("", file)
}

fn gateway_with(server: &str, file: &str) -> TestGateway {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("twilio.key"), TOKEN).unwrap();
    write_sound(&folder.path().join("sorry.wav"), &sorry());
    TestGateway::start_in(folder, server, file)
}

/// What callers hear when a bot failed.
fn sorry() -> Vec<i16> {
    sidetone_caller::ramp(77, 0, 4_000)
}

fn write_sound(path: &std::path::Path, samples: &[i16]) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    for sample in samples {
        writer.write_sample(*sample).unwrap();
    }
    writer.finalize().unwrap();
}

fn result(gateway: &TestGateway, id: Uuid) -> String {
    let answer = gateway.get(&format!("/v1/calls/{id}/result"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

#[test]
fn a_bot_gets_the_call_with_its_data_and_the_caller_hears_it() {
    let bot = Bot::start(echo);
    // What comes in real time is heard whole if it has a moment to spare.
    let gateway = gateway(&route(bot.address, "prebuffer = \"100ms\"", ""));
    let id = gateway.ticket("route=support&from=%2B4930%2C%22123%22&queue=gold");
    let caller = Caller::new(gateway.address)
        .uuid(id)
        .say(Voice::Ramp(3))
        .dtmf("7", Duration::from_millis(500))
        .hang_up_after(Duration::from_secs(2));
    let call = gateway.place(caller);
    let start = bot.received("start");
    let sid = format!("CA{}", id.simple());
    assert_eq!(start["start"]["callSid"], sid);
    assert_eq!(start["start"]["accountSid"], ACCOUNT);
    assert_eq!(
        start["start"]["customParameters"],
        json!({"from": "+4930,\"123\"", "queue": "gold"})
    );
    assert_eq!(bot.received("dtmf")["dtmf"]["digit"], "7");
    assert_eq!(bot.received("stop")["stop"]["callSid"], sid);
    let call = call.join().unwrap();
    let echoed = heard_of(call.sent_samples(), &call);
    assert!(echoed > 8_000, "{echoed} samples in one piece");
    gateway.of("dtmf", id);
    assert_eq!(gateway.of("call.ended", id)["result"], "continue");
}

#[test]
fn closing_the_connection_ends_the_call_when_the_last_words_were_heard() {
    let goodbye = sidetone_caller::ramp(5, 0, 12_000);
    let said = goodbye.clone();
    let bot = Bot::start(move |message| match message["event"].as_str() {
        Some("start") => vec![media(&said), Do::Close(1000)],
        _ => Vec::new(),
    });
    let gateway = gateway(&route(bot.address, "", "result = \"hangup\""));
    let id = gateway.ticket("route=support");
    let call = gateway.call(id, PATIENCE).join().unwrap();
    assert_eq!(call.ended.cause, EndCause::ServerHungUp);
    assert_eq!(heard_of(&goodbye, &call), goodbye.len());
    assert_eq!(result(&gateway, id), "continue");
}

#[test]
fn a_bot_that_is_away_has_its_callers_hear_so_and_is_left_alone_until_it_is_back() {
    let address = Bot::away();
    let gateway = gateway(&route(
        address,
        "",
        "play = \"sorry.wav\", result = \"dial,100\"",
    ));
    for _ in 0..4 {
        let id = gateway.ticket("route=support");
        let call = gateway.call(id, PATIENCE).join().unwrap();
        let runs = call.find(&sorry());
        assert_eq!(runs.iter().map(|run| run.length).sum::<usize>(), 4_000);
        assert_eq!(result(&gateway, id), "dial,100");
    }
    let metrics = gateway.admin("GET", "/metrics", None).body;
    for line in [
        "sidetone_bot_failures_total{route=\"support\",reason=\"unavailable\"} 3",
        "sidetone_bot_failures_total{route=\"support\",reason=\"spared\"} 1",
        "sidetone_bot_dead{route=\"support\"} 1",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    gateway.event("alarm", |alarm| {
        alarm["name"] == "bot support" && alarm["active"] == true
    });
    let shown = || gateway.admin("GET", "/v1/status", None).json()["bots"].take();
    assert_eq!(
        shown(),
        json!([{
            "route": "support",
            "breaker": "open",
            "connect_ms": null,
            "first_audio_ms": null,
            "failures": {"unavailable": 3, "spared": 1},
        }])
    );
    let bot = Bot::start_on(address, echo);
    // One call every 5 s tries it.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let id = gateway.ticket("route=support");
        let call = gateway.call(id, Duration::from_millis(300)).join().unwrap();
        if call.find(&sorry()).is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "nobody tries the bot");
    }
    bot.received("start");
    gateway.event("alarm", |alarm| {
        alarm["name"] == "bot support" && alarm["active"] == false
    });
    let shown = shown();
    assert_eq!(shown[0]["breaker"], "closed");
    for time in ["connect_ms", "first_audio_ms"] {
        assert!(shown[0][time].as_f64().unwrap() > 0.0, "{shown}");
    }
}

#[test]
fn a_bot_that_breaks_in_the_middle_is_tried_once_more_if_the_file_says_so() {
    let bot = Bot::start(|message| match message["event"].as_str() {
        Some("start") if message["start"]["customParameters"]["reconnect"] == "true" => Vec::new(),
        Some("media") if message["media"]["chunk"] == "10" => vec![Do::CutOff],
        _ => Vec::new(),
    });
    let file = route(
        bot.address,
        "reconnect = 1",
        "play = \"sorry.wav\", result = \"set,SORRY\"",
    );
    let gateway = gateway(&file);
    let id = gateway.ticket("route=support");
    let call = gateway.call(id, PATIENCE);
    assert_eq!(
        bot.received("start")["start"]["customParameters"],
        json!({})
    );
    let again = bot.received("start");
    assert_eq!(
        again["start"]["customParameters"],
        json!({"reconnect": "true"})
    );
    // It breaks again, and that is the end.
    let call = call.join().unwrap();
    assert_eq!(
        call.find(&sorry())
            .iter()
            .map(|run| run.length)
            .sum::<usize>(),
        4_000
    );
    assert_eq!(result(&gateway, id), "set,SORRY");
    let metrics = gateway.admin("GET", "/metrics", None).body;
    assert!(
        metrics.contains("sidetone_bot_reconnects_total{route=\"support\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("sidetone_bot_failures_total{route=\"support\",reason=\"broken\"} 1"),
        "{metrics}"
    );
}

#[test]
fn a_bot_that_is_killed_in_the_middle_of_a_hundred_calls_leaves_none_stuck() {
    // What happens to the calls of a route when their connections break. On a busy machine a hundred connects take more than
    // a second.
    const ROUTES: [(&str, &str); 3] = [
        ("none", "reconnect = 0, connect_within = \"30s\""),
        ("lost", "reconnect = 1, connect_within = \"5s\""),
        ("kept", "reconnect = 1, connect_within = \"60s\""),
    ];
    const CALLS: usize = 100;
    let of = |route: usize| (route..CALLS).step_by(ROUTES.len()).count();

    // The socket outlives the bot, so that those who connect meanwhile wait for the next one.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (before, after) = (
        sidetone_caller::ramp(5, 0, 4_000),
        sidetone_caller::ramp(9, 0, 4_000),
    );
    let bot = Bot::serve(listener.try_clone().unwrap(), saying(&before));
    let routes = ROUTES.map(|(name, settings)| {
        let fails = "play = \"sorry.wav\", result = \"dial,100\"";
        route(address, settings, fails).replace("[route.support]", &format!("[route.{name}]"))
    });
    // A hundred callers of one address are more than strangers may be.
    let server = "trusted = [\"127.0.0.1\"]\nmax_calls = 400";
    let gateway = gateway_with(server, &routes.concat());
    let place = |route: usize| {
        let id = gateway.ticket(&format!("route={}", ROUTES[route].0));
        (id, gateway.call(id, Duration::from_secs(60)))
    };
    let mut calls: [Vec<_>; 3] = Default::default();
    for call in 0..CALLS {
        let route = call % ROUTES.len();
        calls[route].push(place(route));
    }
    for _ in 0..CALLS {
        bot.received("mark");
    }
    drop(bot);

    let sorry = sorry();
    let [none, lost, kept] = calls;
    let fails = |(id, call): (Uuid, JoinHandle<CallRecord>)| {
        let call = call.join().unwrap();
        assert_eq!(heard_of(&before, &call), before.len(), "{id}");
        let heard: usize = call.find(&sorry).iter().map(|run| run.length).sum();
        assert_eq!(heard, sorry.len(), "{id}: {:?}", call.ended);
        assert_eq!(call.ended.cause, EndCause::ServerHungUp);
        assert_eq!(result(&gateway, id), "dial,100");
    };
    none.into_iter().chain(lost).for_each(fails);
    for name in ["bot none", "bot lost"] {
        gateway.event("alarm", |alarm| {
            alarm["name"] == name && alarm["active"] == true
        });
    }

    let bot = Bot::serve(listener, saying(&after));
    for _ in 0..of(2) {
        let start = bot.received("start");
        assert_eq!(start["start"]["customParameters"]["reconnect"], "true");
    }
    for _ in 0..of(2) {
        bot.received("mark");
    }
    for (id, call) in kept {
        gateway.admin("POST", &format!("/v1/calls/{id}/hangup"), None);
        let call = call.join().unwrap();
        for sound in [&before, &after] {
            assert_eq!(heard_of(sound, &call), sound.len(), "{id}");
        }
        assert!(call.find(&sorry).is_empty(), "{id}");
        assert_eq!(call.ended.cause, EndCause::ServerHungUp);
        assert_eq!(result(&gateway, id), "continue");
    }

    // One call every 5 s tries the bot for those that are spared it.
    for (route, name) in [(0, "bot none"), (1, "bot lost")] {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (id, call) = place(route);
            let is_over = || call.is_finished() || bot.has_received("mark");
            while !is_over() {
                std::thread::sleep(Duration::from_millis(5));
            }
            gateway.admin("POST", &format!("/v1/calls/{id}/hangup"), None);
            let call = call.join().unwrap();
            if heard_of(&after, &call) == after.len() {
                break;
            }
            assert!(Instant::now() < deadline, "nobody tries the bot");
        }
        gateway.event("alarm", |alarm| {
            alarm["name"] == name && alarm["active"] == false
        });
    }

    let metrics = gateway.admin("GET", "/metrics", None).body;
    let figure = |name: &str, labels: &str| -> usize {
        let series = format!("sidetone_bot_{name}{{{labels}}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
        line.map_or(0, |value| value.parse().unwrap())
    };
    for (index, broken, unavailable, reconnects, connected) in [
        (0, of(0), 0, 0, of(0) + 1),
        (1, 0, of(1), of(1), of(1) + 1),
        (2, 0, 0, of(2), 2 * of(2)),
    ] {
        let route = format!("route=\"{}\"", ROUTES[index].0);
        let failures =
            |reason: &str| figure("failures_total", &format!("{route},reason=\"{reason}\""));
        assert_eq!(failures("broken"), broken, "{route}: {metrics}");
        assert_eq!(failures("unavailable"), unavailable, "{route}: {metrics}");
        assert_eq!(figure("reconnects_total", &route), reconnects, "{route}");
        assert_eq!(
            figure("connect_seconds_count", &route),
            connected,
            "{route}"
        );
        assert_eq!(figure("dead", &route), 0, "{route}: {metrics}");
        assert!(metrics.contains(&format!("sidetone_bot_dead{{{route}}}")));
    }
    let alarms = gateway.events().into_iter();
    let alarms = alarms.filter(|event| event["type"] == "alarm").count();
    assert_eq!(alarms, 4, "each one begins once and ends once");
}

/// Says this as soon as it has a call, and asks to be told when it was heard.
fn saying(sound: &[i16]) -> impl Fn(&Value) -> Vec<Do> + Send + Sync + use<> {
    let sound = sound.to_vec();
    move |message| match message["event"].as_str() {
        Some("start") => {
            let mark = json!({"event": "mark", "mark": {"name": "said"}});
            vec![media(&sound), Do::Say(mark)]
        }
        _ => Vec::new(),
    }
}

#[test]
fn a_bot_that_takes_each_call_and_breaks_it_is_one_alarm_until_it_keeps_one() {
    let breaks = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&breaks);
    let bot = Bot::start(move |message| match message["event"] == "start" {
        true if told.load(Ordering::Relaxed) => vec![media(&[1000; 160]), Do::CutOff],
        _ => Vec::new(),
    });
    let gateway = gateway(&route(bot.address, "", ""));
    let place = || gateway.call(gateway.ticket("route=support"), PATIENCE);
    let alarms = || {
        let events = gateway.events().into_iter();
        let alarms = events.filter(|event| event["type"] == "alarm");
        let active = alarms.map(|event| event["data"]["active"].as_bool().unwrap());
        active.collect::<Vec<_>>()
    };
    // Places calls until the bot has one, which it may keep.
    let tried = || {
        let deadline = Instant::now() + PATIENCE;
        let mut call = place();
        while !bot.has_received("start") {
            assert!(Instant::now() < deadline, "nobody tries the bot");
            if call.is_finished() {
                call = place();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        call
    };
    for _ in 0..3 {
        tried().join().unwrap();
    }
    assert_eq!(alarms(), [true]);
    tried().join().unwrap();
    assert_eq!(alarms(), [true]);
    let metrics = gateway.admin("GET", "/metrics", None).body;
    let line = "sidetone_bot_dead{route=\"support\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");

    breaks.store(false, Ordering::Relaxed);
    let call = tried();
    // It says nothing, and keeps the call.
    gateway.event("alarm", |alarm| alarm["active"] == false);
    assert!(!call.is_finished());
    assert_eq!(alarms(), [true, false]);
    drop(bot);
    call.join().unwrap();
}

#[test]
fn calls_of_a_bot_that_fails_end_with_the_result_of_their_route_unless_the_file_says_more() {
    let file = route(Bot::away(), "", "play = \"sorry.wav\"") + "result = \"hangup\"\n";
    let gateway = gateway(&file);
    let id = gateway.ticket("route=support");
    gateway.call(id, PATIENCE).join().unwrap();
    assert_eq!(result(&gateway, id), "hangup");
}

#[test]
fn a_bot_ends_its_calls_by_twilios_resource() {
    let bot = Bot::start(echo);
    let gateway = gateway(&route(bot.address, "", ""));
    for (form, expected) in [
        ("Status=completed", "continue"),
        (
            "Twiml=%3CResponse%3E%3CDial%3E123%3C%2FDial%3E%3C%2FResponse%3E",
            "dial,123",
        ),
        (
            "Twiml=%3CResponse%3E%3CHangup%2F%3E%3C%2FResponse%3E",
            "hangup",
        ),
    ] {
        let id = gateway.ticket("route=support&from=100");
        let call = gateway.call(id, PATIENCE);
        bot.received("start");
        let shown = twilio(&gateway, "GET", ACCOUNT, TOKEN, id, "");
        assert_eq!(shown["status"], "in-progress");
        assert_eq!(shown["from"], "100");
        let updated = twilio(&gateway, "POST", ACCOUNT, TOKEN, id, form);
        assert_eq!(updated["status"], "completed", "{updated}");
        assert_eq!(call.join().unwrap().ended.cause, EndCause::ServerHungUp);
        assert_eq!(result(&gateway, id), expected);
        let gone = twilio(&gateway, "POST", ACCOUNT, TOKEN, id, form);
        assert_eq!(
            (&gone["code"], &gone["status"]),
            (&json!(20404), &json!(404))
        );
    }
}

#[test]
fn a_bot_ends_a_call_that_began_before_its_token_was_changed() {
    let bot = Bot::start(echo);
    let file = route(bot.address, "", "");
    let gateway = gateway(&file);
    let id = gateway.ticket("route=support");
    let call = gateway.call(id, PATIENCE);
    bot.received("start");
    let new = "another-token-of-the-account";
    std::fs::write(gateway.path("twilio.key"), new).unwrap();
    gateway.reload("", &file).unwrap();
    let hidden = twilio(&gateway, "GET", ACCOUNT, new, id, "");
    assert_eq!(hidden["code"], 20404, "{hidden}");
    let updated = twilio(&gateway, "POST", ACCOUNT, TOKEN, id, "Status=completed");
    assert_eq!(updated["status"], "completed", "{updated}");
    assert_eq!(call.join().unwrap().ended.cause, EndCause::ServerHungUp);
    // It has no other call.
    let refused = twilio(&gateway, "GET", ACCOUNT, TOKEN, Uuid::from_u128(1), "");
    assert_eq!(refused["code"], 20003, "{refused}");
}

#[test]
fn a_result_that_was_set_during_the_call_outlasts_the_failure_of_the_bot() {
    let breaks = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&breaks);
    let bot = Bot::start(move |_| match told.load(Ordering::Relaxed) {
        true => vec![Do::CutOff],
        false => Vec::new(),
    });
    let gateway = gateway(&route(bot.address, "", "result = \"dial,100\""));
    let id = gateway.ticket("route=support");
    let call = gateway.call(id, PATIENCE);
    bot.received("start");
    let path = format!("/v1/calls/{id}/result");
    let body = json!({"result": "dial,123"});
    assert_eq!(gateway.admin("PUT", &path, Some(body)).status, 200);
    breaks.store(true, Ordering::Relaxed);
    call.join().unwrap();
    gateway.of("call.notice", id);
    assert_eq!(result(&gateway, id), "dial,123");
}

#[test]
fn a_dead_bot_that_is_no_longer_in_the_file_is_no_longer_an_alarm() {
    let file = route(Bot::away(), "", "");
    let gateway = gateway(&file);
    for _ in 0..3 {
        let id = gateway.ticket("route=support");
        gateway.call(id, PATIENCE).join().unwrap();
    }
    let alarms = || gateway.admin("GET", "/v1/status", None).json()["alarms"].clone();
    assert_eq!(alarms()[0]["name"], "bot support");
    // It is the same one after a reload that leaves it.
    gateway.reload("", &file).unwrap();
    assert_eq!(alarms()[0]["name"], "bot support");
    gateway.reload("", "[route.support]\necho = {}\n").unwrap();
    assert_eq!(alarms(), json!([]));
    let metrics = gateway.admin("GET", "/metrics", None).body;
    assert!(!metrics.contains("sidetone_bot_dead{"), "{metrics}");
}

#[test]
fn twilios_resource_does_nothing_for_others_and_nothing_that_the_route_does_not_allow() {
    let bot = Bot::start(echo);
    let gateway = gateway(&route(bot.address, "", ""));
    let id = gateway.ticket("route=support");
    let call = gateway.call(id, PATIENCE);
    bot.received("start");
    for (account, token) in [
        (ACCOUNT, "another-token-of-somebody"),
        ("AC00000000000000000000000000000000", TOKEN),
        ("", ""),
    ] {
        let refused = twilio(&gateway, "POST", account, token, id, "Status=completed");
        assert_eq!(refused["code"], 20003, "{refused}");
    }
    for form in [
        "Twiml=%3CResponse%3E%3CDial%3E900%3C%2FDial%3E%3C%2FResponse%3E",
        "Twiml=%3CResponse%3E%3CSay%3Ehi%3C%2FSay%3E%3C%2FResponse%3E",
        "Status=busy",
        "",
    ] {
        let refused = twilio(&gateway, "POST", ACCOUNT, TOKEN, id, form);
        assert_eq!(refused["status"], 400, "{form}: {refused}");
    }
    let unknown = twilio(
        &gateway,
        "POST",
        ACCOUNT,
        TOKEN,
        Uuid::from_u128(1),
        "Status=completed",
    );
    assert_eq!(unknown["code"], 20404);
    // Who guesses is slowed down.
    let guess = || twilio(&gateway, "GET", ACCOUNT, "a-guess-at-the-token", id, "");
    let slowed = (0..100).find(|_| guess()["code"] == 20429);
    assert!(slowed.is_some(), "a hundred guesses in a row");
    // It goes on after all that.
    let shown = twilio(&gateway, "GET", ACCOUNT, TOKEN, id, "");
    assert_eq!(shown["status"], "in-progress");
    twilio(&gateway, "POST", ACCOUNT, TOKEN, id, "Status=completed");
    call.join().unwrap();
    assert_eq!(result(&gateway, id), "continue");
}

fn twilio(
    gateway: &TestGateway,
    method: &str,
    account: &str,
    token: &str,
    id: Uuid,
    form: &str,
) -> Value {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let basic = STANDARD.encode(format!("{account}:{token}"));
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!(
            "http://{}/2010-04-01/Accounts/{ACCOUNT}/Calls/CA{}.json",
            gateway.http,
            id.simple()
        ))
        .header("authorization", format!("Basic {basic}"));
    let mut answer = match method {
        "POST" => {
            let request = request.header("content-type", "application/x-www-form-urlencoded");
            agent.run(request.body(form.to_owned()).unwrap())
        }
        _ => agent.run(request.body(()).unwrap()),
    }
    .unwrap();
    let body = answer.body_mut().read_to_string().unwrap();
    serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body:?}"))
}

/// The time that a connection may take is short, so that a bot that does not answer costs little.
#[test]
fn a_bot_that_does_not_answer_is_given_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = route(
        silent.local_addr().unwrap(),
        "connect_within = \"300ms\"",
        "play = \"sorry.wav\"",
    );
    let gateway = gateway(&file);
    let id = gateway.ticket("route=support");
    let caller = Caller::new(gateway.address)
        .uuid(id)
        .dtmf("7", Duration::ZERO)
        .hang_up_after(PATIENCE);
    let call = gateway.place(caller).join().unwrap();
    assert_eq!(
        call.find(&sorry())
            .iter()
            .map(|run| run.length)
            .sum::<usize>(),
        4_000
    );
    // The operator sees it, though no bot did.
    gateway.of("dtmf", id);
    let notice = gateway.of("call.notice", id);
    assert!(
        notice["text"]
            .as_str()
            .unwrap()
            .contains("can't be reached"),
        "{notice}"
    );
}
