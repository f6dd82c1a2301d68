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

/// The engine for a service.
pub(crate) fn engine(service: &Service) -> Google {
    Google::new(["en-US"])
        .project("test")
        .channel(service.channel())
}

/// A caller, who speaks in frames of 20 ms, in time.
pub(crate) struct Caller {
    input: SpeechInput,
    format: Format,
    began: Instant,
    /// How far the call is.
    pub(crate) at: Duration,
    /// Words with their times on the call's clock.
    pub(crate) said: Vec<Word>,
    events: JoinHandle<Vec<(Duration, SpeechEvent)>>,
}

impl Caller {
    pub(crate) fn new(recognizer: impl Recognizer, format: Format) -> Self {
        let (input, mut events) = transcribe(recognizer, format);
        let began = Instant::now();
        let events = tokio::spawn(async move {
            let mut heard = Vec::new();
            while let Some(event) = events.next().await {
                heard.push((began.elapsed(), event));
            }
            heard
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

    /// Says an utterance, and pauses for 700 ms.
    pub(crate) async fn say(&mut self, words: &[&str]) {
        self.said.extend(word_times(words, self.at));
        self.send(&synthesize(words, self.format.hz)).await;
    }

    /// Says words with nothing but the 80 ms between words after them.
    pub(crate) async fn say_on(&mut self, words: &[&str]) {
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

    /// Hangs up, and answers what was heard.
    pub(crate) async fn hang_up(self) -> Recognized {
        self.input.finish();
        Recognized {
            said: self.said,
            events: self.events.await.unwrap(),
        }
    }
}

/// What came of a call.
pub(crate) struct Recognized {
    said: Vec<Word>,
    pub(crate) events: Vec<(Duration, SpeechEvent)>,
}

impl Recognized {
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

    /// What happened besides transcripts.
    pub(crate) fn incidents(&self) -> Vec<&SpeechEvent> {
        let events = self.events.iter().map(|(_, event)| event);
        events
            .filter(|it| !matches!(it, SpeechEvent::Transcript(_)))
            .collect()
    }

    /// Every word was heard once, in order, and where it was said: within the service's own precision.
    #[track_caller]
    pub(crate) fn assert_complete(&self) {
        let finals = self.finals();
        let texts: Vec<&str> = finals
            .iter()
            .flat_map(|it| it.text.split_whitespace())
            .collect();
        let said: Vec<&str> = self.said.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(texts, said);
        let heard = finals.iter().flat_map(|it| &it.words);
        let near = |a: Duration, b: Duration| a.abs_diff(b) <= Duration::from_millis(60);
        for (heard, said) in heard.zip(&self.said) {
            assert_eq!(heard.text, said.text);
            let in_place = near(heard.start, said.start) && near(heard.end, said.end);
            assert!(in_place, "{heard:?} was {said:?}");
        }
        for pair in finals.windows(2) {
            assert!(pair[0].end <= pair[1].start, "{pair:?}");
        }
    }
}

/// A service without any refusal so far.
#[track_caller]
pub(crate) fn assert_content(service: &Service) {
    for call in service.calls() {
        assert_eq!(call.refusal, None);
    }
}

pub(crate) fn service() -> Service {
    Service::new(Rules::default())
}
