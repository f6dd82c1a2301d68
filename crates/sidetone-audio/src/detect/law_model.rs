//! How well bytes go as sound under a law: the bits a good compressor would need for each.
//!
//! Speech is predictable, and its codes hence compress, but only under the law it was made with:
//! under the other, or if the bytes are no G.711, each sample surprises.

use crate::g711::Law;

/// The length of the adaptive predictor.
const ORDER: usize = 8;
/// Ways of guessing the next sample that share one vote: that it is nothing, the one before it, or what the
/// adaptive predictor says. The last place is taken by nobody: four numbers are computed as fast as one.
const GUESSES: usize = 4;
/// One number for each guess.
type Each = [f32; GUESSES];
/// Shared by the guesses that there are.
const EQUAL: Each = [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0];
/// The least that a guess is believed, which lets one that was bad for long come back.
const FLOOR: Each = [0.02, 0.02, 0.02, 0.0];
/// The share of a vote kept for the unforeseen, so that one click can't outweigh a second of speech.
const SURPRISE: f32 = 0.03;

/// Codes after which the past is worth half.
const MEMORY: usize = 3200;

/// Codes that share a logarithm: the product of their likelihoods is a number of full precision, however small
/// each is.
const FEW: usize = 40;

/// What one law makes of the bytes so far.
#[derive(Debug, Clone)]
pub(super) struct Model {
    meanings: &'static [Interval; 256],
    /// The latest samples, newest last, as fractions of full scale.
    past: [f32; ORDER],
    /// Of the adaptive predictor.
    weights: [f32; ORDER],
    /// How far off each guess has been lately.
    errors: Each,
    /// How much each guess is believed, in parts of what all are together.
    trust: Each,
    bits: f64,
    codes: usize,
}

impl Model {
    pub(super) fn new(law: Law) -> Self {
        Self {
            meanings: match law {
                Law::Ulaw => &ULAW,
                Law::Alaw => &ALAW,
            },
            past: [0.0; ORDER],
            weights: [0.0; ORDER],
            errors: [0.01; GUESSES],
            trust: EQUAL,
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
        for few in codes.chunks(FEW) {
            self.bits -= self.likelihood(few).log2();
        }
        self.codes += codes.len();
        if self.codes > MEMORY {
            self.codes /= 2;
            self.bits /= 2.0;
        }
    }

    /// How likely a few codes were in this order, after which they are known.
    fn likelihood(&mut self, few: &[u8]) -> f64 {
        let mut line = [0.0; ORDER + FEW];
        line[..ORDER].copy_from_slice(&self.past);
        for (sample, code) in line[ORDER..].iter_mut().zip(few) {
            *sample = self.meanings[usize::from(*code)].middle;
        }
        let mut all = 1.0;
        for (code, past) in few.iter().zip(line.array_windows()) {
            all *= f64::from(self.observe(*code, past));
        }
        self.past.copy_from_slice(&line[few.len()..][..ORDER]);
        all
    }

    /// How likely this code was behind these samples, after which it is known.
    #[inline]
    fn observe(&mut self, code: u8, past: &[f32; ORDER]) -> f32 {
        let meaning = self.meanings[usize::from(code)];
        let adaptive = dot(&self.weights, past);
        let guesses = [0.0, past[ORDER - 1], adaptive, 0.0];
        let votes = laplace(&guesses, &self.errors, meaning);
        let weighed: Each = each(|k| votes[k] * self.trust[k]);
        let (voted, trusted) = (sum(&weighed), sum(&self.trust));

        let share = 1.0 / voted;
        self.trust = each(|k| larger(weighed[k] * share, FLOOR[k]));
        self.errors = each(|k| {
            let error = (meaning.middle - guesses[k]).abs();
            self.errors[k] + (error - self.errors[k]) * (1.0 / 24.0)
        });
        self.adapt(meaning.middle - adaptive, past);
        (1.0 - SURPRISE) * voted / trusted + SURPRISE / 256.0
    }

    /// Normalised least mean squares.
    #[inline]
    fn adapt(&mut self, error: f32, past: &[f32; ORDER]) {
        // In this order nothing that the next code waits for waits for the division.
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
        // What was clipped is in here, too.
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

/// The shares of Laplace distributions with these centres and mean deviations within an interval; none is
/// quite nothing.
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

/// e to the power of `x`, which is not above 0, to within a few of the last bits: without a branch or a call,
/// several are computed as fast as one.
#[inline]
fn exp(x: f32) -> f32 {
    /// Added, it leaves the nearest whole number in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // What is smaller is no number of full precision, and counts for nothing here.
    let x = larger(x, -87.0) * std::f32::consts::LOG2_E;
    let rounded = x + ROUND;
    let part = (x - (rounded - ROUND)) * std::f32::consts::LN_2;
    let scale = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    // The exponential series, its terms in pairs: in one chain, each would wait for the one before it.
    let square = part * part;
    let few = (1.0 + part) + square * (0.5 + part * (1.0 / 6.0));
    let more = (1.0 / 24.0 + part * (1.0 / 120.0)) + square * (1.0 / 720.0);
    scale * (few + square * square * more)
}

/// One instruction, where `f32::max` also looks for what is no number.
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
