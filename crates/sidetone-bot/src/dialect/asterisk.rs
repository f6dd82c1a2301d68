//! The protocol of Asterisk's WebSocket channel, towards bots that were written for it: control messages as JSON in text
//! messages, raw audio in binary ones.
//!
//! Protocol: Asterisk's `channels/chan_websocket.c`, with the option `f(json)`. To the bot the call looks like a channel of
//! that driver. Three things are kinder than there:
//!
//! - Audio that ends within a frame keeps its end. Asterisk drops that, unless it comes between `START_MEDIA_BUFFERING` and
//!   `STOP_MEDIA_BUFFERING`.
//! - Audio that comes after `MEDIA_XOFF` is kept as long as a call's queue has capacity. Asterisk drops it from 1000 frames on.
//! - A binary message may be of any length. Asterisk closes the connection at more than 65500 bytes.

use std::time::Duration;

use serde_json::{Value, json};
use sidetone_audio::g711::Law;

use super::{
    Action, AudioFormat, CallEvent, Conversation, Dialect, Encoding, Message, Received, Upgrade,
    complain, whole_samples::WholeSamples,
};
use crate::{caller_audio::FRAME, failure::BotFailure, session::Session};

/// A control message that is longer is ignored, in bytes.
const MAX_COMMAND_LEN: usize = 128;
/// From so many queued frames on the bot is asked to wait.
const XOFF_LEVEL: u32 = 900;
/// With fewer it is asked to go on.
const XON_LEVEL: u32 = 800;

/// Names of the marks that a channel queues: what they are for, and the bot's own name behind it.
const MARK: char = 'm';
const BUFFERING: char = 'b';
const DRAINED: &str = "d";

/// The protocol of Asterisk's `chan_websocket`, as JSON.
///
/// The bot gets the caller's audio as the call has it: linear at the call's rate, or µ-law or A-law. The call's data are
/// in `channel_variables`, and `reconnect` there says that the bot had this call before.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Asterisk;

impl Dialect for Asterisk {
    fn name(&self) -> &'static str {
        "asterisk"
    }

    fn upgrade(&self, _address: &str, _session: &Session) -> Upgrade {
        Upgrade {
            subprotocol: Some("media"),
            ..Upgrade::default()
        }
    }

    fn start(&self, session: &Session, caller: AudioFormat) -> Box<dyn Conversation> {
        // A rate without a name is one that no call has.
        let (name, format) = match format_name(caller) {
            Some(name) => (name, caller),
            None => ("slin16", AudioFormat::linear(16_000)),
        };
        Box::new(Channel {
            start: media_start(session, name, format),
            id: session.id().to_string(),
            format,
            samples: WholeSamples::default(),
            direction: Direction::Both,
            is_paused: false,
            is_buffering: false,
            is_full: false,
            reports_drained: false,
        })
    }

    fn can_reconnect(&self) -> bool {
        true
    }
}

fn media_start(session: &Session, name: &str, format: AudioFormat) -> Value {
    let id = session.id().to_string();
    json!({
        "event": "MEDIA_START",
        "connection_id": id,
        "channel": format!("WebSocket/{id}"),
        "channel_id": id,
        "format": name,
        "optimal_frame_size": frame_len(format),
        "ptime": FRAME.as_millis() as u64,
        "channel_variables": session.data(),
    })
}

/// What Asterisk calls a format.
fn format_name(format: AudioFormat) -> Option<&'static str> {
    Some(match (format.encoding, format.hz) {
        (Encoding::G711(Law::Ulaw), 8_000) => "ulaw",
        (Encoding::G711(Law::Alaw), 8_000) => "alaw",
        (Encoding::Linear16, 8_000) => "slin",
        (Encoding::Linear16, 12_000) => "slin12",
        (Encoding::Linear16, 16_000) => "slin16",
        (Encoding::Linear16, 24_000) => "slin24",
        (Encoding::Linear16, 32_000) => "slin32",
        (Encoding::Linear16, 44_100) => "slin44",
        (Encoding::Linear16, 48_000) => "slin48",
        (Encoding::Linear16, 96_000) => "slin96",
        (Encoding::Linear16, 192_000) => "slin192",
        _ => return None,
    })
}

/// The length of 20 ms, in bytes.
fn frame_len(format: AudioFormat) -> usize {
    format.hz as usize / 50 * format.sample_len()
}

/// One connection, which looks like a channel.
struct Channel {
    start: Value,
    id: String,
    format: AudioFormat,
    samples: WholeSamples,
    direction: Direction,
    is_paused: bool,
    is_buffering: bool,
    /// The bot has been asked to wait.
    is_full: bool,
    /// The bot wants to know when the queue is empty.
    reports_drained: bool,
}

/// Which way audio goes, seen from the bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Both,
    /// The bot only sends.
    Out,
    /// The bot only receives.
    In,
}

/// A control message of the bot's.
struct Command {
    name: String,
    correlation_id: String,
    direction: Option<String>,
    is_json: bool,
}

impl Command {
    /// Reads JSON, or the older text form: a name, and what belongs to it behind a space.
    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        let is_name = |it: char| it.is_ascii_uppercase() || it == '_';
        if !name.is_empty() && name.chars().all(is_name) {
            return Some(Self {
                name: name.into(),
                correlation_id: rest.into(),
                direction: None,
                is_json: false,
            });
        }
        let json: Value = serde_json::from_str(text).ok()?;
        let field = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            name: field("command").unwrap_or_default(),
            correlation_id: field("correlation_id").unwrap_or_default(),
            direction: field("direction"),
            is_json: true,
        })
    }
}

impl Conversation for Channel {
    fn caller_format(&self) -> AudioFormat {
        self.format
    }

    fn handle_event(&mut self, event: CallEvent<'_>, queued: Duration, actions: &mut Vec<Action>) {
        match event {
            CallEvent::Connected => {
                let start = self.start.take();
                actions.push(Action::Send(Message::Text(start.to_string())));
            }
            CallEvent::Audio { payload, .. } if self.direction != Direction::Out => {
                actions.push(Action::Send(Message::Binary(payload.to_vec())));
            }
            CallEvent::Digit(digit) => self.send(actions, "DTMF_END", json!({"digit": digit})),
            CallEvent::MarkReached(DRAINED) => self.handle_drained(queued, actions),
            CallEvent::MarkReached(name) => {
                let event = match name.starts_with(BUFFERING) {
                    true => "MEDIA_BUFFERING_COMPLETED",
                    false => "MEDIA_MARK_PROCESSED",
                };
                let id = name.strip_prefix([MARK, BUFFERING]).unwrap_or_default();
                self.send(actions, event, json!({"correlation_id": id}));
            }
            // Marks that were flushed are never answered.
            CallEvent::Cleared(_) if self.reports_drained => {
                actions.push(Action::Mark(DRAINED.into()));
            }
            _ => {}
        }
        if self.is_full && !self.is_held() && frames(queued) < XON_LEVEL {
            self.is_full = false;
            self.send(actions, "MEDIA_XON", json!({}));
        }
    }

    fn handle_message(
        &mut self,
        message: Received<'_>,
        queued: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), BotFailure> {
        match message {
            // The bot has asked for this.
            Received::Binary(_) if self.direction == Direction::In => {}
            Received::Binary(bytes) => self.play(bytes, queued, actions),
            Received::Text(text) if text.len() > MAX_COMMAND_LEN => {
                let text = format!(
                    "a command of {} bytes: Asterisk ignores more than {MAX_COMMAND_LEN}",
                    text.len()
                );
                return complain(actions, text);
            }
            Received::Text(text) => match Command::parse(text.trim()) {
                Some(command) => self.handle_command(&command, queued, actions),
                None => self.refuse(actions, "Unable to parse JSON command".into()),
            },
        }
        Ok(())
    }

    fn is_caller_audio(&self, message: &Message) -> bool {
        matches!(message, Message::Binary(_))
    }
}

impl Channel {
    fn play(&mut self, bytes: &[u8], queued: Duration, actions: &mut Vec<Action>) {
        let audio = self.samples.take(self.format, bytes);
        let samples = (audio.len() / self.format.sample_len()) as u64;
        let added = Duration::from_micros(samples * 1_000_000 / u64::from(self.format.hz));
        actions.push(Action::Play {
            item: None,
            format: self.format,
            audio,
        });
        if !self.is_full && frames(queued + added) >= XOFF_LEVEL {
            self.is_full = true;
            self.send(actions, "MEDIA_XOFF", json!({}));
        }
    }

    fn handle_command(&mut self, command: &Command, queued: Duration, actions: &mut Vec<Action>) {
        let name = command.name.as_str();
        let needs_output = matches!(
            name,
            "START_MEDIA_BUFFERING"
                | "STOP_MEDIA_BUFFERING"
                | "MARK_MEDIA"
                | "PAUSE_MEDIA"
                | "CONTINUE_MEDIA"
        );
        if needs_output && self.direction == Direction::In {
            let text = format!("{name} not supported while media direction is 'in'");
            return self.refuse(actions, text);
        }
        match name {
            // A call that comes by AudioSocket has been answered.
            "ANSWER" => {}
            "HANGUP" => actions.push(Action::HangUp),
            "START_MEDIA_BUFFERING" => self.is_buffering = true,
            "STOP_MEDIA_BUFFERING" => {
                self.is_buffering = false;
                self.samples.clear();
                actions.push(Action::Mark(format!(
                    "{BUFFERING}{}",
                    command.correlation_id
                )));
            }
            "MARK_MEDIA" => {
                actions.push(Action::Mark(format!("{MARK}{}", command.correlation_id)));
            }
            "FLUSH_MEDIA" => {
                self.is_buffering = false;
                self.samples.clear();
                actions.push(Action::Clear);
            }
            "PAUSE_MEDIA" => self.change(actions, |it| it.is_paused = true),
            "CONTINUE_MEDIA" => self.change(actions, |it| it.is_paused = false),
            "GET_STATUS" => {
                let status = json!({
                    "queue_length": frames(queued),
                    "xon_level": XON_LEVEL,
                    "xoff_level": XOFF_LEVEL,
                    "queue_full": self.is_full,
                    "bulk_media": self.is_buffering,
                    "media_paused": self.is_paused,
                });
                self.send(actions, "STATUS", status);
            }
            // One answer for all that ask before it.
            "REPORT_QUEUE_DRAINED" if self.reports_drained => {}
            "REPORT_QUEUE_DRAINED" => {
                self.reports_drained = true;
                actions.push(Action::Mark(DRAINED.into()));
            }
            "SET_MEDIA_DIRECTION" => self.set_direction(command, actions),
            _ => {
                let text = format!("an unknown command: {name:?}");
                actions.push(Action::Complaint(text.into()));
            }
        }
    }

    fn set_direction(&mut self, command: &Command, actions: &mut Vec<Action>) {
        let direction = match command.direction.as_deref() {
            _ if !command.is_json => Err("SET_MEDIA_DIRECTION only supports JSON format.".into()),
            None => Err("SET_MEDIA_DIRECTION requires a 'direction' parameter.".into()),
            Some("both") => Ok(Direction::Both),
            Some("out") => Ok(Direction::Out),
            Some("in") => Ok(Direction::In),
            Some(other) => Err(format!(
                "'{other}' is not a valid direction for SET_MEDIA_DIRECTION."
            )),
        };
        match direction {
            Ok(direction) => self.change(actions, |it| it.direction = direction),
            Err(text) => self.refuse(actions, text),
        }
    }

    /// Whether nothing of the queue is played. A bot that only receives plays nothing, not even what it queued before.
    fn is_held(&self) -> bool {
        self.is_paused || self.direction == Direction::In
    }

    fn change(&mut self, actions: &mut Vec<Action>, change: impl FnOnce(&mut Self)) {
        let was_held = self.is_held();
        change(self);
        match (was_held, self.is_held()) {
            (false, true) => actions.push(Action::Pause),
            (true, false) => actions.push(Action::Resume),
            _ => {}
        }
    }

    fn handle_drained(&mut self, queued: Duration, actions: &mut Vec<Action>) {
        if queued.is_zero() {
            self.reports_drained = false;
            self.send(actions, "QUEUE_DRAINED", json!({}));
        } else {
            // More has come since it asked.
            actions.push(Action::Mark(DRAINED.into()));
        }
    }

    fn send(&self, actions: &mut Vec<Action>, event: &str, fields: Value) {
        let mut message = fields;
        message["event"] = event.into();
        message["channel_id"] = self.id.as_str().into();
        actions.push(Action::Send(Message::Text(message.to_string())));
    }

    /// Tells the bot what Asterisk would, and the operator.
    fn refuse(&self, actions: &mut Vec<Action>, text: String) {
        self.send(actions, "ERROR", json!({"error_text": &text}));
        actions.push(Action::Complaint(text.into()));
    }
}

/// How many frames are queued.
fn frames(queued: Duration) -> u32 {
    queued.as_micros().div_ceil(FRAME.as_micros()) as u32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use uuid::Uuid;

    use super::*;
    use crate::dialect::Cleared;

    const ID: &str = "00000000-0000-0000-0000-0000000000ab";

    fn session() -> Session {
        Session::of(Uuid::from_u128(0xAB)).param("CALL_ORIGIN", "+49 \"30\"")
    }

    /// A conversation, and what was queued when something happened last.
    struct Talk {
        channel: Box<dyn Conversation>,
        queued: Duration,
    }

    impl Talk {
        fn start(caller: AudioFormat) -> Self {
            let channel = Asterisk.start(&session(), caller);
            let queued = Duration::ZERO;
            let mut talk = Self { channel, queued };
            talk.event(CallEvent::Connected);
            talk
        }

        fn event(&mut self, event: CallEvent<'_>) -> Vec<Action> {
            let mut actions = Vec::new();
            self.channel.handle_event(event, self.queued, &mut actions);
            actions
        }

        fn frame(&mut self) -> Vec<Action> {
            self.event(CallEvent::Audio {
                timestamp: Duration::ZERO,
                payload: &[7; 320],
            })
        }

        fn receive(&mut self, message: Received<'_>) -> Vec<Action> {
            let mut actions = Vec::new();
            let handled = self
                .channel
                .handle_message(message, self.queued, &mut actions);
            handled.unwrap();
            actions
        }

        fn command(&mut self, command: &str) -> Vec<Action> {
            self.receive(Received::Text(&json!({"command": command}).to_string()))
        }

        fn direction(&mut self, direction: &str) -> Vec<Action> {
            let json = json!({"command": "SET_MEDIA_DIRECTION", "direction": direction});
            self.receive(Received::Text(&json.to_string()))
        }
    }

    fn slin() -> Talk {
        Talk::start(AudioFormat::linear(8_000))
    }

    fn json_of(action: &Action) -> Value {
        match action {
            Action::Send(Message::Text(text)) => serde_json::from_str(text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The one event that was sent.
    #[track_caller]
    fn event(actions: Vec<Action>) -> Value {
        assert_eq!(actions.len(), 1, "{actions:?}");
        json_of(&actions[0])
    }

    fn plain(event: &str) -> Value {
        json!({"event": event, "channel_id": ID})
    }

    #[track_caller]
    fn assert_refused(actions: &[Action], text: &str) {
        let told = json!({"event": "ERROR", "channel_id": ID, "error_text": text});
        let [sent, complaint] = actions else {
            panic!("{actions:?}");
        };
        assert_eq!(json_of(sent), told);
        assert_eq!(complaint, &Action::Complaint(text.to_owned().into()));
    }

    #[test]
    fn a_channel_begins_with_its_format_and_what_is_known_of_the_call() {
        let linear = AudioFormat::linear;
        let cases = [
            (AudioFormat::ULAW, "ulaw", 160),
            (AudioFormat::ALAW, "alaw", 160),
            (linear(8_000), "slin", 320),
            (linear(12_000), "slin12", 480),
            (linear(16_000), "slin16", 640),
            (linear(24_000), "slin24", 960),
            (linear(32_000), "slin32", 1280),
            (linear(44_100), "slin44", 1764),
            (linear(48_000), "slin48", 1920),
            (linear(96_000), "slin96", 3840),
            (linear(192_000), "slin192", 7680),
        ];
        for (format, name, frame) in cases {
            let mut channel = Asterisk.start(&session(), format);
            assert_eq!(channel.caller_format(), format);
            let mut actions = Vec::new();
            channel.handle_event(CallEvent::Connected, Duration::ZERO, &mut actions);
            let start = json!({
                "event": "MEDIA_START",
                "connection_id": ID,
                "channel": format!("WebSocket/{ID}"),
                "channel_id": ID,
                "format": name,
                "optimal_frame_size": frame,
                "ptime": 20,
                "channel_variables": {"CALL_ORIGIN": "+49 \"30\""},
            });
            assert_eq!(event(actions), start);
        }
        assert_eq!(
            Asterisk.upgrade("ws://b/", &session()).subprotocol,
            Some("media")
        );
    }

    #[test]
    fn a_bot_is_told_that_it_has_the_call_again() {
        let mut session = session();
        session.is_reconnect = true;
        let start = media_start(&session, "slin", AudioFormat::linear(8_000));
        assert_eq!(start["channel_variables"]["reconnect"], "true");
    }

    #[test]
    fn audio_is_binary_both_ways_and_no_byte_of_it_is_lost() {
        let mut talk = slin();
        let sent = Message::Binary(vec![7; 320]);
        assert!(talk.channel.is_caller_audio(&sent));
        assert_eq!(talk.frame(), [Action::Send(sent)]);
        let play = |audio: &[u8]| {
            vec![Action::Play {
                item: None,
                format: AudioFormat::linear(8_000),
                audio: audio.to_vec(),
            }]
        };
        // No multiple of a frame, nor of a sample.
        assert_eq!(talk.receive(Received::Binary(&[1; 323])), play(&[1; 322]));
        assert_eq!(talk.receive(Received::Binary(&[2])), play(&[1, 2]));
        let long = vec![3; 100_000];
        assert_eq!(talk.receive(Received::Binary(&long)), play(&long));
        assert_eq!(talk.receive(Received::Binary(&[4])), play(&[]));
        assert_eq!(talk.command("FLUSH_MEDIA"), [Action::Clear]);
        assert_eq!(talk.receive(Received::Binary(&[5, 6])), play(&[5, 6]));
    }

    #[test]
    fn commands_are_done() {
        let cases = [
            (r#"{"command":"ANSWER"}"#, vec![]),
            (r#"{"command":"HANGUP"}"#, vec![Action::HangUp]),
            (
                r#"{"command":"MARK_MEDIA","correlation_id":"m 1"}"#,
                vec![Action::Mark("mm 1".into())],
            ),
            (
                r#"{"command":"MARK_MEDIA"}"#,
                vec![Action::Mark("m".into())],
            ),
            (r#"{"command":"START_MEDIA_BUFFERING"}"#, vec![]),
            (
                r#"{"command":"STOP_MEDIA_BUFFERING","correlation_id":"7"}"#,
                vec![Action::Mark("b7".into())],
            ),
            (r#"{"command":"FLUSH_MEDIA"}"#, vec![Action::Clear]),
            (r#"{"command":"PAUSE_MEDIA"}"#, vec![Action::Pause]),
            (r#"{"command":"CONTINUE_MEDIA"}"#, vec![]),
            (
                r#"{"command":"REPORT_QUEUE_DRAINED"}"#,
                vec![Action::Mark("d".into())],
            ),
            // The older form.
            ("ANSWER", vec![]),
            ("HANGUP", vec![Action::HangUp]),
            ("MARK_MEDIA m 1", vec![Action::Mark("mm 1".into())]),
            ("STOP_MEDIA_BUFFERING", vec![Action::Mark("b".into())]),
            (" FLUSH_MEDIA\n", vec![Action::Clear]),
        ];
        for (text, expected) in cases {
            assert_eq!(slin().receive(Received::Text(text)), expected, "{text}");
        }
    }

    #[test]
    fn what_was_played_and_pressed_is_told() {
        let mut talk = slin();
        let told = event(talk.event(CallEvent::MarkReached("mm 1")));
        let mark =
            json!({"event": "MEDIA_MARK_PROCESSED", "channel_id": ID, "correlation_id": "m 1"});
        assert_eq!(told, mark);
        let told = event(talk.event(CallEvent::MarkReached("b")));
        let completed =
            json!({"event": "MEDIA_BUFFERING_COMPLETED", "channel_id": ID, "correlation_id": ""});
        assert_eq!(told, completed);
        let told = event(talk.event(CallEvent::Digit('D')));
        assert_eq!(
            told,
            json!({"event": "DTMF_END", "channel_id": ID, "digit": "D"})
        );
        for silent in [CallEvent::Drained, CallEvent::Ended] {
            assert!(talk.event(silent).is_empty());
        }
    }

    #[test]
    fn marks_that_were_flushed_are_not_answered() {
        let marks = ["mm1", "b1"].map(String::from).to_vec();
        let cleared = Cleared {
            marks,
            items: Vec::new(),
        };
        assert!(slin().event(CallEvent::Cleared(&cleared)).is_empty());
    }

    #[test]
    fn an_empty_queue_is_told_once_and_not_while_more_comes() {
        let mut talk = slin();
        let mark = [Action::Mark("d".into())];
        assert_eq!(talk.command("REPORT_QUEUE_DRAINED"), mark);
        assert!(talk.command("REPORT_QUEUE_DRAINED").is_empty());
        talk.queued = Duration::from_millis(1);
        assert_eq!(talk.event(CallEvent::MarkReached("d")), mark);
        let cleared = Cleared {
            marks: vec!["d".into()],
            items: Vec::new(),
        };
        assert_eq!(talk.event(CallEvent::Cleared(&cleared)), mark);
        talk.queued = Duration::ZERO;
        let told = event(talk.event(CallEvent::MarkReached("d")));
        assert_eq!(told, plain("QUEUE_DRAINED"));
        assert!(talk.event(CallEvent::Cleared(&cleared)).is_empty());
        assert_eq!(talk.command("REPORT_QUEUE_DRAINED"), mark);
    }

    #[test]
    fn a_bot_is_asked_to_wait_at_900_frames_and_to_go_on_below_800() {
        let frame = |frames: u32| FRAME * frames;
        for pause in [None, Some("PAUSE_MEDIA")] {
            let mut talk = slin();
            let waits = |talk: &mut Talk| talk.receive(Received::Binary(&[0; 320])).len() == 2;
            for (queued, xoff) in [(0, false), (898, false), (899, true), (900, false)] {
                talk.queued = frame(queued);
                assert_eq!(waits(&mut talk), xoff, "{queued}");
            }
            let full = event(talk.command("GET_STATUS"));
            assert_eq!(full["queue_full"], true);
            talk.queued = frame(800);
            assert_eq!(talk.frame().len(), 1);
            if let Some(pause) = pause {
                talk.queued = frame(10);
                talk.command(pause);
                assert_eq!(talk.frame().len(), 1);
                talk.command("CONTINUE_MEDIA");
            }
            talk.queued = frame(799);
            assert_eq!(event(talk.frame().split_off(1)), plain("MEDIA_XON"));
            assert_eq!(talk.frame().len(), 1);
            talk.queued = frame(899);
            assert!(waits(&mut talk), "again");
        }
        // Half of it is enough where samples are bytes.
        let mut talk = Talk::start(AudioFormat::ULAW);
        talk.queued = frame(899);
        let told = talk.receive(Received::Binary(&[0; 160]));
        assert_eq!(event(told[1..].to_vec()), plain("MEDIA_XOFF"));
    }

    #[test]
    fn the_status_is_that_of_the_queue() {
        let mut talk = slin();
        talk.queued = Duration::from_millis(41);
        talk.command("START_MEDIA_BUFFERING");
        talk.command("PAUSE_MEDIA");
        let status = |queue_length: u32, bulk_media: bool| {
            json!({
                "event": "STATUS",
                "channel_id": ID,
                "queue_length": queue_length,
                "xon_level": 800,
                "xoff_level": 900,
                "queue_full": false,
                "bulk_media": bulk_media,
                "media_paused": true,
            })
        };
        assert_eq!(event(talk.command("GET_STATUS")), status(3, true));
        // A flush ends bulk mode, and no pause.
        assert_eq!(talk.command("FLUSH_MEDIA"), [Action::Clear]);
        talk.queued = Duration::ZERO;
        assert_eq!(event(talk.command("GET_STATUS")), status(0, false));
        assert_eq!(talk.command("CONTINUE_MEDIA"), [Action::Resume]);
    }

    #[test]
    fn audio_goes_the_way_that_the_bot_wants() {
        let mut talk = slin();
        assert!(talk.direction("out").is_empty());
        assert!(talk.frame().is_empty());
        assert_eq!(talk.receive(Received::Binary(&[0; 320])).len(), 1);
        assert_eq!(talk.direction("in"), [Action::Pause]);
        assert_eq!(talk.frame().len(), 1);
        assert!(talk.receive(Received::Binary(&[0; 320])).is_empty());
        for command in [
            "START_MEDIA_BUFFERING",
            "STOP_MEDIA_BUFFERING",
            "MARK_MEDIA",
            "PAUSE_MEDIA",
            "CONTINUE_MEDIA",
        ] {
            let text = format!("{command} not supported while media direction is 'in'");
            assert_refused(&talk.command(command), &text);
        }
        assert_eq!(talk.command("FLUSH_MEDIA"), [Action::Clear]);
        assert_eq!(talk.command("HANGUP"), [Action::HangUp]);
        assert_eq!(talk.direction("both"), [Action::Resume]);
        // What was paused stays so.
        assert_eq!(talk.command("PAUSE_MEDIA"), [Action::Pause]);
        assert!(talk.direction("in").is_empty());
        assert!(talk.direction("both").is_empty());
        assert_eq!(talk.command("CONTINUE_MEDIA"), [Action::Resume]);
    }

    #[test]
    fn what_asterisk_refuses_is_refused_in_its_words() {
        let cases = [
            ("", "Unable to parse JSON command"),
            ("hello", "Unable to parse JSON command"),
            (r#"{"command":"#, "Unable to parse JSON command"),
            (
                "SET_MEDIA_DIRECTION in",
                "SET_MEDIA_DIRECTION only supports JSON format.",
            ),
            (
                r#"{"command":"SET_MEDIA_DIRECTION"}"#,
                "SET_MEDIA_DIRECTION requires a 'direction' parameter.",
            ),
            (
                r#"{"command":"SET_MEDIA_DIRECTION","direction":"up"}"#,
                "'up' is not a valid direction for SET_MEDIA_DIRECTION.",
            ),
        ];
        for (text, expected) in cases {
            assert_refused(&slin().receive(Received::Text(text)), expected);
        }
    }

    #[test]
    fn what_asterisk_ignores_is_ignored_and_said() {
        let fits = format!(
            r#"{{"command":"MARK_MEDIA","correlation_id":"{}"}}"#,
            "x".repeat(84)
        );
        assert_eq!(fits.len(), 128);
        assert_eq!(
            slin().receive(Received::Text(&fits)),
            [Action::Mark(format!("m{}", "x".repeat(84)))]
        );
        let cases = [
            (format!("{fits} "), "129 bytes"),
            (
                r#"{"command":"answer"}"#.into(),
                "unknown command: \"answer\"",
            ),
            (r#"{"command":7}"#.into(), "unknown command: \"\""),
            ("[]".into(), "unknown command"),
            ("SING a song".into(), "unknown command: \"SING\""),
        ];
        for (text, expected) in cases {
            match slin().receive(Received::Text(&text)).as_slice() {
                [Action::Complaint(complaint)] => {
                    assert!(complaint.contains(expected), "{complaint}")
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
