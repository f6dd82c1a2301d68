//! [Deepgram](https://deepgram.com)'s live transcription, over WebSocket.

use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::{
    select,
    time::{Instant, sleep_until},
};

use crate::{
    Audio, Format, Law, Recognizer, SpeechError, Transcript, Transcripts, Word,
    websocket::{Connection, Endpoint, Received, linear16},
};

const ADDRESS: &str = "wss://api.deepgram.com/v1/listen";
const MODEL: &str = "nova-3";
/// The characters that a query value can't hold unencoded (RFC 3986).
const QUERY_ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The least and the most audio in one message.
const CHUNK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How often a keep-alive is sent while there is no audio. Deepgram closes a connection after 10 s
/// without a message and asks for a keep-alive every 3 to 5 s.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(4);
/// A service that got this much audio in this time without a single reply, not even for silence, is
/// broken.
const REPLY_TIMEOUT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// The recognizer for Deepgram.
///
/// G.711 audio is sent unchanged, other audio as linear 16-bit samples. While a call brings no
/// audio the connection stays open, and costs nothing.
///
/// ```
/// use sidetone_speech::{Format, Recognizer, deepgram::Deepgram, transcribe};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sidetone_speech::SpeechError> {
/// # let key = "secret";
/// // `Deepgram::new(key)` for the service itself.
/// let deepgram = Deepgram::at("ws://127.0.0.1:8080/v1/listen", key)?
///     .model("nova-2-phonecall")
///     .language("en-US")
///     .phrases(["Sidetone"]);
/// assert_eq!(deepgram.destination(), "Deepgram at ws://127.0.0.1:8080/v1/listen");
/// let (input, events) = transcribe(deepgram, Format::linear(8000));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Deepgram {
    endpoint: Endpoint,
    /// Marked as sensitive, so that `Debug` does not show it.
    authorization: HeaderValue,
    model: String,
    language: Option<String>,
    phrases: Vec<String>,
}

impl Deepgram {
    /// Deepgram's own service, with a key from its console.
    ///
    /// # Errors
    ///
    /// [`SpeechError::Settings`] if the key is empty or not a valid header, or if the machine has
    /// no trusted certificates.
    pub fn new(key: &str) -> Result<Self, SpeechError> {
        Self::at(ADDRESS, key)
    }

    /// The service at another address, such as `wss://api.eu.deepgram.com/v1/listen`.
    ///
    /// # Errors
    ///
    /// [`SpeechError::Settings`] as for [`new`](Self::new), or if the address is invalid.
    pub fn at(endpoint: &str, key: &str) -> Result<Self, SpeechError> {
        let no_key = || SpeechError::Settings("Deepgram needs a key from its console".into());
        if key.is_empty() {
            return Err(no_key());
        }
        let authorization = HeaderValue::try_from(format!("Token {key}"));
        let mut authorization = authorization.map_err(|_| no_key())?;
        authorization.set_sensitive(true);
        Ok(Self {
            endpoint: Endpoint::new("Deepgram", endpoint)?,
            authorization,
            model: MODEL.into(),
            language: None,
            phrases: Vec::new(),
        })
    }

    /// Sets the model. The default is `nova-3`.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// Sets the language spoken, as a BCP-47 tag. The default is English.
    pub fn language(mut self, language: impl Into<String>) -> Self {
        self.language = Some(language.into());
        self
    }

    /// Sets words to expect. Models before `nova-3` take single words only.
    pub fn phrases<P: Into<String>>(mut self, phrases: impl IntoIterator<Item = P>) -> Self {
        self.phrases = phrases.into_iter().map(Into::into).collect();
        self
    }

    fn query(&self, format: Format) -> String {
        let encoding = match format.law {
            None => "linear16",
            Some(Law::Ulaw) => "mulaw",
            Some(Law::Alaw) => "alaw",
        };
        let hz = format.hz;
        let mut query = format!(
            "encoding={encoding}&sample_rate={hz}&channels=1&interim_results=true&punctuate=true"
        );
        let phrase = match self.model.starts_with("nova-3") {
            true => "keyterm",
            false => "keywords",
        };
        let model = [("model", &self.model)].into_iter();
        let language = self.language.iter().map(|it| ("language", it));
        let phrases = self.phrases.iter().map(|it| (phrase, it));
        for (name, value) in model.chain(language).chain(phrases) {
            query = format!(
                "{query}&{name}={}",
                utf8_percent_encode(value, QUERY_ENCODED)
            );
        }
        query
    }

    fn headers(&self) -> [(HeaderName, HeaderValue); 1] {
        [(AUTHORIZATION, self.authorization.clone())]
    }
}

impl Recognizer for Deepgram {
    fn destination(&self) -> String {
        format!("Deepgram at {}", self.endpoint)
    }

    fn run<'a>(
        &'a self,
        audio: Audio,
        transcripts: Transcripts,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(async move {
            let query = self.query(audio.format());
            let connection = self.endpoint.connect(&query, &self.headers()).await?;
            let stream = Stream {
                connection,
                audio,
                transcripts,
                last_sent: Instant::now(),
                last_reply: (Instant::now(), Duration::ZERO),
            };
            stream.run().await
        })
    }
}

struct Stream {
    connection: Connection,
    audio: Audio,
    transcripts: Transcripts,
    /// When the last message was sent.
    last_sent: Instant,
    /// When the last reply came, and how much audio had been sent by then.
    last_reply: (Instant, Duration),
}

impl Stream {
    async fn run(mut self) -> Result<(), SpeechError> {
        let mut samples = Vec::new();
        let mut ended = false;
        loop {
            let keep_alive_at = self.last_sent + KEEP_ALIVE_INTERVAL;
            select! {
                more = self.audio.read(CHUNK.0, CHUNK.1, &mut samples), if !ended => {
                    ended = !more;
                    self.send(more.then_some(&samples)).await?;
                    samples.clear();
                }
                () = sleep_until(keep_alive_at), if !ended => {
                    self.connection.send_text(r#"{"type":"KeepAlive"}"#).await?;
                    self.last_sent = Instant::now();
                }
                message = self.connection.next() => match message? {
                    Received::Text(text) => self.handle_message(&text).await?,
                    Received::Closed(1000, _) if ended => return Ok(()),
                    Received::Closed(code, reason) => return Err(self.connection.closed(code, &reason)),
                }
            }
        }
    }

    /// Sends a chunk of audio, or the end of the stream.
    async fn send(&mut self, samples: Option<&Vec<i16>>) -> Result<(), SpeechError> {
        self.last_sent = Instant::now();
        let Some(samples) = samples else {
            return self.connection.send_text(r#"{"type":"CloseStream"}"#).await;
        };
        let (at, sent_before) = self.last_reply;
        let sent_since = self.audio.delivered() - sent_before;
        if at.elapsed() > REPLY_TIMEOUT.0 && sent_since > REPLY_TIMEOUT.1 {
            return Err(self.connection.broken("no results within 30 s".into()));
        }
        let bytes = match self.audio.format().law {
            None => linear16(samples),
            Some(law) => {
                let mut codes = Vec::new();
                law.encode(samples, &mut codes);
                codes
            }
        };
        self.connection.send_binary(bytes).await?;
        // Deepgram sends final results for silence, too. Without one this audio is not processed
        // yet.
        let sent = self.audio.call_time(self.audio.delivered());
        self.transcripts.mark_pending(sent);
        Ok(())
    }

    async fn handle_message(&mut self, text: &str) -> Result<(), SpeechError> {
        let results = match serde_json::from_str(text) {
            Ok(Message::Results(results)) => Some(results),
            Ok(Message::Other) => None,
            Ok(Message::Error) | Err(_) => return Err(self.connection.unexpected(text)),
        };
        self.transcripts.mark_alive();
        self.last_reply = (Instant::now(), self.audio.delivered());
        let Some(results) = results else {
            return Ok(());
        };
        let is_final = results.is_final;
        let until = self.call_time(results.start + results.duration);
        let transcript = self.transcript(results, until);
        if is_final || !transcript.text.is_empty() {
            self.transcripts.send(transcript).await;
        }
        if is_final {
            // Between its last word and this point Deepgram found silence.
            self.transcripts.ack(until);
        }
        Ok(())
    }

    fn transcript(&self, results: Results, until: Duration) -> Transcript {
        let start = self.call_time(results.start);
        let Some(best) = results.channel.alternatives.into_iter().next() else {
            return Transcript::new("", results.is_final, start, until);
        };
        let words = best.words.into_iter().map(|it| Word {
            text: it.punctuated_word.unwrap_or(it.word),
            start: self.call_time(it.start),
            end: self.call_time(it.end),
            confidence: it.confidence,
        });
        let words: Vec<Word> = words.collect();
        let start = words.first().map_or(start, |it| it.start);
        let end = words.last().map_or(until, |it| it.end);
        let mut transcript = Transcript::new(best.transcript, results.is_final, start, end);
        transcript.confidence = best.confidence.filter(|_| !words.is_empty());
        transcript.language = best.languages.into_iter().next();
        transcript.words = words;
        transcript
    }

    /// Maps seconds of the connection's audio to the call's clock. Time without audio does not
    /// count.
    fn call_time(&self, seconds: f64) -> Duration {
        let offset = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        self.audio.call_time(offset)
    }
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Message {
    Results(Results),
    /// An error, with its description in one field or another.
    Error,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Results {
    start: f64,
    duration: f64,
    is_final: bool,
    channel: Channel,
}

#[derive(Deserialize)]
struct Channel {
    alternatives: Vec<Alternative>,
}

#[derive(Deserialize)]
struct Alternative {
    transcript: String,
    confidence: Option<f32>,
    #[serde(default)]
    words: Vec<ResultWord>,
    /// Set by multilingual models.
    #[serde(default)]
    languages: Vec<String>,
}

#[derive(Deserialize)]
struct ResultWord {
    word: String,
    punctuated_word: Option<String>,
    start: f64,
    end: f64,
    confidence: Option<f32>,
}
