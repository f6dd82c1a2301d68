//! Audio that comes too late: what is waited for, and how the delay of an underrun goes away.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sidetone_proto::{Rate, Time};

use super::{cut, loud, run, steady_but};
use crate::support::{Event, World, at, ms, ramp};

#[test]
fn an_underrun_is_silence_counted_once_and_reported() {
    let mut world = World::new();
    for n in 0..130 {
        // One of them is 50 ms late, and those that should have come meanwhile come with it.
        let late = matches!(n, 100..=102);
        world.run_to(if late { at(2065) } else { at(20 * n + 15) });
        world
            .call
            .jitter_buffer()
            .push(world.now, Rate::Slin, &ramp(n as usize * 160, 160));
    }
    assert_eq!(world.events, [Event::Underrun]);
    assert_eq!(world.call.counters().underruns, 1);
    assert_eq!(world.call.counters().live_dropped, 0);
    let silent = |(_, _, slot): &(Time, Rate, Vec<i16>)| slot.iter().all(|&s| s == 0);
    let (begin, end) = (
        world.slots.iter().position(|slot| !silent(slot)).unwrap(),
        world.slots.len(),
    );
    let silent = world.slots[begin..end]
        .iter()
        .filter(|slot| silent(slot))
        .count();
    assert!((2..=3).contains(&silent), "{silent} slots without a frame");
}

#[test]
fn a_slot_waits_for_a_late_frame_and_the_next_is_on_schedule() {
    let steady = steady_but(&[]);
    let outcome = run(&steady, &steady_but(&[(1000, ms(9))]), loud);
    assert_eq!(outcome.corrections(), 0, "{:?}", outcome.counters);
    assert!(outcome.delays[1000] <= ms(1), "{:?}", outcome.delays[1000]);
    let settled = outcome.delays[999];
    assert!(settled <= ms(5), "{settled:?}");
    assert!(outcome.delays[1001..].iter().all(|&delay| delay == settled));
}

#[test]
fn a_slot_waits_once_in_a_second_and_no_longer_than_10_ms() {
    let steady = steady_but(&[]);
    let underruns = |late: &[(usize, Duration)]| {
        let outcome = run(&steady, &steady_but(late), loud);
        outcome.counters.underruns
    };
    let control = underruns(&[]);
    assert_eq!(underruns(&[(1000, ms(9)), (1050, ms(9))]), control);
    assert_eq!(underruns(&[(1000, ms(9)), (1049, ms(9))]), control + 1);
    assert_eq!(underruns(&[(1000, ms(14))]), control + 1);
}

#[test]
fn the_delay_of_an_underrun_is_gone_with_the_next_silence() {
    let steady = steady_but(&[]);
    let outcome = run(&steady, &steady_but(&[(1000, ms(14))]), |n| n < 1050);
    assert_eq!(outcome.counters.underruns, 1);
    assert_eq!(outcome.counters.live_dropped, 1);
    assert_eq!(cut(&outcome), [1050]);
    assert!(outcome.delays.iter().skip(1050).max() <= Some(&ms(3)));
}

#[test]
fn in_sound_without_silence_the_delay_of_an_underrun_is_cut_at_the_quietest_place_within_2_s() {
    let steady = steady_but(&[]);
    let pushes = steady_but(&[(1000, ms(14))]);
    let outcome = run(&steady, &pushes, loud);
    let [only] = cut(&outcome)[..] else {
        panic!("{:?}", cut(&outcome));
    };
    assert!((1010..1100).contains(&only), "{only}");
    assert!(outcome.delays.iter().skip(1100).max() <= Some(&ms(3)));

    // What is not silence, but quieter than before, is a better place.
    let mut world = World::new();
    for (n, &push) in pushes[..1200].iter().enumerate() {
        world.run_to(push);
        let level = if (1072..1075).contains(&n) { 300 } else { 8000 };
        let sign = if n % 2 == 0 { 1 } else { -1 };
        world
            .call
            .jitter_buffer()
            .push(push, Rate::Slin, &[sign * level; 160]);
    }
    let quiet = world.sound().iter().filter(|s| s.abs() == 300).count();
    assert!((2 * 160 - 40..=2 * 160).contains(&quiet), "{quiet}");
    assert_eq!(world.call.counters().live_dropped, 1);
}

#[test]
fn a_cut_fades_from_what_is_cut_out_to_what_follows() {
    let mut world = World::new();
    for (n, &push) in steady_but(&[(1000, ms(14))])[..1200].iter().enumerate() {
        world.run_to(push);
        let level = if n % 2 == 0 { 8000 } else { 9000 };
        world
            .call
            .jitter_buffer()
            .push(push, Rate::Slin, &[level; 160]);
    }
    let sound = world.sound();
    let behind_the_gap = sound.iter().rposition(|&s| s == 0).unwrap() + 1;
    let steps = sound[behind_the_gap..]
        .windows(2)
        .map(|pair| pair[1] - pair[0]);
    let (whole, faded): (Vec<i16>, Vec<i16>) = steps
        .filter(|&step| step != 0)
        .partition(|step| step.abs() == 1000);
    assert!(whole.len() > 100);
    assert_eq!(
        faded.len(),
        40,
        "a quarter of a frame, a fortieth at a time"
    );
    assert!(faded[1..].iter().all(|step| step.abs() == 25));
}

#[test]
fn cuts_that_lead_to_gaps_become_rarer() {
    // Every 3 s, a frame is 15 ms late: more than is waited for, and gone from memory when the next one is.
    let steady: Vec<Time> = (0..30_000).map(|n| at(20 * n + 15)).collect();
    let mut late = steady.clone();
    for n in (500..30_000).step_by(150) {
        late[n] += ms(15);
    }
    let outcome = run(&steady, &late, loud);
    assert!(outcome.counters.underruns < 10, "{:?}", outcome.counters);
}

#[test]
fn a_media_thread_that_stalls_while_a_slot_waits_goes_on() {
    for stall in [5, 15, 30, 45, 59, 100] {
        let mut world = World::new();
        for n in 0..100 {
            world.run_to(at(20 * n + 7));
            // The next frames' slots are looked at when they wait, and then not for a while.
            if (3..12).contains(&n) {
                world.run(ms(15));
                world.stall(ms(stall));
            }
            world
                .call
                .jitter_buffer()
                .push(world.now, Rate::Slin, &[500; 160]);
            world.poll();
        }
        let (last, ..) = *world.slots.last().unwrap();
        assert!(last >= at(1_900), "{stall}: it goes on");
    }
}
