//! Any service that speaks OpenAI's `POST /v1/audio/transcriptions`: OpenAI itself, and the servers of one's
//! own that took its protocol over (speaches, whisper.cpp's server, LocalAI, vLLM …).
//!
//! It takes files, not streams. So what is said is cut into utterances where somebody pauses, which are sent
//! while the call goes on: a transcript comes when its utterance is over, and none is interim.

mod detail;
mod reply;
mod request;
mod utterance;

use std::{collections::VecDeque, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tokio::{
    select,
    time::{Instant, sleep},
};

use crate::{Audio, Recognizer, SpeechError, Transcript, Transcripts, Word};
use reply::Reply;
use request::Service;
use utterance::{Cutter, Utterance};

/// OpenAI's own address.
pub const OPENAI: &str = "https://api.openai.com/v1/audio/transcriptions";

const NAME: &str = "the transcription service";
/// How much audio is looked at in one go. A pause is noticed so much later at most.
const PIECE: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(200));
/// Utterances on their way at a time. Further ones wait where the call's audio does, which is bounded.
const AT_ONCE: usize = 4;
/// So long an utterance without an answer is asked for again: what the call keeps of its audio is no older.
const KEPT: Duration = Duration::from_secs(30);

/// The engine for a service with OpenAI's protocol.
///
/// An utterance begins 300 ms before its first sound and ends after 400 ms without speech, or after 15 s at
/// the weakest moment of their last third. Up to four of one call are on their way at a time; their
/// transcripts come in order. One that is in trouble is sent again, and those after it wait for it, but not for longer
/// than 30 s: then it is given up, and told as lost. The confidence of a transcript is what the service has thought of its average
/// token, if it says so.
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
    /// The service at an address: [`OPENAI`], or that of another one. Of `http://host:8000` and
    /// `http://host:8000/v1` the rest of the usual path is left out; any other path stands as it is.
    ///
    /// # Errors
    ///
    /// [`SpeechError::Settings`] if that is no such address, or if the machine has no trusted certificates to
    /// check one with `https` by.
    pub fn new(address: &str) -> Result<Self, SpeechError> {
        Ok(Self {
            service: Service::new(address)?,
        })
    }

    /// The key, sent as a bearer token. Services of one's own often need none.
    ///
    /// # Errors
    ///
    /// [`SpeechError::Settings`] if it has characters that no key has.
    pub fn key(mut self, key: &str) -> Result<Self, SpeechError> {
        self.service.set_key(key)?;
        Ok(self)
    }

    /// The model, by the name that the service has for it. `whisper-1` unless set.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.service.model = model.into();
        self
    }

    /// The language that is spoken, such as `en`; of `en-GB` the services know the first part. Found out
    /// anew for each utterance unless set.
    #[must_use]
    pub fn language(mut self, language: &str) -> Self {
        let primary = language.split(['-', '_']).next().unwrap_or(language);
        self.service.language = Some(primary.to_ascii_lowercase());
        self
    }

    /// Names and words that may come up. Whisper looks at about the last 200 words of all.
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
            let dialog = Dialog {
                service: &self.service,
                hz,
                cutter: Cutter::new(hz)?,
                audio,
                transcripts,
                asked: FuturesOrdered::new(),
                last_answer: Instant::now(),
            };
            dialog.run().await
        })
    }
}

struct Dialog<'a> {
    service: &'a Service,
    hz: u32,
    cutter: Cutter,
    audio: Audio,
    transcripts: Transcripts,
    /// Answers come out in the order of the utterances.
    asked: FuturesOrdered<BoxFuture<'a, Heard>>,
    last_answer: Instant,
}

impl<'a> Dialog<'a> {
    async fn run(mut self) -> Result<(), SpeechError> {
        let mut samples = Vec::new();
        let mut waiting = VecDeque::new();
        let mut goes_on = true;
        loop {
            while self.asked.len() < AT_ONCE
                && let Some(utterance) = waiting.pop_front()
            {
                let asked = self.ask(utterance, Duration::ZERO);
                self.asked.push_back(asked);
            }
            select! {
                biased;
                Some(heard) = self.asked.next() => self.hear(heard).await?,
                more = self.audio.read(PIECE.0, PIECE.1, &mut samples), if goes_on && waiting.is_empty() => {
                    self.cutter.push(&samples, &mut waiting);
                    samples.clear();
                    goes_on = more;
                    if !more {
                        self.cutter.finish(&mut waiting);
                    }
                }
                else => return Ok(()),
            }
            // What nobody has spoken in need not be heard again; what is on its way must be.
            let cut = self.audio.on_call(self.cutter.settled());
            match self.asked.is_empty() && waiting.is_empty() {
                true => self.transcripts.settle(cut),
                false => self.transcripts.expect(cut),
            }
        }
    }

    async fn hear(&mut self, heard: Heard) -> Result<(), SpeechError> {
        let utterance = heard.utterance;
        match heard.reply {
            Ok(reply) => {
                self.last_answer = Instant::now();
                self.transcripts.alive();
                let transcript = self.transcript(&utterance, &reply);
                self.transcripts.tell(transcript).await;
            }
            Err(error) if error.is_final() => return Err(error),
            Err(_) if utterance.cut.elapsed() >= KEPT => {
                let (start, end) = (utterance.start(self.hz), utterance.end(self.hz));
                let (from, to) = (self.audio.on_call(start), self.audio.on_call(end));
                self.transcripts.give_up(from, to);
            }
            Err(error) => {
                let pause = match heard.asked < self.last_answer {
                    // The trouble was that of the one before it, and is over.
                    true => Duration::ZERO,
                    false => self.transcripts.trouble(error).await,
                };
                let asked = self.ask(utterance, pause);
                self.asked.push_front(asked);
            }
        }
        Ok(())
    }

    fn ask(&self, utterance: Utterance, pause: Duration) -> BoxFuture<'a, Heard> {
        let (service, hz) = (self.service, self.hz);
        Box::pin(async move {
            sleep(pause).await;
            let asked = Instant::now();
            let reply = service.transcribe(&utterance.samples, hz).await;
            Heard {
                utterance,
                asked,
                reply,
            }
        })
    }

    fn transcript(&self, utterance: &Utterance, reply: &Reply) -> Transcript {
        let (start, end) = (utterance.start(self.hz), utterance.end(self.hz));
        let on_call = |seconds| self.audio.on_call(end.min(start + time(seconds)));
        let words = reply.words.iter().map(|word| Word {
            text: word.word.clone(),
            start: on_call(word.start),
            end: on_call(word.end),
            confidence: word.confidence,
        });
        Transcript {
            words: words.collect(),
            confidence: reply.confidence(),
            language: reply.language_tag(),
            ..Transcript::new(
                reply.said(),
                true,
                self.audio.on_call(utterance.speech_start(self.hz)),
                self.audio.on_call(utterance.speech_end(self.hz)),
            )
        }
    }
}

/// An utterance and what the service has made of it.
struct Heard {
    utterance: Utterance,
    asked: Instant,
    reply: Result<Reply, SpeechError>,
}

/// Seconds that came from outside.
fn time(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
