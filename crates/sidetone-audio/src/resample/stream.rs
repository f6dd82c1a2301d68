//! One stream's state, and the two loops that run it through its filter.

use std::sync::Arc;

use super::filter::{Filter, Ratio};

/// Output samples of one phase that are computed side by side.
const TILE: usize = 16;

#[derive(Debug, Clone)]
pub(super) struct Stream {
    filter: Arc<Filter>,
    ratio: Ratio,
    /// The latest input, interleaved into `lanes` rows.
    held: Box<[f32]>,
    lanes: usize,
    /// The length of a row.
    columns: usize,
    /// Input samples in `held`.
    filled: usize,
    /// The first input sample that the next output needs, counted as `filled`, and the output's
    /// phase.
    next: usize,
    phase: u32,
}

impl Stream {
    pub(super) fn new(ratio: Ratio, filter: Arc<Filter>) -> Self {
        let lanes = if ratio.up == 1 {
            ratio.down as usize
        } else {
            1
        };
        // Enough to take a frame of 20 ms at the lower rate at once.
        let chunk = (160 * lanes).min(960);
        let columns = (filter.taps - 1 + chunk).div_ceil(lanes);
        let mut stream = Self {
            held: vec![0.0; columns * lanes].into(),
            filter,
            ratio,
            lanes,
            columns,
            filled: 0,
            next: 0,
            phase: 0,
        };
        stream.restart(0);
        stream
    }

    pub(super) fn into_filter(self) -> Arc<Filter> {
        self.filter
    }

    /// Resets the past to silence. The first output skips `skipped` input samples, a multiple of
    /// what one output consumes.
    pub(super) fn restart(&mut self, skipped: usize) {
        self.held.fill(0.0);
        self.filled = self.filter.taps - 1;
        self.next = skipped;
        self.phase = 0;
    }

    pub(super) fn process(&mut self, mut input: &[i16], out: &mut Vec<i16>) {
        while !input.is_empty() {
            if self.filled == self.held.len() {
                self.forget();
            }
            let (now, later) = input.split_at(input.len().min(self.held.len() - self.filled));
            self.hold(now);
            if self.ratio.up == 1 || self.ratio.down == 1 {
                self.produce_by_phase(out);
            } else {
                self.produce_by_output(out);
            }
            input = later;
        }
    }

    fn hold(&mut self, input: &[i16]) {
        for offset in 0..self.lanes.min(input.len()) {
            let first = self.filled + offset;
            let start = first % self.lanes * self.columns + first / self.lanes;
            let input = input[offset..].iter().step_by(self.lanes);
            for (held, &sample) in self.held[start..].iter_mut().zip(input) {
                *held = f32::from(sample);
            }
        }
        self.filled += input.len();
    }

    /// Moves what the next output needs to the front.
    fn forget(&mut self) {
        let used = self.next.min(self.filled) / self.lanes;
        for row in self.held.chunks_exact_mut(self.columns) {
            row.copy_within(used.., 0);
        }
        self.filled -= used * self.lanes;
        self.next -= used * self.lanes;
    }

    /// For an integer ratio: all outputs of one phase, then all of the next. Three times as fast.
    fn produce_by_phase(&mut self, out: &mut Vec<i16>) {
        let Some(spare) = self.filled.checked_sub(self.next + self.filter.taps) else {
            return;
        };
        let count = spare / self.lanes + 1;
        let up = self.ratio.up as usize;
        let start = out.len();
        out.resize(start + count * up, 0);
        for phase in 0..up {
            let weights = self.filter.row(phase);
            let first = self.next / self.lanes;
            let mut slots = out[start + phase..].iter_mut().step_by(up);
            let tiled = count - count % TILE;
            for column in (first..first + tiled).step_by(TILE) {
                for (sum, slot) in self.sums::<TILE>(weights, column).iter().zip(&mut slots) {
                    *slot = round(*sum);
                }
            }
            for (column, slot) in (first + tiled..).zip(slots) {
                *slot = round(self.sums::<1>(weights, column)[0]);
            }
        }
        self.next += count * self.lanes;
    }

    /// `N` consecutive outputs of one phase. Each is summed in the same order for any `N`.
    #[inline]
    fn sums<const N: usize>(&self, weights: &[f32], column: usize) -> [f32; N] {
        let mut sums = [0.0; N];
        let len = weights.len() / self.lanes;
        let rows = self.held.chunks_exact(self.columns);
        for (weights, row) in weights.chunks_exact(len).zip(rows) {
            let row = &row[column..][..len + N - 1];
            for (weight, samples) in weights.iter().zip(row.array_windows::<N>()) {
                for lane in 0..N {
                    sums[lane] += weight * samples[lane];
                }
            }
        }
        sums
    }

    /// For any other ratio: one output after the other, each with another phase.
    fn produce_by_output(&mut self, out: &mut Vec<i16>) {
        let Ratio { up, down } = self.ratio;
        let (whole, rest) = ((down / up) as usize, down % up);
        let taps = self.filter.taps;
        // Collected so that rounding is vectorized, too.
        let mut sums = [0.0; TILE];
        while self.next + taps <= self.filled {
            let mut count = 0;
            for sum in &mut sums {
                if self.next + taps > self.filled {
                    break;
                }
                let window = &self.held[self.next..self.next + taps];
                *sum = self.filter.apply(window, self.phase);
                count += 1;
                self.next += whole;
                self.phase += rest;
                if self.phase >= up {
                    self.phase -= up;
                    self.next += 1;
                }
            }
            out.extend(sums[..count].iter().map(|&sum| round(sum)));
        }
    }
}

/// Rounds to the nearest sample, and clips beyond full scale.
#[inline]
fn round(value: f32) -> i16 {
    /// Adding 1.5 · 2²³ leaves no bits for a fraction, so the hardware rounds.
    const SHIFT: f32 = 12_582_912.0;
    let clipped = value.clamp(f32::from(i16::MIN), f32::from(i16::MAX));
    (clipped + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i16
}
