//! A [Vosk server](https://alphacephei.com/vosk/server) of one's own, over WebSocket.
//!
//! The protocol is the one of its `asr_server.py`: a configuration that gets no reply, then exactly one reply
//! for each piece of audio, and one more for the end.

use std::{collections::VecDeque, time::Duration};

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::json;
use tokio::{select, time::timeout};

use crate::{
    Audio, Recognizer, SpeechError, Transcript, Transcripts, Word,
    websocket::{Connection, Endpoint, Said, linear16},
};

/// A piece of audio. The server looks for the end of an utterance after each, so longer ones blur that.
const PIECE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(200));
/// Pieces that may wait for their reply: enough to keep the server busy, too few to fill its queue.
const UNANSWERED: usize = 4;
/// A server that has audio answers within this time, or it is broken.
const ANSWER: Duration = Duration::from_secs(10);
/// The server compares it letter by letter.
const END: &str = r#"{"eof" : 1}"#;

/// The engine for a Vosk server.
///
/// The language is the one of the model that the server has loaded. An interim transcript has no times of its
/// own: it is placed between the final one before it and the audio that it answers. Neither has it a
/// confidence; a final one has its words', and as its own their mean.
///
/// ```
/// use sidetone_speech::{Format, Recognizer, transcribe, vosk::Vosk};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sidetone_speech::SpeechError> {
/// let vosk = Vosk::new("ws://127.0.0.1:2700")?;
/// assert_eq!(vosk.destination(), "Vosk at ws://127.0.0.1:2700/");
/// let (input, events) = transcribe(vosk, Format::linear(8000));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Vosk {
    endpoint: Endpoint,
    phrases: Vec<String>,
}

impl Vosk {
    /// The server at an address such as `ws://127.0.0.1:2700`, or with `wss` for TLS.
    ///
    /// # Errors
    ///
    /// [`SpeechError::Settings`] if that is no such address, or if the machine has no trusted certificates to
    /// check one with `wss` by.
    pub fn new(endpoint: &str) -> Result<Self, SpeechError> {
        Ok(Self {
            endpoint: Endpoint::new("Vosk", endpoint)?,
            phrases: Vec::new(),
        })
    }

    /// Limits recognition to these phrases: unlike other services Vosk then hears nothing else, and has the
    /// nearest of them for whatever is said, unless `[unk]` is among them. Not every model can do it; one
    /// that can't ignores them.
    pub fn phrases<P: Into<String>>(mut self, phrases: impl IntoIterator<Item = P>) -> Self {
        self.phrases = phrases.into_iter().map(Into::into).collect();
        self
    }

    fn config(&self, hz: u32) -> String {
        let mut config = json!({ "sample_rate": hz, "words": true, "max_alternatives": 0 });
        if !self.phrases.is_empty() {
            config["phrase_list"] = json!(self.phrases);
        }
        json!({ "config": config }).to_string()
    }
}

impl Recognizer for Vosk {
    fn destination(&self) -> String {
        format!("Vosk at {}", self.endpoint)
    }

    fn run<'a>(
        &'a self,
        audio: Audio,
        transcripts: Transcripts,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(async move {
            let mut connection = self.endpoint.connect("", &[]).await?;
            connection.send_text(self.config(audio.format().hz)).await?;
            let dialog = Dialog {
                connection,
                spoken: audio.on_call(Duration::ZERO),
                audio,
                transcripts,
                unanswered: VecDeque::new(),
            };
            dialog.run().await
        })
    }
}

struct Dialog {
    connection: Connection,
    audio: Audio,
    transcripts: Transcripts,
    /// How much audio was sent with each piece that has no reply yet, all before it included.
    unanswered: VecDeque<Duration>,
    /// Where the last final transcript ended.
    spoken: Duration,
}

impl Dialog {
    async fn run(mut self) -> Result<(), SpeechError> {
        let mut samples = Vec::new();
        let mut ended = false;
        while !ended || !self.unanswered.is_empty() {
            let patience = match self.unanswered.is_empty() {
                true => Duration::MAX,
                false => ANSWER,
            };
            let may_send = !ended && self.unanswered.len() < UNANSWERED;
            select! {
                more = self.audio.read(PIECE.0, PIECE.1, &mut samples), if may_send => {
                    match more {
                        true => self.connection.send_binary(linear16(&samples)).await?,
                        false => self.connection.send_text(END).await?,
                    }
                    ended = !more;
                    samples.clear();
                    self.unanswered.push_back(self.audio.taken());
                }
                said = timeout(patience, self.connection.next()) => match said {
                    Ok(said) => self.hear(said?).await?,
                    Err(_) => {
                        return Err(self.connection.broken("no reply within 10 s".into()));
                    }
                }
            }
        }
        self.connection.close().await;
        Ok(())
    }

    async fn hear(&mut self, said: Said) -> Result<(), SpeechError> {
        let text = match said {
            Said::Text(text) => text,
            Said::Closed(code, reason) => return Err(self.connection.closed(code, &reason)),
        };
        let reply = serde_json::from_str(&text);
        let reply: Reply = reply.map_err(|_| self.connection.strange(&text))?;
        let Some(sent) = self.unanswered.pop_front() else {
            return Err(self.connection.broken("a reply to nothing".into()));
        };
        self.transcripts.alive();
        let until = self.audio.on_call(sent);
        let Heard { text, result } = match reply {
            Reply::Partial { partial } => {
                let start = self.spoken.min(until);
                let transcript = Transcript::new(partial, false, start, until);
                self.transcripts.tell(transcript).await;
                return Ok(());
            }
            Reply::Choice { alternatives } => alternatives.into_iter().next().unwrap_or_default(),
            Reply::Final(heard) => heard,
        };
        self.transcripts
            .tell(self.final_transcript(text, &result, until))
            .await;
        // What comes after its last word up to here was heard as silence.
        self.transcripts.settle(until);
        self.spoken = until;
        Ok(())
    }

    fn final_transcript(&self, text: String, words: &[ReplyWord], until: Duration) -> Transcript {
        let words: Vec<Word> = words.iter().map(|word| self.word(word)).collect();
        let start = words.first().map_or(self.spoken.min(until), |it| it.start);
        let end = words.last().map_or(until, |it| it.end);
        let mut transcript = Transcript::new(text, true, start, end);
        transcript.confidence = mean(words.iter().filter_map(|it| it.confidence));
        transcript.words = words;
        transcript
    }

    fn word(&self, word: &ReplyWord) -> Word {
        let on_call = |seconds| {
            let offset = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            self.audio.on_call(offset)
        };
        Word {
            text: word.word.clone(),
            start: on_call(word.start),
            end: on_call(word.end),
            confidence: word.conf,
        }
    }
}

fn mean(values: impl Iterator<Item = f32>) -> Option<f32> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), it| (sum + it, count + 1));
    (count > 0).then(|| sum / count as f32)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Reply {
    Partial {
        partial: String,
    },
    /// From servers that were told to give several, the best one first.
    Choice {
        alternatives: Vec<Heard>,
    },
    Final(Heard),
}

#[derive(Default, Deserialize)]
struct Heard {
    text: String,
    #[serde(default)]
    result: Vec<ReplyWord>,
}

/// Times in seconds since the first sample of the connection.
#[derive(Deserialize)]
struct ReplyWord {
    word: String,
    start: f64,
    end: f64,
    conf: Option<f32>,
}
