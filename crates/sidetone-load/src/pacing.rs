use hdrhistogram::Histogram;

use crate::verify::histogram;

/// Nanoseconds from one frame of a call to the next.
pub(crate) const FRAME_INTERVAL: u64 = 20_000_000;
/// A frame that comes this many nanoseconds after its slot is late: the next one is due then.
const LATE: u64 = 20_000_000;

/// When a frame came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Its place in the call's schedule, counted from 0.
    pub(crate) slot: u32,
    /// Nanoseconds since the load began.
    pub(crate) at: u64,
}

/// How well the frames of all calls kept to their schedules.
pub(crate) struct Pacing {
    pub(crate) lateness: Histogram<u64>,
    pub(crate) late: u64,
    /// Pauses of more than two frame intervals between a frame and the next.
    pub(crate) gaps: u64,
    pub(crate) longest_gap: u64,
    /// The largest difference of a call's frame interval from 20 ms, in millionths.
    pub(crate) drift: f64,
}

impl Pacing {
    pub(crate) fn new() -> Self {
        Self {
            lateness: histogram(),
            late: 0,
            gaps: 0,
            longest_gap: 0,
            drift: 0.0,
        }
    }

    /// Judges one call by its arrivals, in the order of their times.
    ///
    /// The server's schedule is taken to be the line below all arrivals with the least sum of distances to them: a
    /// server can be late, but never early. The line's slope is the drift of the server's clock. After a pause that is
    /// not made up for, all frames are late.
    pub(crate) fn add(&mut self, arrivals: &mut [Arrival]) {
        for pair in arrivals.windows(2) {
            let gap = pair[1].at - pair[0].at;
            self.gaps += u64::from(gap > 2 * FRAME_INTERVAL);
            self.longest_gap = self.longest_gap.max(gap);
        }
        // A frame may have overtaken another.
        arrivals.sort_unstable_by_key(|arrival| arrival.slot);
        let &mut [first, .., _] = arrivals else {
            return;
        };
        let points: Vec<_> = arrivals
            .iter()
            .map(|arrival| arrival.offset(first))
            .collect();
        let (height, slope) = lowest_line(&points);
        for (x, y) in points {
            let lateness = (y - (height + slope * x)).max(0.0) as u64;
            self.late += u64::from(lateness > LATE);
            self.lateness.saturating_record(lateness);
        }
        let drift = slope / FRAME_INTERVAL as f64 * 1e6;
        if drift.abs() > self.drift.abs() {
            self.drift = drift;
        }
    }
}

impl Arrival {
    /// Its slot, and how many nanoseconds after that it came; both relative to `first`.
    fn offset(self, first: Self) -> (f64, f64) {
        let slots = f64::from(self.slot) - f64::from(first.slot);
        let time = self.at as f64 - first.at as f64;
        (slots, time - slots * FRAME_INTERVAL as f64)
    }
}

/// Height at 0 and slope of the line below all points with the least sum of distances to them: the edge of their lower
/// convex hull that lies below their mean. The points are in order of x, at least two.
fn lowest_line(points: &[(f64, f64)]) -> (f64, f64) {
    let mut hull: Vec<(f64, f64)> = Vec::new();
    for &point in points {
        while let [.., a, b] = hull[..] {
            let cross = (b.0 - a.0) * (point.1 - a.1) - (b.1 - a.1) * (point.0 - a.0);
            if cross > 0.0 {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    let middle = points.iter().map(|point| point.0).sum::<f64>() / points.len() as f64;
    let side = hull.windows(2).find(|side| side[1].0 >= middle);
    let Some([a, b]) = side else {
        return (points[0].1, 0.0);
    };
    let slope = (b.1 - a.1) / (b.0 - a.0);
    (a.1 - slope * a.0, slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn judged(arrivals: impl IntoIterator<Item = (u32, u64)>) -> Pacing {
        let mut arrivals: Vec<_> = arrivals
            .into_iter()
            .map(|(slot, at)| Arrival { slot, at })
            .collect();
        let mut pacing = Pacing::new();
        pacing.add(&mut arrivals);
        pacing
    }

    fn near(value: u64, expected: u64) -> bool {
        value.abs_diff(expected) <= expected / 500 + 1000
    }

    #[test]
    fn frames_on_schedule_are_never_late() {
        let pacing = judged((0..500).map(|n| (n, 7 * MS + u64::from(n) * FRAME_INTERVAL)));
        assert!(pacing.lateness.max() <= 1000);
        assert_eq!(
            (pacing.late, pacing.gaps, pacing.longest_gap),
            (0, 0, FRAME_INTERVAL)
        );
        assert!(pacing.drift.abs() < 0.1);
        assert_eq!(pacing.lateness.len(), 500);
    }

    #[test]
    fn lateness_is_relative_to_the_earliest_frames() {
        // Every other frame comes 3 ms late.
        let pacing = judged(
            (0..500).map(|n| (n, u64::from(n) * FRAME_INTERVAL + u64::from(n % 2) * 3 * MS)),
        );
        assert!(near(pacing.lateness.value_at_quantile(0.99), 3 * MS));
        assert!(pacing.lateness.value_at_quantile(0.49) < 20_000);
        assert_eq!(pacing.late, 0);
    }

    #[test]
    fn a_drifting_clock_is_drift_and_not_lateness() {
        // 100 millionths: 2 µs more in each interval.
        let pacing = judged((0..500).map(|n| (n, u64::from(n) * (FRAME_INTERVAL + 2000))));
        assert!((pacing.drift - 100.0).abs() < 0.5, "{}", pacing.drift);
        assert!(pacing.lateness.max() <= 1000);
    }

    #[test]
    fn a_frame_far_too_late_is_late_and_leaves_a_gap() {
        let late = |n| match n {
            250 => 35 * MS,
            // It can't overtake.
            251 => 16 * MS,
            _ => 0,
        };
        let pacing = judged((0..500).map(|n| (n, u64::from(n) * FRAME_INTERVAL + late(n))));
        assert_eq!((pacing.late, pacing.gaps), (1, 1));
        assert_eq!(pacing.longest_gap, 55 * MS);
    }

    #[test]
    fn a_pause_that_is_not_made_up_for_makes_the_rest_late() {
        let pause = |n| u64::from(n >= 300) * 60 * MS;
        let pacing = judged((0..500).map(|n| (n, u64::from(n) * FRAME_INTERVAL + pause(n))));
        assert_eq!((pacing.late, pacing.gaps), (200, 1));
    }

    #[test]
    fn a_lost_frame_keeps_its_slot() {
        let whole = (0..500).map(|n| (n, u64::from(n) * FRAME_INTERVAL));
        let pacing = judged(whole.filter(|(n, _)| *n != 100));
        assert!(pacing.lateness.max() <= 1000);
        assert_eq!(pacing.late, 0);
    }

    #[test]
    fn an_overtaken_frame_is_late() {
        let mut order: Vec<_> = (0..500)
            .map(|n| (n, u64::from(n) * FRAME_INTERVAL))
            .collect();
        let (slot, at) = order.remove(100);
        order.insert(102, (slot, at + 2 * FRAME_INTERVAL));
        let pacing = judged(order);
        assert_eq!((pacing.late, pacing.longest_gap), (1, 2 * FRAME_INTERVAL));
    }

    #[test]
    fn one_frame_has_no_schedule() {
        assert_eq!(judged([(0, 5)]).lateness.len(), 0);
    }
}
