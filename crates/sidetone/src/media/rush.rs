use std::time::Duration;

use sidetone_proto::Time;

/// Over this time what happens is counted: the rhythm in which a busy connection is served.
const WINDOW: Duration = Duration::from_millis(20);

/// From so many events in a window on, turns gather them: those of 20 calls that talk.
const MANY: u32 = 40;

/// Below so many, they no longer do. Fewer, so that a load at the edge does not go to and fro; but more than
/// ten calls have that talk.
const FEW: u32 = MANY * 3 / 4;

/// How many turns there are in 20 ms when much is heard, for which handlers have to be woken. With more of them a
/// turn gathers less, and its beginning, on a processor whose caches are cold, is a large part of what it costs:
/// over io_uring four cost a tenth more at 100 calls and at 1000. Two would save another fifth at 100 and nothing at
/// 1000, and answer calls some 8 ms later.
const HEARING: u64 = 3;

/// How many when there is hardly anything but slots. Nobody is woken for these, so there is less to save; and what
/// a turn has gathered leaves in one go, which makes its last frames late. With four turns, the frames that 1000
/// calls were played were a fifth later.
const SPEAKING: u64 = 10;

/// Whether so much happens on a media thread that its turns should gather it.
///
/// A turn costs a wake-up and a system call or two, and one more wake-up for whoever has news. With few calls
/// nobody else would share that cost, so they are answered at once. It is events that are counted, not
/// connections: a thousand silent ones that wait for their UUID leave nothing to gather, and a rush of set-ups
/// and hang-ups does, however short the calls are.
///
/// Turns that gather begin on an absolute grid, which repeats every 20 ms: a call's slots are all as late against
/// their deadlines.
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

    /// Up to when to gather what happens; none if it is to be answered at once.
    pub(super) fn gathers_until(&mut self, now: Time) -> Option<Time> {
        if now - self.begun >= WINDOW {
            self.begun = now;
            self.events.begin_again();
            self.heard.begin_again();
        }
        let turns = self.turns()?;
        Some(begin_of_turn(turns, turn_at(turns, now) + 1))
    }

    /// Up to when deadlines are met in a turn at `now`. A turn that gathers may begin late; what has fallen due
    /// since it should have is left to the next one, or a call's slots would leave in one or the other, as it
    /// happens.
    pub(super) fn due_by(&self, now: Time) -> Time {
        self.turns()
            .map_or(now, |turns| begin_of_turn(turns, turn_at(turns, now)))
    }

    /// How many turns there are in a window, if they gather.
    fn turns(&self) -> Option<u64> {
        let turns = if self.heard.is_high {
            HEARING
        } else {
            SPEAKING
        };
        self.events.is_high.then_some(turns)
    }
}

/// The number of the turn that `now` lies in, where there are so many of them in a window.
fn turn_at(turns: u64, now: Time) -> u64 {
    now.as_nanos() * turns / WINDOW.as_nanos() as u64
}

fn begin_of_turn(turns: u64, number: u64) -> Time {
    Time::from_nanos((number * WINDOW.as_nanos() as u64).div_ceil(turns))
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
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Lets `events` happen, evenly, in each of `windows` and says how many turns there are at the end.
    fn run(rush: &mut Rush, from: &mut Time, windows: u32, events: u32) -> Option<u64> {
        for _ in 0..windows {
            for _ in 0..events {
                rush.note_heard();
                *from += WINDOW / events;
                rush.gathers_until(*from);
            }
            if events == 0 {
                *from += WINDOW;
                rush.gathers_until(*from);
            }
        }
        rush.turns()
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
        assert!(rush.gathers_until(now).is_some());
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
            rush.gathers_until(*now);
            rush.turns()
        };
        for (heard, turns) in [
            (0, SPEAKING),
            (MANY, HEARING),
            (FEW, HEARING),
            (FEW - 1, SPEAKING),
        ] {
            assert_eq!(window(&mut rush, &mut now, heard), Some(turns), "{heard}");
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
    fn a_deadline_is_met_in_its_turn_however_late_that_begins() {
        let at = |micros| Time::ZERO + Duration::from_micros(micros);
        let mut rush = Rush::new(at(0));
        assert_eq!(rush.due_by(at(4_900)), at(4_900), "at once");
        (0..MANY).for_each(|_| rush.note_heard());
        let begin = rush.gathers_until(at(4_900)).unwrap();
        for late in [0, 900, 6_666] {
            assert_eq!(rush.due_by(begin + Duration::from_micros(late)), begin);
        }
    }

    #[test]
    fn turns_begin_at_the_same_places_of_every_window() {
        for turns in [HEARING, SPEAKING] {
            for number in 1..10 * turns {
                let begin = begin_of_turn(turns, number);
                let before = Time::from_nanos(begin.as_nanos() - 1);
                assert_eq!(turn_at(turns, begin), number);
                assert_eq!(turn_at(turns, before), number - 1);
                assert_eq!(begin_of_turn(turns, number + turns), begin + WINDOW);
            }
        }
    }
}
