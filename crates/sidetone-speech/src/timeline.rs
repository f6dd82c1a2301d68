/// Maps one count of samples to another. The two differ where samples are missing from one of them.
///
/// To bound memory, only the first and the latest [`MAX_JUMPS`] jumps are kept.
#[derive(Debug)]
pub(crate) struct Timeline {
    /// From the first count on, the second count continues from here; ascending in both, never empty.
    points: Vec<(u64, u64)>,
}

const MAX_JUMPS: usize = 1000;

impl Timeline {
    pub(crate) fn new(from: u64, to: u64) -> Self {
        Self {
            points: vec![(from, to)],
        }
    }

    pub(crate) fn map(&self, from: u64) -> u64 {
        let next = self.points.partition_point(|(start, _)| *start <= from);
        let (start, target) = self.points[next.saturating_sub(1)];
        let to = target + from.saturating_sub(start);
        match self.points.get(next) {
            Some((_, limit)) => to.min(*limit),
            None => to,
        }
    }

    /// The inverse of [`map`](Self::map). A sample that is missing maps to where it would be.
    pub(crate) fn unmap(&self, to: u64) -> u64 {
        let next = self.points.partition_point(|(_, target)| *target <= to);
        let (start, target) = self.points[next.saturating_sub(1)];
        let from = start + to.saturating_sub(target);
        match self.points.get(next) {
            Some((limit, _)) => from.min(*limit),
            None => from,
        }
    }

    /// From `from` on, counts on from `to`. That may be earlier than the last sample maps to, in which
    /// case the surplus samples all map to `to`. It is never earlier than the last jump.
    pub(crate) fn jump(&mut self, from: u64, to: u64) {
        let last = self.points.last().map_or(0, |point| point.1);
        let to = to.max(last);
        self.points.push((from, to));
        let surplus = self.points.len().saturating_sub(1 + MAX_JUMPS);
        self.points.drain(1..1 + surplus);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.points.len()
    }

    /// Drops the jumps before `from`, which will not be mapped again.
    pub(crate) fn forget(&mut self, from: u64) {
        let next = self.points.partition_point(|(start, _)| *start <= from);
        self.points.drain(..next.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_back_leaves_both_ways_in_order() {
        let mut timeline = Timeline::new(0, 0);
        timeline.jump(100, 60);
        assert_eq!(
            [59, 60, 99, 100, 110].map(|from| timeline.map(from)),
            [59, 60, 60, 60, 70]
        );
        assert_eq!([59, 60, 70].map(|to| timeline.unmap(to)), [59, 100, 110]);
        timeline.jump(200, 0);
        assert_eq!(timeline.map(200), 60);
    }

    #[test]
    fn both_ways_agree_around_a_gap() {
        let mut timeline = Timeline::new(0, 100);
        timeline.jump(50, 1000);
        assert_eq!(
            [0, 49, 50, 60].map(|from| timeline.map(from)),
            [100, 149, 1000, 1010]
        );
        assert_eq!(
            [100, 149, 500, 1000, 1010].map(|to| timeline.unmap(to)),
            [0, 49, 50, 50, 60]
        );
        timeline.forget(55);
        assert_eq!(timeline.map(60), 1010);
        assert_eq!(timeline.unmap(0), 50, "nothing is kept from before that");
    }
}
