//! Any service that speaks OpenAI's `POST /v1/audio/transcriptions`: OpenAI itself, and the servers of one's
//! own that took its protocol over (speaches, whisper.cpp's server, LocalAI, vLLM …).
//!
//! It takes files, not streams. So what is said is cut into utterances where somebody pauses, which are sent
//! while the call goes on: a transcript comes when its utterance is over, and none is interim.

mod request;
mod utterance;

use std::{collections::VecDeque, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tokio::select;

use crate::{Audio, Recognizer, SpeechError, Transcript, Transcripts, Word};
use request::{Reply, Service};
use utterance::{Cutter, Utterance};

/// OpenAI's own address.
pub const OPENAI: &str = "https://api.openai.com/v1/audio/transcriptions";

const NAME: &str = "the transcription service";
/// How much audio is looked at in one go. A pause is noticed so much later at most.
const PIECE: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(200));
/// Utterances on their way at a time. Further ones wait where the call's audio does, which is bounded.
const AT_ONCE: usize = 4;

/// The engine for a service with OpenAI's protocol.
///
/// An utterance begins 300 ms before its first sound and ends after 400 ms without speech, or after 15 s at
/// the weakest moment of their last third. Up to four of one call are on their way at a time; their
/// transcripts come in order. The confidence of a transcript is what the service has thought of its average
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

    async fn understand(&self, utterance: Utterance, hz: u32) -> Result<Heard, SpeechError> {
        let reply = self.service.transcribe(&utterance.samples, hz).await?;
        Ok(Heard { utterance, reply })
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
        mut audio: Audio,
        mut transcripts: Transcripts,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(async move {
            let hz = audio.format().hz;
            let mut cutter = Cutter::new(hz)?;
            let mut samples = Vec::new();
            let mut waiting = VecDeque::new();
            let mut asked = FuturesOrdered::new();
            let mut goes_on = true;
            loop {
                while asked.len() < AT_ONCE
                    && let Some(utterance) = waiting.pop_front()
                {
                    asked.push_back(self.understand(utterance, hz));
                }
                select! {
                    biased;
                    Some(heard) = asked.next() => {
                        transcripts.tell(heard?.place(&audio, hz)).await;
                    }
                    more = audio.read(PIECE.0, PIECE.1, &mut samples), if goes_on && waiting.is_empty() => {
                        cutter.push(&samples, &mut waiting);
                        samples.clear();
                        goes_on = more;
                        if !more {
                            cutter.finish(&mut waiting);
                        }
                    }
                    else => return Ok(()),
                }
                // What nobody has spoken in need not be heard again; what is on its way must be.
                let cut = audio.on_call(cutter.settled());
                match asked.is_empty() && waiting.is_empty() {
                    true => transcripts.settle(cut),
                    false => transcripts.expect(cut),
                }
            }
        })
    }
}

/// An utterance and what the service has understood.
struct Heard {
    utterance: Utterance,
    reply: Reply,
}

impl Heard {
    fn place(self, audio: &Audio, hz: u32) -> Transcript {
        let (start, end) = (self.utterance.start(hz), self.utterance.end(hz));
        let on_call = |seconds| audio.on_call(end.min(start + time(seconds)));
        let words = self.reply.words.iter().flatten().map(|word| Word {
            text: word.word.trim().to_owned(),
            start: on_call(word.start),
            end: on_call(word.end),
            confidence: None,
        });
        Transcript {
            words: words.collect(),
            confidence: self.reply.confidence(),
            language: self.reply.language_tag(),
            ..Transcript::new(
                self.reply.said(),
                true,
                audio.on_call(self.utterance.speech_start(hz)),
                audio.on_call(self.utterance.speech_end(hz)),
            )
        }
    }
}

/// Seconds that came from outside.
fn time(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
