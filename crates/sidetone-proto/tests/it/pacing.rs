//! The schedule stays whatever the application and the machine do.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;
use sidetone_proto::{Due, Pacer, Rate, Time};

use crate::support::{Heard, SLOT, World, at, frame, ms, ramp};

/// In nanoseconds.
const SLEW: u64 = 100_000;

#[derive(Clone, Debug)]
enum Action {
    /// Time passes, with polls when they are due.
    Run(u64),
    /// Time passes without polls.
    Stall(u64),
    /// The inbound clock moves, in microseconds.
    Slew(i64),
    Step(i64),
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0..100_000u64).prop_map(Action::Run),
        1 => prop_oneof![Just(10_000), Just(60_000), Just(500_000), 0..200_000u64].prop_map(Action::Stall),
        2 => (-30_000..30_000i64).prop_map(Action::Slew),
        1 => (-30_000..30_000i64).prop_map(Action::Step),
    ]
}

proptest! {
    #![proptest_config(crate::support::cases(300))]
    #[test]
    fn any_order_of_operations_keeps_the_schedule(
        actions in prop::collection::vec(any_action(), 1..100),
        slot in prop::sample::select(vec![ms(20), ms(10)]),
    ) {
        let mut now = at(1000);
        let mut pacer = Pacer::new(now);
        for action in actions {
            let until = match action {
                Action::Run(micros) => now + Duration::from_micros(micros),
                Action::Stall(micros) => {
                    now += Duration::from_micros(micros);
                    now
                }
                Action::Slew(micros) => {
                    pacer.slew(micros * 1000);
                    now
                }
                Action::Step(micros) => {
                    pacer.step(micros * 1000);
                    now
                }
            };
            loop {
                let place = pacer.next();
                match pacer.due(now, slot) {
                    Due::NotYet => {
                        prop_assert!(place > now);
                        if place > until {
                            break;
                        }
                        now = place;
                        continue;
                    }
                    Due::Now { late } => {
                        prop_assert_eq!(late, now - place);
                        prop_assert!(late <= ms(60));
                        prop_assert_eq!(pacer.next(), place);
                    }
                    Due::Slipped { missed, late } => {
                        prop_assert_eq!(late, now - place);
                        prop_assert!(late > ms(60));
                        prop_assert_eq!(pacer.next(), now, "the schedule starts anew");
                        let missing = late - slot * missed as u32;
                        prop_assert!(missing < slot);
                    }
                }
                let place = pacer.next();
                pacer.advance(slot);
                let step = (pacer.next() - place).as_nanos() as u64;
                prop_assert!(step.abs_diff(slot.as_nanos() as u64) <= SLEW, "{step}");
            }
            now = now.max(until);
        }
    }

    #[test]
    fn never_more_than_two_slots_a_poll_and_none_twice(
        pauses in prop::collection::vec(prop_oneof![0..25u64, 0..90u64, 0..700u64], 1..80),
    ) {
        let mut world = World::new();
        world.call.playout().push(at(0), Rate::Slin, &ramp(0, 160 * 2000));
        for pause in pauses {
            world.stall(ms(pause));
            for _ in 0..40 {
                let before = world.slots.len();
                world.poll();
                prop_assert!(world.slots.len() - before <= 2);
            }
        }
        prop_assert!(world.sound() == ramp(0, world.slots.len() * 160), "in order, nothing lost");
        let counters = world.call.counters();
        let passed = (world.now - at(0)).as_millis() as u64 / 20 + 1;
        prop_assert!(world.slots.len() as u64 + counters.slots_missed <= passed);
        prop_assert!(world.slots.len() as u64 + counters.slots_missed + counters.slips >= passed);
    }
}

fn playing() -> World {
    let mut world = World::new();
    world
        .call
        .playout()
        .push(at(0), Rate::Slin, &ramp(0, 160 * 200));
    world.run(ms(990));
    assert_eq!(world.slots.len(), 50);
    world
}

#[test]
fn without_a_stall_each_slot_leaves_on_its_place() {
    let world = playing();
    for (n, (left, ..)) in world.slots.iter().enumerate() {
        assert_eq!(*left, at(20 * n as u64));
    }
    assert_eq!(world.call.counters().worst_lateness, Duration::ZERO);
}

#[test]
fn after_a_stall_of_10_ms_a_slot_is_late_and_the_next_is_not() {
    let mut world = playing();
    world.stall(ms(20));
    world.poll();
    assert_eq!(world.slots.len(), 51);
    assert_eq!(world.slots[50].0, at(1010));
    world.run(ms(100));
    assert_eq!(world.slots[51].0, at(1020));
    assert_eq!(world.call.counters().worst_lateness, ms(10));
    assert_eq!(world.call.counters().slips, 0);
}

#[test]
fn after_a_stall_of_60_ms_the_missing_slots_follow_two_a_poll() {
    let mut world = playing();
    world.stall(ms(70));
    for expected in [52, 54, 54] {
        world.poll();
        assert_eq!(world.slots.len(), expected);
    }
    world.run_to(at(1190));
    let counters = world.call.counters();
    assert_eq!((counters.slips, counters.slots_missed), (0, 0));
    assert_eq!(counters.worst_lateness, ms(60));
    assert_eq!(world.slots.len(), 60, "as many as without the stall");
    assert_eq!(world.slots[54].0, at(1080), "the schedule stays");
    assert!(world.sound() == ramp(0, 160 * 60));
}

#[test]
fn after_a_longer_stall_the_schedule_starts_anew_and_queued_audio_kept() {
    for (stall, missed) in [(71, 3), (510, 25)] {
        let mut world = playing();
        world.stall(ms(stall));
        let resumed = world.now;
        world.run(ms(390));
        let counters = world.call.counters();
        assert_eq!((counters.slips, counters.slots_missed), (1, missed));
        assert_eq!(counters.worst_lateness, ms(stall) - ms(10));
        for (n, (left, ..)) in world.slots[50..].iter().enumerate() {
            assert_eq!(*left, resumed + SLOT * n as u32);
        }
        assert!(
            world.sound() == ramp(0, 160 * 70),
            "nothing of the queue is lost"
        );
    }
}

#[test]
fn silence_goes_out_every_20_ms_from_the_uuid_on() {
    let mut world = World::new();
    world.run(ms(10_000) - ms(1));
    let heard = world.heard();
    assert_eq!(heard.len(), 500);
    assert!(
        heard
            .iter()
            .all(|h| *h == Heard::Audio(Rate::Slin, vec![0; 160]))
    );
    assert!(
        world
            .writes
            .iter()
            .zip(0..)
            .all(|(write, n)| *write == (at(20 * n), 323))
    );
    assert_eq!(world.call.counters().silent_slots, 500);
}

#[test]
fn a_slot_that_moves_with_the_inbound_clock_moves_by_a_tenth_of_a_millisecond() {
    let mut world = World::new();
    // An Asterisk whose clock is off by 500 ppm.
    for n in 0..10_000 {
        world.run_to(Time::from_nanos(15_000_000 + 20_010_000 * n));
        world.receive(&frame(&[0; 160]));
        world.events.clear();
    }
    let slots: Vec<Time> = world.slots.iter().map(|(left, ..)| *left).collect();
    for pair in slots.windows(2) {
        let step = (pair[1] - pair[0]).as_nanos() as u64;
        assert!(step.abs_diff(20_000_000) <= SLEW, "{step}");
    }
    let lag = (slots[9_000] - slots[5_000]).nanos_since_nominal(4_000);
    assert!(
        lag.abs_diff(4_000 * 10_000) < 1_000_000,
        "it follows: {lag}"
    );
}

trait Nominal {
    fn nanos_since_nominal(self, slots: u32) -> i64;
}

impl Nominal for Duration {
    fn nanos_since_nominal(self, slots: u32) -> i64 {
        self.as_nanos() as i64 - (SLOT * slots).as_nanos() as i64
    }
}
