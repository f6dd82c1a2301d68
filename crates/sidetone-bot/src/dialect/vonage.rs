//! Vonage's WebSockets, of the Voice API and of the Video API's Audio Connector: linear audio at 16 kHz in binary messages, JSON
//! in text messages.
//!
//! Protocol: Vonage's "WebSockets in the Voice API". Vonage keeps 3072 binary messages of the bot, which is about a minute;
//! here as much is kept as a call's queue takes, and a message may be of any length.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Action, AudioFormat, CallEvent, Conversation, Dialect, Message, Received, complain,
    whole_samples::WholeSamples,
};
use crate::{failure::BotFailure, session::Session};

const FORMAT: AudioFormat = AudioFormat::linear(16_000);

/// Vonage's WebSockets, at 16 kHz both ways.
///
/// The call's data are in the first message, where Vonage puts the `headers` of an endpoint. `reconnect` there says
/// that the bot had this call before. A bot ends the call by closing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Vonage;

impl Dialect for Vonage {
    fn name(&self) -> &'static str {
        "vonage"
    }

    fn start(&self, session: &Session, _caller: AudioFormat) -> Box<dyn Conversation> {
        Box::new(Leg {
            connected: connected(session),
            samples: WholeSamples::default(),
        })
    }

    fn can_reconnect(&self) -> bool {
        true
    }
}

fn connected(session: &Session) -> Value {
    let mut message = session.data();
    // Last, so that nothing in the call's data is taken for them.
    message.insert("event".into(), "websocket:connected".into());
    message.insert("content-type".into(), "audio/l16;rate=16000".into());
    message.into()
}

/// One connection.
struct Leg {
    connected: Value,
    samples: WholeSamples,
}

impl Conversation for Leg {
    fn caller_format(&self) -> AudioFormat {
        FORMAT
    }

    fn handle_event(&mut self, event: CallEvent<'_>, _queued: Duration, actions: &mut Vec<Action>) {
        match event {
            CallEvent::Connected => send(actions, &self.connected.take()),
            CallEvent::Audio { payload, .. } => {
                actions.push(Action::Send(Message::Binary(payload.to_vec())));
            }
            CallEvent::Digit(digit) => {
                send(actions, &json!({"event": "websocket:dtmf", "digit": digit}));
            }
            // The name of a mark is the JSON of what the bot wants back.
            CallEvent::MarkReached(name) => {
                let payload = serde_json::from_str(name).unwrap_or(Value::Null);
                send(
                    actions,
                    &json!({"event": "websocket:notify", "payload": payload}),
                );
            }
            // What was cleared has not been played, so nothing says that it was.
            CallEvent::Cleared(_) => send(actions, &json!({"event": "websocket:cleared"})),
            _ => {}
        }
    }

    fn handle_message(
        &mut self,
        message: Received<'_>,
        _queued: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), BotFailure> {
        let text = match message {
            Received::Text(text) => text,
            Received::Binary(bytes) => {
                actions.push(Action::Play {
                    item: None,
                    format: FORMAT,
                    audio: self.samples.take(FORMAT, bytes),
                });
                return Ok(());
            }
        };
        let message: Value = match serde_json::from_str(text) {
            Ok(message) => message,
            Err(error) => {
                return complain(actions, format!("no message of Vonage's: {error}"));
            }
        };
        let field = |name: &str| message.get(name).and_then(Value::as_str);
        match (field("action"), field("event")) {
            (Some("clear"), _)
            // Vonage's own Python package asks like this.
            | (None, Some("websocket:cleared")) => {
                self.samples.clear();
                actions.push(Action::Clear);
            }
            (Some("notify"), _) => {
                let payload = message.get("payload").unwrap_or(&Value::Null);
                actions.push(Action::Mark(payload.to_string()));
            }
            (Some(other), _) => return complain(actions, format!("an unknown action: {other:?}")),
            (None, _) => return complain(actions, "a message without an action"),
        }
        Ok(())
    }

    fn is_caller_audio(&self, message: &Message) -> bool {
        matches!(message, Message::Binary(_))
    }
}

fn send(actions: &mut Vec<Action>, message: &Value) {
    actions.push(Action::Send(Message::Text(message.to_string())));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use uuid::Uuid;

    use super::*;
    use crate::dialect::Cleared;

    fn session() -> Session {
        let session = Session::of(Uuid::from_u128(0xAB)).param("from", "+49 \"30\"");
        session.param("event", "trade fair")
    }

    fn after(event: CallEvent<'_>) -> Vec<Value> {
        let mut actions = Vec::new();
        let mut leg = Vonage.start(&session(), AudioFormat::linear(8_000));
        leg.handle_event(event, Duration::ZERO, &mut actions);
        let text = |action: &Action| match action {
            Action::Send(Message::Text(text)) => serde_json::from_str(text).unwrap(),
            other => panic!("{other:?}"),
        };
        actions.iter().map(text).collect()
    }

    fn replies(messages: &[Received<'_>]) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut leg = Vonage.start(&session(), AudioFormat::ULAW);
        for message in messages {
            let handled = leg.handle_message(*message, Duration::ZERO, &mut actions);
            handled.unwrap();
        }
        actions
    }

    fn play(audio: &[u8]) -> Action {
        Action::Play {
            item: None,
            format: FORMAT,
            audio: audio.to_vec(),
        }
    }

    #[test]
    fn a_bot_is_told_what_is_known_of_the_call() {
        let told = json!({
            "event": "websocket:connected",
            "content-type": "audio/l16;rate=16000",
            "from": "+49 \"30\"",
        });
        assert_eq!(after(CallEvent::Connected), [told]);
        let mut session = session();
        session.is_reconnect = true;
        assert_eq!(connected(&session)["reconnect"], "true");
    }

    #[test]
    fn audio_is_binary_at_16_khz_whatever_the_call_has() {
        for caller in [AudioFormat::ULAW, AudioFormat::linear(48_000)] {
            let mut leg = Vonage.start(&session(), caller);
            assert_eq!(leg.caller_format(), AudioFormat::linear(16_000));
            let mut actions = Vec::new();
            let event = CallEvent::Audio {
                timestamp: Duration::ZERO,
                payload: &[7; 640],
            };
            leg.handle_event(event, Duration::ZERO, &mut actions);
            let message = Message::Binary(vec![7; 640]);
            assert!(leg.is_caller_audio(&message));
            assert!(!leg.is_caller_audio(&Message::Text("{}".into())));
            assert_eq!(actions, [Action::Send(message)]);
        }
    }

    #[test]
    fn digits_what_was_played_and_what_was_cleared_is_told() {
        let digit = json!({"event": "websocket:dtmf", "digit": "#"});
        assert_eq!(after(CallEvent::Digit('#')), [digit]);
        let payload = json!({"part": 1, "of": ["a", null]});
        let reached = after(CallEvent::MarkReached(&payload.to_string()));
        assert_eq!(
            reached,
            [json!({"event": "websocket:notify", "payload": payload})]
        );
        let cleared = Cleared {
            marks: vec!["1".into()],
            items: Vec::new(),
        };
        let told = after(CallEvent::Cleared(&cleared));
        assert_eq!(told, [json!({"event": "websocket:cleared"})]);
        assert!(after(CallEvent::Ended).is_empty() && after(CallEvent::Drained).is_empty());
    }

    #[test]
    fn what_bots_say_is_done() {
        let cases = [
            (r#"{"action":"clear"}"#, Action::Clear),
            (r#"{"event":"websocket:cleared"}"#, Action::Clear),
            (
                r#"{"action":"notify","payload":{"part": 1}}"#,
                Action::Mark(r#"{"part":1}"#.into()),
            ),
            (r#"{"action":"notify"}"#, Action::Mark("null".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(replies(&[Received::Text(text)]), [expected], "{text}");
        }
        // Messages of any length, in bytes.
        let [one, three] = [Received::Binary(&[1]), Received::Binary(&[2, 3, 4])];
        assert_eq!(replies(&[one, three]), [play(&[]), play(&[1, 2, 3, 4])]);
        let clear = Received::Text(r#"{"action":"clear"}"#);
        let after_a_clear = replies(&[one, clear, three]);
        assert_eq!(after_a_clear, [play(&[]), Action::Clear, play(&[2, 3])]);
        let minutes = vec![1; 64_000];
        assert_eq!(replies(&[Received::Binary(&minutes)]), [play(&minutes)]);
    }

    #[test]
    fn what_is_wrong_is_said_and_ends_nothing() {
        let long = format!(r#"{{"action":"{}"}}"#, "x".repeat(10_000));
        let cases = [
            ("", "no message"),
            ("hello", "no message"),
            ("[1]", "without an action"),
            (r#"{"action":7}"#, "without an action"),
            (r#"{"event":"websocket:connected"}"#, "without an action"),
            (r#"{"action":"talk"}"#, "unknown action: \"talk\""),
            (long.as_str(), "unknown action"),
        ];
        for (text, expected) in cases {
            match replies(&[Received::Text(text)]).as_slice() {
                [Action::Complaint(complaint)] => {
                    assert!(complaint.contains(expected), "{text}: {complaint}");
                    assert!(complaint.len() < 200, "{complaint}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
