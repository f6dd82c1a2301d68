use std::time::Duration;

use sidetone_proto::Time;

/// Over this time what happens is counted: the rhythm in which a busy connection is served.
const WINDOW: Duration = Duration::from_millis(20);

/// From so many events in a window on, turns gather them: four for each tick of 2 ms.
const MANY: u32 = 40;

/// Below so many, they no longer do. Half, so that a load at the edge does not go to and fro.
const FEW: u32 = MANY / 2;

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
    is_on: bool,
}

impl Rush {
    pub(super) fn new(now: Time) -> Self {
        Self {
            begun: now,
            events: 0,
            is_on: false,
        }
    }

    /// Something happened: a call began or ended, something was read or sent, a slot was due.
    pub(super) fn note(&mut self) {
        self.events = self.events.saturating_add(1);
    }

    /// Whether the next turn should gather.
    pub(super) fn is_on(&mut self, now: Time) -> bool {
        // A rush need not wait for the end of its first window.
        self.is_on |= self.events >= MANY;
        if now - self.begun >= WINDOW {
            self.is_on = self.events >= if self.is_on { FEW } else { MANY };
            self.begun = now;
            self.events = 0;
        }
        self.is_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `events` happen, evenly, in each of `windows` and says whether turns gather at the end.
    fn run(rush: &mut Rush, from: &mut Time, windows: u32, events: u32) -> bool {
        let mut is_on = false;
        for _ in 0..windows {
            for _ in 0..events {
                rush.note();
                *from += WINDOW / events;
                is_on = rush.is_on(*from);
            }
            if events == 0 {
                *from += WINDOW;
                is_on = rush.is_on(*from);
            }
        }
        is_on
    }

    #[test]
    fn few_events_are_answered_at_once_and_many_gathered() {
        let mut now = Time::ZERO;
        let mut rush = Rush::new(now);
        assert!(!run(&mut rush, &mut now, 50, FEW - 1));
        assert!(run(&mut rush, &mut now, 3, MANY + 1));
    }

    #[test]
    fn a_rush_is_seen_within_its_first_window() {
        let now = Time::ZERO + Duration::from_millis(1);
        let mut rush = Rush::new(now);
        (0..MANY).for_each(|_| rush.note());
        assert!(rush.is_on(now));
    }

    #[test]
    fn a_load_at_the_edge_does_not_go_to_and_fro() {
        let mut now = Time::ZERO;
        let mut rush = Rush::new(now);
        let between = (FEW + MANY) / 2;
        assert!(!run(&mut rush, &mut now, 20, between), "not from below");
        run(&mut rush, &mut now, 3, MANY + 1);
        assert!(run(&mut rush, &mut now, 20, between), "but from above");
    }

    #[test]
    fn silence_ends_it() {
        let mut now = Time::ZERO;
        let mut rush = Rush::new(now);
        run(&mut rush, &mut now, 3, 10 * MANY);
        assert!(!run(&mut rush, &mut now, 2, 0));
    }
}
