use std::time::Duration;

use sidetone_proto::Time;

/// Over this time what happens is counted: the rhythm in which a busy connection is served.
const WINDOW: Duration = Duration::from_millis(20);

/// From so many events in a window on, turns gather them: those of 20 calls that talk.
const MANY: u32 = 40;

/// Below so many, they no longer do. Fewer, so that a load at the edge does not go to and fro; but more than
/// ten calls have that talk.
const FEW: u32 = MANY * 3 / 4;

/// How long turns gather when much is heard, for which handlers have to be woken. A shorter tick gathers less: one
/// of 4 ms cost an eighth more at 1000 calls and a quarter more at 100. A longer one saves little where there are many
/// calls, and delays all of them.
const HEARING: Duration = Duration::from_millis(5);

/// How long they gather when there is hardly anything but slots. Nobody is woken for these, so there is less to
/// save; and what a tick has gathered leaves in one go, which makes its last frames late. With one of 5 ms, the
/// frames that 1000 calls were played were a fifth later.
const SPEAKING: Duration = Duration::from_millis(2);

/// Whether so much happens on a media thread that its turns should gather it.
///
/// A turn costs a wake-up and a system call or two, and one more wake-up for whoever has news. With few calls
/// nobody else would share that cost, so they are answered at once. It is events that are counted, not
/// connections: a thousand silent ones that wait for their UUID need no tick, and a rush of set-ups and hang-ups
/// does, however short the calls are.
///
/// Ticks are those of an absolute grid, which 20 ms are a multiple of: a call's slots are all as late against their
/// deadlines.
#[derive(Debug)]
pub(super) struct Rush {
    /// When the window began.
    begun: Time,
    events: Level,
    heard: Level,
}

/// How many of a kind happen in a window, and whether that is many.
#[derive(Debug, Default)]
struct Level {
    count: u32,
    is_high: bool,
}

impl Rush {
    pub(super) fn new(now: Time) -> Self {
        Self {
            begun: now,
            events: Level::default(),
            heard: Level::default(),
        }
    }

    /// Something was heard: a call began or ended, or something was read. What an engine reports of its sends
    /// does not count, for not every engine does.
    pub(super) fn note_heard(&mut self) {
        self.events.note();
        self.heard.note();
    }

    /// A slot was due.
    pub(super) fn note_slot(&mut self) {
        self.events.note();
    }

    /// How long to gather what happens; none if it is to be answered at once.
    pub(super) fn tick(&mut self, now: Time) -> Option<Duration> {
        if now - self.begun >= WINDOW {
            self.begun = now;
            self.events.begin_again();
            self.heard.begin_again();
        }
        self.gathered()
    }

    /// Up to when deadlines are met in a turn at `now`. A turn that gathers may begin late in its tick; what has
    /// fallen due since is left to the next one, or a call's slots would leave in one tick or the other, as it
    /// happens.
    pub(super) fn due_by(&self, now: Time) -> Time {
        let Some(tick) = self.gathered() else {
            return now;
        };
        let tick = tick.as_nanos() as u64;
        Time::from_nanos(now.as_nanos() / tick * tick)
    }

    fn gathered(&self) -> Option<Duration> {
        let tick = if self.heard.is_high {
            HEARING
        } else {
            SPEAKING
        };
        self.events.is_high.then_some(tick)
    }
}

impl Level {
    /// A rush need not wait for the end of its first window.
    fn note(&mut self) {
        self.count = self.count.saturating_add(1);
        self.is_high |= self.count >= MANY;
    }

    fn begin_again(&mut self) {
        self.is_high = self.count >= if self.is_high { FEW } else { MANY };
        self.count = 0;
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
                rush.note_heard();
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
        assert_eq!(run(&mut rush, &mut now, 3, MANY + 1), Some(HEARING));
    }

    #[test]
    fn a_rush_is_seen_within_its_first_window() {
        let now = Time::ZERO + Duration::from_millis(1);
        let mut rush = Rush::new(now);
        (0..MANY).for_each(|_| rush.note_heard());
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
    fn slots_alone_are_gathered_for_less_time() {
        let mut now = Time::ZERO;
        let mut rush = Rush::new(now);
        let window = |rush: &mut Rush, now: &mut Time, heard: u32| {
            (0..10 * MANY).for_each(|_| rush.note_slot());
            (0..heard).for_each(|_| rush.note_heard());
            *now += WINDOW;
            rush.tick(*now)
        };
        for (heard, tick) in [
            (0, SPEAKING),
            (MANY, HEARING),
            (FEW, HEARING),
            (FEW - 1, SPEAKING),
        ] {
            assert_eq!(window(&mut rush, &mut now, heard), Some(tick), "{heard}");
        }
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
        (0..MANY).for_each(|_| rush.note_heard());
        rush.tick(at(4_900));
        for late in [0, 900, 4_999] {
            assert_eq!(rush.due_by(at(10_000 + late)), at(10_000));
        }
    }

    #[test]
    fn a_tick_divides_a_slot() {
        for tick in [HEARING, SPEAKING] {
            assert_eq!(WINDOW.as_nanos() % tick.as_nanos(), 0);
        }
    }
}
