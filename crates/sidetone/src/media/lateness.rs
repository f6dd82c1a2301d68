use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::stats::{LATENESS_BUCKETS, LatenessHistogram};

/// How late the slots of one media thread left.
///
/// Only that thread writes here, so a load and a store take the place of an atomic addition. Each value stands for itself:
/// a reader may see a slot in its bucket before it sees it in the sum.
#[derive(Debug, Default)]
// Other threads write to what stands beside it.
#[repr(align(64))]
pub(super) struct LatenessCounters {
    buckets: [AtomicU64; LATENESS_BUCKETS],
    sum_nanos: AtomicU64,
}

impl LatenessCounters {
    pub(super) fn record(&self, late: Duration) {
        // Nearly all are in the first.
        let bounds = LatenessHistogram::BOUNDS.iter();
        let bucket = bounds.take_while(|bound| late > **bound).count();
        add(&self.buckets[bucket], 1);
        add(&self.sum_nanos, late.as_nanos() as u64);
    }

    pub(super) fn add_to(&self, all: &mut LatenessHistogram) {
        for (count, bucket) in all.counts.iter_mut().zip(&self.buckets) {
            *count += bucket.load(Ordering::Relaxed);
        }
        all.sum += Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed));
    }
}

/// Adds to a value that no other thread writes.
fn add(value: &AtomicU64, more: u64) {
    value.store(
        value.load(Ordering::Relaxed).wrapping_add(more),
        Ordering::Relaxed,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_counts_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let counters = LatenessCounters::default();
        let micros = [0, 249, 250, 251, 1_000, 60_000, 200_000, 200_001, 9_000_000];
        let mut sum = Duration::ZERO;
        for late in micros.map(Duration::from_micros) {
            counters.record(late);
            sum += late;
        }
        let mut all = LatenessHistogram::default();
        counters.add_to(&mut all);
        assert_eq!(all.counts, [3, 1, 1, 0, 0, 0, 0, 0, 1, 1, 2]);
        assert_eq!((all.sum, all.count()), (sum, 9));
        // Of two threads.
        counters.add_to(&mut all);
        assert_eq!((all.sum, all.count()), (2 * sum, 18));
    }
}
