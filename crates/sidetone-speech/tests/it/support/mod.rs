//! Calls with words at known times, for tests against stand-ins.
#![allow(dead_code, reason = "each test binary uses what it needs")]

use std::time::Duration;

use sidetone_services::{synthesize, word_times};
use sidetone_speech::{
    Format, Recognizer, SpeechError, SpeechEvent, SpeechEvents, SpeechInput, Transcript, Word,
    transcribe,
};

/// Utterances of two words, each word once.
pub(crate) struct Call {
    pub(crate) format: Format,
    pub(crate) samples: Vec<i16>,
    pub(crate) words: Vec<Word>,
}

impl Call {
    /// At most 24 utterances, which fit the replay buffer.
    pub(crate) fn of(utterances: usize, format: Format) -> Self {
        let mut call = Self {
            format,
            samples: Vec::new(),
            words: Vec::new(),
        };
        for number in 0..utterances {
            let pair = [format!("a{number}"), format!("word{number}")];
            let pair = pair.each_ref().map(String::as_str);
            let start = call.length();
            call.words
                .extend(word_times(&pair, start).into_iter().map(|it| Word {
                    text: it.text,
                    start: it.start,
                    end: it.end,
                    confidence: None,
                }));
            call.samples.extend(synthesize(&pair, format.hz));
        }
        call
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_micros(self.samples.len() as u64 * 1_000_000 / u64::from(self.format.hz))
    }

    pub(crate) fn start(&self, recognizer: impl Recognizer) -> (SpeechInput, SpeechEvents) {
        let (mut input, events) = transcribe(recognizer, self.format);
        input.push(Duration::ZERO, &self.samples);
        (input, events)
    }

    pub(crate) async fn run(&self, recognizer: impl Recognizer) -> Events {
        let (input, mut events) = self.start(recognizer);
        input.finish();
        Events::all(&mut events).await
    }
}

pub(crate) struct Events(pub(crate) Vec<SpeechEvent>);

impl Events {
    pub(crate) async fn all(events: &mut SpeechEvents) -> Self {
        let mut received = Vec::new();
        while let Some(event) = events.next().await {
            received.push(event);
        }
        Self(received)
    }

    pub(crate) fn finals(&self) -> impl Iterator<Item = &Transcript> {
        self.transcripts().filter(|it| it.is_final)
    }

    pub(crate) fn transcripts(&self) -> impl Iterator<Item = &Transcript> {
        self.0.iter().filter_map(|it| match it {
            SpeechEvent::Transcript(transcript) => Some(transcript),
            _ => None,
        })
    }

    pub(crate) fn errors(&self) -> Vec<&SpeechError> {
        let errors = self.0.iter().filter_map(|it| match it {
            SpeechEvent::Retrying { error, .. } => Some(error),
            _ => None,
        });
        errors.collect()
    }

    pub(crate) fn failure(&self) -> Option<&SpeechError> {
        self.0.iter().find_map(|it| match it {
            SpeechEvent::Failed(error) => Some(error),
            _ => None,
        })
    }

    /// Asserts that the first utterance has this text and confidence, and that the fourth had an
    /// interim transcript after its first word.
    pub(crate) fn assert_text_and_interims(&self, confidence: f32) {
        let first = self
            .finals()
            .next()
            .map(|it| (it.text.as_str(), it.confidence));
        assert_eq!(first, Some(("a0 word0", Some(confidence))));
        assert!(self.transcripts().any(|it| !it.is_final && it.text == "a3"));
    }

    /// Asserts that every word came once, within 5 ms of its place, and nothing was lost.
    pub(crate) fn assert_words(&self, said: &[Word]) {
        let lost = |it: &&SpeechEvent| matches!(it, SpeechEvent::Lost { .. });
        assert_eq!(self.0.iter().find(lost), None);
        let received: Vec<&Word> = self.finals().flat_map(|it| &it.words).collect();
        let texts: Vec<&str> = received.iter().map(|it| it.text.as_str()).collect();
        let expected: Vec<&str> = said.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(texts, expected);
        for (received, said) in received.iter().zip(said) {
            let off = received
                .start
                .abs_diff(said.start)
                .max(received.end.abs_diff(said.end));
            assert!(
                off < Duration::from_millis(5),
                "{received:?} was said as {said:?}"
            );
        }
    }
}
