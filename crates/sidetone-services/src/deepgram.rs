//! A stand-in for Deepgram's live transcription.

use std::{io, time::Duration};

use audio_codec_algorithms::{decode_alaw, decode_ulaw};
use serde_json::{Value, json};
use tokio_websockets::{CloseCode, Message};

use crate::{
    Ear, Heard, Trouble, Word, text,
    websocket::{Answer, Dialog, Request, Rules, Service, linear16},
};

/// After so much silence there is a final result without words, as from the real one.
const SILENCE: Duration = Duration::from_secs(3);

/// Deepgram's `/v1/listen` on a port of 127.0.0.1, until it is dropped.
///
/// It wants its key in the header (401), raw audio described by encoding and rate (400), a model it knows
/// (400) and no parameter it does not know (400). It ends a connection to which nothing was sent for a while with
/// NET-0001, one with a text that it does not know with DATA-0000, and takes an empty piece of audio for the end.
#[derive(Debug)]
pub struct DeepgramServer(Service);

impl DeepgramServer {
    /// Starts it on the runtime it is called on, for clients with this key.
    ///
    /// `patience` is how long nothing may be sent: 10 s for the real one.
    ///
    /// # Errors
    ///
    /// No port can be had.
    pub async fn start(key: &str, patience: Duration) -> io::Result<Self> {
        let key = key.into();
        Service::start(Deepgram { key, patience }).await.map(Self)
    }

    /// Such as `ws://127.0.0.1:40123/v1/listen`.
    pub fn endpoint(&self) -> String {
        format!("ws://{}/v1/listen", self.0.address())
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

struct Deepgram {
    key: String,
    patience: Duration,
}

impl Rules for Deepgram {
    fn admit(&self, request: &Request) -> Result<Box<dyn Dialog>, u16> {
        if request.path != "/v1/listen" {
            return Err(404);
        }
        let authorization = request.headers.get("authorization");
        if authorization != Some(&format!("Token {}", self.key)) {
            return Err(401);
        }
        let known = |(name, _): &(String, String)| PARAMETERS.contains(&name.as_str());
        let model = request.parameter("model").unwrap_or("base");
        if !request.parameters.iter().all(known) || !MODELS.contains(&model) {
            return Err(400);
        }
        // Words are asked for in another way since the third generation.
        if request.parameter("keyterm").is_some() != model.starts_with("nova-3")
            && (request.parameter("keyterm").is_some() || request.parameter("keywords").is_some())
        {
            return Err(400);
        }
        let decode = match request.parameter("encoding") {
            Some("linear16") => linear16,
            Some("mulaw") => |bytes: &[u8]| bytes.iter().map(|it| decode_ulaw(*it)).collect(),
            Some("alaw") => |bytes: &[u8]| bytes.iter().map(|it| decode_alaw(*it)).collect(),
            _ => return Err(400),
        };
        let hz = request.parameter("sample_rate").ok_or(400_u16)?;
        let hz = hz.parse().map_err(|_| 400_u16)?;
        if request.parameter("channels").is_some_and(|it| it != "1") {
            return Err(400);
        }
        Ok(Box::new(DeepgramDialog {
            ear: Ear::new(hz),
            decode,
            interim_results: request.parameter("interim_results") == Some("true"),
            patience: self.patience,
            finished: Duration::ZERO,
            interim: Vec::new(),
        }))
    }
}

const PARAMETERS: [&str; 9] = [
    "model",
    "language",
    "encoding",
    "sample_rate",
    "channels",
    "interim_results",
    "punctuate",
    "keyterm",
    "keywords",
];
const MODELS: [&str; 5] = ["nova-3", "nova-2", "nova-2-phonecall", "enhanced", "base"];

struct DeepgramDialog {
    ear: Ear,
    decode: fn(&[u8]) -> Vec<i16>,
    interim_results: bool,
    patience: Duration,
    /// Up to here there are final results.
    finished: Duration,
    interim: Vec<Word>,
}

impl Dialog for DeepgramDialog {
    fn hear(&mut self, message: &Message) -> Answer {
        if let Some(text) = message.as_text() {
            return self.command(text);
        }
        if !message.is_binary() {
            return Answer::default();
        }
        match message.as_payload().is_empty() {
            true => self.end(),
            false => self.audio(message.as_payload()),
        }
    }

    fn taken(&self) -> Duration {
        self.ear.heard()
    }

    fn patience(&self) -> Option<(Duration, Answer)> {
        let answer = Answer::close(CloseCode::INTERNAL_SERVER_ERROR, "NET-0001");
        Some((self.patience, answer))
    }
}

impl DeepgramDialog {
    fn command(&mut self, text: &str) -> Answer {
        let command: Value = serde_json::from_str(text).unwrap_or_default();
        match command["type"].as_str() {
            Some("KeepAlive") => Answer::default(),
            Some("Finalize") => self.flush(),
            Some("CloseStream") => self.end(),
            _ => Answer::close(CloseCode::POLICY_VIOLATION, "DATA-0000"),
        }
    }

    fn audio(&mut self, bytes: &[u8]) -> Answer {
        let mut answer = Answer::default();
        // In small steps, so that a final result covers no more than it is about.
        for samples in (self.decode)(bytes).chunks(80) {
            for heard in self.ear.hear(samples) {
                match heard {
                    Heard::Interim(words) => {
                        if self.interim_results {
                            answer.texts.push(self.results(&words, false, false));
                        }
                        self.interim = words;
                    }
                    Heard::Final(words) => answer.texts.push(self.finish(&words, false)),
                }
            }
        }
        if self.interim.is_empty() && self.ear.heard() - self.finished >= SILENCE {
            answer.texts.push(self.finish(&[], false));
        }
        answer
    }

    fn end(&mut self) -> Answer {
        let mut answer = self.flush();
        let duration = self.ear.heard().as_secs_f64();
        let metadata = json!({ "type": "Metadata", "duration": duration, "channels": 1 });
        answer.texts.push(metadata.to_string());
        answer.and_close(CloseCode::NORMAL_CLOSURE, "")
    }

    /// With nothing to say, nothing is said.
    fn flush(&mut self) -> Answer {
        match self.ear.end() {
            Some(words) => Answer::text(self.finish(&words, true)),
            None => Answer::default(),
        }
    }

    fn finish(&mut self, words: &[Word], flushed: bool) -> String {
        let results = self.results(words, true, flushed);
        self.finished = self.ear.heard();
        self.interim.clear();
        results
    }

    fn results(&self, words: &[Word], is_final: bool, flushed: bool) -> String {
        let duration = self.ear.heard() - self.finished;
        let each = words.iter().map(|it| {
            json!({
                "word": it.text,
                "punctuated_word": it.text,
                "start": it.start.as_secs_f64(),
                "end": it.end.as_secs_f64(),
                "confidence": 0.875,
            })
        });
        let alternative = json!({
            "transcript": text(words),
            "confidence": if words.is_empty() { 0.0 } else { 0.875 },
            "words": each.collect::<Vec<_>>(),
        });
        let results = json!({
            "type": "Results",
            "channel_index": [0, 1],
            "start": self.finished.as_secs_f64(),
            "duration": duration.as_secs_f64(),
            "is_final": is_final,
            "speech_final": is_final && !flushed,
            "from_finalize": flushed,
            "channel": { "alternatives": [alternative] },
        });
        results.to_string()
    }
}
