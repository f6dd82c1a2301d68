//! The parts of a call that get no transcript.

use std::{collections::VecDeque, ops::Range};

/// Ranges of samples that are lost to recognition. Each sample is reported at most once, however
/// many connections skip it.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// Everything added so far: sorted, disjoint ranges.
    known: Vec<Range<u64>>,
    unreported: VecDeque<Range<u64>>,
}

impl Losses {
    /// Adds a range and queues what is new in it for reporting.
    pub(crate) fn add(&mut self, lost: Range<u64>) {
        let first = self.known.partition_point(|it| it.end < lost.start);
        let last = self.known.partition_point(|it| it.start <= lost.end);
        let mut merged = lost.clone();
        let mut new_from = lost.start;
        for known in self.known.splice(first..last, []) {
            Self::queue(&mut self.unreported, new_from..known.start.min(lost.end));
            new_from = new_from.max(known.end);
            merged = merged.start.min(known.start)..merged.end.max(known.end);
        }
        Self::queue(&mut self.unreported, new_from..lost.end);
        self.known.insert(first, merged);
    }

    fn queue(unreported: &mut VecDeque<Range<u64>>, lost: Range<u64>) {
        match unreported.back_mut() {
            _ if lost.is_empty() => {}
            Some(last) if last.end == lost.start => last.end = lost.end,
            _ => unreported.push_back(lost),
        }
    }

    /// The next range to report.
    pub(crate) fn take(&mut self) -> Option<Range<u64>> {
        self.unreported.pop_front()
    }

    /// Drops what is known before `position`, where no connection will read again.
    pub(crate) fn forget(&mut self, position: u64) {
        let old = self.known.partition_point(|it| it.end < position);
        self.known.drain(..old);
    }
}

#[cfg(test)]
mod tests {
    // One loss is a list of one range here, never meant as its numbers.
    #![allow(clippy::single_range_in_vec_init)]
    use super::*;

    #[test]
    fn an_overlapping_loss_is_reported_once() {
        let mut losses = Losses::default();
        let mut reported = |lost| {
            losses.add(lost);
            std::iter::from_fn(|| losses.take()).collect::<Vec<_>>()
        };
        assert_eq!(reported(10..20), [10..20]);
        assert_eq!(reported(15..18), []);
        assert_eq!(reported(40..50), [40..50]);
        assert_eq!(reported(5..60), [5..10, 20..40, 50..60]);
        assert_eq!(reported(5..60), []);
        assert_eq!(reported(60..70), [60..70]);
        assert_eq!(losses.known, [5..70]);
        losses.forget(80);
        assert_eq!(losses.known, []);
    }
}
