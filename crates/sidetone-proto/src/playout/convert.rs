use std::sync::Arc;

use sidetone_audio::resample::{Filters, Resampler};

use crate::Rate;

/// How much of a source is kept when it has gone in, as a fraction of a second: more than a filter reaches back and ahead
/// together.
const KEPT: u32 = 100;

/// Resamples a source when its slots are due, to whatever rate the call has by then.
///
/// In the middle of the sound it can turn to another rate, and what comes out goes on where it was.
#[derive(Debug)]
pub(super) struct Converter {
    filters: Arc<Filters>,
    to: Rate,
    resampler: Resampler,
    /// The last samples that went in.
    history: Vec<i16>,
    /// How many went in and how many were taken out since the resampler began.
    fed: u64,
    taken: u64,
    /// What came out and is not taken, from `start` on.
    made: Vec<i16>,
    start: usize,
    is_flushed: bool,
}

impl Converter {
    /// `None` if the filters are for none of a call's rates.
    pub(super) fn new(filters: &Arc<Filters>, to: Rate, past: &[i16]) -> Option<Self> {
        let mut resampler = filters.aligned(to.hz())?;
        resampler.restart_after(past);
        let kept = Self::kept(filters);
        let mut history = Vec::with_capacity(3 * kept);
        history.extend_from_slice(&past[past.len().saturating_sub(kept)..]);
        Some(Self {
            filters: Arc::clone(filters),
            to,
            resampler,
            history,
            fed: 0,
            taken: 0,
            made: Vec::new(),
            start: 0,
            is_flushed: false,
        })
    }

    /// So many of a source's samples are worth knowing as its past.
    pub(super) fn kept(filters: &Filters) -> usize {
        (filters.from() / KEPT) as usize
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

    /// From here on what comes out is at this rate.
    pub(super) fn turn_to(&mut self, rate: Rate) {
        if rate == self.to {
            return;
        }
        let Some(resampler) = self.filters.aligned(rate.hz()) else {
            return;
        };
        let ahead = (self.ahead() as usize).min(self.history.len());
        let (past, again) = self.history.split_at(self.history.len() - ahead);
        (self.to, self.resampler) = (rate, resampler);
        self.made.clear();
        self.start = 0;
        self.resampler.restart_after(past);
        self.resampler.process(again, &mut self.made);
        (self.fed, self.taken) = (ahead as u64, 0);
        if std::mem::take(&mut self.is_flushed) {
            self.flush();
        }
    }

    /// How many samples of the source should go in before so many can be taken.
    pub(super) fn wanted(&self, samples: usize) -> usize {
        let missing = samples.saturating_sub(self.ready()) as u64;
        (missing * u64::from(self.hz())).div_ceil(u64::from(self.to.hz())) as usize
    }

    pub(super) fn feed(&mut self, source: &[i16]) {
        self.fed += source.len() as u64;
        self.resampler.process(source, &mut self.made);
        let kept = Self::kept(&self.filters);
        let new = &source[source.len().saturating_sub(kept)..];
        if self.history.len() + new.len() > 3 * kept {
            self.history.drain(..self.history.len() - kept);
        }
        self.history.extend_from_slice(new);
    }

    /// The source is at its end.
    pub(super) fn flush(&mut self) {
        if !self.is_flushed {
            self.is_flushed = true;
            self.resampler.flush(&mut self.made);
        }
    }

    /// How many samples can be taken.
    pub(super) fn ready(&self) -> usize {
        self.made.len() - self.start
    }

    /// Whether nothing will ever come out any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_flushed && self.ready() == 0
    }

    /// Moves up to `most` samples to `slot`.
    pub(super) fn take(&mut self, most: usize, slot: &mut Vec<i16>) {
        let taken = most.min(self.ready());
        slot.extend_from_slice(&self.made[self.start..self.start + taken]);
        self.start += taken;
        self.taken += taken as u64;
        if self.start == self.made.len() {
            self.made.clear();
            self.start = 0;
        }
    }

    /// How many samples of the source have gone in and not come out.
    pub(super) fn ahead(&self) -> u64 {
        let out = self.taken * u64::from(self.hz()) / u64::from(self.to.hz());
        self.fed.saturating_sub(out)
    }
}
