//! Which encoding a payload has, where none is configured.

use std::{mem, time::Duration};

use sidetone_audio::{
    detect::{Detector, Verdict},
    g711::Law,
};
use sidetone_proto::{Rate, Time};

use super::{CallerAudio, Encoding, RateFound, State, held::HeldPayloads};
use crate::event::CodecNotice;

/// Sound whose encoding is not detected for so long is reported.
const REPORT_UNDECIDED_AFTER: Duration = Duration::from_millis(1_500);

/// A stream whose encoding `auto` has not detected.
#[derive(Debug, Default)]
pub(super) struct Detection {
    detector: Detector,
    pub(super) held: HeldPayloads,
    is_reported: bool,
}

impl Detection {
    pub(super) fn receive(&mut self, age: Duration, now: Time, offset: Duration, bytes: &[u8]) {
        self.held.push(age, offset, now, bytes);
        self.detector.push(age, bytes);
    }

    pub(super) fn decide(
        &mut self,
        age: Duration,
        to: &mut CallerAudio<'_>,
    ) -> Option<(State, Option<RateFound>)> {
        let encoding = match self.detector.verdict() {
            Verdict::Undecided => {
                self.report_undecided(age, to);
                return None;
            }
            Verdict::Unsupported { bytes_per_second } => {
                to.notify(Some(CodecNotice::Unsupported { bytes_per_second }));
                return Some((State::Unsupported, None));
            }
            Verdict::Slin => Encoding::Linear(Rate::Slin),
            Verdict::Ulaw => Encoding::Companded(Law::Ulaw),
            Verdict::Alaw => Encoding::Companded(Law::Alaw),
            Verdict::Wideband { hz } => {
                let rate = Rate::from_hz(hz).unwrap_or_default();
                return Some(self.accept(
                    Encoding::Linear(rate),
                    CodecNotice::Wideband { rate },
                    to,
                ));
            }
        };
        Some(self.accept(encoding, CodecNotice::Decided(encoding.codec()), to))
    }

    /// Reports the encoding and releases what was held.
    fn accept(
        &mut self,
        encoding: Encoding,
        notice: CodecNotice,
        to: &mut CallerAudio<'_>,
    ) -> (State, Option<RateFound>) {
        to.notify(Some(notice));
        let moved = mem::take(&mut self.held).release(encoding, to);
        let rate = encoding.rate();
        let found = (rate != Rate::Slin).then_some(RateFound { rate, moved });
        (State::Known(encoding), found)
    }

    /// The caller speaks and the handler hears nothing: it should know why.
    fn report_undecided(&mut self, age: Duration, to: &mut CallerAudio<'_>) {
        if !self.is_reported && self.detector.sound_undecided(age) >= REPORT_UNDECIDED_AFTER {
            self.is_reported = true;
            to.notify(Some(CodecNotice::Undecided));
        }
    }
}
