//! A stand-in for a Vosk server, with the rules of its `asr_server.py`.

use std::{io, time::Duration};

use serde_json::{Value, json};
use tokio_websockets::{CloseCode, Message};

use crate::{
    Ear, Heard, Trouble, Word, text,
    websocket::{Answer, Dialog, Request, Rules, Service, linear16},
};

/// What is heard where nobody speaks for so long is final, and nothing.
const SILENCE: Duration = Duration::from_secs(5);

/// A Vosk server on a port of 127.0.0.1, until it is dropped.
///
/// A configuration gets no reply, each piece of audio exactly one, and `{"eof" : 1}` the last. Whatever else
/// makes the real one fail ends the connection with code 1011, as there. A list of phrases limits it to their
/// words.
#[derive(Debug)]
pub struct VoskServer(Service);

impl VoskServer {
    /// Starts it on the runtime it is called on.
    ///
    /// # Errors
    ///
    /// No port can be had.
    pub async fn start() -> io::Result<Self> {
        Service::start(Vosk).await.map(Self)
    }

    /// Such as `ws://127.0.0.1:40123`.
    pub fn endpoint(&self) -> String {
        format!("ws://{}", self.0.address())
    }

    /// From now on this is wrong with it.
    pub fn set(&self, trouble: Trouble) {
        self.0.set(trouble);
    }

    /// How many bytes it has sent where its trouble is that it sends too many.
    pub fn flooded(&self) -> usize {
        self.0.flooded()
    }

    /// How many connections there were, refused ones too.
    pub fn connections(&self) -> usize {
        self.0.connections()
    }
}

struct Vosk;

impl Rules for Vosk {
    fn admit(&self, _: &Request) -> Result<Box<dyn Dialog>, u16> {
        Ok(Box::new(VoskDialog {
            settings: Settings {
                hz: 8000,
                words: true,
                phrases: None,
            },
            recognizer: None,
        }))
    }
}

struct VoskDialog {
    /// Used when the first piece of audio comes; what comes later changes nothing.
    settings: Settings,
    recognizer: Option<Recognizer>,
}

#[derive(Clone)]
struct Settings {
    hz: u32,
    words: bool,
    phrases: Option<Vec<String>>,
}

struct Recognizer {
    ear: Ear,
    settings: Settings,
    interim: Vec<Word>,
    last_final: Duration,
}

impl Dialog for VoskDialog {
    fn hear(&mut self, message: &Message) -> Answer {
        if let Some(text) = message.as_text() {
            return self.command(text);
        }
        if !message.is_binary() {
            return Answer::default();
        }
        Answer::text(self.recognizer().accept(message.as_payload()))
    }

    fn taken(&self) -> Duration {
        let ear = self.recognizer.as_ref().map(|it| &it.ear);
        ear.map_or(Duration::ZERO, Ear::heard)
    }
}

impl VoskDialog {
    fn command(&mut self, text: &str) -> Answer {
        if text.contains("config") {
            return match self.configure(text) {
                Some(()) => Answer::default(),
                None => Answer::close(CloseCode::INTERNAL_SERVER_ERROR, ""),
            };
        }
        if text != r#"{"eof" : 1}"# {
            return Answer::close(CloseCode::INTERNAL_SERVER_ERROR, "");
        }
        let recognizer = self.recognizer();
        let words = recognizer.ear.end().unwrap_or_default();
        Answer::text(recognizer.result(words)).and_close(CloseCode::NORMAL_CLOSURE, "")
    }

    fn configure(&mut self, text: &str) -> Option<()> {
        let config: Value = serde_json::from_str(text).ok()?;
        let config = config.get("config")?;
        if let Some(hz) = config.get("sample_rate") {
            self.settings.hz = hz.as_f64()? as u32;
        }
        if let Some(words) = config.get("words") {
            self.settings.words = words.as_bool()?;
        }
        if let Some(phrases) = config.get("phrase_list") {
            let phrases = phrases.as_array()?.iter();
            let phrases: Option<Vec<_>> = phrases.map(|it| Some(it.as_str()?.into())).collect();
            self.settings.phrases = Some(phrases?);
        }
        Some(())
    }

    fn recognizer(&mut self) -> &mut Recognizer {
        let settings = &self.settings;
        self.recognizer.get_or_insert_with(|| Recognizer {
            ear: Ear::new(settings.hz),
            settings: settings.clone(),
            interim: Vec::new(),
            last_final: Duration::ZERO,
        })
    }
}

impl Recognizer {
    fn accept(&mut self, audio: &[u8]) -> Value {
        let mut words = Vec::new();
        for heard in self.ear.hear(&linear16(audio)) {
            match heard {
                Heard::Interim(interim) => self.interim = interim,
                Heard::Final(more) => {
                    self.interim.clear();
                    words.extend(more);
                }
            }
        }
        let silent = self.interim.is_empty() && self.ear.heard() - self.last_final >= SILENCE;
        match words.is_empty() && !silent {
            true => json!({ "partial": text(&self.limited(self.interim.clone())) }),
            false => self.result(words),
        }
    }

    fn result(&mut self, words: Vec<Word>) -> Value {
        self.last_final = self.ear.heard();
        let words = self.limited(words);
        let mut result = json!({ "text": text(&words) });
        if self.settings.words && !words.is_empty() {
            let words = words.iter().map(|it| {
                json!({
                    "conf": 1.0,
                    "start": it.start.as_secs_f64(),
                    "end": it.end.as_secs_f64(),
                    "word": it.text,
                })
            });
            result["result"] = words.collect();
        }
        result
    }

    /// Only what the phrases are made of can be heard.
    fn limited(&self, mut words: Vec<Word>) -> Vec<Word> {
        const UNKNOWN: &str = "[unk]";
        let Some(phrases) = &self.settings.phrases else {
            return words;
        };
        let known = |word: &str| phrases.iter().any(|it| it.split(' ').any(|it| it == word));
        if known(UNKNOWN) {
            for word in words.iter_mut().filter(|it| !known(&it.text)) {
                word.text = UNKNOWN.into();
            }
        }
        words.retain(|it| known(&it.text));
        words
    }
}
