use std::time::Duration;

use sidetone_audio::vad::{VoiceDetector, VoiceEvent};

use crate::Frame;

/// Voice activity of a caller whose rate is unknown until the first frame, and may change.
#[derive(Default)]
pub(super) struct Speech {
    detector: Option<(u32, VoiceDetector)>,
    is_speaking: bool,
}

impl Speech {
    /// Listens to a frame.
    pub(super) fn push(&mut self, frame: &Frame<'_>) {
        let hz = frame.rate().hz();
        if self
            .detector
            .as_ref()
            .is_none_or(|(made_for, _)| *made_for != hz)
        {
            // A call's own rate is one that can be resampled.
            self.detector = VoiceDetector::new(hz).ok().map(|made| (hz, made));
        }
        if let Some((_, detector)) = &mut self.detector {
            for event in detector.push(frame.samples()) {
                self.is_speaking = matches!(event, VoiceEvent::SpeechStarted { .. });
            }
        }
    }

    /// Takes note that nothing came for so long.
    pub(super) fn push_silence(&mut self, duration: Duration) {
        if let Some((_, detector)) = &mut self.detector {
            for event in detector.push_silence(duration) {
                self.is_speaking = matches!(event, VoiceEvent::SpeechStarted { .. });
            }
        }
    }

    /// Whether the caller speaks, as far as it has been decided.
    pub(super) fn is_speaking(&self) -> bool {
        self.is_speaking
    }
}
