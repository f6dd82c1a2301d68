//! The low-pass filter of a rate ratio, split into phases and shared by all streams of that ratio.

use std::collections::HashMap;
use std::f64::consts::PI;
use std::sync::{Arc, Mutex, PoisonError};

/// Half the filter's length, and so its delay, in samples of the lower rate.
///
/// With the window below, 36 samples of the lower rate give 85 dB at a transition from 0.425 to
/// 0.575 of it.
const HALF_LEN: u64 = 18;

/// Found by measurement: the stop band is lowest at its edge, where it matters.
const KAISER_BETA: f64 = 8.3;

/// How many products the dot product sums at once: three vectors of four, which divide 36.
pub(super) const WIDTH: usize = 12;

/// A ratio with more phases gets [`INTERPOLATED`] phases with linear interpolation between them.
const MAX_PHASES: u32 = 1024;

/// With so many phases, linear interpolation is accurate to more than 100 dB.
const INTERPOLATED: u32 = 512;

/// Filters that are kept for later streams.
const MAX_CACHED: usize = 128;

/// A rate ratio in lowest terms: `up` output samples for `down` input samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ratio {
    pub(super) up: u32,
    pub(super) down: u32,
}

impl Ratio {
    pub(super) fn new(from: u32, to: u32) -> Self {
        let common = gcd(from, to);
        Self {
            up: to / common,
            down: from / common,
        }
    }

    /// How many rows the input is interleaved into, so that the samples that consecutive outputs
    /// weight alike are adjacent.
    pub(super) fn lanes(self) -> usize {
        if self.up == 1 { self.down as usize } else { 1 }
    }

    /// The filter's delay in input samples.
    pub(super) fn delay(self) -> u64 {
        let lower = self.up.min(self.down);
        (HALF_LEN * u64::from(self.down)).div_ceil(u64::from(lower))
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The coefficients: for each of `phases` positions between two input samples, the weights of the
/// input samples around it, oldest first, interleaved into [`Ratio::lanes`].
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) taps: usize,
    phases: u32,
    up: u32,
    weights: Box<[f32]>,
}

impl Filter {
    /// The filter of this ratio, cached for the process.
    pub(super) fn shared(ratio: Ratio) -> Arc<Filter> {
        static CACHE: Mutex<Option<HashMap<Ratio, Arc<Filter>>>> = Mutex::new(None);
        let mut guard = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = guard.get_or_insert_default();
        if let Some(filter) = cache.get(&ratio) {
            return Arc::clone(filter);
        }
        if cache.len() >= MAX_CACHED {
            cache.retain(|_, filter| Arc::strong_count(filter) > 1);
        }
        let filter = Arc::new(Filter::design(ratio));
        cache.insert(ratio, Arc::clone(&filter));
        filter
    }

    fn design(ratio: Ratio) -> Filter {
        let Ratio { up, down } = ratio;
        let (phases, rows) = match up {
            ..=MAX_PHASES => (up, up),
            // One row more, so that the last phase has a neighbour.
            _ => (INTERPOLATED, INTERPOLATED + 1),
        };
        let half = ratio.delay() as i64;
        let taps = (2 * half as usize).next_multiple_of(WIDTH);
        let lanes = ratio.lanes();
        // Half the lower rate, in cycles per input sample.
        let cutoff = 0.5 * f64::from(up.min(down)) / f64::from(down);
        let mut weights = Vec::with_capacity(rows as usize * taps);
        for row in 0..rows {
            let fraction = f64::from(row) / f64::from(phases);
            let kernel = |tap: usize| {
                // The newest sample, at the end of the row, is `half` ahead of the output.
                let distance = (taps - 1 - tap) as i64 - half;
                let time = distance as f64 + fraction;
                sinc(2.0 * cutoff * time) * kaiser(time / half as f64)
            };
            // Each phase has the same gain at DC, which leaves no image of it.
            let sum: f64 = (0..taps).map(kernel).sum();
            weights.extend((0..lanes).flat_map(|lane| {
                let taps = (lane..taps).step_by(lanes);
                taps.map(|tap| (kernel(tap) / sum) as f32)
            }));
        }
        Filter {
            taps,
            phases,
            up,
            weights: weights.into(),
        }
    }

    /// The output at `phase`/`up` of an input sample after the middle of `window`.
    #[inline]
    pub(super) fn apply(&self, window: &[f32], phase: u32) -> f32 {
        if self.phases == self.up {
            return dot(self.row(phase as usize), window);
        }
        let position = u64::from(phase) * u64::from(self.phases);
        let row = (position / u64::from(self.up)) as usize;
        let rest = (position % u64::from(self.up)) as f32 / self.up as f32;
        let before = dot(self.row(row), window);
        let after = dot(self.row(row + 1), window);
        before + rest * (after - before)
    }

    #[inline]
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.weights[row * self.taps..][..self.taps]
    }
}

#[inline]
fn dot(weights: &[f32], window: &[f32]) -> f32 {
    let mut sums = [0.0f32; WIDTH];
    for (weights, samples) in weights.chunks_exact(WIDTH).zip(window.chunks_exact(WIDTH)) {
        for lane in 0..WIDTH {
            sums[lane] += weights[lane] * samples[lane];
        }
    }
    let mut quads = [0.0f32; 4];
    for (lane, sum) in sums.iter().enumerate() {
        quads[lane % 4] += sum;
    }
    (quads[0] + quads[2]) + (quads[1] + quads[3])
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        1.0
    } else {
        (PI * x).sin() / (PI * x)
    }
}

/// Kaiser's window over −1..1; zero at the edges, which makes the filter symmetric in every phase.
fn kaiser(x: f64) -> f64 {
    if x.abs() >= 1.0 {
        0.0
    } else {
        bessel_i0(KAISER_BETA * (1.0 - x * x).sqrt()) / bessel_i0(KAISER_BETA)
    }
}

/// The modified Bessel function of order zero, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..40 {
        term *= quarter / f64::from(k * k);
        sum += term;
    }
    sum
}
