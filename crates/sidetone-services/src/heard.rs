use std::{f32::consts::TAU, time::Duration};

/// How long a letter sounds.
const LETTER: Duration = Duration::from_millis(40);
/// Between the words of one utterance.
const GAP: Duration = Duration::from_millis(80);
/// After an utterance.
const PAUSE: Duration = Duration::from_millis(700);
/// So much silence ends a word.
const WORD_END: Duration = Duration::from_millis(15);
/// So much silence ends an utterance.
const UTTERANCE_END: Duration = Duration::from_millis(500);
/// Nothing that sounds for longer is a word.
const LONGEST_WORD: Duration = Duration::from_secs(2);

/// A letter is one low and one high tone, none a multiple of another, all within the telephone's band.
const LOW: [f32; 6] = [350.0, 450.0, 560.0, 690.0, 830.0, 1000.0];
const HIGH: [f32; 6] = [1250.0, 1510.0, 1810.0, 2150.0, 2570.0, 3010.0];
const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// What takes the place of a letter that was damaged.
const DAMAGED: char = '?';
/// Of one tone.
const AMPLITUDE: f32 = 6000.0;
/// A sample that is louder belongs to a word.
const LOUD: u16 = 1000;
/// Clicks are not part of the language.
const FADE: Duration = Duration::from_millis(2);

/// Says words so that an [`Ear`] understands them, and a pause of 700 ms after them.
///
/// Every letter is a pair of tones, so a word that was cut, repeated in part or joined with another one is
/// heard as a different one. It survives resampling and G.711, and a voice detector takes it for speech. Words are of `a` to `z` and digits.
///
/// ```
/// use std::time::Duration;
/// use sidetone_services::{Ear, Heard, Word, speak};
///
/// let mut ear = Ear::new(8000);
/// let heard = ear.hear(&speak(&["good", "morning"], 8000));
/// let Some(Heard::Final(words)) = heard.last() else { panic!() };
/// assert_eq!(words[1].text, "morning");
/// assert_eq!(words[1].start.as_millis(), 240);
/// ```
pub fn speak(words: &[&str], hz: u32) -> Vec<i16> {
    let mut samples = Vec::new();
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            samples.resize(samples.len() + samples_in(GAP, hz), 0);
        }
        for letter in word.bytes() {
            let code = LETTERS.iter().position(|it| *it == letter);
            let code = code.unwrap_or_else(|| panic!("{word:?} can't be said"));
            let tones = [LOW[code / 6], HIGH[code % 6]];
            sound(tones, hz, &mut samples);
        }
    }
    samples.resize(samples.len() + samples_in(PAUSE, hz), 0);
    samples
}

/// The words of [`speak`] with their times, if its first sample is at `start`.
pub fn spoken(words: &[&str], start: Duration) -> Vec<Word> {
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
            start = end + GAP;
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

/// A word that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its letters; `?` stands for one that was damaged.
    pub text: String,
    /// Where it begins, from the first sample heard.
    pub start: Duration,
    /// Where it ends.
    pub end: Duration,
}

/// What an [`Ear`] has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The words of an utterance that still goes on, each time one has been added.
    Interim(Vec<Word>),
    /// The words of an utterance that is over.
    Final(Vec<Word>),
}

/// The words with spaces between them.
pub fn text(words: &[Word]) -> String {
    let words: Vec<&str> = words.iter().map(|it| it.text.as_str()).collect();
    words.join(" ")
}

/// A recognizer for words that [`speak`] says: exact, so that a test can tell what was lost or came twice.
#[derive(Debug)]
pub struct Ear {
    hz: u32,
    /// Samples heard.
    heard: usize,
    /// The sound of the word that goes on, with the silence after it.
    sound: Vec<i16>,
    /// Samples of silence since the last loud one.
    quiet: usize,
    words: Vec<Word>,
}

impl Ear {
    /// For samples at this rate, at least 8000 Hz.
    pub fn new(hz: u32) -> Self {
        Self {
            hz,
            heard: 0,
            sound: Vec::new(),
            quiet: 0,
            words: Vec::new(),
        }
    }

    /// Listens to the next samples.
    pub fn hear(&mut self, samples: &[i16]) -> Vec<Heard> {
        let mut said = Vec::new();
        for sample in samples {
            self.heard += 1;
            let loud = sample.unsigned_abs() > LOUD;
            self.quiet = if loud { 0 } else { self.quiet + 1 };
            if loud || !self.sound.is_empty() {
                self.sound.push(*sample);
            }
            let word_ends = self.quiet >= samples_in(WORD_END, self.hz)
                || self.sound.len() >= samples_in(LONGEST_WORD, self.hz);
            if word_ends && !self.sound.is_empty() {
                self.end_word();
                said.push(Heard::Interim(self.words.clone()));
            }
            if self.quiet >= samples_in(UTTERANCE_END, self.hz) && !self.words.is_empty() {
                said.push(Heard::Final(std::mem::take(&mut self.words)));
            }
        }
        said
    }

    /// Ends the utterance that goes on, as it is.
    pub fn end(&mut self) -> Option<Vec<Word>> {
        if !self.sound.is_empty() {
            self.end_word();
        }
        (!self.words.is_empty()).then(|| std::mem::take(&mut self.words))
    }

    /// How much was heard.
    pub fn heard(&self) -> Duration {
        self.time(self.heard)
    }

    fn end_word(&mut self) {
        let sound = std::mem::take(&mut self.sound);
        let start = self.heard - sound.len();
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
    // Its neighbours' fades are left out, and what the onset may be off by.
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

/// The tone that is much stronger than the other ones.
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
        // A window, as the tones next to it would leak into this one otherwise.
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

    fn finals(ear: &mut Ear, samples: &[i16]) -> Vec<Word> {
        let said = ear.hear(samples).into_iter();
        said.filter_map(|it| match it {
            Heard::Final(words) => Some(words),
            Heard::Interim(_) => None,
        })
        .flatten()
        .collect()
    }

    fn assert_close(heard: &[Word], spoken: &[Word]) {
        assert_eq!(text(heard), text(spoken));
        for (heard, spoken) in heard.iter().zip(spoken) {
            for (a, b) in [(heard.start, spoken.start), (heard.end, spoken.end)] {
                assert!(
                    a.abs_diff(b) < Duration::from_millis(4),
                    "{heard:?} {spoken:?}"
                );
            }
        }
    }

    #[test]
    fn every_letter_is_understood_at_every_rate() {
        for hz in [8000, 16_000, 24_000, 48_000] {
            let heard = finals(&mut Ear::new(hz), &speak(&WORDS, hz));
            assert_close(&heard, &spoken(&WORDS, Duration::ZERO));
        }
    }

    #[test]
    fn g711_does_not_matter() {
        for law in [Law::Ulaw, Law::Alaw] {
            let (mut codes, mut samples) = (Vec::new(), Vec::new());
            law.encode(&speak(&WORDS, 8000), &mut codes);
            law.decode(&codes, &mut samples);
            let heard = finals(&mut Ear::new(8000), &samples);
            assert_close(&heard, &spoken(&WORDS, Duration::ZERO));
        }
    }

    #[test]
    fn resampling_does_not_matter() {
        for (from, to) in [(16_000, 8000), (8000, 16_000), (8000, 24_000)] {
            let samples = resample_clip(&speak(&WORDS, from), from, to).unwrap();
            let heard = finals(&mut Ear::new(to), &samples);
            assert_close(&heard, &spoken(&WORDS, Duration::ZERO));
        }
    }

    #[test]
    fn a_voice_detector_takes_it_for_speech() {
        let mut samples = vec![0; 8000];
        samples.extend(speak(&WORDS, 8000));
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
    fn interim_words_come_one_by_one_and_a_pause_makes_them_final() {
        let samples = speak(&WORDS, 8000);
        let mut ear = Ear::new(8000);
        let said: Vec<Heard> = samples.chunks(160).flat_map(|it| ear.hear(it)).collect();
        let texts: Vec<String> = said
            .iter()
            .map(|it| match it {
                Heard::Interim(words) => text(words),
                Heard::Final(words) => format!("{}.", text(words)),
            })
            .collect();
        let mut expected: Vec<String> = (1..=5).map(|count| WORDS[..count].join(" ")).collect();
        expected.push(format!("{}.", WORDS.join(" ")));
        assert_eq!(texts, expected);
        assert_eq!(ear.end(), None);
    }

    #[test]
    fn a_word_with_a_piece_missing_twice_or_moved_is_another_one() {
        let samples = speak(&["jumps456"], 8000);
        for cut in [80, 160, 320, 400, 1000] {
            for at in (0..2560 - cut).step_by(40) {
                let missing = [&samples[..at], &samples[at + cut..]].concat();
                let twice = [&samples[..at + cut], &samples[at..]].concat();
                for damaged in [missing, twice] {
                    let heard = finals(&mut Ear::new(8000), &damaged);
                    assert_ne!(text(&heard), "jumps456", "{cut} samples at {at}");
                }
            }
        }
    }
}
