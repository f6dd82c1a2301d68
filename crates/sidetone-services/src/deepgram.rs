//! A stand-in for Deepgram's live transcription.

use std::{io, time::Duration};

use audio_codec_algorithms::{decode_alaw, decode_ulaw};
use serde_json::{Value, json};
use tokio_websockets::{CloseCode, Message};

use crate::{
    Fault, Recognized, ToneDecoder, Word, text,
    websocket::{Reply, Request, Rules, Service, Session, linear16},
};

/// After this much silence there is a final result without words, as from the real service.
const SILENCE: Duration = Duration::from_secs(3);

/// Deepgram's `/v1/listen` on a port of 127.0.0.1, served until this is dropped.
///
/// It requires its key in the header (401), raw audio described by encoding and rate (400), a model
/// it has (400) and no unknown parameter (400). It closes an idle connection with NET-0001 and one
/// with an unknown text message with DATA-0000. An empty chunk of audio ends the stream.
#[derive(Debug)]
pub struct DeepgramServer(Service);

impl DeepgramServer {
    /// Starts the server on the current tokio runtime, for clients with this key.
    ///
    /// `idle_timeout` is how long a client may send nothing: 10 s for the real service.
    ///
    /// # Errors
    ///
    /// No port is available.
    pub async fn start(key: &str, idle_timeout: Duration) -> io::Result<Self> {
        let key = key.into();
        Service::start(Deepgram { key, idle_timeout })
            .await
            .map(Self)
    }

    /// The address of the server, such as `ws://127.0.0.1:40123/v1/listen`.
    pub fn endpoint(&self) -> String {
        format!("ws://{}/v1/listen", self.0.address())
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

struct Deepgram {
    key: String,
    idle_timeout: Duration,
}

impl Rules for Deepgram {
    fn admit(&self, request: &Request) -> Result<Box<dyn Session>, u16> {
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
        // Models since the third generation take phrases in another parameter.
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
        Ok(Box::new(DeepgramSession {
            decoder: ToneDecoder::new(hz),
            decode,
            interim_results: request.parameter("interim_results") == Some("true"),
            idle_timeout: self.idle_timeout,
            final_end: Duration::ZERO,
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

struct DeepgramSession {
    decoder: ToneDecoder,
    decode: fn(&[u8]) -> Vec<i16>,
    interim_results: bool,
    idle_timeout: Duration,
    /// Where final results end.
    final_end: Duration,
    interim: Vec<Word>,
}

impl Session for DeepgramSession {
    fn handle_message(&mut self, message: &Message) -> Reply {
        if let Some(text) = message.as_text() {
            return self.command(text);
        }
        if !message.is_binary() {
            return Reply::default();
        }
        match message.as_payload().is_empty() {
            true => self.end(),
            false => self.audio(message.as_payload()),
        }
    }

    fn audio_taken(&self) -> Duration {
        self.decoder.position()
    }

    fn idle_timeout(&self) -> Option<(Duration, Reply)> {
        let reply = Reply::close(CloseCode::INTERNAL_SERVER_ERROR, "NET-0001");
        Some((self.idle_timeout, reply))
    }
}

impl DeepgramSession {
    fn command(&mut self, text: &str) -> Reply {
        let command: Value = serde_json::from_str(text).unwrap_or_default();
        match command["type"].as_str() {
            Some("KeepAlive") => Reply::default(),
            Some("Finalize") => self.flush(),
            Some("CloseStream") => self.end(),
            _ => Reply::close(CloseCode::POLICY_VIOLATION, "DATA-0000"),
        }
    }

    fn audio(&mut self, bytes: &[u8]) -> Reply {
        let mut reply = Reply::default();
        // In small steps, so that a final result ends right after its utterance.
        for samples in (self.decode)(bytes).chunks(80) {
            for result in self.decoder.push(samples) {
                match result {
                    Recognized::Interim(words) => {
                        if self.interim_results {
                            reply.texts.push(self.results(&words, false, false));
                        }
                        self.interim = words;
                    }
                    Recognized::Final(words) => reply.texts.push(self.finish(&words, false)),
                }
            }
        }
        if self.interim.is_empty() && self.decoder.position() - self.final_end >= SILENCE {
            reply.texts.push(self.finish(&[], false));
        }
        reply
    }

    fn end(&mut self) -> Reply {
        let mut reply = self.flush();
        let duration = self.decoder.position().as_secs_f64();
        let metadata = json!({ "type": "Metadata", "duration": duration, "channels": 1 });
        reply.texts.push(metadata.to_string());
        reply.and_close(CloseCode::NORMAL_CLOSURE, "")
    }

    /// Without words there is no result.
    fn flush(&mut self) -> Reply {
        match self.decoder.finish() {
            Some(words) => Reply::text(self.finish(&words, true)),
            None => Reply::default(),
        }
    }

    fn finish(&mut self, words: &[Word], flushed: bool) -> String {
        let results = self.results(words, true, flushed);
        self.final_end = self.decoder.position();
        self.interim.clear();
        results
    }

    fn results(&self, words: &[Word], is_final: bool, flushed: bool) -> String {
        let duration = self.decoder.position() - self.final_end;
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
            "start": self.final_end.as_secs_f64(),
            "duration": duration.as_secs_f64(),
            "is_final": is_final,
            "speech_final": is_final && !flushed,
            "from_finalize": flushed,
            "channel": { "alternatives": [alternative] },
        });
        results.to_string()
    }
}
