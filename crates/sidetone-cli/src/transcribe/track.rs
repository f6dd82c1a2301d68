//! One side of a call on its way to its recognizer.

use std::{sync::Arc, time::Duration};

use sidetone_audio::{g711::Law, resample::Resampler};
use sidetone_speech::{Format, Recognizer, SpeechEvents, SpeechInput, transcribe};
use tokio::sync::mpsc;

use super::{line::Side, scribe::Said};

/// Begins with the first sound, whose rate it has to its end.
pub(super) struct Track {
    side: Side,
    recognizer: Arc<dyn Recognizer>,
    said: mpsc::Sender<Said>,
    open: Option<Open>,
}

struct Open {
    input: SpeechInput,
    hz: u32,
    /// For sound at another rate than the first: that rate, and what makes it the first one.
    resampler: Option<(u32, Resampler)>,
    resampled: Vec<i16>,
}

impl Track {
    pub(super) fn new(
        side: Side,
        recognizer: Arc<dyn Recognizer>,
        said: mpsc::Sender<Said>,
    ) -> Self {
        Self {
            side,
            recognizer,
            said,
            open: None,
        }
    }

    /// Adds samples that were at `at` on the call's clock. `law` is how they came, if that was companded.
    pub(super) fn push(&mut self, at: Duration, hz: u32, law: Option<Law>, samples: &[i16]) {
        if self.open.is_none() {
            let recognizer = Arc::clone(&self.recognizer);
            let (input, events) = transcribe(recognizer, Format { hz, law });
            tokio::spawn(pass_on(self.side, events, self.said.clone()));
            self.open = Some(Open {
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

    /// No sound came from `at` on for so long: whoever spoke has ceased to.
    pub(super) fn push_silence(&mut self, at: Duration, duration: Duration) {
        if let Some(open) = &mut self.open {
            open.input.push_silence(at, duration);
        }
    }
}

impl Open {
    fn push(&mut self, at: Duration, hz: u32, samples: &[i16]) {
        if hz == self.hz {
            self.input.push(at, samples);
            return;
        }
        if self.resampler.as_ref().is_none_or(|(from, _)| *from != hz) {
            // The rates that a call can have can all be resampled.
            self.resampler = Resampler::new(hz, self.hz).ok().map(|it| (hz, it));
        }
        if let Some((_, resampler)) = &mut self.resampler {
            self.resampled.clear();
            resampler.process(samples, &mut self.resampled);
            self.input.push(at, &self.resampled);
        }
    }
}

async fn pass_on(side: Side, mut events: SpeechEvents, said: mpsc::Sender<Said>) {
    while let Some(event) = events.next().await {
        if said.send((side, event)).await.is_err() {
            return;
        }
    }
}
