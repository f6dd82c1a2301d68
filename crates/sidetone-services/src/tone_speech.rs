use std::{f32::consts::TAU, time::Duration};

/// How long a letter sounds.
const LETTER: Duration = Duration::from_millis(40);
/// The gap between the words of an utterance.
const WORD_GAP: Duration = Duration::from_millis(80);
/// The pause after an utterance.
const PAUSE: Duration = Duration::from_millis(700);
/// This much silence ends a word.
const WORD_END: Duration = Duration::from_millis(15);
/// This much silence ends an utterance.
const UTTERANCE_END: Duration = Duration::from_millis(500);
/// A longer sound is not a word.
const MAX_WORD: Duration = Duration::from_secs(2);

/// A letter is one low and one high tone, none a multiple of another, all within the telephone
/// band.
const LOW: [f32; 6] = [350.0, 450.0, 560.0, 690.0, 830.0, 1000.0];
const HIGH: [f32; 6] = [1250.0, 1510.0, 1810.0, 2150.0, 2570.0, 3010.0];
const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// Takes the place of a damaged letter.
const DAMAGED: char = '?';
/// The amplitude of one tone.
const AMPLITUDE: f32 = 6000.0;
/// A louder sample belongs to a word.
const LOUD_ABOVE: u16 = 1000;
/// How long a letter fades in and out, to avoid clicks.
const FADE: Duration = Duration::from_millis(2);

/// Synthesizes words that a [`ToneDecoder`] decodes, and a pause of 700 ms after them. Words
/// consist of `a` to `z` and digits.
///
/// Every letter is a pair of tones, so a word that was cut, partly repeated or joined with another
/// decodes as a different one. The tones survive resampling and G.711, and a voice detector takes
/// them for speech.
///
/// # Panics
///
/// If a word has another character.
///
/// ```
/// use std::time::Duration;
/// use sidetone_services::{ToneDecoder, Recognized, Word, synthesize};
///
/// let mut decoder = ToneDecoder::new(8000);
/// let results = decoder.push(&synthesize(&["good", "morning"], 8000));
/// let Some(Recognized::Final(words)) = results.last() else { panic!() };
/// assert_eq!(words[1].text, "morning");
/// assert_eq!(words[1].start.as_millis(), 240);
/// ```
pub fn synthesize(words: &[&str], hz: u32) -> Vec<i16> {
    let mut samples = Vec::new();
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            samples.resize(samples.len() + samples_in(WORD_GAP, hz), 0);
        }
        for letter in word.bytes() {
            let code = LETTERS.iter().position(|it| *it == letter);
            let code = code.unwrap_or_else(|| panic!("{word:?} has a character that has no tones"));
            let tones = [LOW[code / 6], HIGH[code % 6]];
            sound(tones, hz, &mut samples);
        }
    }
    samples.resize(samples.len() + samples_in(PAUSE, hz), 0);
    samples
}

/// The words of [`synthesize`] with their times, where the first sample is at `start`.
pub fn word_times(words: &[&str], start: Duration) -> Vec<Word> {
    let mut start = start;
    words
        .iter()
        .map(|text| {
            let end = start + LETTER * text.len() as u32;
            let word = Word {
                text: (*text).into(),
                start,
                end,
            };
            start = end + WORD_GAP;
            word
        })
        .collect()
}

fn sound(tones: [f32; 2], hz: u32, samples: &mut Vec<i16>) {
    let (length, fade) = (samples_in(LETTER, hz), samples_in(FADE, hz));
    samples.extend((0..length).map(|index| {
        let time = index as f32 / hz as f32;
        let edge = index.min(length - 1 - index) + 1;
        let envelope = (edge as f32 / fade as f32).min(1.0);
        let wave: f32 = tones.iter().map(|tone| (TAU * tone * time).cos()).sum();
        (AMPLITUDE * envelope * wave) as i16
    }));
}

/// A decoded word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its letters, with `?` for a damaged one.
    pub text: String,
    /// Where it starts, from the first sample pushed.
    pub start: Duration,
    /// Where it ends.
    pub end: Duration,
}

/// A result of a [`ToneDecoder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recognized {
    /// The words of the current utterance, after each new word.
    Interim(Vec<Word>),
    /// The words of an utterance that has ended.
    Final(Vec<Word>),
}

/// The words with spaces between them.
pub fn text(words: &[Word]) -> String {
    let words: Vec<&str> = words.iter().map(|it| it.text.as_str()).collect();
    words.join(" ")
}

/// Decodes words of [`synthesize`] exactly, so that a test can tell what was lost or repeated.
#[derive(Debug)]
pub struct ToneDecoder {
    hz: u32,
    /// Samples pushed.
    pushed: usize,
    /// The sound of the current word, with the silence after it.
    sound: Vec<i16>,
    /// Silent samples since the last loud one.
    quiet: usize,
    words: Vec<Word>,
}

impl ToneDecoder {
    /// A decoder for samples at this rate, at least 8000 Hz.
    pub fn new(hz: u32) -> Self {
        Self {
            hz,
            pushed: 0,
            sound: Vec::new(),
            quiet: 0,
            words: Vec::new(),
        }
    }

    /// Takes the next samples and returns the results they complete.
    pub fn push(&mut self, samples: &[i16]) -> Vec<Recognized> {
        let mut results = Vec::new();
        for sample in samples {
            self.pushed += 1;
            let loud = sample.unsigned_abs() > LOUD_ABOVE;
            self.quiet = if loud { 0 } else { self.quiet + 1 };
            if loud || !self.sound.is_empty() {
                self.sound.push(*sample);
            }
            let word_ends = self.quiet >= samples_in(WORD_END, self.hz)
                || self.sound.len() >= samples_in(MAX_WORD, self.hz);
            if word_ends && !self.sound.is_empty() {
                self.end_word();
                results.push(Recognized::Interim(self.words.clone()));
            }
            if self.quiet >= samples_in(UTTERANCE_END, self.hz) && !self.words.is_empty() {
                results.push(Recognized::Final(std::mem::take(&mut self.words)));
            }
        }
        results
    }

    /// Ends the current utterance and returns its words.
    pub fn finish(&mut self) -> Option<Vec<Word>> {
        if !self.sound.is_empty() {
            self.end_word();
        }
        (!self.words.is_empty()).then(|| std::mem::take(&mut self.words))
    }

    /// How much audio was pushed.
    pub fn position(&self) -> Duration {
        self.time(self.pushed)
    }

    fn end_word(&mut self) {
        let sound = std::mem::take(&mut self.sound);
        let start = self.pushed - sound.len();
        let length = sound.len() - self.quiet;
        self.words.push(Word {
            text: letters(&sound[..length], self.hz),
            start: self.time(start),
            end: self.time(start + length),
        });
    }

    fn time(&self, samples: usize) -> Duration {
        Duration::from_micros(samples as u64 * 1_000_000 / u64::from(self.hz))
    }
}

fn letters(sound: &[i16], hz: u32) -> String {
    let letter = samples_in(LETTER, hz);
    // Leaves out the fades, and the error of the onset.
    let margin = samples_in(FADE * 3, hz);
    let count = (sound.len() + letter / 2) / letter;
    let mut letters: String = (0..count)
        .map(|index| {
            let end = (index + 1) * letter - margin;
            let middle = sound.get(index * letter + margin..end);
            middle.and_then(|it| decode(it, hz)).unwrap_or(DAMAGED)
        })
        .collect();
    if sound.len().abs_diff(count * letter) > samples_in(FADE * 3, hz) {
        letters.push(DAMAGED);
    }
    letters
}

fn decode(sound: &[i16], hz: u32) -> Option<char> {
    let low = strongest(&LOW, sound, hz)?;
    let high = strongest(&HIGH, sound, hz)?;
    Some(char::from(LETTERS[low * 6 + high]))
}

/// The tone that is much stronger than the others.
fn strongest(tones: &[f32], sound: &[i16], hz: u32) -> Option<usize> {
    let mut powers: Vec<(f32, usize)> = tones
        .iter()
        .enumerate()
        .map(|(index, tone)| (power(*tone, sound, hz), index))
        .collect();
    powers.sort_by(|a, b| b.0.total_cmp(&a.0));
    (powers[0].0 > 9.0 * powers[1].0).then_some(powers[0].1)
}

fn power(tone: f32, sound: &[i16], hz: u32) -> f32 {
    let (mut real, mut imaginary) = (0.0, 0.0);
    let length = sound.len() as f32;
    for (index, sample) in sound.iter().enumerate() {
        // A window, since adjacent tones would leak into this one otherwise.
        let window = 0.5 - 0.5 * (TAU * (index as f32 + 0.5) / length).cos();
        let (sin, cos) = (TAU * tone * index as f32 / hz as f32).sin_cos();
        real += window * cos * f32::from(*sample);
        imaginary += window * sin * f32::from(*sample);
    }
    real * real + imaginary * imaginary
}

fn samples_in(duration: Duration, hz: u32) -> usize {
    (duration.as_micros() * u128::from(hz) / 1_000_000) as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sidetone_audio::{
        g711::Law,
        resample::resample_clip,
        vad::{VoiceDetector, VoiceEvent},
    };

    use super::*;

    const WORDS: [&str; 5] = ["quick", "brown0123", "fox", "jumps456", "lazydogz789"];

    fn finals(decoder: &mut ToneDecoder, samples: &[i16]) -> Vec<Word> {
        let results = decoder.push(samples).into_iter();
        results
            .filter_map(|it| match it {
                Recognized::Final(words) => Some(words),
                Recognized::Interim(_) => None,
            })
            .flatten()
            .collect()
    }

    fn assert_close(decoded: &[Word], expected: &[Word]) {
        assert_eq!(text(decoded), text(expected));
        for (decoded, expected) in decoded.iter().zip(expected) {
            for (a, b) in [(decoded.start, expected.start), (decoded.end, expected.end)] {
                assert!(
                    a.abs_diff(b) < Duration::from_millis(4),
                    "{decoded:?} {expected:?}"
                );
            }
        }
    }

    #[test]
    fn every_letter_decodes_at_every_rate() {
        for hz in [8000, 16_000, 24_000, 48_000] {
            let decoded = finals(&mut ToneDecoder::new(hz), &synthesize(&WORDS, hz));
            assert_close(&decoded, &word_times(&WORDS, Duration::ZERO));
        }
    }

    #[test]
    fn g711_changes_no_letter() {
        for law in [Law::Ulaw, Law::Alaw] {
            let (mut codes, mut samples) = (Vec::new(), Vec::new());
            law.encode(&synthesize(&WORDS, 8000), &mut codes);
            law.decode(&codes, &mut samples);
            let decoded = finals(&mut ToneDecoder::new(8000), &samples);
            assert_close(&decoded, &word_times(&WORDS, Duration::ZERO));
        }
    }

    #[test]
    fn resampling_changes_no_letter() {
        for (from, to) in [(16_000, 8000), (8000, 16_000), (8000, 24_000)] {
            let samples = resample_clip(&synthesize(&WORDS, from), from, to).unwrap();
            let decoded = finals(&mut ToneDecoder::new(to), &samples);
            assert_close(&decoded, &word_times(&WORDS, Duration::ZERO));
        }
    }

    #[test]
    fn a_voice_detector_takes_it_for_speech() {
        let mut samples = vec![0; 8000];
        samples.extend(synthesize(&WORDS, 8000));
        let mut vad = VoiceDetector::new(8000).unwrap();
        let events: Vec<VoiceEvent> = vad.push(&samples).collect();
        let [
            VoiceEvent::SpeechStarted { at },
            VoiceEvent::SpeechEnded { .. },
        ] = events[..]
        else {
            panic!("{events:?}");
        };
        let onset = Duration::from_secs(1);
        assert!(at.abs_diff(onset) < Duration::from_millis(100), "{at:?}");
    }

    #[test]
    fn each_word_gives_an_interim_result_and_a_pause_a_final_one() {
        let samples = synthesize(&WORDS, 8000);
        let mut decoder = ToneDecoder::new(8000);
        let results: Vec<Recognized> = samples
            .chunks(160)
            .flat_map(|it| decoder.push(it))
            .collect();
        let texts: Vec<String> = results
            .iter()
            .map(|it| match it {
                Recognized::Interim(words) => text(words),
                Recognized::Final(words) => format!("{}.", text(words)),
            })
            .collect();
        let mut expected: Vec<String> = (1..=5).map(|count| WORDS[..count].join(" ")).collect();
        expected.push(format!("{}.", WORDS.join(" ")));
        assert_eq!(texts, expected);
        assert_eq!(decoder.finish(), None);
    }

    #[test]
    fn a_damaged_word_decodes_as_another() {
        let samples = synthesize(&["jumps456"], 8000);
        for cut in [80, 160, 320, 400, 1000] {
            for at in (0..2560 - cut).step_by(40) {
                let missing = [&samples[..at], &samples[at + cut..]].concat();
                let twice = [&samples[..at + cut], &samples[at..]].concat();
                for damaged in [missing, twice] {
                    let decoded = finals(&mut ToneDecoder::new(8000), &damaged);
                    assert_ne!(text(&decoded), "jumps456", "{cut} samples at {at}");
                }
            }
        }
    }
}
