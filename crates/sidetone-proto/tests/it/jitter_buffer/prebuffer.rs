//! A prebuffer keeps audio whole that comes late.

use std::time::Duration;

use sidetone_proto::Rate;

use super::{MAX_DELAY, Source, echo_of, loud, run, run_with, stalled, steady_but};
use crate::support::{World, at, ms, ramp, us};

#[test]
fn a_prebuffer_keeps_an_echo_whole_while_its_program_is_late_now_and_then() {
    let prebuffer = ms(100);
    for seed in 60..66 {
        let jitter = us(5_500);
        let inbound = Source { ppm: 0, jitter }.arrivals(seed, ms(600_000));
        let pushes = stalled(&echo_of(&inbound, seed), prebuffer, seed);
        let outcome = run_with(prebuffer, &inbound, &pushes, loud);
        assert_eq!(outcome.corrections(), 0, "{seed}: {:?}", outcome.counters);
        assert!(outcome.left.iter().enumerate().all(|(n, &left)| n == left));
        assert!(outcome.worst_delay() <= 2 * prebuffer + MAX_DELAY);
        let without = run(&inbound, &pushes, loud);
        assert!(without.corrections() > 20, "{:?}", without.counters);
    }
}

#[test]
fn a_prebuffer_keeps_an_echo_whole_when_the_machine_stalls_for_100_ms_once() {
    // Nothing is read, echoed or written for that long. After it, the frames come at once.
    let stand_still = |prebuffer| {
        let mut world = World::new();
        world.call.jitter_buffer().set_prebuffer(prebuffer);
        for n in 0..2000 {
            let due = at(20 * n + 7);
            if n == 1000 {
                world.stall(ms(100));
                world.poll();
            }
            if due > world.now {
                world.run_to(due);
            }
            let sound = ramp(n as usize * 160, 160);
            world
                .call
                .jitter_buffer()
                .push(world.now, Rate::Slin, &sound);
        }
        world.run(ms(300));
        (world.sound() == ramp(0, 2000 * 160), world.call.counters())
    };
    let (whole, counters) = stand_still(ms(100));
    assert!(whole, "{counters:?}");
    assert!(counters.slots_missed > 0);
    let (whole, counters) = stand_still(Duration::ZERO);
    assert!(!whole, "{counters:?}");
}

#[test]
fn with_a_prebuffer_sound_is_never_cut() {
    let steady = steady_but(&[]);
    let outcome = run_with(ms(40), &steady, &steady_but(&[(1000, ms(90))]), loud);
    assert_eq!(outcome.counters.live_dropped, 0);
}
