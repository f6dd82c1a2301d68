//! The demonstration's sounds: a chime, and a voice. They are computed, so that nobody's voice or
//! melody ships with the project, and always the same.

use std::f64::consts::TAU;
use std::time::Duration;

/// A melody of five struck notes at a rate in Hz: 1.8 s, within 300–3400 Hz.
///
/// No note occurs twice and each one bends, so that the melody correlates with itself in one place
/// only. That is how a test finds it in a recording.
pub fn greeting(rate: u32) -> Vec<i16> {
    // The time of each note in seconds, its pitch in Hz, and its bend per second.
    const NOTES: [(f64, f64, f64); 5] = [
        (0.00, 554.4, 0.12),
        (0.21, 440.0, -0.14),
        (0.47, 659.3, 0.10),
        (0.70, 493.9, -0.16),
        (1.02, 880.0, 0.08),
    ];
    const SECONDS: f64 = 1.8;
    let mut sound = vec![0.0; samples_in(rate, SECONDS)];
    for (start, pitch, bend) in NOTES {
        let first = samples_in(rate, start);
        for (n, sample) in sound[first..].iter_mut().enumerate() {
            let time = n as f64 / f64::from(rate);
            let edge = raised_cosine(time / 0.008) * raised_cosine((SECONDS - start - time) / 0.1);
            let bent = time + bend / 2.0 * time * time;
            let partial =
                |hertz: f64, decay: f64| (TAU * hertz * bent).sin() * (-decay * time).exp();
            // The higher a chime's partials are, the sooner they decay.
            let chime = partial(pitch, 3.0)
                + 0.4 * partial(2.0 * pitch, 6.0)
                + 0.2 * partial(2.76 * pitch, 10.0);
            *sample += 7000.0 * edge * chime;
        }
    }
    to_samples(sound)
}

/// A sound like speech: voiced syllables and hisses in phrases with pauses between them, about −20
/// dBFS during speech.
///
/// The same seed gives the same speech, at any rate in Hz.
pub fn caller_voice(rate: u32, length: Duration, seed: u64) -> Vec<i16> {
    let mut random = Random(seed);
    let len = samples_in(rate, length.as_secs_f64());
    let mut sound = Vec::with_capacity(len);
    let speaker = 95.0 + 110.0 * random.next();
    while sound.len() < len {
        let syllables = 2 + (random.next() * 5.0) as usize;
        for syllable in 0..syllables {
            if random.next() < 0.4 {
                hiss(rate, &mut random, &mut sound);
            }
            // The voice falls towards the end of a phrase.
            let fall = 1.15 - 0.3 * syllable as f64 / syllables as f64;
            vowel(rate, speaker * fall, &mut random, &mut sound);
        }
        let pause = 0.12 + 0.45 * random.next();
        sound.resize(sound.len() + samples_in(rate, pause), 0.0);
    }
    sound.truncate(len);
    to_samples(sound)
}

/// The upper edge of the telephone band.
const HIGHEST: f64 = 3400.0;

/// One voiced syllable: harmonics of the voice, weighted by formants that glide between two vowels.
fn vowel(rate: u32, pitch: f64, random: &mut Random, sound: &mut Vec<f64>) {
    const FORMANTS: [[f64; 3]; 6] = [
        [730.0, 1090.0, 2440.0],
        [530.0, 1840.0, 2480.0],
        [270.0, 2290.0, 3010.0],
        [570.0, 840.0, 2410.0],
        [300.0, 870.0, 2240.0],
        [490.0, 1350.0, 1690.0],
    ];
    let from = FORMANTS[(random.next() * 6.0) as usize];
    let to = FORMANTS[(random.next() * 6.0) as usize];
    let seconds = 0.11 + 0.16 * random.next();
    let loudness = 2500.0 + 3000.0 * random.next();
    let bend = 0.25 * (random.next() - 0.5);
    let count = (HIGHEST / (pitch * 1.2)) as usize;

    let len = samples_in(rate, seconds);
    let block = samples_in(rate, 0.005).max(1);
    let mut weights = vec![0.0; count];
    let mut phase = 0.0;
    for n in 0..len {
        let done = n as f64 / len as f64;
        let now = pitch * (1.0 + bend * done);
        if n % block == 0 {
            let formants = [0, 1, 2].map(|k| from[k] + done * (to[k] - from[k]));
            for (harmonic, weight) in weights.iter_mut().enumerate() {
                *weight = resonance((harmonic + 1) as f64 * now, formants);
            }
        }
        let voiced = (1..).zip(&weights).map(|(harmonic, weight)| {
            // Scattered phases, as those of a real voice. Otherwise each period would be one sharp
            // click.
            let scatter = f64::from(harmonic * harmonic) * 0.37;
            weight * (TAU * (phase * f64::from(harmonic) + scatter)).sin()
        });
        sound.push(loudness * swell(done, seconds) * voiced.sum::<f64>());
        phase += now / f64::from(rate);
    }
}

/// The gain of these formants at a frequency.
fn resonance(hertz: f64, formants: [f64; 3]) -> f64 {
    let peaks = (0..).zip(formants).map(|(k, formant)| {
        let distance = (hertz - formant) / (60.0 + 30.0 * f64::from(k));
        0.5f64.powi(k) / (1.0 + distance * distance)
    });
    peaks.sum::<f64>() + 0.02
}

/// One unvoiced consonant: noise around 2.5 kHz, made of many short tones.
fn hiss(rate: u32, random: &mut Random, sound: &mut Vec<f64>) {
    let seconds = 0.04 + 0.08 * random.next();
    let tones: [(f64, f64); 24] = std::array::from_fn(|_| {
        let hertz = 1600.0 + (HIGHEST - 1600.0) * random.next();
        (hertz, random.next())
    });
    let len = samples_in(rate, seconds);
    sound.extend((0..len).map(|n| {
        let time = n as f64 / f64::from(rate);
        let noise = tones
            .iter()
            .map(|(hertz, phase)| (TAU * (hertz * time + phase)).sin());
        220.0 * swell(n as f64 / len as f64, seconds) * noise.sum::<f64>()
    }));
}

/// Fades in and out over 25 ms.
fn swell(done: f64, seconds: f64) -> f64 {
    raised_cosine(done.min(1.0 - done) * seconds / 0.025)
}

/// A smooth step from 0 to 1, and 1 from there on.
fn raised_cosine(x: f64) -> f64 {
    (1.0 - (x.clamp(0.0, 1.0) * TAU / 2.0).cos()) / 2.0
}

fn samples_in(rate: u32, seconds: f64) -> usize {
    (f64::from(rate) * seconds).round() as usize
}

fn to_samples(sound: Vec<f64>) -> Vec<i16> {
    sound
        .into_iter()
        .map(|sample| sample.round() as i16)
        .collect()
}

/// SplitMix64, scaled to 0..1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}
