//! Sends one side of a call to its recognizer.

use std::{sync::Arc, time::Duration};

use sidetone_audio::{g711::Law, resample::Resampler};
use sidetone_speech::{Format, Recognizer, SpeechEvent, SpeechEvents, SpeechInput, transcribe};
use tokio::sync::mpsc;

use super::transcript::Side;

/// What the recognizer of one side returns.
pub(super) type RecognizerEvent = (Side, SpeechEvent);

/// A connection to the recognizer, opened with the first audio. It keeps the sample rate of that audio.
pub(super) struct Track {
    side: Side,
    recognizer: Arc<dyn Recognizer>,
    events: mpsc::Sender<RecognizerEvent>,
    open: Option<OpenTrack>,
}

struct OpenTrack {
    input: SpeechInput,
    hz: u32,
    /// For audio at another rate than the first: that rate, and the resampler to the first one.
    resampler: Option<(u32, Resampler)>,
    resampled: Vec<i16>,
}

impl Track {
    pub(super) fn new(
        side: Side,
        recognizer: Arc<dyn Recognizer>,
        events: mpsc::Sender<RecognizerEvent>,
    ) -> Self {
        Self {
            side,
            recognizer,
            events,
            open: None,
        }
    }

    /// Sends samples. `at` is their time since the UUID, and `law` the law by which the caller companded them.
    pub(super) fn push(&mut self, at: Duration, hz: u32, law: Option<Law>, samples: &[i16]) {
        if self.open.is_none() {
            let recognizer = Arc::clone(&self.recognizer);
            let (input, speech_events) = transcribe(recognizer, Format { hz, law });
            tokio::spawn(forward(self.side, speech_events, self.events.clone()));
            self.open = Some(OpenTrack {
                input,
                hz,
                resampler: None,
                resampled: Vec::new(),
            });
        }
        if let Some(open) = &mut self.open {
            open.push(at, hz, samples);
        }
    }

    /// Tells the recognizer that no audio came from `at` on for this time, so that it finishes the utterance.
    pub(super) fn push_silence(&mut self, at: Duration, duration: Duration) {
        if let Some(open) = &mut self.open {
            open.input.push_silence(at, duration);
        }
    }
}

impl OpenTrack {
    fn push(&mut self, at: Duration, hz: u32, samples: &[i16]) {
        if hz == self.hz {
            self.input.push(at, samples);
            return;
        }
        if self.resampler.as_ref().is_none_or(|(from, _)| *from != hz) {
            // It does not fail: the rates that a call can have can all be resampled.
            self.resampler = Resampler::new(hz, self.hz).ok().map(|it| (hz, it));
        }
        if let Some((_, resampler)) = &mut self.resampler {
            self.resampled.clear();
            resampler.process(samples, &mut self.resampled);
            self.input.push(at, &self.resampled);
        }
    }
}

async fn forward(
    side: Side,
    mut speech_events: SpeechEvents,
    events: mpsc::Sender<RecognizerEvent>,
) {
    while let Some(event) = speech_events.next().await {
        if events.send((side, event)).await.is_err() {
            return;
        }
    }
}
