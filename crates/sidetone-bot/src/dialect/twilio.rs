//! Twilio's Media Streams, as `<Connect><Stream>` speaks them: JSON in text messages, µ-law at 8 kHz in base64.
//!
//! Protocol: Twilio's "Media Streams: WebSocket messages".

use std::{borrow::Cow, fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue};
use ring::hmac;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Action, AudioFormat, CallEvent, Conversation, Dialect, Message, Received, Upgrade, complain,
    json_audio,
};
use crate::{failure::BotFailure, session::Session};

/// Media Streams, towards bots that were written for Twilio.
#[derive(Clone)]
pub struct Twilio {
    account_sid: String,
    auth_token: Option<String>,
}

impl Default for Twilio {
    fn default() -> Self {
        Self {
            account_sid: Self::NO_ACCOUNT.into(),
            auth_token: None,
        }
    }
}

impl Twilio {
    /// The account's SID unless one is set.
    pub const NO_ACCOUNT: &str = "AC00000000000000000000000000000000";

    /// The account that bots are told: `AC` and 32 hexadecimal digits. All zeros unless set.
    #[must_use]
    pub fn account_sid(mut self, sid: impl Into<String>) -> Self {
        self.account_sid = sid.into();
        self
    }

    /// The token with which requests for a connection are signed, as `X-Twilio-Signature`. They are not unless set.
    #[must_use]
    pub fn auth_token(mut self, token: impl Into<String>) -> Self {
        self.auth_token = Some(token.into());
        self
    }
}

/// Without the token.
impl fmt::Debug for Twilio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Twilio")
            .field("account_sid", &self.account_sid)
            .finish_non_exhaustive()
    }
}

/// The signature of a request for `address`: base64 of its HMAC-SHA1.
fn sign(token: &str, address: &str) -> HeaderValue {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.as_bytes());
    let signature = STANDARD.encode(hmac::sign(&key, address.as_bytes()));
    // Base64 is always a header's value.
    HeaderValue::try_from(signature).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The call's SID: `CA` and the digits of its UUID.
fn call_sid(session: &Session) -> String {
    format!("CA{}", session.id().simple())
}

impl Dialect for Twilio {
    fn name(&self) -> &'static str {
        "twilio"
    }

    fn upgrade(&self, address: &str, _session: &Session) -> Upgrade {
        let signature = self.auth_token.as_ref().map(|token| sign(token, address));
        Upgrade {
            headers: signature
                .map(|value| (HeaderName::from_static("x-twilio-signature"), value))
                .into_iter()
                .collect(),
            ..Upgrade::default()
        }
    }

    fn start(&self, session: &Session, _caller: AudioFormat) -> Box<dyn Conversation> {
        Box::new(Stream {
            start: self.start_message(session),
            stream_sid: stream_sid(session),
            stop: json!({"accountSid": self.account_sid, "callSid": call_sid(session)}),
            sequence_number: 0,
            chunk: 0,
        })
    }

    fn can_reconnect(&self) -> bool {
        true
    }
}

impl Twilio {
    fn start_message(&self, session: &Session) -> Value {
        json!({
            "streamSid": stream_sid(session),
            "accountSid": self.account_sid,
            "callSid": call_sid(session),
            "tracks": ["inbound"],
            "customParameters": session.data(),
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        })
    }
}

fn stream_sid(session: &Session) -> String {
    format!("MZ{}", session.id().simple())
}

/// One media stream.
struct Stream {
    start: Value,
    stream_sid: String,
    stop: Value,
    sequence_number: u64,
    chunk: u64,
}

/// What a bot sends. What is not needed is not looked at: bots leave out `streamSid`, and more.
#[derive(Deserialize)]
struct FromBot<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    media: Option<Media<'a>>,
    #[serde(borrow)]
    mark: Option<Mark<'a>>,
}

#[derive(Deserialize)]
struct Media<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Mark<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

impl Conversation for Stream {
    fn caller_format(&self) -> AudioFormat {
        AudioFormat::ULAW
    }

    fn handle_event(&mut self, event: CallEvent<'_>, _queued: Duration, actions: &mut Vec<Action>) {
        match event {
            CallEvent::Connected => {
                let connected =
                    json!({"event": "connected", "protocol": "Call", "version": "1.0.0"});
                actions.push(Action::Send(Message::Text(connected.to_string())));
                let start = self.start.take();
                self.send(actions, "start", &start);
            }
            CallEvent::Audio { timestamp, payload } => self.send_media(actions, timestamp, payload),
            CallEvent::Digit(digit) => {
                let dtmf = json!({"track": "inbound_track", "digit": digit});
                self.send(actions, "dtmf", &dtmf);
            }
            CallEvent::MarkReached(name) => self.send(actions, "mark", &json!({"name": name})),
            CallEvent::Cleared(cleared) => {
                for name in &cleared.marks {
                    self.send(actions, "mark", &json!({"name": name}));
                }
            }
            CallEvent::Ended => {
                let stop = self.stop.take();
                self.send(actions, "stop", &stop);
            }
            CallEvent::Drained | CallEvent::ToolResult { .. } => {}
        }
    }

    fn handle_message(
        &mut self,
        message: Received<'_>,
        _queued: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), BotFailure> {
        let Received::Text(text) = message else {
            return complain(actions, "a binary message: Media Streams are text");
        };
        let message: FromBot<'_> = match serde_json::from_str(text) {
            Ok(message) => message,
            Err(error) => {
                return complain(actions, format!("no message of Media Streams: {error}"));
            }
        };
        match (&*message.event, message.media, message.mark) {
            ("media", Some(media), _) => match STANDARD.decode(&*media.payload) {
                Ok(audio) => actions.push(Action::Play {
                    item: None,
                    format: AudioFormat::ULAW,
                    audio,
                }),
                Err(error) => {
                    return complain(actions, format!("media that is not base64: {error}"));
                }
            },
            ("media", None, _) => return complain(actions, "media without a payload"),
            ("mark", _, Some(mark)) => actions.push(Action::Mark(mark.name.into_owned())),
            // Some bots send marks that they don't want back.
            ("mark", _, None) => {}
            ("clear", ..) => actions.push(Action::Clear),
            (other, ..) => {
                return complain(actions, format!("an unknown event: {other:?}"));
            }
        }
        Ok(())
    }

    fn is_caller_audio(&self, message: &Message) -> bool {
        json_audio::is_audio(message)
    }
}

impl Stream {
    fn send(&mut self, actions: &mut Vec<Action>, event: &str, content: &Value) {
        let message = json!({
            "event": event,
            "sequenceNumber": self.next_sequence_number().to_string(),
            "streamSid": self.stream_sid,
            event: content,
        });
        actions.push(Action::Send(Message::Text(message.to_string())));
    }

    fn send_media(&mut self, actions: &mut Vec<Action>, timestamp: Duration, payload: &[u8]) {
        self.chunk += 1;
        let (sequence_number, chunk) = (self.next_sequence_number(), self.chunk);
        let (sid, timestamp) = (&self.stream_sid, timestamp.as_millis());
        let fields = format_args!(
            r#","sequenceNumber":"{sequence_number}","streamSid":"{sid}","media":{{"track":"inbound","chunk":"{chunk}","timestamp":"{timestamp}","payload":""#
        );
        json_audio::send(actions, fields, payload);
    }

    fn next_sequence_number(&mut self) -> u64 {
        self.sequence_number += 1;
        self.sequence_number
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use uuid::Uuid;

    use super::*;
    use crate::dialect::Cleared;

    fn session() -> Session {
        Session::of(Uuid::from_u128(0xAB)).param("from", "+49 \"30\"")
    }

    fn started() -> Box<dyn Conversation> {
        let mut stream = Twilio::default().start(&session(), AudioFormat::ULAW);
        stream.handle_event(CallEvent::Connected, Duration::ZERO, &mut Vec::new());
        stream
    }

    fn sent(action: &Action) -> Value {
        match action {
            Action::Send(Message::Text(text)) => serde_json::from_str(text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn after(event: CallEvent<'_>) -> Vec<Value> {
        let mut actions = Vec::new();
        started().handle_event(event, Duration::ZERO, &mut actions);
        actions.iter().map(sent).collect()
    }

    fn reply(text: &str) -> Vec<Action> {
        let mut actions = Vec::new();
        let received = Received::Text(text);
        let handled = started().handle_message(received, Duration::ZERO, &mut actions);
        handled.unwrap();
        actions
    }

    #[test]
    fn a_stream_begins_with_what_is_known_of_the_call() {
        let mut actions = Vec::new();
        let mut stream = Twilio::default().start(&session(), AudioFormat::linear(16_000));
        stream.handle_event(CallEvent::Connected, Duration::ZERO, &mut actions);
        let sent: Vec<_> = actions.iter().map(sent).collect();
        let connected = json!({"event": "connected", "protocol": "Call", "version": "1.0.0"});
        let start = json!({
            "event": "start",
            "sequenceNumber": "1",
            "streamSid": "MZ000000000000000000000000000000ab",
            "start": {
                "streamSid": "MZ000000000000000000000000000000ab",
                "accountSid": "AC00000000000000000000000000000000",
                "callSid": "CA000000000000000000000000000000ab",
                "tracks": ["inbound"],
                "customParameters": {"from": "+49 \"30\""},
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            },
        });
        assert_eq!(sent, [connected, start]);
    }

    #[test]
    fn a_bot_is_told_that_it_has_the_call_again() {
        let mut session = session();
        session.is_reconnect = true;
        let start = Twilio::default().start_message(&session);
        assert_eq!(start["customParameters"]["reconnect"], "true");
    }

    #[test]
    fn audio_counts_from_the_first_frame() {
        let mut stream = started();
        let mut actions = Vec::new();
        for frame in 0..2 {
            let event = CallEvent::Audio {
                timestamp: Duration::from_millis(frame * 20),
                payload: &[0xFF, 0x7F, frame as u8],
            };
            stream.handle_event(event, Duration::ZERO, &mut actions);
        }
        let media = |number: &str, chunk: &str, timestamp: &str, payload: &str| {
            json!({
                "event": "media",
                "sequenceNumber": number,
                "streamSid": "MZ000000000000000000000000000000ab",
                "media": {"track": "inbound", "chunk": chunk, "timestamp": timestamp, "payload": payload},
            })
        };
        let expected = [media("2", "1", "0", "/38A"), media("3", "2", "20", "/38B")];
        assert_eq!(actions.iter().map(sent).collect::<Vec<_>>(), expected);
        for action in &actions {
            let Action::Send(message) = action else {
                panic!("{action:?}");
            };
            assert!(stream.is_caller_audio(message));
        }
    }

    #[test]
    fn digits_marks_and_the_end_are_told() {
        let dtmf = &after(CallEvent::Digit('#'))[0];
        assert_eq!(
            dtmf["dtmf"],
            json!({"track": "inbound_track", "digit": "#"})
        );
        assert_eq!(dtmf["sequenceNumber"], "2");
        let mark = &after(CallEvent::MarkReached("a \"b\""))[0];
        assert_eq!(
            (&mark["event"], &mark["mark"]),
            (&json!("mark"), &json!({"name": "a \"b\""}))
        );
        let stop = &after(CallEvent::Ended)[0];
        assert_eq!(stop["event"], "stop");
        assert_eq!(
            stop["stop"]["callSid"],
            "CA000000000000000000000000000000ab"
        );
        assert!(after(CallEvent::Drained).is_empty());
    }

    #[test]
    fn a_clear_answers_every_mark_that_waits() {
        let marks: Vec<_> = (0..20).map(|it| it.to_string()).collect();
        let cleared = Cleared {
            marks: marks.clone(),
            items: Vec::new(),
        };
        let told = after(CallEvent::Cleared(&cleared));
        let names: Vec<_> = told.iter().map(|it| it["mark"]["name"].clone()).collect();
        assert_eq!(names, marks);
    }

    #[test]
    fn what_bots_say_is_done() {
        let play = |audio: &[u8]| {
            vec![Action::Play {
                item: None,
                format: AudioFormat::ULAW,
                audio: audio.to_vec(),
            }]
        };
        let cases = [
            // Without a streamSid, as fastrtc has it.
            (
                r#"{"event":"media","media":{"payload":"/38="}}"#,
                play(&[0xFF, 0x7F]),
            ),
            (
                r#"{"event":"media","streamSid":"MZ1","media":{"payload":""}}"#,
                play(&[]),
            ),
            (
                r#"{"event":"media","media":{"payload":"\/w=="}}"#,
                play(&[0xFF]),
            ),
            (
                r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"chunk-1"}}"#,
                vec![Action::Mark("chunk-1".into())],
            ),
            (r#"{"event":"mark","streamSid":"MZ1"}"#, vec![]),
            (
                r#"{"event":"clear","streamSid":"MZ1"}"#,
                vec![Action::Clear],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(reply(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_and_ends_nothing() {
        let long = format!(r#"{{"event":"{}"}}"#, "x".repeat(10_000));
        let no_object = format!(r#"{{"event":"media","media":"{}"}}"#, "x".repeat(10_000));
        let cases = [
            ("", "no message"),
            ("[]", "no message"),
            (r#"{"media":{}}"#, "no message"),
            (r#"{"event":"media"}"#, "without a payload"),
            (r#"{"event":"media","media":{"payload":"§"}}"#, "not base64"),
            (r#"{"event":"say"}"#, "unknown event: \"say\""),
            (long.as_str(), "unknown event"),
            (no_object.as_str(), "no message"),
        ];
        for (text, expected) in cases {
            match reply(text).as_slice() {
                [Action::Complaint(complaint)] => {
                    assert!(complaint.contains(expected), "{text}: {complaint}");
                    assert!(complaint.len() < 200, "{complaint}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        let mut actions = Vec::new();
        let binary = Received::Binary(&[0; 160]);
        started()
            .handle_message(binary, Duration::ZERO, &mut actions)
            .unwrap();
        assert!(matches!(actions.as_slice(), [Action::Complaint(_)]));
    }

    #[test]
    fn requests_are_signed_as_twilio_signs_them() {
        let upgrade = Twilio::default()
            .auth_token("12345")
            .upgrade("wss://bot.example/ws", &session());
        // printf %s wss://bot.example/ws | openssl dgst -sha1 -hmac 12345 -binary | base64
        assert_eq!(upgrade.headers[0].1, "ZP1CdL+sV2pQZPttopnfF5CMYMM=");
        assert!(
            Twilio::default()
                .upgrade("ws://b/", &session())
                .headers
                .is_empty()
        );
    }
}
