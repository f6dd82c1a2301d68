use {super::verify::histogram, hdrhistogram::Histogram};

/// Nanoseconds between the frames of a call.
pub(super) const STEP: u64 = 20_000_000;
/// Later than this is late: a frame lasts as long.
const LATE: u64 = 20_000_000;

/// When a frame came, and the how-manieth of its call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) place: u32,
    pub(super) at: u64,
}

/// How well the frames of all calls kept to their grids.
pub(super) struct Pacing {
    pub(super) lateness: Histogram<u64>,
    pub(super) late: u64,
    /// Times between a frame and the next of more than two steps.
    pub(super) gaps: u64,
    pub(super) longest_gap: u64,
    /// The largest difference of a call's step from 20 ms, in millionths.
    pub(super) drift: f64,
}

impl Pacing {
    pub(super) fn new() -> Self {
        Self {
            lateness: histogram(),
            late: 0,
            gaps: 0,
            longest_gap: 0,
            drift: 0.0,
        }
    }

    /// Judges one call, whose arrivals stand as they came.
    ///
    /// Its grid is the line below all of them that makes the sum of their lateness least: a server can be late,
    /// but never early. The line may slope, for the server's clock may be another one; how much is its drift. A
    /// pause that is not made up for thus makes late what comes after it.
    pub(super) fn add(&mut self, arrivals: &mut [Arrival]) {
        for pair in arrivals.windows(2) {
            let gap = pair[1].at - pair[0].at;
            self.gaps += u64::from(gap > 2 * STEP);
            self.longest_gap = self.longest_gap.max(gap);
        }
        // One may have overtaken another.
        arrivals.sort_unstable_by_key(|arrival| arrival.place);
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
        let drift = slope / STEP as f64 * 1e6;
        if drift.abs() > self.drift.abs() {
            self.drift = drift;
        }
    }
}

impl Arrival {
    /// Its place, and how much later than that it came; both counted from `first`.
    fn offset(self, first: Self) -> (f64, f64) {
        let steps = f64::from(self.place) - f64::from(first.place);
        let time = self.at as f64 - first.at as f64;
        (steps, time - steps * STEP as f64)
    }
}

/// Height at 0 and slope of the line below all points with the least sum of distances: the side of their lower
/// hull that lies below their middle. Points stand in order, at least two.
fn lowest_line(points: &[(f64, f64)]) -> (f64, f64) {
    let mut hull: Vec<(f64, f64)> = Vec::new();
    for &point in points {
        while let [.., a, b] = hull[..] {
            let turn = (b.0 - a.0) * (point.1 - a.1) - (b.1 - a.1) * (point.0 - a.0);
            if turn > 0.0 {
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
            .map(|(place, at)| Arrival { place, at })
            .collect();
        let mut pacing = Pacing::new();
        pacing.add(&mut arrivals);
        pacing
    }

    fn near(value: u64, expected: u64) -> bool {
        value.abs_diff(expected) <= expected / 500 + 1000
    }

    #[test]
    fn frames_on_a_grid_are_never_late() {
        let pacing = judged((0..500).map(|n| (n, 7 * MS + u64::from(n) * STEP)));
        assert!(pacing.lateness.max() <= 1000);
        assert_eq!((pacing.late, pacing.gaps, pacing.longest_gap), (0, 0, STEP));
        assert!(pacing.drift.abs() < 0.1);
        assert_eq!(pacing.lateness.len(), 500);
    }

    #[test]
    fn lateness_is_counted_from_the_earliest() {
        // Every other frame comes 3 ms late.
        let pacing = judged((0..500).map(|n| (n, u64::from(n) * STEP + u64::from(n % 2) * 3 * MS)));
        assert!(near(pacing.lateness.value_at_quantile(0.99), 3 * MS));
        assert!(pacing.lateness.value_at_quantile(0.49) < 20_000);
        assert_eq!(pacing.late, 0);
    }

    #[test]
    fn a_drifting_clock_is_drift_and_not_lateness() {
        // 100 millionths: 2 µs more a step.
        let pacing = judged((0..500).map(|n| (n, u64::from(n) * (STEP + 2000))));
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
        let pacing = judged((0..500).map(|n| (n, u64::from(n) * STEP + late(n))));
        assert_eq!((pacing.late, pacing.gaps), (1, 1));
        assert_eq!(pacing.longest_gap, 55 * MS);
    }

    #[test]
    fn a_pause_that_is_not_made_up_for_makes_the_rest_late() {
        let pause = |n| u64::from(n >= 300) * 60 * MS;
        let pacing = judged((0..500).map(|n| (n, u64::from(n) * STEP + pause(n))));
        assert_eq!((pacing.late, pacing.gaps), (200, 1));
    }

    #[test]
    fn a_frame_that_was_lost_keeps_its_place() {
        let whole = (0..500).map(|n| (n, u64::from(n) * STEP));
        let pacing = judged(whole.filter(|(n, _)| *n != 100));
        assert!(pacing.lateness.max() <= 1000);
        assert_eq!(pacing.late, 0);
    }

    #[test]
    fn a_frame_that_was_overtaken_is_late() {
        let mut order: Vec<_> = (0..500).map(|n| (n, u64::from(n) * STEP)).collect();
        let (place, at) = order.remove(100);
        order.insert(102, (place, at + 2 * STEP));
        let pacing = judged(order);
        assert_eq!((pacing.late, pacing.longest_gap), (1, 2 * STEP));
    }

    #[test]
    fn one_frame_has_no_grid() {
        assert_eq!(judged([(0, 5)]).lateness.len(), 0);
    }
}
