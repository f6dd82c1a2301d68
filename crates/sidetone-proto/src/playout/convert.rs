use std::sync::Arc;

use sidetone_audio::resample::{Filters, Resampler};

use crate::Rate;

/// A hundredth of a second of the source is kept after it went in: more than a filter reaches back and ahead together.
const HISTORY_FRACTION: u32 = 100;

/// Resamples a source when its slots are due, to the rate that the call has then.
///
/// The rate can change in the middle of the sound. The output goes on where it was.
#[derive(Debug)]
pub(super) struct Converter {
    filters: Arc<Filters>,
    to: Rate,
    resampler: Resampler,
    /// The last samples that went in.
    history: Vec<i16>,
    /// Samples that went in, and samples that were taken out, since the resampler started.
    fed: u64,
    taken: u64,
    /// The output, of which the samples from `start` on have not been taken.
    output: Vec<i16>,
    start: usize,
    is_flushed: bool,
}

impl Converter {
    /// `None` if the filters are not made for the rate `to`.
    pub(super) fn new(filters: &Arc<Filters>, to: Rate, past: &[i16]) -> Option<Self> {
        let mut resampler = filters.aligned(to.hz())?;
        resampler.restart_after(past);
        let history_length = Self::history_length(filters);
        let mut history = Vec::with_capacity(3 * history_length);
        history.extend_from_slice(&past[past.len().saturating_sub(history_length)..]);
        Some(Self {
            filters: Arc::clone(filters),
            to,
            resampler,
            history,
            fed: 0,
            taken: 0,
            output: Vec::new(),
            start: 0,
            is_flushed: false,
        })
    }

    /// How many past samples of the source matter.
    pub(super) fn history_length(filters: &Filters) -> usize {
        (filters.from() / HISTORY_FRACTION) as usize
    }

    pub(super) fn is_from(&self, filters: &Arc<Filters>) -> bool {
        Arc::ptr_eq(&self.filters, filters) || self.filters.from() == filters.from()
    }

    pub(super) fn hz(&self) -> u32 {
        self.filters.from()
    }

    pub(super) fn rate(&self) -> Rate {
        self.to
    }

    /// Changes the rate of the output.
    pub(super) fn set_rate(&mut self, rate: Rate) {
        if rate == self.to {
            return;
        }
        let Some(resampler) = self.filters.aligned(rate.hz()) else {
            return;
        };
        let ahead = (self.ahead() as usize).min(self.history.len());
        let (past, again) = self.history.split_at(self.history.len() - ahead);
        (self.to, self.resampler) = (rate, resampler);
        self.output.clear();
        self.start = 0;
        self.resampler.restart_after(past);
        self.resampler.process(again, &mut self.output);
        (self.fed, self.taken) = (ahead as u64, 0);
        if std::mem::take(&mut self.is_flushed) {
            self.flush();
        }
    }

    /// How many samples of the source must go in before `samples` samples can be taken.
    pub(super) fn wanted(&self, samples: usize) -> usize {
        let missing = samples.saturating_sub(self.ready()) as u64;
        (missing * u64::from(self.hz())).div_ceil(u64::from(self.to.hz())) as usize
    }

    pub(super) fn feed(&mut self, source: &[i16]) {
        self.fed += source.len() as u64;
        self.resampler.process(source, &mut self.output);
        let history_length = Self::history_length(&self.filters);
        let new = &source[source.len().saturating_sub(history_length)..];
        if self.history.len() + new.len() > 3 * history_length {
            self.history.drain(..self.history.len() - history_length);
        }
        self.history.extend_from_slice(new);
    }

    /// Ends the source: what the resampler holds back comes out.
    pub(super) fn flush(&mut self) {
        if !self.is_flushed {
            self.is_flushed = true;
            self.resampler.flush(&mut self.output);
        }
    }

    /// How many samples can be taken.
    pub(super) fn ready(&self) -> usize {
        self.output.len() - self.start
    }

    /// Whether all output has been taken.
    pub(super) fn is_over(&self) -> bool {
        self.is_flushed && self.ready() == 0
    }

    /// Moves up to `most` samples to the end of `slot`.
    pub(super) fn take(&mut self, most: usize, slot: &mut Vec<i16>) {
        let taken = most.min(self.ready());
        slot.extend_from_slice(&self.output[self.start..self.start + taken]);
        self.start += taken;
        self.taken += taken as u64;
        if self.start == self.output.len() {
            self.output.clear();
            self.start = 0;
        }
    }

    /// How many samples of the source have gone in and not come out.
    pub(super) fn ahead(&self) -> u64 {
        let out = self.taken * u64::from(self.hz()) / u64::from(self.to.hz());
        self.fed.saturating_sub(out)
    }
}
