//! Plivo's audio streaming, bidirectional: JSON in text messages, audio in base64. µ-law at 8 kHz to the bot, µ-law or linear at
//! any rate from it.
//!
//! Protocol: Plivo's "Stream Event Protocol", with the types that its own `plivo-stream-sdk` insists on: numbers for
//! `sequenceNumber` and `chunk`, strings for `timestamp`, and no events but those it knows.

use std::{borrow::Cow, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use sidetone_audio::g711::Law;

use super::{
    Action, AudioFormat, CallEvent, Conversation, Dialect, Encoding, Message, Received, complain,
    json_audio, whole_samples::WholeSamples,
};
use crate::{caller_audio::FRAME, failure::BotFailure, session::Session};

/// The account that bots are told of. They need it for Plivo's own API only.
const ACCOUNT_ID: &str = "MA000000000000000000";
/// The rates that can be resampled.
const RATES: std::ops::RangeInclusive<u64> = 4_000..=384_000;

/// Plivo's audio streaming.
///
/// The call's data are in `extra_headers`, as JSON in a string. `reconnect` there says that the bot had this call
/// before. A bot ends the call by closing: Plivo's own API is not here.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Plivo;

impl Dialect for Plivo {
    fn name(&self) -> &'static str {
        "plivo"
    }

    fn start(&self, session: &Session, _caller: AudioFormat) -> Box<dyn Conversation> {
        Box::new(Stream {
            start: start_message(session),
            id: session.id().to_string(),
            sequence_number: 0,
            chunk: 0,
            sent: Duration::ZERO,
            format: AudioFormat::ULAW,
            samples: WholeSamples::default(),
        })
    }

    fn can_reconnect(&self) -> bool {
        true
    }
}

fn start_message(session: &Session) -> Value {
    let id = session.id().to_string();
    json!({
        "event": "start",
        "start": {
            "callId": id,
            "streamId": id,
            "accountId": ACCOUNT_ID,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
        },
        "extra_headers": Value::Object(session.data()).to_string(),
    })
}

/// One stream.
struct Stream {
    start: Value,
    id: String,
    sequence_number: u64,
    chunk: u64,
    /// How much of the caller's audio has been sent.
    sent: Duration,
    /// How the bot's last audio was encoded.
    format: AudioFormat,
    samples: WholeSamples,
}

/// What a bot sends. `streamId` is not looked at: Plivo's own package leaves it out of audio.
#[derive(Deserialize)]
struct FromBot<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    media: Option<Media<'a>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Media<'a> {
    #[serde(borrow)]
    content_type: Cow<'a, str>,
    /// A number, in some bots as a string.
    sample_rate: Value,
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

impl Media<'_> {
    fn format(&self) -> Result<AudioFormat, String> {
        // A rate may stand behind the type, as in `audio/x-l16;rate=16000`.
        let encoding = match self.content_type.split(';').next().unwrap_or_default() {
            "audio/x-mulaw" => Encoding::G711(Law::Ulaw),
            "audio/x-l16" => Encoding::Linear16,
            other => {
                return Err(format!(
                    "audio of a type that is not audio/x-mulaw or audio/x-l16: {other:?}"
                ));
            }
        };
        let rate = &self.sample_rate;
        let text = || rate.as_str().and_then(|it| it.parse().ok());
        match rate.as_u64().or_else(text) {
            Some(hz) if RATES.contains(&hz) => Ok(AudioFormat {
                encoding,
                hz: hz as u32,
            }),
            _ => Err("a sampleRate that is no number from 4000 to 384000".into()),
        }
    }
}

impl Conversation for Stream {
    fn caller_format(&self) -> AudioFormat {
        AudioFormat::ULAW
    }

    fn handle_event(&mut self, event: CallEvent<'_>, _queued: Duration, actions: &mut Vec<Action>) {
        match event {
            CallEvent::Connected => {
                let mut start = self.start.take();
                start["sequenceNumber"] = self.next_sequence_number().into();
                actions.push(Action::Send(Message::Text(start.to_string())));
            }
            CallEvent::Audio { timestamp, payload } => self.send_media(actions, timestamp, payload),
            CallEvent::Digit(digit) => {
                let timestamp = self.sent.as_millis().to_string();
                let dtmf = json!({"track": "inbound", "digit": digit, "timestamp": timestamp});
                self.send(actions, "dtmf", json!({"dtmf": dtmf}));
            }
            CallEvent::MarkReached(name) => {
                self.send(actions, "playedStream", json!({"name": name}));
            }
            // A checkpoint that was cleared is not answered: what was before it has not been played.
            CallEvent::Cleared(_) => self.send(actions, "clearedAudio", json!({})),
            _ => {}
        }
    }

    fn handle_message(
        &mut self,
        message: Received<'_>,
        _queued: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), BotFailure> {
        let Received::Text(text) = message else {
            return complain(actions, "a binary message: Plivo's streams are text");
        };
        let message: FromBot<'_> = match serde_json::from_str(text) {
            Ok(message) => message,
            Err(error) => return complain(actions, format!("no message of Plivo's: {error}")),
        };
        match (&*message.event, message.media, message.name) {
            ("playAudio", Some(media), _) => match self.play(&media) {
                Ok(action) => actions.push(action),
                Err(complaint) => return complain(actions, complaint),
            },
            ("playAudio", None, _) => return complain(actions, "playAudio without media"),
            ("checkpoint", _, Some(name)) => actions.push(Action::Mark(name.into_owned())),
            ("checkpoint", _, None) => return complain(actions, "a checkpoint without a name"),
            ("clearAudio", ..) => {
                self.samples.clear();
                actions.push(Action::Clear);
            }
            ("sendDTMF", ..) => {
                return complain(
                    actions,
                    "digits for the caller: AudioSocket can't carry them",
                );
            }
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
    fn play(&mut self, media: &Media<'_>) -> Result<Action, String> {
        let format = media.format()?;
        let audio = STANDARD.decode(&*media.payload);
        let audio = audio.map_err(|error| format!("audio that is not base64: {error}"))?;
        if format != self.format {
            self.format = format;
            self.samples.clear();
        }
        Ok(Action::Play {
            item: None,
            format,
            audio: self.samples.take(format, &audio),
        })
    }

    fn send(&mut self, actions: &mut Vec<Action>, event: &str, content: Value) {
        let mut message = content;
        message["event"] = event.into();
        message["sequenceNumber"] = self.next_sequence_number().into();
        message["streamId"] = self.id.as_str().into();
        actions.push(Action::Send(Message::Text(message.to_string())));
    }

    fn send_media(&mut self, actions: &mut Vec<Action>, timestamp: Duration, payload: &[u8]) {
        self.sent = timestamp + FRAME;
        self.chunk += 1;
        let (sequence_number, chunk) = (self.next_sequence_number(), self.chunk);
        let (id, timestamp) = (&self.id, timestamp.as_millis());
        let fields = format_args!(
            r#","sequenceNumber":{sequence_number},"streamId":"{id}","media":{{"track":"inbound","timestamp":"{timestamp}","chunk":{chunk},"payload":""#
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

    const ID: &str = "00000000-0000-0000-0000-0000000000ab";

    fn session() -> Session {
        Session::of(Uuid::from_u128(0xAB)).param("from", "+49 \"30\"")
    }

    fn started() -> Box<dyn Conversation> {
        let mut stream = Plivo.start(&session(), AudioFormat::ULAW);
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

    fn replies(texts: &[&str]) -> Vec<Action> {
        let (mut stream, mut actions) = (started(), Vec::new());
        for text in texts {
            let received = Received::Text(text);
            let handled = stream.handle_message(received, Duration::ZERO, &mut actions);
            handled.unwrap();
        }
        actions
    }

    fn play(encoding: Encoding, hz: u32, audio: &[u8]) -> Action {
        Action::Play {
            item: None,
            format: AudioFormat { encoding, hz },
            audio: audio.to_vec(),
        }
    }

    #[test]
    fn a_stream_begins_with_what_is_known_of_the_call() {
        let mut actions = Vec::new();
        let mut stream = Plivo.start(&session(), AudioFormat::linear(16_000));
        stream.handle_event(CallEvent::Connected, Duration::ZERO, &mut actions);
        let start = json!({
            "event": "start",
            "sequenceNumber": 1,
            "start": {
                "callId": ID,
                "streamId": ID,
                "accountId": "MA000000000000000000",
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
            },
            "extra_headers": r#"{"from":"+49 \"30\""}"#,
        });
        assert_eq!(actions.iter().map(sent).collect::<Vec<_>>(), [start]);
    }

    #[test]
    fn a_bot_is_told_that_it_has_the_call_again() {
        let mut session = Session::of(Uuid::nil());
        session.is_reconnect = true;
        let start = start_message(&session);
        assert_eq!(start["extra_headers"], r#"{"reconnect":"true"}"#);
    }

    #[test]
    fn numbers_are_numbers_and_timestamps_are_strings() {
        let (mut stream, mut actions) = (started(), Vec::new());
        for frame in 0..2 {
            let event = CallEvent::Audio {
                timestamp: Duration::from_millis(frame * 20),
                payload: &[0xFF, 0x7F, frame as u8],
            };
            stream.handle_event(event, Duration::ZERO, &mut actions);
        }
        for action in &actions {
            let Action::Send(message) = action else {
                panic!("{action:?}");
            };
            assert!(stream.is_caller_audio(message));
        }
        stream.handle_event(CallEvent::Digit('#'), Duration::ZERO, &mut actions);
        let media = |number: u64, chunk: u64, timestamp: &str, payload: &str| {
            json!({
                "event": "media",
                "sequenceNumber": number,
                "streamId": ID,
                "media": {"track": "inbound", "timestamp": timestamp, "chunk": chunk, "payload": payload},
            })
        };
        let expected = [
            media(2, 1, "0", "/38A"),
            media(3, 2, "20", "/38B"),
            json!({
                "event": "dtmf",
                "sequenceNumber": 4,
                "streamId": ID,
                "dtmf": {"track": "inbound", "digit": "#", "timestamp": "40"},
            }),
        ];
        assert_eq!(actions.iter().map(sent).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_was_played_and_what_was_cleared_is_told() {
        let played = json!({"event": "playedStream", "sequenceNumber": 2, "streamId": ID, "name": "a \"b\""});
        assert_eq!(after(CallEvent::MarkReached("a \"b\"")), [played]);
        let cleared = Cleared {
            marks: vec!["never played".into()],
            items: Vec::new(),
        };
        let told = json!({"event": "clearedAudio", "sequenceNumber": 2, "streamId": ID});
        assert_eq!(after(CallEvent::Cleared(&cleared)), [told]);
        // Plivo's package knows no other event.
        assert!(after(CallEvent::Ended).is_empty() && after(CallEvent::Drained).is_empty());
    }

    #[test]
    fn what_bots_say_is_done() {
        let ulaw = Encoding::G711(Law::Ulaw);
        let linear = Encoding::Linear16;
        let media = |kind: &str, rate: &str, payload: &str| {
            format!(
                r#"{{"event":"playAudio","media":{{"contentType":"{kind}","sampleRate":{rate},"payload":"{payload}"}}}}"#
            )
        };
        let cases = [
            (
                media("audio/x-mulaw", "8000", "/38="),
                play(ulaw, 8_000, &[0xFF, 0x7F]),
            ),
            (
                media("audio/x-mulaw", "16000", "/w=="),
                play(ulaw, 16_000, &[0xFF]),
            ),
            (
                media("audio/x-l16", "24000", "AQI="),
                play(linear, 24_000, &[1, 2]),
            ),
            (
                media("audio/x-l16;rate=16000", "\"16000\"", ""),
                play(linear, 16_000, &[]),
            ),
            (
                r#"{"event":"checkpoint","streamId":"1","name":"greeting"}"#.into(),
                Action::Mark("greeting".into()),
            ),
            (
                r#"{"event":"clearAudio","streamId":"1"}"#.into(),
                Action::Clear,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(replies(&[&text]), [expected], "{text}");
        }
        // A sample in two messages, and half a sample that another rate or a clear cuts off.
        let half = media("audio/x-l16", "8000", "AQ==");
        let [rest, other] = ["8000", "16000"].map(|rate| media("audio/x-l16", rate, "AgME"));
        let none = play(linear, 8_000, &[]);
        let told = replies(&[&half, &rest, &rest]);
        let whole = play(linear, 8_000, &[1, 2, 3, 4]);
        assert_eq!(told, [none.clone(), whole, play(linear, 8_000, &[2, 3])]);
        let told = replies(&[&half, &other]);
        assert_eq!(told, [none.clone(), play(linear, 16_000, &[2, 3])]);
        let told = replies(&[&half, r#"{"event":"clearAudio"}"#, &rest]);
        assert_eq!(told, [none, Action::Clear, play(linear, 8_000, &[2, 3])]);
    }

    #[test]
    fn what_is_wrong_is_said_and_ends_nothing() {
        let long = format!(r#"{{"event":"{}"}}"#, "x".repeat(10_000));
        let no_object = format!(r#"{{"event":"media","media":"{}"}}"#, "x".repeat(10_000));
        let media = |kind: &str, rate: &str| {
            format!(
                r#"{{"event":"playAudio","media":{{"contentType":"{kind}","sampleRate":{rate},"payload":"§"}}}}"#
            )
        };
        let cases = [
            ("".into(), "no message"),
            ("[]".into(), "no message"),
            (r#"{"event":"playAudio"}"#.into(), "without media"),
            (
                r#"{"event":"playAudio","media":{"payload":""}}"#.into(),
                "no message",
            ),
            (media("audio/mp3", "8000"), "\"audio/mp3\""),
            (media("audio/x-l16", "3999"), "sampleRate"),
            (media("audio/x-l16", "-8000"), "sampleRate"),
            (media("audio/x-l16", "384001"), "sampleRate"),
            (media("audio/x-l16", "8000"), "not base64"),
            (r#"{"event":"checkpoint"}"#.into(), "without a name"),
            (r#"{"event":"sendDTMF","dtmf":"1"}"#.into(), "can't carry"),
            (r#"{"event":"media"}"#.into(), "unknown event: \"media\""),
            (long, "unknown event"),
            (no_object, "no message"),
        ];
        for (text, expected) in cases {
            match replies(&[&text]).as_slice() {
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
}
