use std::time::Duration;

use sidetone_proto::Time;

/// Over this time what happens is counted: the rhythm in which a busy connection is served.
const WINDOW: Duration = Duration::from_millis(20);

/// From so many events in a window on, turns gather them: those of 20 calls that talk.
const MANY: u32 = 40;

/// Below so many, they no longer do. Fewer, so that a load at the edge does not go to and fro; but more than
/// ten calls have that talk.
const FEW: u32 = MANY * 3 / 4;

/// How long turns gather. Ticks are those of an absolute grid, which 20 ms are a multiple of: a call's slots
/// are all as late against their deadlines. A shorter one gathers less: one of 4 ms cost an eighth more at 1000
/// calls and a quarter more at 100. A longer one saves little where there are many calls, and delays all of them.
const TICK: Duration = Duration::from_millis(5);

/// Whether so much happens on a media thread that its turns should gather it.
///
/// A turn costs a wake-up and a system call or two, and one more wake-up for whoever has news. With few calls
/// nobody else would share that cost, so they are answered at once. It is events that are counted, not
/// connections: a thousand silent ones that wait for their UUID need no tick, and a rush of set-ups and hang-ups
/// does, however short the calls are.
#[derive(Debug)]
pub(super) struct Rush {
    /// When the window began.
    begun: Time,
    events: u32,
    gathers: bool,
}

impl Rush {
    pub(super) fn new(now: Time) -> Self {
        Self {
            begun: now,
            events: 0,
            gathers: false,
        }
    }

    /// Something happened: a call began or ended, something was read, a slot was due. What an engine reports of
    /// its sends does not count, for not every engine does.
    pub(super) fn note(&mut self) {
        self.events = self.events.saturating_add(1);
    }

    /// The ticks in which to gather what happens; none if it is to be answered at once.
    pub(super) fn tick(&mut self, now: Time) -> Option<Duration> {
        if now - self.begun >= WINDOW {
            self.gathers = self.events >= if self.gathers { FEW } else { MANY };
            self.begun = now;
            self.events = 0;
        } else if self.events >= MANY {
            // A rush need not wait for the end of its first window.
            self.gathers = true;
        }
        self.gathers.then_some(TICK)
    }

    /// Up to when deadlines are met in a turn at `now`. A turn that gathers may begin late in its tick; what has
    /// fallen due since is left to the next one, or a call's slots would leave in one tick or the other, as it
    /// happens.
    pub(super) fn due_by(&self, now: Time) -> Time {
        if !self.gathers {
            return now;
        }
        let tick = TICK.as_nanos() as u64;
        Time::from_nanos(now.as_nanos() / tick * tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `events` happen, evenly, in each of `windows` and says how turns gather at the end.
    fn run(rush: &mut Rush, from: &mut Time, windows: u32, events: u32) -> Option<Duration> {
        let mut tick = None;
        for _ in 0..windows {
            for _ in 0..events {
                rush.note();
                *from += WINDOW / events;
                tick = rush.tick(*from);
            }
            if events == 0 {
                *from += WINDOW;
                tick = rush.tick(*from);
            }
        }
        tick
    }

    #[test]
    fn few_events_are_answered_at_once_and_many_gathered() {
        let mut now = Time::ZERO;
        let mut rush = Rush::new(now);
        assert_eq!(run(&mut rush, &mut now, 50, FEW - 1), None);
        assert_eq!(run(&mut rush, &mut now, 3, MANY + 1), Some(TICK));
    }

    #[test]
    fn a_rush_is_seen_within_its_first_window() {
        let now = Time::ZERO + Duration::from_millis(1);
        let mut rush = Rush::new(now);
        (0..MANY).for_each(|_| rush.note());
        assert!(rush.tick(now).is_some());
    }

    #[test]
    fn a_load_at_the_edge_does_not_go_to_and_fro() {
        let mut now = Time::ZERO;
        let mut rush = Rush::new(now);
        let between = (FEW + MANY) / 2;
        assert_eq!(run(&mut rush, &mut now, 20, between), None, "from below");
        run(&mut rush, &mut now, 3, MANY + 1);
        assert!(
            run(&mut rush, &mut now, 20, between).is_some(),
            "from above"
        );
    }

    #[test]
    fn silence_ends_it() {
        let mut now = Time::ZERO;
        let mut rush = Rush::new(now);
        run(&mut rush, &mut now, 3, 10 * MANY);
        assert_eq!(run(&mut rush, &mut now, 2, 0), None);
    }

    #[test]
    fn a_deadline_is_met_in_the_turn_of_its_tick_however_late_that_begins() {
        let at = |micros| Time::ZERO + Duration::from_micros(micros);
        let mut rush = Rush::new(at(0));
        assert_eq!(rush.due_by(at(4_900)), at(4_900), "at once");
        (0..MANY).for_each(|_| rush.note());
        rush.tick(at(4_900));
        for late in [0, 900, 4_999] {
            assert_eq!(rush.due_by(at(10_000 + late)), at(10_000));
        }
    }

    #[test]
    fn a_tick_divides_a_slot() {
        assert_eq!(WINDOW.as_nanos() % TICK.as_nanos(), 0);
    }
}
