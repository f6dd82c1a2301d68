//! How well bytes go as sound under a law: the bits a good compressor would need for each.
//!
//! Speech is predictable, and its codes hence compress, but only under the law it was made with:
//! under the other, or if the bytes are no G.711, each sample surprises.

use crate::g711::Law;

/// The length of the adaptive predictor.
const ORDER: usize = 8;
/// Ways of guessing the next sample that share one vote.
const GUESSES: usize = 3;
/// The share of a vote kept for the unforeseen, so that one click can't outweigh a second of speech.
const SURPRISE: f32 = 0.03;

/// Codes after which the past is worth half.
const MEMORY: usize = 3200;

/// What one law makes of the bytes so far.
#[derive(Debug, Clone)]
pub(super) struct Model {
    law: Law,
    /// The latest samples, newest first, as fractions of full scale.
    past: [f32; ORDER],
    /// Of the adaptive predictor.
    weights: [f32; ORDER],
    /// How far off each guess has been lately.
    errors: [f32; GUESSES],
    /// How much each guess is believed.
    trust: [f32; GUESSES],
    bits: f64,
    codes: usize,
}

impl Model {
    pub(super) fn new(law: Law) -> Self {
        Self {
            law,
            past: [0.0; ORDER],
            weights: [0.0; ORDER],
            errors: [0.01; GUESSES],
            trust: [1.0 / GUESSES as f32; GUESSES],
            bits: 0.0,
            codes: 0,
        }
    }

    /// The mean over all codes; 8 means that it fits no better than chance.
    pub(super) fn bits_per_code(&self) -> f64 {
        self.bits / self.codes.max(1) as f64
    }

    /// The codes that count.
    pub(super) fn codes(&self) -> usize {
        self.codes
    }

    /// Takes more codes into account. What is long past counts less and less, so that half a minute
    /// of hiss does not outvote the speech behind it.
    pub(super) fn score(&mut self, codes: &[u8]) {
        for &code in codes {
            let likelihood = self.observe(code);
            self.bits -= f64::from(likelihood.log2());
        }
        self.codes += codes.len();
        if self.codes > MEMORY {
            self.codes /= 2;
            self.bits /= 2.0;
        }
    }

    /// How likely this code was, after which it is known.
    fn observe(&mut self, code: u8) -> f32 {
        let (low, sample, high) = interval(self.law, code);
        let adaptive: f32 = self
            .weights
            .iter()
            .zip(&self.past)
            .map(|(w, x)| w * x)
            .sum();
        let guesses = [0.0, self.past[0], adaptive];

        let mut votes = [0.0; GUESSES];
        for (k, guess) in guesses.into_iter().enumerate() {
            votes[k] = laplace(guess, self.errors[k], low, high).max(1e-9);
        }
        let voted: f32 = votes.iter().zip(&self.trust).map(|(v, t)| v * t).sum();

        for k in 0..GUESSES {
            // A floor lets a guess that was bad for long come back.
            self.trust[k] = (self.trust[k] * votes[k] / voted).max(0.02);
            let error = (sample - guesses[k]).abs();
            self.errors[k] += (error - self.errors[k]) / 24.0;
        }
        let sum: f32 = self.trust.iter().sum();
        self.trust.iter_mut().for_each(|trust| *trust /= sum);
        self.adapt(sample - adaptive);
        self.past.rotate_right(1);
        self.past[0] = sample;
        (1.0 - SURPRISE) * voted + SURPRISE / 256.0
    }

    /// Normalised least mean squares.
    fn adapt(&mut self, error: f32) {
        let power: f32 = self.past.iter().map(|x| x * x).sum();
        let step = 0.06 * error / (power + 1e-7);
        for (weight, x) in self.weights.iter_mut().zip(&self.past) {
            *weight += step * x;
        }
    }
}

/// The lowest and highest sample that a code stands for, and the middle one.
fn interval(law: Law, code: u8) -> (f32, f32, f32) {
    // Codes of either law are ordered by magnitude once the line's inversion is undone.
    let flip = match law {
        Law::Ulaw => 0x7F,
        Law::Alaw => 0x55,
    };
    let rank = (code ^ flip) & 0x7F;
    let magnitude = |rank: u8| f32::from(law.decode_byte((rank ^ flip) | 0x80)) / 32_768.0;
    let middle = magnitude(rank);
    let low = match rank {
        0 => 0.0,
        _ => (magnitude(rank - 1) + middle) / 2.0,
    };
    let high = match rank {
        // What was clipped is in here, too.
        127 => f32::INFINITY,
        _ => (middle + magnitude(rank + 1)) / 2.0,
    };
    if code & 0x80 != 0 {
        (low, middle, high)
    } else {
        (-high, -middle, -low)
    }
}

/// The share of a Laplace distribution with this centre and mean deviation between two values.
fn laplace(centre: f32, deviation: f32, low: f32, high: f32) -> f32 {
    let scale = 1.0 / deviation.max(1e-4);
    let below = |x: f32| {
        let tail = 0.5 * (-(x - centre).abs() * scale).exp();
        if x < centre { tail } else { 1.0 - tail }
    };
    below(high) - below(low)
}
