//! Any service with OpenAI's `POST /v1/audio/transcriptions`: OpenAI itself, and self-hosted
//! servers with the same protocol (speaches, whisper.cpp's server, LocalAI, vLLM …).
//!
//! The protocol takes files, not streams. So speech is split into utterances at pauses, and each is
//! sent when it ends. There are no interim transcripts.

mod detail;
mod reply;
mod request;
mod segmenter;

use std::{collections::VecDeque, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tokio::{
    select,
    time::{Instant, sleep},
};

use crate::{Audio, Recognizer, SpeechError, Transcript, Transcripts, Word};
use reply::Reply;
use request::Service;
use segmenter::{Segmenter, Utterance};

/// OpenAI's own address.
pub const OPENAI: &str = "https://api.openai.com/v1/audio/transcriptions";

const NAME: &str = "the transcription service";
/// How much audio the segmenter gets at a time. It bounds how late a pause is noticed.
const CHUNK: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(200));
/// How many utterances are sent in parallel. More wait in the call's replay buffer, which is
/// bounded.
const MAX_IN_FLIGHT: usize = 4;
/// How long an utterance without a reply is retried. The replay buffer keeps no older audio.
const MAX_UTTERANCE_AGE: Duration = Duration::from_secs(30);

/// The recognizer for a service with OpenAI's protocol.
///
/// An utterance starts 300 ms before its first sound. It ends after 400 ms without speech, or after
/// 15 s at the quietest moment of the last third. Up to four of a call are sent in parallel;
/// transcripts come in order. One that fails is retried for 30 s, then reported as lost; those
/// after it wait that long. The confidence of a transcript is the service's mean for its tokens, if
/// it reports that.
///
/// Dropping the future of a connection drops its requests.
///
/// ```
/// use sidetone_speech::{Format, Recognizer, openai::OpenAi, transcribe};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sidetone_speech::SpeechError> {
/// let whisper = OpenAi::new("http://127.0.0.1:8000/v1")?.model("Systran/faster-whisper-small").language("en");
/// assert_eq!(
///     whisper.destination(),
///     "the OpenAI-compatible service at http://127.0.0.1:8000/v1/audio/transcriptions"
/// );
/// let (input, events) = transcribe(whisper, Format::linear(8000));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OpenAi {
    service: Service,
}

impl OpenAi {
    /// The service at an address: [`OPENAI`], or another. `http://host:8000` and
    /// `http://host:8000/v1` get the rest of the usual path; any other path is used as it is.
    ///
    /// # Errors
    ///
    /// [`SpeechError::Settings`] if the address is invalid, or if it is `https://…` and the machine
    /// has no trusted certificates.
    pub fn new(address: &str) -> Result<Self, SpeechError> {
        Ok(Self {
            service: Service::new(address)?,
        })
    }

    /// Sets the key, sent as a bearer token. Self-hosted services often need none.
    ///
    /// # Errors
    ///
    /// [`SpeechError::Settings`] if it has characters that a header can't hold.
    pub fn key(mut self, key: &str) -> Result<Self, SpeechError> {
        self.service.set_key(key)?;
        Ok(self)
    }

    /// Sets the model, by the service's name for it. The default is `whisper-1`.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.service.model = model.into();
        self
    }

    /// Sets the language spoken, such as `en`. Of `en-GB` only the first part is sent. By default
    /// the service detects it for each utterance.
    #[must_use]
    pub fn language(mut self, language: &str) -> Self {
        let primary = language.split(['-', '_']).next().unwrap_or(language);
        self.service.language = Some(primary.to_ascii_lowercase());
        self
    }

    /// Sets names and words to expect. Whisper uses about the last 200 words.
    #[must_use]
    pub fn phrases<P: Into<String>>(mut self, phrases: impl IntoIterator<Item = P>) -> Self {
        let phrases: Vec<String> = phrases.into_iter().map(Into::into).collect();
        self.service.prompt = (!phrases.is_empty()).then(|| phrases.join(", "));
        self
    }
}

impl Recognizer for OpenAi {
    fn destination(&self) -> String {
        match self.service.uri.host() {
            Some("api.openai.com") => format!("OpenAI at {}", self.service.uri),
            _ => format!("the OpenAI-compatible service at {}", self.service.uri),
        }
    }

    fn run<'a>(
        &'a self,
        audio: Audio,
        transcripts: Transcripts,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(async move {
            let hz = audio.format().hz;
            let transcriber = Transcriber {
                service: &self.service,
                hz,
                segmenter: Segmenter::new(hz)?,
                audio,
                transcripts,
                in_flight: FuturesOrdered::new(),
                last_reply: Instant::now(),
            };
            transcriber.run().await
        })
    }
}

struct Transcriber<'a> {
    service: &'a Service,
    hz: u32,
    segmenter: Segmenter,
    audio: Audio,
    transcripts: Transcripts,
    /// Yields results in the order of the utterances.
    in_flight: FuturesOrdered<BoxFuture<'a, Outcome>>,
    last_reply: Instant,
}

impl<'a> Transcriber<'a> {
    async fn run(mut self) -> Result<(), SpeechError> {
        let mut samples = Vec::new();
        let mut waiting = VecDeque::new();
        let mut has_more = true;
        loop {
            while self.in_flight.len() < MAX_IN_FLIGHT
                && let Some(utterance) = waiting.pop_front()
            {
                let request = self.start_request(utterance, Duration::ZERO);
                self.in_flight.push_back(request);
            }
            select! {
                biased;
                Some(outcome) = self.in_flight.next() => self.handle_outcome(outcome).await?,
                more = self.audio.read(CHUNK.0, CHUNK.1, &mut samples), if has_more && waiting.is_empty() => {
                    self.segmenter.push(&samples, &mut waiting);
                    samples.clear();
                    has_more = more;
                    if !more {
                        self.segmenter.finish(&mut waiting);
                    }
                }
                else => return Ok(()),
            }
            // Silence need not be replayed. Utterances without a reply must be.
            let completed = self.audio.call_time(self.segmenter.completed_until());
            match self.in_flight.is_empty() && waiting.is_empty() {
                true => self.transcripts.ack(completed),
                false => self.transcripts.mark_pending(completed),
            }
        }
    }

    async fn handle_outcome(&mut self, outcome: Outcome) -> Result<(), SpeechError> {
        let utterance = outcome.utterance;
        match outcome.reply {
            Ok(reply) => {
                self.last_reply = Instant::now();
                self.transcripts.mark_alive();
                let transcript = self.transcript(&utterance, &reply);
                self.transcripts.send(transcript).await;
            }
            Err(error) if error.is_final() => return Err(error),
            Err(_) if utterance.ended.elapsed() >= MAX_UTTERANCE_AGE => {
                let (start, end) = (utterance.start(self.hz), utterance.end(self.hz));
                let (from, to) = (self.audio.call_time(start), self.audio.call_time(end));
                self.transcripts.mark_lost(from, to);
            }
            Err(error) => {
                let pause = match outcome.requested < self.last_reply {
                    // The service has replied since, so this error is over.
                    true => Duration::ZERO,
                    false => self.transcripts.report_error(error).await,
                };
                let request = self.start_request(utterance, pause);
                self.in_flight.push_front(request);
            }
        }
        Ok(())
    }

    fn start_request(&self, utterance: Utterance, pause: Duration) -> BoxFuture<'a, Outcome> {
        let (service, hz) = (self.service, self.hz);
        Box::pin(async move {
            sleep(pause).await;
            let requested = Instant::now();
            let reply = service.transcribe(&utterance.samples, hz).await;
            Outcome {
                utterance,
                requested,
                reply,
            }
        })
    }

    fn transcript(&self, utterance: &Utterance, reply: &Reply) -> Transcript {
        let (start, end) = (utterance.start(self.hz), utterance.end(self.hz));
        let call_time = |seconds| self.audio.call_time(end.min(start + duration(seconds)));
        let words = reply.words.iter().map(|word| Word {
            text: word.word.clone(),
            start: call_time(word.start),
            end: call_time(word.end),
            confidence: word.confidence,
        });
        Transcript {
            words: words.collect(),
            confidence: reply.confidence(),
            language: reply.language_tag(),
            ..Transcript::new(
                reply.transcript(),
                true,
                self.audio.call_time(utterance.speech_start(self.hz)),
                self.audio.call_time(utterance.speech_end(self.hz)),
            )
        }
    }
}

/// An utterance, and the service's reply to it.
struct Outcome {
    utterance: Utterance,
    requested: Instant,
    reply: Result<Reply, SpeechError>,
}

/// Converts seconds from a reply.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
