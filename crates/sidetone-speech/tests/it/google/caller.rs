use std::time::Duration;

use sidetone_services::{
    Word,
    google::{Rules, Service},
    synthesize, word_times,
};
use sidetone_speech::{
    Format, Recognizer, SpeechError, SpeechEvent, SpeechInput, Transcript, google::Google,
    transcribe,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// A recognizer for a stand-in server.
pub(crate) fn recognizer_for(service: &Service) -> Google {
    Google::new(["en-US"])
        .project("test")
        .channel(service.channel())
}

/// A caller who speaks in frames of 20 ms, in time.
pub(crate) struct Caller {
    input: SpeechInput,
    format: Format,
    began: Instant,
    /// The current time of the call.
    pub(crate) at: Duration,
    /// The words spoken, with their times on the call's clock.
    pub(crate) said: Vec<Word>,
    events: JoinHandle<Vec<(Duration, SpeechEvent)>>,
}

impl Caller {
    pub(crate) fn new(recognizer: impl Recognizer, format: Format) -> Self {
        let (input, mut events) = transcribe(recognizer, format);
        let began = Instant::now();
        let events = tokio::spawn(async move {
            let mut received = Vec::new();
            while let Some(event) = events.next().await {
                received.push((began.elapsed(), event));
            }
            received
        });
        Self {
            input,
            format,
            began,
            at: Duration::ZERO,
            said: Vec::new(),
            events,
        }
    }

    /// Speaks an utterance, and pauses for 700 ms.
    pub(crate) async fn say(&mut self, words: &[&str]) {
        self.said.extend(word_times(words, self.at));
        self.send(&synthesize(words, self.format.hz)).await;
    }

    /// Speaks words, with only the gap of 80 ms after them.
    pub(crate) async fn say_without_pause(&mut self, words: &[&str]) {
        self.said.extend(word_times(words, self.at));
        let mut samples = synthesize(words, self.format.hz);
        let pause = self.format.hz as usize * 620 / 1000;
        samples.truncate(samples.len() - pause);
        self.send(&samples).await;
    }

    pub(crate) async fn send(&mut self, samples: &[i16]) {
        let hz = self.format.hz as usize;
        for frame in samples.chunks(hz / 50) {
            let at = self.at;
            self.at += Duration::from_secs_f64(frame.len() as f64 / hz as f64);
            sleep_until(self.began + self.at).await;
            self.input.push(at, frame);
        }
    }

    /// Sends nothing at all, not even silence.
    pub(crate) async fn mute(&mut self, length: Duration) {
        self.at += length;
        sleep_until(self.began + self.at).await;
    }

    /// Hangs up, and returns what was recognized.
    pub(crate) async fn hang_up(self) -> Outcome {
        self.input.finish();
        Outcome {
            said: self.said,
            events: self.events.await.unwrap(),
        }
    }
}

/// The events of a call.
pub(crate) struct Outcome {
    said: Vec<Word>,
    pub(crate) events: Vec<(Duration, SpeechEvent)>,
}

impl Outcome {
    pub(crate) fn finals(&self) -> Vec<&Transcript> {
        let transcripts = self.events.iter().filter_map(|(_, event)| match event {
            SpeechEvent::Transcript(transcript) => Some(transcript),
            _ => None,
        });
        transcripts.filter(|it| it.is_final).collect()
    }

    pub(crate) fn failures(&self) -> Vec<&SpeechError> {
        let errors = self.events.iter().filter_map(|(_, event)| match event {
            SpeechEvent::Failed(error) => Some(error),
            _ => None,
        });
        errors.collect()
    }

    /// The events other than transcripts.
    pub(crate) fn other_events(&self) -> Vec<&SpeechEvent> {
        let events = self.events.iter().map(|(_, event)| event);
        events
            .filter(|it| !matches!(it, SpeechEvent::Transcript(_)))
            .collect()
    }

    /// Asserts that every word was recognized once, in order and at its place, to the service's
    /// precision.
    #[track_caller]
    pub(crate) fn assert_complete(&self) {
        let finals = self.finals();
        let texts: Vec<&str> = finals
            .iter()
            .flat_map(|it| it.text.split_whitespace())
            .collect();
        let said: Vec<&str> = self.said.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(texts, said);
        let words = finals.iter().flat_map(|it| &it.words);
        let near = |a: Duration, b: Duration| a.abs_diff(b) <= Duration::from_millis(60);
        for (word, said) in words.zip(&self.said) {
            assert_eq!(word.text, said.text);
            let in_place = near(word.start, said.start) && near(word.end, said.end);
            assert!(in_place, "{word:?} was said as {said:?}");
        }
        for pair in finals.windows(2) {
            assert!(pair[0].end <= pair[1].start, "{pair:?}");
        }
    }
}

/// A server that asserts it refused nothing.
#[track_caller]
pub(crate) fn assert_nothing_refused(service: &Service) {
    for call in service.calls() {
        assert_eq!(call.refusal, None);
    }
}

pub(crate) fn service() -> Service {
    Service::new(Rules::default())
}
