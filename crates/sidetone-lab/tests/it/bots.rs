//! The lab's bots by themselves: each is installed and started, takes a call from a client that sends what its carrier would, and
//! answers as its framework does. So a test that calls one through Sidetone can rely on it.
//!
//! Without Python or pip a test is skipped, with a message; where the variable `CI` is set that is a failure.
#![allow(clippy::unwrap_used)]

use std::{path::Path, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderName, Uri};
use serde_json::{Value, json};
use sidetone_lab::{
    StartError,
    bots::{Bot, Direction, Program, judge_openai},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};
use tokio_websockets::{ClientBuilder, MaybeTlsStream, Message, WebSocketStream};

use crate::skip;

/// How long a bot may take to answer.
const SOON: Duration = Duration::from_secs(10);

/// Of one carrier's ids.
const STREAM: &str = "MZ00000000000000000000000000000001";
const CALL: &str = "CA00000000000000000000000000000002";

#[tokio::test]
async fn pipecat_takes_a_call_from_twilio_and_echoes_it() {
    let Some(bot) = start(Program::PipecatTwilio, &["--mode", "echo", "--signed"]).await else {
        return;
    };
    let url = bot.url();
    let signature = [("x-twilio-signature", sign(&url))];
    let mut call = Call::from_twilio(&bot, &signature).await;
    let report = bot.event("call").await.unwrap();
    assert_eq!(report["transport"], "twilio");
    assert_eq!([&report["stream"], &report["call"]], [STREAM, CALL]);
    assert_eq!(report["parameters"]["ticket"], "a ticket");
    assert_eq!([&report["from"], &report["to"]], ["+49301", "+49302"]);
    assert_eq!(bot.event("signature").await.unwrap()["valid"], true);

    // Two frames are one message of pipecat's.
    let (first, second) = (mulaw(1), mulaw(2));
    for (number, frame) in [&first, &second].into_iter().enumerate() {
        call.send(&twilio_media(number, frame)).await;
    }
    let echo = call.json().await;
    assert_eq!(
        [&echo["event"], &echo["streamSid"]],
        [&json!("media"), &json!(STREAM)]
    );
    let echo = echo["media"]["payload"].as_str().unwrap();
    assert_eq!(
        BASE64_STANDARD.decode(echo).unwrap(),
        [first, second].concat()
    );

    call.send(&json!({"event": "dtmf", "streamSid": STREAM, "sequenceNumber": "5", "dtmf": {"track": "inbound_track", "digit": "7"}}))
        .await;
    assert_eq!(bot.event("digit").await.unwrap()["digit"], "7");
    call.close().await;
    bot.event("over").await.unwrap();
    assert_eq!(bot.complaints(), [] as [Value; 0]);
}

#[tokio::test]
async fn pipecat_refuses_a_call_without_the_right_signature() {
    let Some(bot) = start(Program::PipecatTwilio, &["--signed"]).await else {
        return;
    };
    for signature in [None, Some(sign("ws://elsewhere.invalid/ws"))] {
        let present = signature.is_some();
        let headers: Vec<_> = signature
            .map(|it| ("x-twilio-signature", it))
            .into_iter()
            .collect();
        let mut call = Call::connect(&bot, &headers).await;
        assert_eq!(call.end().await, 1008);
        let report = bot.reported(|it| it["event"] == "signature" && it["present"] == present);
        assert_eq!(report.await.unwrap()["valid"], false);
    }
}

#[tokio::test]
async fn pipecat_ends_a_call_with_silence_at_its_resource_and_with_a_close() {
    let (resource, mut requests) = resource().await;
    let mut options = vec!["--mode", "hangup", "--seconds", "0.1"];
    options.extend(["--rest-url", &resource]);
    let Some(bot) = start(Program::PipecatTwilio, &options).await else {
        return;
    };
    let mut call = Call::from_twilio(&bot, &[]).await;
    let silence = call.json().await;
    let silence = silence["media"]["payload"].as_str().unwrap();
    // Two seconds, in one message.
    assert_eq!(BASE64_STANDARD.decode(silence).unwrap(), [0xff; 16_000]);
    let request = timeout(SOON, requests.recv()).await.unwrap().unwrap();
    let path = format!("/2010-04-01/Accounts/AC00000000000000000000000000000000/Calls/{CALL}.json");
    let credentials = BASE64_STANDARD.encode("AC00000000000000000000000000000000:secret");
    let login = format!("Basic {credentials}");
    assert_eq!(request, [path, login, "Status=completed".into()]);
    assert_eq!(call.end().await, 1000);
    bot.event("over").await.unwrap();
}

#[tokio::test]
async fn pipecat_speaks_a_file_and_marks_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("speech.wav");
    tone(&file, 1);
    let mut options = vec!["--mode", "speak", "--mark", "spoken"];
    options.extend(["--file", file.to_str().unwrap()]);
    let Some(bot) = start(Program::PipecatTwilio, &options).await else {
        return;
    };
    let mut call = Call::from_twilio(&bot, &[]).await;
    let mut spoken = 0;
    let mark = loop {
        let message = call.json().await;
        if message["event"] != "media" {
            break message;
        }
        let payload = message["media"]["payload"].as_str().unwrap();
        spoken += BASE64_STANDARD.decode(payload).unwrap().len();
    };
    let wanted = json!({"event": "mark", "streamSid": STREAM, "mark": {"name": "spoken"}});
    assert_eq!(mark, wanted);
    // A second at 8 kHz, less what the resampler still has.
    assert!((7_000..=8_000).contains(&spoken), "{spoken}");
    call.send(&wanted).await;
    bot.reported(|report| report["message"] == wanted)
        .await
        .unwrap();
    call.close().await;
    bot.event("over").await.unwrap();
    assert_eq!(bot.complaints(), [] as [Value; 0]);
}

#[tokio::test]
async fn pipecat_is_interrupted_by_a_digit_on_a_call_from_vonage() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("speech.wav");
    tone(&file, 5);
    let options = ["--mode", "interrupt", "--file", file.to_str().unwrap()];
    let Some(bot) = start(Program::PipecatVonage, &options).await else {
        return;
    };
    let mut call = Call::connect(&bot, &[]).await;
    let connected = json!({"event": "websocket:connected", "content-type": "audio/l16;rate=16000"});
    call.send(&connected).await;
    let audio = call.message().await;
    // 40 ms at 16 kHz.
    assert!(audio.is_binary());
    assert_eq!(audio.as_payload().len(), 1_280);
    let dtmf = json!({"event": "websocket:dtmf", "digit": "1", "duration": 100});
    call.send(&dtmf).await;
    let clear = loop {
        let message = call.message().await;
        if let Some(text) = message.as_text() {
            break serde_json::from_str::<Value>(text).unwrap();
        }
    };
    assert_eq!(clear, json!({"action": "clear"}));
    bot.reported(|report| report["message"] == connected)
        .await
        .unwrap();
    call.close().await;
    bot.event("over").await.unwrap();
    assert_eq!(bot.complaints(), [] as [Value; 0]);
}

#[tokio::test]
async fn galcymedia_answers_and_echoes() {
    let Some(bot) = start(Program::Galcymedia, &["--mode", "echo"]).await else {
        return;
    };
    let mut call = Call::from_channel(&bot, "ulaw", 160).await;
    let report = bot.event("call").await.unwrap();
    assert_eq!(report["variables"]["CALL_ORIGIN"], "+49301");
    call.socket.send(Message::binary(mulaw(1))).await.unwrap();
    assert_eq!(call.message().await.as_payload()[..], mulaw(1));
    call.send(&json!({"event": "DTMF_END", "channel_id": "1.2", "digit": "#"}))
        .await;
    assert_eq!(bot.event("digit").await.unwrap()["digit"], "#");
    call.close().await;
    bot.event("over").await.unwrap();
    // It knows of the end by the code only.
    let end = bot.reported(|report| report["message"]["event"] == "HANGUP");
    assert_eq!(end.await.unwrap()["message"]["normal"], true);
    assert_eq!(bot.complaints(), [] as [Value; 0]);
}

#[tokio::test]
async fn galcymedia_hangs_up_once_its_speech_has_been_played() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("speech.wav");
    tone(&file, 1);
    let options = ["--mode", "finish", "--file", file.to_str().unwrap()];
    let Some(bot) = start(Program::Galcymedia, &options).await else {
        return;
    };
    let mut call = Call::from_channel(&bot, "slin16", 640).await;
    for _ in 0..50 {
        // Whole frames only: chan_websocket would drop what is less.
        assert_eq!(call.message().await.as_payload().len(), 640);
    }
    let wanted = json!({"command": "REPORT_QUEUE_DRAINED"});
    assert_eq!(call.json().await, wanted);
    call.send(&json!({"event": "QUEUE_DRAINED", "channel_id": "1.2"}))
        .await;
    assert_eq!(call.json().await, json!({"command": "HANGUP"}));
    // The channel closes, not the bot.
    call.close().await;
    bot.event("over").await.unwrap();
    assert_eq!(bot.complaints(), [] as [Value; 0]);
}

#[tokio::test]
async fn plivo_echoes_and_complains_of_what_is_not_plivo_s() {
    let Some(bot) = start(Program::Plivo, &["--mode", "echo"]).await else {
        return;
    };
    let mut call = Call::connect(&bot, &[]).await;
    let format = json!({"encoding": "audio/x-mulaw", "sampleRate": 8000});
    let start = json!({"callId": CALL, "streamId": STREAM, "accountId": "MA1", "tracks": ["inbound"], "mediaFormat": format});
    call.send(&json!({"sequenceNumber": 0, "event": "start", "start": start}))
        .await;
    let media = json!({"track": "inbound", "timestamp": "0", "chunk": 1, "payload": BASE64_STANDARD.encode(mulaw(1))});
    call.send(&json!({"sequenceNumber": 1, "streamId": STREAM, "event": "media", "media": media}))
        .await;
    let echo = call.json().await;
    assert_eq!(echo["event"], "playAudio");
    assert_eq!(echo["media"]["payload"], media["payload"]);
    assert_eq!(bot.complaints(), [] as [Value; 0]);

    // A number, where Plivo sends a text.
    let media = json!({"track": "inbound", "timestamp": 20, "chunk": 2, "payload": ""});
    call.send(&json!({"sequenceNumber": 2, "streamId": STREAM, "event": "media", "media": media}))
        .await;
    let complaint = bot.event("complaint").await.unwrap();
    let text = complaint["text"].as_str().unwrap();
    assert!(text.contains("media.timestamp"), "{text}");
    call.close().await;
    bot.event("over").await.unwrap();
}

#[tokio::test]
async fn openai_s_messages_are_judged_by_its_own_models() {
    let append = json!({"type": "input_audio_buffer.append", "audio": "AAAA"});
    let truncate = |end: Value| json!({"type": "conversation.item.truncate", "item_id": "item", "content_index": 0, "audio_end_ms": end});
    let voice =
        json!({"type": "session.update", "session": {"type": "realtime", "voice": "alloy"}});
    let started = |audio_start_ms: Value| json!({"type": "input_audio_buffer.speech_started", "event_id": "event", "item_id": "item", "audio_start_ms": audio_start_ms});
    let messages = [
        (Direction::Client, append.clone()),
        (Direction::Server, append),
        (Direction::Client, truncate(json!(20))),
        (Direction::Client, truncate(json!("20"))),
        (Direction::Client, voice),
        (Direction::Server, started(json!(20))),
        (Direction::Server, started(Value::Null)),
    ];
    let verdicts = match judge_openai(&messages).await {
        Ok(verdicts) => verdicts,
        Err(error @ StartError::Fetch(_)) => return skip(&error.to_string()),
        Err(error) => panic!("{error}"),
    };
    let wrong: Vec<_> = verdicts.iter().map(|it| it.errors.len()).collect();
    assert_eq!(wrong, [0, 1, 0, 1, 0, 0, 1], "{verdicts:?}");
    let field = "audio_end_ms: ";
    assert!(verdicts[3].errors[0].starts_with(field), "{verdicts:?}");
    // As it was before the service became generally available.
    assert_eq!(verdicts[4].unknown, ["session.voice"]);
}

async fn start(program: Program, options: &[&str]) -> Option<Bot> {
    match Bot::start(program, options).await {
        Ok(bot) => Some(bot),
        Err(error @ StartError::Fetch(_)) => {
            skip(&error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The carrier's end of a call.
struct Call {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Call {
    async fn connect(bot: &Bot, headers: &[(&'static str, String)]) -> Self {
        let mut builder = ClientBuilder::from_uri(bot.url().parse().unwrap());
        for (name, value) in headers {
            let name = name.parse::<HeaderName>().unwrap();
            builder = builder.add_header(name, value.parse().unwrap()).unwrap();
        }
        let (socket, _) = timeout(SOON, builder.connect()).await.unwrap().unwrap();
        Self { socket }
    }

    /// As Twilio begins one.
    async fn from_twilio(bot: &Bot, headers: &[(&'static str, String)]) -> Self {
        let mut call = Self::connect(bot, headers).await;
        call.send(&json!({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
            .await;
        call.send(&twilio_start()).await;
        call
    }

    /// As chan_websocket begins one, of this format with frames of so many bytes. It has been answered.
    async fn from_channel(bot: &Bot, format: &str, frame: usize) -> Self {
        let subprotocol = [("sec-websocket-protocol", "media".into())];
        let mut call = Self::connect(bot, &subprotocol).await;
        let start = json!({
            "event": "MEDIA_START", "connection_id": "bot", "channel": "WebSocket/bot/0x1", "channel_id": "1.2",
            "format": format, "optimal_frame_size": frame, "ptime": 20, "channel_variables": {"CALL_ORIGIN": "+49301"},
        });
        call.send(&start).await;
        assert_eq!(call.json().await, json!({"command": "ANSWER"}));
        call
    }

    async fn send(&mut self, message: &Value) {
        let message = Message::text(message.to_string());
        self.socket.send(message).await.unwrap();
    }

    /// The next message that is no ping.
    async fn message(&mut self) -> Message {
        loop {
            let message = timeout(SOON, self.socket.next()).await.unwrap();
            let message = message.unwrap().unwrap();
            if !message.is_ping() && !message.is_pong() {
                return message;
            }
        }
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(self.message().await.as_text().unwrap()).unwrap()
    }

    /// The code with which the bot closes; nothing else may come.
    async fn end(&mut self) -> u16 {
        let message = self.message().await;
        let (code, _) = message.as_close().unwrap();
        code.into()
    }

    async fn close(&mut self) {
        self.socket.close().await.unwrap();
    }
}

fn twilio_start() -> Value {
    json!({"event": "start", "sequenceNumber": "1", "streamSid": STREAM, "start": {
        "streamSid": STREAM,
        "accountSid": "AC00000000000000000000000000000000",
        "callSid": CALL,
        "tracks": ["inbound"],
        "customParameters": {"ticket": "a ticket", "from_number": "+49301", "to_number": "+49302"},
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
    }})
}

fn twilio_media(number: usize, frame: &[u8]) -> Value {
    json!({"event": "media", "sequenceNumber": (number + 2).to_string(), "streamSid": STREAM, "media": {
        "track": "inbound",
        "chunk": (number + 1).to_string(),
        "timestamp": (number * 20).to_string(),
        "payload": BASE64_STANDARD.encode(frame),
    }})
}

/// 20 ms of µ-law that decode and encode to themselves.
fn mulaw(seed: u8) -> Vec<u8> {
    (0..160).map(|at| 0x80 + (at + seed) % 0x7f).collect()
}

/// What Twilio puts into its header for this address, with the token that the bots know.
fn sign(url: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"secret");
    BASE64_STANDARD.encode(ring::hmac::sign(&key, url.as_bytes()))
}

/// The address of a REST API that does what it is asked to, and each request's path, credentials and body.
async fn resource() -> (String, UnboundedReceiver<[String; 3]>) {
    let (sender, requests) = unbounded_channel();
    let answer = move |uri: Uri, headers: HeaderMap, body: String| async move {
        let login = headers["authorization"].to_str().unwrap().to_owned();
        sender.send([uri.path().to_owned(), login, body]).unwrap();
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, requests)
}

/// A tone of some seconds, at 16 kHz.
fn tone(path: &Path, seconds: u32) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut file = hound::WavWriter::create(path, spec).unwrap();
    for at in 0..16_000 * seconds {
        let sample = (at as f32 * 0.2).sin() * 8_000.0;
        file.write_sample(sample as i16).unwrap();
    }
    file.finalize().unwrap();
}
