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
    websocket::{Connection, Endpoint, Said, linear16},
};

const ADDRESS: &str = "wss://api.deepgram.com/v1/listen";
const MODEL: &str = "nova-3";
/// What a value in an address can't hold as it is (RFC 3986).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// A piece of audio.
const PIECE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// A connection is closed when nothing was sent for 10 s; the service wants to be told every 3 to 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// A service that says nothing for so long, not even that it hears silence, though it got as much audio as
/// the second of these, is broken.
const UNANSWERED: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// The engine for Deepgram.
///
/// G.711 is sent as it came, and other calls as linear 16-bit samples. While a call brings no audio the
/// connection is kept, and costs nothing.
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
    /// Marked as sensitive, so it is not shown.
    authorization: HeaderValue,
    model: String,
    language: Option<String>,
    phrases: Vec<String>,
}

impl Deepgram {
    /// The service itself, with a key of its console.
    ///
    /// # Errors
    ///
    /// [`SpeechError::Settings`] if that can't be a key, or if the machine has no trusted certificates.
    pub fn new(key: &str) -> Result<Self, SpeechError> {
        Self::at(ADDRESS, key)
    }

    /// The service at another address, such as `wss://api.eu.deepgram.com/v1/listen`.
    ///
    /// # Errors
    ///
    /// [`SpeechError::Settings`] as for [`new`](Self::new), or if that is no address.
    pub fn at(endpoint: &str, key: &str) -> Result<Self, SpeechError> {
        let no_key = || SpeechError::Settings("Deepgram wants a key of its console".into());
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

    /// One of its models; `nova-3` if this is not called.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// The language spoken, as a BCP-47 tag; English if this is not called.
    pub fn language(mut self, language: impl Into<String>) -> Self {
        self.language = Some(language.into());
        self
    }

    /// Words to look out for. Models before `nova-3` take single words only.
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
            query = format!("{query}&{name}={}", utf8_percent_encode(value, ENCODED));
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
            let dialog = Dialog {
                connection,
                audio,
                transcripts,
                sent: Instant::now(),
                answered: (Instant::now(), Duration::ZERO),
            };
            dialog.run().await
        })
    }
}

struct Dialog {
    connection: Connection,
    audio: Audio,
    transcripts: Transcripts,
    /// When something was sent last.
    sent: Instant,
    /// When the service said something last, and how much audio had been sent.
    answered: (Instant, Duration),
}

impl Dialog {
    async fn run(mut self) -> Result<(), SpeechError> {
        let mut samples = Vec::new();
        let mut ended = false;
        loop {
            let silent_until = self.sent + KEEP_ALIVE;
            select! {
                more = self.audio.read(PIECE.0, PIECE.1, &mut samples), if !ended => {
                    ended = !more;
                    self.send(more.then_some(&samples)).await?;
                    samples.clear();
                }
                () = sleep_until(silent_until), if !ended => {
                    self.connection.send_text(r#"{"type":"KeepAlive"}"#).await?;
                    self.sent = Instant::now();
                }
                said = self.connection.next() => match said? {
                    Said::Text(text) => self.hear(&text).await?,
                    Said::Closed(1000, _) if ended => return Ok(()),
                    Said::Closed(code, reason) => return Err(self.connection.closed(code, &reason)),
                }
            }
        }
    }

    /// Sends a piece of audio, or the end.
    async fn send(&mut self, samples: Option<&Vec<i16>>) -> Result<(), SpeechError> {
        self.sent = Instant::now();
        let Some(samples) = samples else {
            return self.connection.send_text(r#"{"type":"CloseStream"}"#).await;
        };
        let (when, taken) = self.answered;
        if when.elapsed() > UNANSWERED.0 && self.audio.taken() - taken > UNANSWERED.1 {
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
        // It gives final results for silence, too: without one this was not heard.
        let sent = self.audio.on_call(self.audio.taken());
        self.transcripts.expect(sent);
        Ok(())
    }

    async fn hear(&mut self, text: &str) -> Result<(), SpeechError> {
        let results = match serde_json::from_str(text) {
            Ok(Told::Results(results)) => Some(results),
            Ok(Told::Other) => None,
            Ok(Told::Error) | Err(_) => return Err(self.connection.strange(text)),
        };
        self.transcripts.alive();
        self.answered = (Instant::now(), self.audio.taken());
        let Some(results) = results else {
            return Ok(());
        };
        let is_final = results.is_final;
        let until = self.on_call(results.start + results.duration);
        let transcript = self.transcript(results, until);
        if is_final || !transcript.text.is_empty() {
            self.transcripts.tell(transcript).await;
        }
        if is_final {
            // What comes after its last word up to here was heard as silence.
            self.transcripts.settle(until);
        }
        Ok(())
    }

    fn transcript(&self, results: Results, until: Duration) -> Transcript {
        let start = self.on_call(results.start);
        let Some(best) = results.channel.alternatives.into_iter().next() else {
            return Transcript::new("", results.is_final, start, until);
        };
        let words = best.words.into_iter().map(|it| Word {
            text: it.punctuated_word.unwrap_or(it.word),
            start: self.on_call(it.start),
            end: self.on_call(it.end),
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

    /// Times in seconds since the first sample of the connection: time without audio does not count.
    fn on_call(&self, seconds: f64) -> Duration {
        let offset = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        self.audio.on_call(offset)
    }
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Told {
    Results(Results),
    /// What is wrong, in one field or another.
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
    words: Vec<ToldWord>,
    /// From models for several languages.
    #[serde(default)]
    languages: Vec<String>,
}

#[derive(Deserialize)]
struct ToldWord {
    word: String,
    punctuated_word: Option<String>,
    start: f64,
    end: f64,
    confidence: Option<f32>,
}
