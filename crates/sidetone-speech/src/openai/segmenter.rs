use std::{collections::VecDeque, ops::Range, time::Duration};

use sidetone_audio::vad::{Timing, VoiceDetector, VoiceEvent};
use tokio::time::Instant;

use crate::SpeechError;

/// What an utterance includes after its last sound: a word may fade below what counts as speech.
const POST_ROLL: Duration = Duration::from_millis(200);
/// The longest utterance, which bounds how late a transcript comes.
const MAX_UTTERANCE: Duration = Duration::from_secs(15);
/// The end of a long utterance in which the quietest window is searched.
const SPLIT_SEARCH: Duration = Duration::from_secs(5);
/// The length of that window: about the closure of a plosive.
const SPLIT_WINDOW: Duration = Duration::from_millis(60);
/// How late the detector may report the start of speech.
const MAX_DETECTION_DELAY: Duration = Duration::from_millis(200);

/// The samples of one utterance.
#[derive(Debug)]
pub(super) struct Utterance {
    /// The index of the first sample among all that were pushed.
    first: usize,
    pub(super) samples: Vec<i16>,
    /// Where the speech in it starts and ends, without the samples before and after it.
    speech: Range<usize>,
    /// When it ended.
    pub(super) ended: Instant,
}

impl Utterance {
    /// Where it starts in the audio pushed.
    pub(super) fn start(&self, hz: u32) -> Duration {
        duration(self.first, hz)
    }

    /// Where it ends.
    pub(super) fn end(&self, hz: u32) -> Duration {
        duration(self.first + self.samples.len(), hz)
    }

    /// Where the speech starts.
    pub(super) fn speech_start(&self, hz: u32) -> Duration {
        duration(self.speech.start, hz)
    }

    /// Where the speech ends.
    pub(super) fn speech_end(&self, hz: u32) -> Duration {
        duration(self.speech.end, hz)
    }
}

/// Splits audio into utterances.
pub(super) struct Segmenter {
    hz: u32,
    detector: VoiceDetector,
    timing: Timing,
    /// The latest samples: those of the current utterance, else enough for the start of one.
    buffer: Vec<i16>,
    /// The index of the first of them.
    buffer_start: usize,
    /// Where the current utterance starts.
    utterance_start: Option<usize>,
    /// Where its speech starts, a little later.
    speech_start: usize,
    /// Where the last utterance ended.
    last_end: usize,
}

impl Segmenter {
    pub(super) fn new(hz: u32) -> Result<Self, SpeechError> {
        let timing = Timing::default();
        let detector = VoiceDetector::with_timing(hz, timing)
            .map_err(|error| SpeechError::Settings(error.to_string()))?;
        Ok(Self {
            hz,
            detector,
            timing,
            buffer: Vec::new(),
            buffer_start: 0,
            utterance_start: None,
            speech_start: 0,
            last_end: 0,
        })
    }

    /// Takes the next samples, and adds the utterances that end in them to `finished`.
    pub(super) fn push(&mut self, samples: &[i16], finished: &mut VecDeque<Utterance>) {
        self.buffer.extend_from_slice(samples);
        let events: Vec<VoiceEvent> = self.detector.push(samples).collect();
        for event in events {
            match event {
                VoiceEvent::SpeechStarted { at } => {
                    let start = self.samples_in(at.saturating_sub(self.timing.pre_roll));
                    let start = start.max(self.last_end).max(self.buffer_start);
                    self.utterance_start = Some(start);
                    self.speech_start = self.samples_in(at).max(start);
                }
                VoiceEvent::SpeechEnded { at } => {
                    finished.extend(
                        self.end_utterance(self.samples_in(at + POST_ROLL), self.samples_in(at)),
                    );
                    self.utterance_start = None;
                }
            }
        }
        match self.utterance_start {
            Some(start) if self.buffer_end() - start >= self.samples_in(MAX_UTTERANCE) => {
                let quietest = self.quietest();
                finished.extend(self.end_utterance(quietest, quietest));
                (self.utterance_start, self.speech_start) = (Some(self.last_end), self.last_end);
            }
            Some(_) => {}
            None => self.trim(),
        }
    }

    /// Ends the audio and the current utterance.
    pub(super) fn finish(&mut self, finished: &mut VecDeque<Utterance>) {
        finished.extend(self.end_utterance(self.buffer_end(), self.buffer_end()));
        self.utterance_start = None;
    }

    /// All speech before this is in finished utterances.
    pub(super) fn completed_until(&self) -> Duration {
        duration(self.utterance_start.unwrap_or(self.buffer_start), self.hz)
    }

    /// Takes the current utterance up to `end`. Its speech ends at `silence`.
    fn end_utterance(&mut self, end: usize, silence: usize) -> Option<Utterance> {
        let first = self.utterance_start?;
        self.last_end = end.clamp(first, self.buffer_end());
        let samples =
            self.buffer[first - self.buffer_start..self.last_end - self.buffer_start].to_vec();
        self.buffer.drain(..self.last_end - self.buffer_start);
        self.buffer_start = self.last_end;
        let speech = self.speech_start
            ..silence.clamp(self.speech_start, self.last_end.max(self.speech_start));
        (!samples.is_empty()).then_some(Utterance {
            first,
            samples,
            speech,
            ended: Instant::now(),
        })
    }

    /// The middle of the quietest window near the end of the buffer.
    fn quietest(&self) -> usize {
        let window = self.samples_in(SPLIT_WINDOW).max(1);
        let search = self.samples_in(SPLIT_SEARCH).min(self.buffer.len());
        let from = self.buffer.len() - search;
        let windows = self.buffer[from..].chunks_exact(window).enumerate();
        let quietest = windows.min_by_key(|(_, samples)| energy(samples));
        let index = quietest.map_or(0, |(index, _)| index);
        self.buffer_start + from + index * window + window / 2
    }

    fn trim(&mut self) {
        let keep = self.samples_in(self.timing.pre_roll + self.timing.onset + MAX_DETECTION_DELAY);
        let old = self.buffer.len().saturating_sub(keep);
        self.buffer.drain(..old);
        self.buffer_start += old;
    }

    /// The index after the last sample.
    fn buffer_end(&self) -> usize {
        self.buffer_start + self.buffer.len()
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
    // Rounded so that the inverse gives the same sample. `u64` holds four days at 48 kHz.
    Duration::from_nanos((samples as u64 * 1_000_000_000).div_ceil(u64::from(hz)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sidetone_audio::tone;

    use super::*;

    const HZ: u32 = 8000;

    fn split(sound: &[i16]) -> Vec<Utterance> {
        let mut segmenter = Segmenter::new(HZ).unwrap();
        let mut finished = VecDeque::new();
        for chunk in sound.chunks(320) {
            segmenter.push(chunk, &mut finished);
        }
        segmenter.finish(&mut finished);
        finished.into()
    }

    fn silence(milliseconds: usize) -> Vec<i16> {
        vec![0; milliseconds * 8]
    }

    #[test]
    fn silence_is_not_an_utterance_and_takes_no_memory() {
        let mut segmenter = Segmenter::new(HZ).unwrap();
        let mut finished = VecDeque::new();
        for _ in 0..3000 {
            segmenter.push(&silence(40), &mut finished);
        }
        segmenter.finish(&mut finished);
        assert!(finished.is_empty());
        assert!(segmenter.buffer.len() < 8000, "{}", segmenter.buffer.len());
        assert!(segmenter.completed_until() > Duration::from_secs(119));
    }

    #[test]
    fn an_utterance_holds_all_of_its_sound_and_its_preroll() {
        let voice = tone::caller_voice(HZ, Duration::from_secs(2), 7);
        let sound = [silence(1000), voice.clone(), silence(1000)].concat();
        let utterances = split(&sound);
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
    fn speech_without_a_pause_is_split_and_nothing_is_lost_or_repeated() {
        // A voice with its pauses cut out.
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
        let utterances = split(&sound);
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
    fn a_long_utterance_is_split_where_it_is_quietest() {
        let mut segmenter = Segmenter::new(HZ).unwrap();
        segmenter.buffer = vec![1000; 15 * HZ as usize];
        segmenter.buffer[12 * HZ as usize..][..800].fill(10);
        let quietest = segmenter.quietest();
        assert!((96_000..96_800).contains(&quietest), "{quietest}");
    }
}
