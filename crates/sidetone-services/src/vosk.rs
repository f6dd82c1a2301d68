//! A stand-in for a Vosk server, with the rules of its `asr_server.py`.

use std::{io, time::Duration};

use serde_json::{Value, json};
use tokio_websockets::{CloseCode, Message};

use crate::{
    Fault, Recognized, ToneDecoder, Word, text,
    websocket::{Reply, Request, Rules, Service, Session, linear16},
};

/// After this much silence there is a final result without words.
const SILENCE: Duration = Duration::from_secs(5);

/// A Vosk server on a port of 127.0.0.1, served until this is dropped.
///
/// A configuration gets no reply, each chunk of audio exactly one, and `{"eof" : 1}` the last.
/// Whatever makes the real server fail closes the connection with code 1011, as there. A list of
/// phrases limits recognition to their words.
#[derive(Debug)]
pub struct VoskServer(Service);

impl VoskServer {
    /// Starts the server on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// No port is available.
    pub async fn start() -> io::Result<Self> {
        Service::start(Vosk).await.map(Self)
    }

    /// The address of the server, such as `ws://127.0.0.1:40123`.
    pub fn endpoint(&self) -> String {
        format!("ws://{}", self.0.address())
    }

    /// Injects a fault, from now on.
    pub fn set(&self, fault: Fault) {
        self.0.set(fault);
    }

    /// How many bytes were sent by a fault that floods.
    pub fn flooded_bytes(&self) -> usize {
        self.0.flooded_bytes()
    }

    /// How many connections were made, including those refused.
    pub fn connections(&self) -> usize {
        self.0.connections()
    }
}

struct Vosk;

impl Rules for Vosk {
    fn admit(&self, _: &Request) -> Result<Box<dyn Session>, u16> {
        Ok(Box::new(VoskSession {
            settings: Settings {
                hz: 8000,
                words: true,
                phrases: None,
            },
            recognizer: None,
        }))
    }
}

struct VoskSession {
    /// Applied with the first chunk of audio; later changes have no effect.
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
    decoder: ToneDecoder,
    settings: Settings,
    interim: Vec<Word>,
    last_final: Duration,
}

impl Session for VoskSession {
    fn handle_message(&mut self, message: &Message) -> Reply {
        if let Some(text) = message.as_text() {
            return self.command(text);
        }
        if !message.is_binary() {
            return Reply::default();
        }
        Reply::text(self.recognizer().accept(message.as_payload()))
    }

    fn audio_taken(&self) -> Duration {
        let decoder = self.recognizer.as_ref().map(|it| &it.decoder);
        decoder.map_or(Duration::ZERO, ToneDecoder::position)
    }
}

impl VoskSession {
    fn command(&mut self, text: &str) -> Reply {
        if text.contains("config") {
            return match self.configure(text) {
                Some(()) => Reply::default(),
                None => Reply::close(CloseCode::INTERNAL_SERVER_ERROR, ""),
            };
        }
        if text != r#"{"eof" : 1}"# {
            return Reply::close(CloseCode::INTERNAL_SERVER_ERROR, "");
        }
        let recognizer = self.recognizer();
        let words = recognizer.decoder.finish().unwrap_or_default();
        Reply::text(recognizer.result(words)).and_close(CloseCode::NORMAL_CLOSURE, "")
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
            decoder: ToneDecoder::new(settings.hz),
            settings: settings.clone(),
            interim: Vec::new(),
            last_final: Duration::ZERO,
        })
    }
}

impl Recognizer {
    fn accept(&mut self, audio: &[u8]) -> Value {
        let mut words = Vec::new();
        for result in self.decoder.push(&linear16(audio)) {
            match result {
                Recognized::Interim(interim) => self.interim = interim,
                Recognized::Final(more) => {
                    self.interim.clear();
                    words.extend(more);
                }
            }
        }
        let silent =
            self.interim.is_empty() && self.decoder.position() - self.last_final >= SILENCE;
        match words.is_empty() && !silent {
            true => json!({ "partial": text(&self.limited(self.interim.clone())) }),
            false => self.result(words),
        }
    }

    fn result(&mut self, words: Vec<Word>) -> Value {
        self.last_final = self.decoder.position();
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

    /// Keeps only words that the phrases contain.
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
