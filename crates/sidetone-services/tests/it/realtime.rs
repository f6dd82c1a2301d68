//! The stand-in's refusals, tested with a client that sends anything.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sidetone_services::realtime::{Answer, RealtimeServer, Script, Turn};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, MaybeTlsStream, Message, WebSocketStream};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn try_connect(address: &str, authorization: &str) -> Result<Self, String> {
        let uri = address.parse().unwrap();
        let name = "authorization".try_into().unwrap();
        let builder = ClientBuilder::from_uri(uri)
            .add_header(name, authorization.try_into().unwrap())
            .unwrap();
        let connected = builder.connect().await;
        connected
            .map(|(socket, _)| Self(socket))
            .map_err(|error| error.to_string())
    }

    async fn connect(server: &RealtimeServer) -> Self {
        let address = format!("{}?model=gpt-realtime", server.endpoint());
        let mut client = Self::try_connect(&address, "Bearer key").await.unwrap();
        assert_eq!(client.next().await.unwrap()["type"], "session.created");
        client
    }

    async fn send(&mut self, message: &Value) {
        self.0
            .send(Message::text(message.to_string()))
            .await
            .unwrap();
    }

    async fn next(&mut self) -> Option<Value> {
        let message = self.0.next().await?.unwrap();
        message
            .as_text()
            .map(|it| serde_json::from_str(it).unwrap())
    }

    /// The next message of this type.
    async fn find(&mut self, kind: &str) -> Value {
        loop {
            let message = self
                .next()
                .await
                .unwrap_or_else(|| panic!("{kind} did not come"));
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Sends µ-law audio of this length.
    async fn speak(&mut self, millis: usize) {
        for _ in 0..millis / 20 {
            let audio = STANDARD.encode([0x55; 160]);
            self.send(&json!({"type": "input_audio_buffer.append", "audio": audio}))
                .await;
        }
    }
}

fn update(audio: &Value) -> Value {
    json!({"type": "session.update", "event_id": "mine", "session": {"type": "realtime", "audio": audio}})
}

fn pcmu() -> Value {
    let format = json!({"type": "audio/pcmu"});
    update(&json!({"input": {"format": format}, "output": {"format": format}}))
}

#[tokio::test]
async fn a_client_needs_the_address_the_key_and_a_model() {
    let server = RealtimeServer::start("key", Script::default())
        .await
        .unwrap();
    let endpoint = server.endpoint();
    let cases = [
        (format!("{endpoint}?model=m"), "Bearer other", "401"),
        (format!("{endpoint}s?model=m"), "Bearer key", "404"),
        (endpoint, "Bearer key", "400"),
    ];
    for (address, authorization, status) in cases {
        let error = Client::try_connect(&address, authorization)
            .await
            .err()
            .unwrap();
        assert!(error.contains(status), "{address}: {error}");
    }
}

#[tokio::test]
async fn what_the_service_refuses_is_refused() {
    let server = RealtimeServer::start("key", Script::default())
        .await
        .unwrap();
    let mut client = Client::connect(&server).await;
    client.send(&pcmu()).await;
    client.find("session.updated").await;
    let item = |item: Value| json!({"type": "conversation.item.create", "item": item});
    let truncate = |item: &str, ms: i64| json!({"type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": ms});
    let session = |session: Value| json!({"type": "session.update", "session": session});
    let format = |format: Value| update(&json!({"input": {"format": format}}));
    let cases = [
        (json!({}), "missing_required_parameter"),
        (json!({"type": "response.stop"}), "invalid_value"),
        (
            json!({"type": "response.create", "now": true}),
            "unknown_parameter",
        ),
        (
            json!({"type": "response.cancel"}),
            "response_cancel_not_active",
        ),
        (session(json!({})), "invalid_value"),
        (
            session(json!({"type": "realtime", "voice": "marin"})),
            "unknown_parameter",
        ),
        (
            session(json!({"type": "realtime", "tools": [{"type": "function"}]})),
            "invalid_value",
        ),
        (format(json!({"type": "g711_ulaw"})), "invalid_value"),
        (
            format(json!({"type": "audio/pcm", "rate": 16000})),
            "invalid_value",
        ),
        (
            format(json!({"type": "audio/pcmu", "rate": 8000})),
            "unknown_parameter",
        ),
        (
            update(&json!({"output": {"voice": "nobody"}})),
            "invalid_value",
        ),
        (
            update(
                &json!({"input": {"turn_detection": {"type": "server_vad", "eagerness": "low"}}}),
            ),
            "unknown_parameter",
        ),
        (
            json!({"type": "input_audio_buffer.append", "audio": "§"}),
            "invalid_value",
        ),
        (
            json!({"type": "input_audio_buffer.append", "audio": "A".repeat(15 << 20)}),
            "invalid_value",
        ),
        (
            item(
                json!({"type": "message", "role": "user", "content": [{"type": "text", "text": "a"}]}),
            ),
            "invalid_value",
        ),
        (
            item(json!({"type": "function_call_output", "call_id": "c", "output": "a"})),
            "invalid_tool_call_id",
        ),
        (
            item(json!({"type": "message", "role": "user", "id": "i".repeat(33)})),
            "invalid_value",
        ),
        (truncate("nothing", 100), "invalid_value"),
    ];
    for (message, code) in cases {
        client.send(&message).await;
        let refusal = client.next().await.unwrap();
        let shown = message.to_string();
        assert_eq!(refusal["error"]["code"], code, "{shown:.200}: {refusal}");
        assert_eq!(
            refusal["error"]["event_id"], message["event_id"],
            "{shown:.200}"
        );
    }
    // Half a sample.
    client
        .send(&format(json!({"type": "audio/pcm", "rate": 24000})))
        .await;
    client.find("session.updated").await;
    client
        .send(&json!({"type": "input_audio_buffer.append", "audio": "AAAA"}))
        .await;
    assert_eq!(
        client.next().await.unwrap()["error"]["code"],
        "invalid_value"
    );
    assert_eq!(server.refusals().len(), 19);
}

#[tokio::test]
async fn there_is_one_response_and_what_was_sent_of_it_can_be_truncated() {
    let script = Script {
        speed: 5,
        requested: [Answer::Speech(ms(1000))].into(),
        ..Script::default()
    };
    let server = RealtimeServer::start("key", script).await.unwrap();
    let mut client = Client::connect(&server).await;
    client.send(&pcmu()).await;
    client.send(&json!({"type": "response.create"})).await;
    let item_id = client.find("response.output_audio.delta").await["item_id"].clone();
    client.send(&json!({"type": "response.create"})).await;
    let refusal = client.find("error").await;
    assert_eq!(
        refusal["error"]["code"],
        "conversation_already_has_active_response"
    );
    client.speak(20).await;
    client.find("response.output_audio.delta").await;
    // 200 ms were sent, five times as much as the caller's 20 ms, twice.
    for (length, taken) in [(201, false), (0, false), (200, true), (100, true)] {
        let truncate = json!({
            "type": "conversation.item.truncate", "item_id": item_id, "content_index": 0, "audio_end_ms": length,
        });
        client.send(&truncate).await;
        let kind = match taken {
            true => "conversation.item.truncated",
            false => "error",
        };
        client.find(kind).await;
    }
    assert_eq!(server.speeches()[0].truncated_ms, Some(100));
    assert_eq!(server.speeches()[0].audio.len(), 200 * 8);
    client.send(&json!({"type": "response.cancel"})).await;
    let done = client.find("response.done").await;
    assert_eq!(
        done["response"]["status_details"]["reason"],
        "client_cancelled"
    );
}

#[tokio::test]
async fn a_caller_interrupts_as_the_script_says() {
    for interrupts in [true, false] {
        let turn = |after| Turn {
            after: ms(after),
            speech: ms(100),
            answer: Answer::Speech(ms(500)),
        };
        let script = Script {
            speed: 1,
            turns: [turn(100), turn(100)].into(),
            ..Script::default()
        };
        let server = RealtimeServer::start("key", script).await.unwrap();
        let mut client = Client::connect(&server).await;
        client.send(&pcmu()).await;
        let detection = json!({"type": "server_vad", "interrupt_response": interrupts});
        client
            .send(&update(&json!({"input": {"turn_detection": detection}})))
            .await;
        client.speak(1000).await;
        let first = client.find("response.done").await;
        let status = match interrupts {
            true => "cancelled",
            false => "completed",
        };
        assert_eq!(first["response"]["status"], status);
        let log = server.log();
        let place = |kind: &str| {
            log.iter()
                .position(|it| it.message["type"] == kind)
                .unwrap()
        };
        assert!(place("input_audio_buffer.speech_started") < place("input_audio_buffer.committed"));
        assert!(place("input_audio_buffer.committed") < place("response.created"));
    }
}

#[tokio::test]
async fn sessions_expire_and_responses_fail() {
    let script = Script {
        requested: [Answer::Failure("rate_limit_exceeded")].into(),
        expires_after: ms(200),
        ..Script::default()
    };
    let server = RealtimeServer::start("key", script).await.unwrap();
    let mut client = Client::connect(&server).await;
    client.send(&pcmu()).await;
    client.send(&json!({"type": "response.create"})).await;
    let done = client.find("response.done").await;
    assert_eq!(done["response"]["status"], "failed");
    assert_eq!(
        done["response"]["status_details"]["error"]["code"],
        "rate_limit_exceeded"
    );
    client.speak(200).await;
    assert_eq!(
        client.find("error").await["error"]["code"],
        "session_expired"
    );
    assert_eq!(client.next().await, None);
}
