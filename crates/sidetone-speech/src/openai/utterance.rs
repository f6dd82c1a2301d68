use std::{collections::VecDeque, ops::Range, time::Duration};

use sidetone_audio::vad::{Timing, VoiceDetector, VoiceEvent};
use tokio::time::Instant;

use crate::SpeechError;

/// What is kept after the last sound: a word may die away below what counts as speech.
const TAIL: Duration = Duration::from_millis(200);
/// An utterance that is longer is cut: whoever reads along waits so long at most.
const LONGEST: Duration = Duration::from_secs(15);
/// The end of a long utterance in which the weakest moment is looked for.
const SEARCH: Duration = Duration::from_secs(5);
/// What is compared to find it: about the gap that a plosive has.
const MOMENT: Duration = Duration::from_millis(60);
/// How much later than it is a beginning is known, at most.
const NOTICED: Duration = Duration::from_millis(200);

/// Samples in which somebody speaks.
#[derive(Debug)]
pub(super) struct Utterance {
    /// The place of the first one among all that were pushed.
    first: usize,
    pub(super) samples: Vec<i16>,
    /// Where the speech in it begins and ends, without what was kept before and after it.
    speech: Range<usize>,
    /// When it was.
    pub(super) cut: Instant,
}

impl Utterance {
    /// Where it begins in what was pushed.
    pub(super) fn start(&self, hz: u32) -> Duration {
        duration(self.first, hz)
    }

    /// Where it ends.
    pub(super) fn end(&self, hz: u32) -> Duration {
        duration(self.first + self.samples.len(), hz)
    }

    /// Where somebody begins to speak.
    pub(super) fn speech_start(&self, hz: u32) -> Duration {
        duration(self.speech.start, hz)
    }

    /// Where they cease to.
    pub(super) fn speech_end(&self, hz: u32) -> Duration {
        duration(self.speech.end, hz)
    }
}

/// Cuts audio into utterances.
pub(super) struct Cutter {
    hz: u32,
    detector: VoiceDetector,
    timing: Timing,
    /// The latest samples: those of the utterance that goes on, or enough for a beginning.
    kept: Vec<i16>,
    /// The place of the first of them.
    first: usize,
    /// Where the utterance that goes on begins.
    speaking: Option<usize>,
    /// Where its speech does, a little later.
    speech: usize,
    /// Where the last one ended.
    end: usize,
}

impl Cutter {
    pub(super) fn new(hz: u32) -> Result<Self, SpeechError> {
        let timing = Timing::default();
        let detector = VoiceDetector::with_timing(hz, timing)
            .map_err(|error| SpeechError::Settings(error.to_string()))?;
        Ok(Self {
            hz,
            detector,
            timing,
            kept: Vec::new(),
            first: 0,
            speaking: None,
            speech: 0,
            end: 0,
        })
    }

    /// Listens to the next samples, and adds the utterances that are over by them.
    pub(super) fn push(&mut self, samples: &[i16], over: &mut VecDeque<Utterance>) {
        self.kept.extend_from_slice(samples);
        let events: Vec<VoiceEvent> = self.detector.push(samples).collect();
        for event in events {
            match event {
                VoiceEvent::SpeechStarted { at } => {
                    let start = self.samples_in(at.saturating_sub(self.timing.pre_roll));
                    let start = start.max(self.end).max(self.first);
                    self.speaking = Some(start);
                    self.speech = self.samples_in(at).max(start);
                }
                VoiceEvent::SpeechEnded { at } => {
                    over.extend(self.cut(self.samples_in(at + TAIL), self.samples_in(at)));
                    self.speaking = None;
                }
            }
        }
        match self.speaking {
            Some(start) if self.place() - start >= self.samples_in(LONGEST) => {
                let weakest = self.weakest();
                over.extend(self.cut(weakest, weakest));
                (self.speaking, self.speech) = (Some(self.end), self.end);
            }
            Some(_) => {}
            None => self.forget(),
        }
    }

    /// Nothing more will come: what goes on is over.
    pub(super) fn finish(&mut self, over: &mut VecDeque<Utterance>) {
        over.extend(self.cut(self.place(), self.place()));
        self.speaking = None;
    }

    /// Before this nobody has spoken but in utterances that are over.
    pub(super) fn settled(&self) -> Duration {
        duration(self.speaking.unwrap_or(self.first), self.hz)
    }

    /// The utterance that goes on, up to `end`, and its speech, up to `silence`.
    fn cut(&mut self, end: usize, silence: usize) -> Option<Utterance> {
        let first = self.speaking?;
        self.end = end.clamp(first, self.place());
        let samples = self.kept[first - self.first..self.end - self.first].to_vec();
        self.kept.drain(..self.end - self.first);
        self.first = self.end;
        let speech = self.speech..silence.clamp(self.speech, self.end.max(self.speech));
        (!samples.is_empty()).then_some(Utterance {
            first,
            samples,
            speech,
            cut: Instant::now(),
        })
    }

    /// The middle of the weakest moment at the end of what is kept.
    fn weakest(&self) -> usize {
        let moment = self.samples_in(MOMENT).max(1);
        let search = self.samples_in(SEARCH).min(self.kept.len());
        let from = self.kept.len() - search;
        let moments = self.kept[from..].chunks_exact(moment).enumerate();
        let weakest = moments.min_by_key(|(_, samples)| energy(samples));
        let index = weakest.map_or(0, |(index, _)| index);
        self.first + from + index * moment + moment / 2
    }

    fn forget(&mut self) {
        let keep = self.samples_in(self.timing.pre_roll + self.timing.onset + NOTICED);
        let old = self.kept.len().saturating_sub(keep);
        self.kept.drain(..old);
        self.first += old;
    }

    /// The place behind the last sample.
    fn place(&self) -> usize {
        self.first + self.kept.len()
    }

    fn samples_in(&self, time: Duration) -> usize {
        (time.as_nanos() * u128::from(self.hz) / 1_000_000_000) as usize
    }
}

fn energy(samples: &[i16]) -> u64 {
    samples
        .iter()
        .map(|sample| u64::from(sample.unsigned_abs()).pow(2))
        .sum()
}

fn duration(samples: usize, hz: u32) -> Duration {
    // Rounded so that the way back gives the same sample. There is room for four days of 48 kHz.
    Duration::from_nanos((samples as u64 * 1_000_000_000).div_ceil(u64::from(hz)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sidetone_audio::tone;

    use super::*;

    const HZ: u32 = 8000;

    fn cut(sound: &[i16]) -> Vec<Utterance> {
        let mut cutter = Cutter::new(HZ).unwrap();
        let mut over = VecDeque::new();
        for piece in sound.chunks(320) {
            cutter.push(piece, &mut over);
        }
        cutter.finish(&mut over);
        over.into()
    }

    fn silence(milliseconds: usize) -> Vec<i16> {
        vec![0; milliseconds * 8]
    }

    #[test]
    fn silence_is_no_utterance_and_takes_no_memory() {
        let mut cutter = Cutter::new(HZ).unwrap();
        let mut over = VecDeque::new();
        for _ in 0..3000 {
            cutter.push(&silence(40), &mut over);
        }
        cutter.finish(&mut over);
        assert!(over.is_empty());
        assert!(cutter.kept.len() < 8000, "{}", cutter.kept.len());
        assert!(cutter.settled() > Duration::from_secs(119));
    }

    #[test]
    fn an_utterance_holds_its_sound_whole_and_what_was_before_it() {
        let voice = tone::caller_voice(HZ, Duration::from_secs(2), 7);
        let sound = [silence(1000), voice.clone(), silence(1000)].concat();
        let utterances = cut(&sound);
        let (first, last) = (&utterances[0], utterances.last().unwrap());
        let start = first.start(HZ).as_millis();
        assert!((600..=900).contains(&start), "begins at {start} ms");
        assert!(last.end(HZ) >= Duration::from_millis(2900), "{last:?}");
        let speech = first.speech_start(HZ).as_millis();
        assert!(
            (900..=1100).contains(&speech),
            "speech begins at {speech} ms"
        );
        assert!(last.speech_end(HZ) <= last.end(HZ), "{last:?}");
        for utterance in &utterances {
            let place = utterance.first;
            assert_eq!(
                sound[place..place + utterance.samples.len()],
                utterance.samples
            );
        }
    }

    #[test]
    fn whoever_never_pauses_is_cut_and_nothing_is_lost_or_twice_at_the_seam() {
        // A voice without the pauses it has.
        let voice: Vec<i16> = tone::caller_voice(HZ, Duration::from_secs(120), 3)
            .into_iter()
            .collect::<Vec<_>>()
            .chunks(160)
            .filter(|frame| energy(frame) > 160 * 500 * 500)
            .flatten()
            .copied()
            .collect();
        let mut sound = Vec::new();
        while sound.len() < 50 * HZ as usize {
            sound.extend(&voice);
        }
        let utterances = cut(&sound);
        assert!(utterances.len() >= 3, "{}", utterances.len());
        for pair in utterances.windows(2) {
            assert!(pair[0].end(HZ) <= pair[1].start(HZ));
        }
        let longest = utterances.iter().map(|one| one.samples.len()).max();
        assert!(longest.unwrap() <= 16 * HZ as usize, "{longest:?}");
        let held: usize = utterances.iter().map(|one| one.samples.len()).sum();
        assert!(
            held as f64 > 0.95 * sound.len() as f64,
            "{held} of {}",
            sound.len()
        );
    }

    #[test]
    fn a_long_utterance_is_cut_where_it_is_weakest() {
        let mut cutter = Cutter::new(HZ).unwrap();
        cutter.kept = vec![1000; 15 * HZ as usize];
        cutter.kept[12 * HZ as usize..][..800].fill(10);
        let weakest = cutter.weakest();
        assert!((96_000..96_800).contains(&weakest), "{weakest}");
    }
}
