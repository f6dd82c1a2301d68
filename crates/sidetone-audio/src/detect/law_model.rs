//! How well bytes fit a law: the bits per code that a good compressor would need.
//!
//! Speech is predictable, so its codes compress, but only under the law they were made with. Under
//! the other law, or if the bytes are not G.711, no sample is predictable.

use crate::g711::Law;

/// The length of the adaptive predictor.
const ORDER: usize = 8;
/// The predictions that are averaged: zero, the last sample, and that of the adaptive predictor.
/// The fourth place is unused: four numbers are computed as fast as three.
const PREDICTIONS: usize = 4;
/// One number for each prediction.
type Each = [f32; PREDICTIONS];
/// The initial weights.
const EQUAL: Each = [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0];
/// The lowest weights, so that a prediction that was bad for long can recover.
const FLOOR: Each = [0.02, 0.02, 0.02, 0.0];
/// The share reserved for any code at all, so that one click can't outweigh a second of speech.
const SURPRISE: f32 = 0.03;

/// Codes after which the past counts half.
const MEMORY: usize = 3200;

/// Codes that share one logarithm: the product of so many likelihoods is still a normal number,
/// however small each one is.
const BLOCK: usize = 40;

/// The model of one law, adapted to the bytes so far.
#[derive(Debug, Clone)]
pub(super) struct Model {
    intervals: &'static [Interval; 256],
    /// The latest samples, newest last, as fractions of full scale.
    past: [f32; ORDER],
    /// Of the adaptive predictor.
    weights: [f32; ORDER],
    /// The recent error of each prediction.
    errors: Each,
    /// The weight of each prediction.
    mixture: Each,
    bits: f64,
    codes: usize,
}

impl Model {
    pub(super) fn new(law: Law) -> Self {
        Self {
            intervals: match law {
                Law::Ulaw => &ULAW,
                Law::Alaw => &ALAW,
            },
            past: [0.0; ORDER],
            weights: [0.0; ORDER],
            errors: [0.01; PREDICTIONS],
            mixture: EQUAL,
            bits: 0.0,
            codes: 0,
        }
    }

    /// The mean over all codes. 8 means no better than chance.
    pub(super) fn bits_per_code(&self) -> f64 {
        self.bits / self.codes.max(1) as f64
    }

    /// How many codes were scored.
    pub(super) fn codes(&self) -> usize {
        self.codes
    }

    /// Scores more codes. Older ones count less and less, so that half a minute of hiss does not
    /// outvote the speech after it.
    pub(super) fn score(&mut self, codes: &[u8]) {
        for block in codes.chunks(BLOCK) {
            self.bits -= self.likelihood(block).log2();
        }
        self.codes += codes.len();
        if self.codes > MEMORY {
            self.codes /= 2;
            self.bits /= 2.0;
        }
    }

    /// The likelihood of these codes in this order. Adapts to them.
    fn likelihood(&mut self, block: &[u8]) -> f64 {
        let mut line = [0.0; ORDER + BLOCK];
        line[..ORDER].copy_from_slice(&self.past);
        for (sample, code) in line[ORDER..].iter_mut().zip(block) {
            *sample = self.intervals[usize::from(*code)].middle;
        }
        let mut all = 1.0;
        for (code, past) in block.iter().zip(line.array_windows()) {
            all *= f64::from(self.observe(*code, past));
        }
        self.past.copy_from_slice(&line[block.len()..][..ORDER]);
        all
    }

    /// The likelihood of a code after these samples. Adapts to it.
    #[inline]
    fn observe(&mut self, code: u8, past: &[f32; ORDER]) -> f32 {
        let interval = self.intervals[usize::from(code)];
        let adaptive = dot(&self.weights, past);
        let predictions = [0.0, past[ORDER - 1], adaptive, 0.0];
        let votes = laplace(&predictions, &self.errors, interval);
        let weighed: Each = each(|k| votes[k] * self.mixture[k]);
        let (voted, trusted) = (sum(&weighed), sum(&self.mixture));

        let share = 1.0 / voted;
        self.mixture = each(|k| larger(weighed[k] * share, FLOOR[k]));
        self.errors = each(|k| {
            let error = (interval.middle - predictions[k]).abs();
            self.errors[k] + (error - self.errors[k]) * (1.0 / 24.0)
        });
        self.adapt(interval.middle - adaptive, past);
        (1.0 - SURPRISE) * voted / trusted + SURPRISE / 256.0
    }

    /// Normalised least mean squares.
    #[inline]
    fn adapt(&mut self, error: f32, past: &[f32; ORDER]) {
        // Ordered so that nothing the next code needs waits for the division.
        let step = error * (0.06 / (dot(past, past) + 1e-7));
        for (weight, x) in self.weights.iter_mut().zip(past) {
            *weight += step * x;
        }
    }
}

/// The samples that a code stands for.
#[derive(Debug, Clone, Copy)]
struct Interval {
    low: f32,
    middle: f32,
    high: f32,
}

static ULAW: [Interval; 256] = intervals(Law::Ulaw);
static ALAW: [Interval; 256] = intervals(Law::Alaw);

const fn intervals(law: Law) -> [Interval; 256] {
    let nothing = Interval {
        low: 0.0,
        middle: 0.0,
        high: 0.0,
    };
    let mut all = [nothing; 256];
    let mut code = 0;
    while code < 256 {
        all[code] = interval(law, code as u8);
        code += 1;
    }
    all
}

const fn interval(law: Law, code: u8) -> Interval {
    // Codes of either law are ordered by magnitude once the line's inversion is undone.
    let flip = match law {
        Law::Ulaw => 0x7F,
        Law::Alaw => 0x55,
    };
    let rank = (code ^ flip) & 0x7F;
    let middle = magnitude(law, rank ^ flip);
    let low = match rank {
        0 => 0.0,
        _ => (magnitude(law, (rank - 1) ^ flip) + middle) / 2.0,
    };
    let high = match rank {
        // Includes what was clipped.
        127 => f32::INFINITY,
        _ => (middle + magnitude(law, (rank + 1) ^ flip)) / 2.0,
    };
    if code & 0x80 != 0 {
        Interval { low, middle, high }
    } else {
        Interval {
            low: -high,
            middle: -middle,
            high: -low,
        }
    }
}

const fn magnitude(law: Law, code: u8) -> f32 {
    law.decode_byte(code | 0x80) as f32 / 32_768.0
}

/// The probability of the interval under Laplace distributions with these centres and mean
/// deviations, at least 1e-9.
#[inline]
fn laplace(centres: &Each, deviations: &Each, interval: Interval) -> Each {
    let scales: Each = each(|k| 1.0 / larger(deviations[k], 1e-4));
    let below = |end: f32| -> Each {
        let powers: Each = each(|k| -(end - centres[k]).abs() * scales[k]);
        let tails: Each = each(|k| 0.5 * exp(powers[k]));
        each(|k| match end < centres[k] {
            true => tails[k],
            false => 1.0 - tails[k],
        })
    };
    let (low, high) = (below(interval.low), below(interval.high));
    each(|k| larger(high[k] - low[k], 1e-9))
}

/// e to the power of `x` for `x` up to 0, accurate to the last few bits. Without branches or calls,
/// the compiler computes several at once.
#[inline]
fn exp(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // A smaller result would be subnormal, and does not matter here.
    let x = larger(x, -87.0) * std::f32::consts::LOG2_E;
    let rounded = x + ROUND;
    let part = (x - (rounded - ROUND)) * std::f32::consts::LN_2;
    let scale = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    // The exponential series, with terms in pairs: in one chain, each would wait for the one before
    // it.
    let square = part * part;
    let few = (1.0 + part) + square * (0.5 + part * (1.0 / 6.0));
    let more = (1.0 / 24.0 + part * (1.0 / 120.0)) + square * (1.0 / 720.0);
    scale * (few + square * square * more)
}

/// One instruction, where `f32::max` also handles NaN.
#[inline]
fn larger(one: f32, other: f32) -> f32 {
    if one > other { one } else { other }
}

#[inline]
fn each(number: impl FnMut(usize) -> f32) -> Each {
    std::array::from_fn(number)
}

#[inline]
fn sum(each: &Each) -> f32 {
    (each[0] + each[2]) + (each[1] + each[3])
}

#[inline]
fn dot(one: &[f32; ORDER], other: &[f32; ORDER]) -> f32 {
    // Four sums side by side: in one, each addition would wait for the one before it.
    sum(&each(|k| one[k] * other[k] + one[k + 4] * other[k + 4]))
}
