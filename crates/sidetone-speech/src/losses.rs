use std::{collections::VecDeque, ops::Range};

/// What parts of the audio nobody will transcribe. Each is told once, whoever comes to it again.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// What was added, in order and apart from each other.
    known: Vec<Range<u64>>,
    unreported: VecDeque<Range<u64>>,
}

impl Losses {
    /// Adds a part. Whatever of it is known already is not told again.
    pub(crate) fn add(&mut self, lost: Range<u64>) {
        let first = self.known.partition_point(|it| it.end < lost.start);
        let last = self.known.partition_point(|it| it.start <= lost.end);
        let mut all = lost.clone();
        let mut fresh = lost.start;
        for known in self.known.splice(first..last, []) {
            Self::tell(&mut self.unreported, fresh..known.start.min(lost.end));
            fresh = fresh.max(known.end);
            all = all.start.min(known.start)..all.end.max(known.end);
        }
        Self::tell(&mut self.unreported, fresh..lost.end);
        self.known.insert(first, all);
    }

    fn tell(unreported: &mut VecDeque<Range<u64>>, lost: Range<u64>) {
        match unreported.back_mut() {
            _ if lost.is_empty() => {}
            Some(last) if last.end == lost.start => last.end = lost.end,
            _ => unreported.push_back(lost),
        }
    }

    /// What has to be told next.
    pub(crate) fn take(&mut self) -> Option<Range<u64>> {
        self.unreported.pop_front()
    }

    /// Nobody will come to what is before `position` again.
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
    fn what_is_lost_again_is_told_once() {
        let mut losses = Losses::default();
        let mut told = |lost| {
            losses.add(lost);
            std::iter::from_fn(|| losses.take()).collect::<Vec<_>>()
        };
        assert_eq!(told(10..20), [10..20]);
        assert_eq!(told(15..18), []);
        assert_eq!(told(40..50), [40..50]);
        assert_eq!(told(5..60), [5..10, 20..40, 50..60]);
        assert_eq!(told(5..60), []);
        assert_eq!(told(60..70), [60..70]);
        assert_eq!(losses.known, [5..70]);
        losses.forget(80);
        assert_eq!(losses.known, []);
    }
}
