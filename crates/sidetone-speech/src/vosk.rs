//! A self-hosted [Vosk server](https://alphacephei.com/vosk/server), over WebSocket.
//!
//! The protocol is that of its `asr_server.py`: a configuration without a reply, then exactly one
//! reply to each chunk of audio, and one more to the end.

use std::{collections::VecDeque, time::Duration};

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::json;
use tokio::{select, time::timeout};

use crate::{
    Audio, Recognizer, SpeechError, Transcript, Transcripts, Word,
    websocket::{Connection, Endpoint, Received, linear16},
};

/// The least and the most audio in one chunk. The server looks for the end of an utterance after
/// each chunk, so longer ones make that less exact.
const CHUNK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(200));
/// How many chunks may wait for their reply: enough to keep the server busy, too few to fill its
/// queue.
const MAX_UNANSWERED: usize = 4;
/// A server that has audio and does not reply within this time is broken.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// The server compares this byte by byte.
const END_OF_STREAM: &str = r#"{"eof" : 1}"#;

/// The recognizer for a Vosk server.
///
/// The language is that of the model the server has loaded. Interim transcripts have no times and
/// no confidence: each is placed between the last final one and the audio it replies to. The
/// confidence of a final one is the mean of its words'.
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
    /// The server at an address such as `ws://127.0.0.1:2700`, or `wss://…` for TLS.
    ///
    /// # Errors
    ///
    /// [`SpeechError::Settings`] if the address is invalid, or if it is `wss://…` and the machine
    /// has no trusted certificates.
    pub fn new(endpoint: &str) -> Result<Self, SpeechError> {
        Ok(Self {
            endpoint: Endpoint::new("Vosk", endpoint)?,
            phrases: Vec::new(),
        })
    }

    /// Limits recognition to these phrases. Unlike other services, Vosk then recognizes nothing
    /// else: it reports the nearest phrase for anything said, unless `[unk]` is among them. Models
    /// that can't limit recognition ignore this.
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
            let stream = Stream {
                connection,
                final_end: audio.call_time(Duration::ZERO),
                audio,
                transcripts,
                unanswered: VecDeque::new(),
            };
            stream.run().await
        })
    }
}

struct Stream {
    connection: Connection,
    audio: Audio,
    transcripts: Transcripts,
    /// For each chunk without a reply, how much audio was sent up to its end.
    unanswered: VecDeque<Duration>,
    /// Where the last final transcript ended.
    final_end: Duration,
}

impl Stream {
    async fn run(mut self) -> Result<(), SpeechError> {
        let mut samples = Vec::new();
        let mut ended = false;
        while !ended || !self.unanswered.is_empty() {
            let reply_timeout = match self.unanswered.is_empty() {
                true => Duration::MAX,
                false => REPLY_TIMEOUT,
            };
            let may_send = !ended && self.unanswered.len() < MAX_UNANSWERED;
            select! {
                more = self.audio.read(CHUNK.0, CHUNK.1, &mut samples), if may_send => {
                    match more {
                        true => self.connection.send_binary(linear16(&samples)).await?,
                        false => self.connection.send_text(END_OF_STREAM).await?,
                    }
                    ended = !more;
                    samples.clear();
                    self.unanswered.push_back(self.audio.delivered());
                }
                message = timeout(reply_timeout, self.connection.next()) => match message {
                    Ok(message) => self.handle_message(message?).await?,
                    Err(_) => {
                        return Err(self.connection.broken("no reply within 10 s".into()));
                    }
                }
            }
        }
        self.connection.close().await;
        Ok(())
    }

    async fn handle_message(&mut self, message: Received) -> Result<(), SpeechError> {
        let text = match message {
            Received::Text(text) => text,
            Received::Closed(code, reason) => return Err(self.connection.closed(code, &reason)),
        };
        let reply = serde_json::from_str(&text);
        let reply: Reply = reply.map_err(|_| self.connection.unexpected(&text))?;
        let Some(sent) = self.unanswered.pop_front() else {
            return Err(self.connection.broken("a reply without audio".into()));
        };
        self.transcripts.mark_alive();
        let until = self.audio.call_time(sent);
        let FinalResult { text, result } = match reply {
            Reply::Partial { partial } => {
                let start = self.final_end.min(until);
                let transcript = Transcript::new(partial, false, start, until);
                self.transcripts.send(transcript).await;
                return Ok(());
            }
            Reply::Choice { alternatives } => alternatives.into_iter().next().unwrap_or_default(),
            Reply::Final(result) => result,
        };
        self.transcripts
            .send(self.final_transcript(text, &result, until))
            .await;
        // Between its last word and this point Vosk found silence.
        self.transcripts.ack(until);
        self.final_end = until;
        Ok(())
    }

    fn final_transcript(&self, text: String, words: &[ReplyWord], until: Duration) -> Transcript {
        let words: Vec<Word> = words.iter().map(|word| self.word(word)).collect();
        let start = words
            .first()
            .map_or(self.final_end.min(until), |it| it.start);
        let end = words.last().map_or(until, |it| it.end);
        let mut transcript = Transcript::new(text, true, start, end);
        transcript.confidence = mean(words.iter().filter_map(|it| it.confidence));
        transcript.words = words;
        transcript
    }

    fn word(&self, word: &ReplyWord) -> Word {
        let call_time = |seconds| {
            let offset = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            self.audio.call_time(offset)
        };
        Word {
            text: word.word.clone(),
            start: call_time(word.start),
            end: call_time(word.end),
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
    /// From servers configured for several alternatives. The best one comes first.
    Choice {
        alternatives: Vec<FinalResult>,
    },
    Final(FinalResult),
}

#[derive(Default, Deserialize)]
struct FinalResult {
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
