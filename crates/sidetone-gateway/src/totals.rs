//! What is counted over all calls.

use std::{collections::BTreeMap, sync::Arc};

use sidetone::{CallSummary, Counters};

use crate::call::RunningCall;

/// What has been counted since the start, of calls that are over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) ended: BTreeMap<&'static str, u64>,
    pub(crate) rejected: BTreeMap<&'static str, u64>,
    pub(crate) sums: Sums,
}

/// What is added up over calls.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) frames_in: u64,
    pub(crate) frames_out: u64,
    pub(crate) underruns: u64,
    pub(crate) gaps: u64,
    pub(crate) slips: u64,
    pub(crate) lagged: u64,
    pub(crate) digits: u64,
}

impl Totals {
    pub(crate) fn add_ended(&mut self, summary: &CallSummary) {
        *self.ended.entry(summary.reason.name()).or_default() += 1;
        self.sums.add(&summary.counters, summary.lagged);
    }

    pub(crate) fn add_rejected(&mut self, reason: &'static str) {
        *self.rejected.entry(reason).or_default() += 1;
    }
}

impl Sums {
    /// With what running calls have counted so far.
    pub(crate) fn with(mut self, running: &[Arc<RunningCall>]) -> Self {
        for call in running {
            if let Some(handle) = call.handle() {
                let stats = handle.stats();
                self.add(&stats.counters, stats.lagged);
            }
        }
        self
    }

    fn add(&mut self, counters: &Counters, lagged: u64) {
        self.frames_in += counters.frames_in;
        self.frames_out += counters.frames_out;
        self.underruns += counters.underruns;
        self.gaps += counters.gaps;
        self.slips += counters.slips;
        self.lagged += lagged;
        self.digits += counters.digits;
    }
}
