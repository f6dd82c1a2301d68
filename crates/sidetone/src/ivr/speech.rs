use std::time::Duration;

use sidetone_audio::vad::VoiceDetector;

use crate::Frame;

/// Voice activity of a caller, whatever the rate of their audio.
#[derive(Default)]
pub(super) struct Speech {
    detector: VoiceDetector,
}

impl Speech {
    /// Listens to a frame.
    pub(super) fn push(&mut self, frame: &Frame<'_>) {
        // A call's own rate is one that can be resampled.
        let _ = self
            .detector
            .push_at(frame.rate().hz(), frame.samples())
            .map(drop);
    }

    /// Takes note that nothing came for so long.
    pub(super) fn push_silence(&mut self, duration: Duration) {
        drop(self.detector.push_silence(duration));
    }

    /// Whether the caller speaks, as far as it has been decided.
    pub(super) fn is_speaking(&self) -> bool {
        self.detector.is_speaking()
    }
}
