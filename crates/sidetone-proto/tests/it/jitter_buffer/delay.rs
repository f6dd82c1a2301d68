//! How long live audio waits, and what a source with a clock of its own costs.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sidetone_proto::{Rate, Time};

use super::{HOUR, MAX_DELAY, Outcome, Source, cut, echo_of, loud, run};
use crate::support::{Random, SLOT, World, at, ms, ramp, us};

#[test]
fn an_hour_from_a_drifting_source_costs_its_drift_and_stays_below_the_maximum_delay() {
    let nominal = Source {
        ppm: 0,
        jitter: ms(6),
    };
    for (seed, ppm) in [(1, 200), (2, -200), (3, 0)] {
        let pushes = Source { ppm, jitter: ms(6) }.arrivals(seed, HOUR);
        for inbound in [vec![], nominal.arrivals(seed + 10, HOUR)] {
            let outcome = run(&inbound, &pushes, loud);
            let expected = ppm.unsigned_abs() * HOUR.as_micros() as u64 / 1_000_000 / 20_000;
            let corrections = outcome.corrections();
            assert!(
                corrections.abs_diff(expected) <= 1,
                "{ppm} ppm: {corrections}"
            );
            assert!(
                outcome.worst_delay() <= MAX_DELAY,
                "{:?}",
                outcome.worst_delay()
            );
            assert!(outcome.worst_buffered <= MAX_DELAY);
            assert!(
                outcome.pushed - outcome.left.len() <= outcome.counters.live_dropped as usize + 4
            );
        }
    }
}

#[test]
fn an_hour_of_echo_costs_nothing_whatever_the_callers_clock_because_the_schedule_follows() {
    for (seed, ppm) in [(4, 200), (5, -200)] {
        let inbound = Source { ppm, jitter: ms(6) }.arrivals(seed, HOUR);
        let outcome = run(&inbound, &echo_of(&inbound, seed), loud);
        assert!(
            outcome.corrections() <= 1,
            "{ppm} ppm: {:?}",
            outcome.counters
        );
        assert!(outcome.worst_delay() <= MAX_DELAY);
        assert_eq!(outcome.counters.gaps, 0);
    }
}

#[test]
fn ten_minutes_of_echo_with_asterisks_jitter_are_bit_exact_from_the_first_frame() {
    for seed in 20..26 {
        let inbound = Source {
            ppm: 0,
            jitter: us(5_500),
        }
        .arrivals(seed, ms(600_000));
        let outcome = run(&inbound, &echo_of(&inbound, seed), loud);
        assert_eq!(
            outcome.corrections(),
            0,
            "seed {seed}: {:?}",
            outcome.counters
        );
        assert!(outcome.left.iter().enumerate().all(|(n, &left)| n == left));
        assert!(
            outcome.pushed - outcome.left.len() <= 2,
            "the last are on their way"
        );
    }
}

#[test]
fn a_slot_that_is_late_makes_no_frame_look_like_surplus() {
    for phase in 0..20 {
        let mut world = World::new();
        for n in 0..200 {
            world.run_to(at(20 * n + phase));
            let sound = ramp(n as usize * 160, 160);
            world
                .call
                .jitter_buffer()
                .push(world.now, Rate::Slin, &sound);
            if n == 100 {
                world.stall(ms(19));
                world.poll();
            }
        }
        world.run(ms(100));
        assert_eq!(world.call.counters().live_dropped, 0, "{phase}");
        assert!(world.sound() == ramp(0, 200 * 160), "{phase}");
    }
}

#[test]
fn a_settled_echo_turns_round_in_5_ms_and_within_3_ms_of_the_jitter() {
    for seed in 40..50 {
        let settled = |outcome: &Outcome| {
            let mut delays = outcome.delays[1000..].to_vec();
            delays.sort_unstable();
            delays
        };
        let steady = Source {
            ppm: 0,
            jitter: Duration::ZERO,
        }
        .arrivals(seed, ms(60_000));
        let outcome = run(&steady, &steady, loud);
        assert!(
            settled(&outcome).last() <= Some(&ms(5)),
            "{:?}",
            settled(&outcome).last()
        );

        let jitter = us(5_500);
        let inbound = Source { ppm: 0, jitter }.arrivals(seed, ms(120_000));
        let outcome = run(&inbound, &inbound, loud);
        let delays = settled(&outcome);
        let p999 = delays[delays.len() * 999 / 1000];
        assert!(p999 <= jitter * 2 + ms(3), "{p999:?}");
    }
}

#[test]
fn a_first_frame_that_was_late_is_corrected_within_8_s() {
    for seed in 40..50 {
        let steady = Source {
            ppm: 0,
            jitter: Duration::ZERO,
        }
        .arrivals(seed, ms(20_000));
        let mut pushes = steady.clone();
        pushes[0] += ms(19);
        let outcome = run(&steady, &pushes, loud);
        let after_8_s = &outcome.delays[400..];
        assert!(after_8_s.iter().max() <= Some(&ms(5)), "{seed}");
        assert_eq!(outcome.corrections(), 0, "{seed}");
    }
}

#[test]
fn a_surplus_frame_is_dropped_in_silence_if_there_is_any() {
    let pushes = Source {
        ppm: 200,
        jitter: ms(6),
    }
    .arrivals(7, ms(600_000));
    // A second of near silence in every ten.
    let is_loud = |n: usize| n % 500 < 450;
    let outcome = run(&[], &pushes, is_loud);
    let missing = cut(&outcome);
    assert_eq!(missing.len() as u64, outcome.counters.live_dropped);
    assert!((5..=6).contains(&missing.len()), "{missing:?}");
    assert!(missing.iter().all(|&n| !is_loud(n)), "{missing:?}");
}

#[test]
fn live_audio_waits_for_no_clip_and_its_delay_does_not_grow() {
    let mut world = World::new();
    let clip = vec![-5; 160 * 50];
    for n in 0..150 {
        if n == 50 {
            world.call.playout().push(world.now, Rate::Slin, &clip);
        }
        world.run_to(at(20 * n + 5));
        world
            .call
            .jitter_buffer()
            .push(world.now, Rate::Slin, &ramp(n as usize * 160, 160));
        assert!(world.call.jitter_buffer().buffered() <= ms(60));
    }
    let sound = world.sound();
    let begin = sound.iter().position(|&s| s == -5).unwrap();
    assert_eq!(sound[begin..begin + clip.len()], clip);
    assert!(sound[begin + clip.len() + 320..].iter().all(|&s| s > 0));
}

#[test]
fn the_schedule_is_moved_towards_live_audio_by_less_than_asterisk_tolerates() {
    // A source that stops and begins again, each time at another phase.
    let mut world = World::new();
    let mut random = Random(3);
    for _ in 0..100 {
        let begin = world.now + ms(300) + Duration::from_nanos(random.below(20_000_000));
        for n in 0..100 {
            world.run_to(begin + SLOT * n);
            world
                .call
                .jitter_buffer()
                .push(world.now, Rate::Slin, &[500; 160]);
        }
    }
    let (last, ..) = *world.slots.last().unwrap();
    let nominal = Time::ZERO + SLOT * (world.slots.len() as u32 - 1);
    assert!(last.nanos_since(nominal).abs() <= 50_000_000);
}
