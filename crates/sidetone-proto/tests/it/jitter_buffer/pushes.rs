//! Pushes of any size and rate.

use sidetone_proto::{JitterBuffer, Pulled, Rate, Time};

use crate::support::{Random, World, at, message, ms, ramp, us};

#[test]
fn pushes_of_any_size_come_out_the_same() {
    for size in [1, 80, 100, 160, 240, 480] {
        let mut world = World::new();
        let sound = ramp(0, 48_000);
        let mut random = Random(size as u64);
        for (n, piece) in sound.chunks(size).enumerate() {
            let made = Time::ZERO + Rate::Slin.duration((n * size + size) as u64);
            world.run_to(made.shifted(random.below(4_000_000) as i64));
            world
                .call
                .jitter_buffer()
                .push(world.now, Rate::Slin, piece);
        }
        world.run(ms(200));
        let counters = world.call.counters();
        let heard = world.sound();
        let differ = heard.iter().zip(&sound).position(|(a, b)| a != b);
        assert!(
            heard == sound,
            "{size}: {counters:?}, {} {differ:?}",
            heard.len()
        );
        assert_eq!(
            (counters.live_dropped, counters.underruns),
            (0, 1),
            "{size}: its end"
        );
    }
}

#[test]
fn what_ends_in_half_a_slot_is_padded() {
    let mut world = World::new();
    world
        .call
        .jitter_buffer()
        .push(world.now, Rate::Slin, &ramp(0, 200));
    world.run(ms(100));
    assert_eq!(world.sound(), ramp(0, 200));
    let last = world.slots.last().map(|(at, ..)| *at);
    assert_eq!((world.slots.len(), last), (5, Some(at(80) + us(500))));
}

#[test]
fn a_rate_change_begins_anew() {
    let mut live = JitterBuffer::default();
    let mut slot = Vec::new();
    live.push(at(0), Rate::Slin, &[1; 160]);
    live.push(at(1), Rate::Slin16, &[2; 320]);
    assert_eq!(live.buffered(), ms(20));
    assert_eq!(live.pull(at(20), &mut slot), Pulled::Audio(Rate::Slin16));
    assert_eq!(slot, [2; 320]);
}

#[test]
fn ulaw_echo_at_a_ptime_of_10_and_30_costs_nothing() {
    for (bytes, every) in [(80, 10), (240, 30)] {
        let mut world = World::new();
        world.call.set_companded(true);
        for n in 0..2000 {
            world.run_to(at(every * n + 13));
            world.receive(&message(0x10, &vec![0xff; bytes]));
            world.events.clear();
            world
                .call
                .jitter_buffer()
                .push(world.now, Rate::Slin, &vec![700; bytes]);
        }
        let counters = world.call.counters();
        assert_eq!(
            (counters.live_dropped, counters.underruns, counters.gaps),
            (0, 0, 0),
            "{every}"
        );
    }
}
