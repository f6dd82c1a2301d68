/// Two ways of counting the same samples, which part where samples are missing from one of them.
///
/// The first and the latest thousand such places are remembered, as nothing else bounds them.
#[derive(Debug)]
pub(crate) struct Timeline {
    /// From this sample here on, counted from that sample there on; ascending in both, never empty.
    points: Vec<(u64, u64)>,
}

const REMEMBERED: usize = 1000;

impl Timeline {
    pub(crate) fn new(here: u64, there: u64) -> Self {
        Self {
            points: vec![(here, there)],
        }
    }

    pub(crate) fn map(&self, here: u64) -> u64 {
        let next = self.points.partition_point(|(from, _)| *from <= here);
        let (from, to) = self.points[next.saturating_sub(1)];
        let there = to + here.saturating_sub(from);
        match self.points.get(next) {
            Some((_, limit)) => there.min(*limit),
            None => there,
        }
    }

    /// The other way round. What is missing here is where it would be.
    pub(crate) fn unmap(&self, there: u64) -> u64 {
        let next = self.points.partition_point(|(_, to)| *to <= there);
        let (from, to) = self.points[next.saturating_sub(1)];
        let here = from + there.saturating_sub(to);
        match self.points.get(next) {
            Some((limit, _)) => here.min(*limit),
            None => here,
        }
    }

    /// From `here` on it is counted from `there` on, which may be before what was counted last: what is too much here is
    /// where `there` is. It is not before the last jump.
    pub(crate) fn jump(&mut self, here: u64, there: u64) {
        let last = self.points.last().map_or(0, |point| point.1);
        let there = there.max(last);
        self.points.push((here, there));
        let surplus = self.points.len().saturating_sub(1 + REMEMBERED);
        self.points.drain(1..1 + surplus);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.points.len()
    }

    /// What lies before `here` will not be asked for again.
    pub(crate) fn forget(&mut self, here: u64) {
        let next = self.points.partition_point(|(from, _)| *from <= here);
        self.points.drain(..next.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_back_leaves_both_ways_in_order() {
        let mut line = Timeline::new(0, 0);
        line.jump(100, 60);
        assert_eq!(
            [59, 60, 99, 100, 110].map(|here| line.map(here)),
            [59, 60, 60, 60, 70]
        );
        assert_eq!([59, 60, 70].map(|there| line.unmap(there)), [59, 100, 110]);
        line.jump(200, 0);
        assert_eq!(line.map(200), 60);
    }

    #[test]
    fn both_ways_agree_around_a_gap() {
        let mut line = Timeline::new(0, 100);
        line.jump(50, 1000);
        assert_eq!(
            [0, 49, 50, 60].map(|here| line.map(here)),
            [100, 149, 1000, 1010]
        );
        assert_eq!(
            [100, 149, 500, 1000, 1010].map(|there| line.unmap(there)),
            [0, 49, 50, 50, 60]
        );
        line.forget(55);
        assert_eq!(line.map(60), 1010);
        assert_eq!(
            line.unmap(0),
            50,
            "before what is remembered there is nothing"
        );
    }
}
