//! A message that the socket took in part is finished before anything else is sent.
#![allow(clippy::unwrap_used)]

use sidetone_proto::{EndReason, Rate};

use crate::support::{Event, Heard, SLOT, World, at, audio, ms, ramp};

const MESSAGE: usize = 323;

/// A call that plays, of whose eleventh message the socket takes `taken` bytes and then no more.
fn blocked_at(taken: usize) -> World {
    let mut world = World::new();
    world
        .call
        .playout()
        .push(at(0), Rate::Slin, &ramp(0, 160 * 100));
    world.run(ms(190));
    assert_eq!(world.wire.len(), 10 * MESSAGE);
    world.socket_space = Some(taken);
    world.run(SLOT);
    assert_eq!(world.wire.len(), 10 * MESSAGE + taken);
    world
}

#[test]
fn cut_at_any_byte_the_rest_goes_first_and_playback_goes_on_where_it_was() {
    for taken in 0..MESSAGE {
        let mut world = blocked_at(taken);
        assert!(world.call.wants_writable());
        world.run(ms(100));
        assert_eq!(
            world.wire.len(),
            10 * MESSAGE + taken,
            "nothing else is tried"
        );
        assert_eq!(world.writes.len(), 11);

        world.socket_space = None;
        world.poll();
        assert_eq!(
            world.writes[11].1,
            MESSAGE - taken,
            "the rest, at once and alone"
        );
        assert!(!world.call.wants_writable());
        world.run(ms(2000));
        let counters = world.call.counters();
        assert_eq!((counters.slots_skipped, counters.short_writes), (5, 1));
        assert_eq!(counters.slips, 0, "the schedule went on");
        assert!(world.sound() == ramp(0, 160 * 100), "cut at {taken}");
        for (time, taken) in &world.writes[12..] {
            assert_eq!((*taken, time.as_nanos() % 20_000_000), (MESSAGE, 0));
        }
    }
}

#[test]
fn the_rest_may_go_in_pieces() {
    let mut world = blocked_at(100);
    for _ in 0..MESSAGE - 100 {
        world.socket_space = Some(1);
        world.poll();
    }
    assert_eq!(world.wire.len(), 11 * MESSAGE);
    assert!(!world.call.wants_writable());
    world.socket_space = None;
    world.run(ms(2000));
    assert!(world.sound() == ramp(0, 160 * 100));
}

#[test]
fn a_peer_that_reads_nothing_for_10_s_gets_one_stale_frame_and_then_the_next() {
    let mut world = blocked_at(0);
    world.run(ms(10_000));
    assert_eq!(world.call.counters().slots_skipped, 500);
    world.socket_space = None;
    world.run(ms(100));
    assert!(world.sound() == ramp(0, 160 * 16));
}

#[test]
fn after_a_clear_only_the_slot_being_written_still_leaves() {
    for rate in [Rate::Slin, Rate::Slin44, Rate::Slin96, Rate::Slin192] {
        let slot = rate.slot_samples();
        let bytes = slot * 2 + 3 * slot / rate.message_samples();
        for taken in [0, 1, 2, 3, 4, bytes / 2, bytes - 1, bytes] {
            let mut world = World::new();
            world.receive(&audio(rate, &vec![0; slot]));
            world.call.playout().push(at(0), rate, &ramp(0, slot * 50));
            world.run(rate.slot() * 9);
            world.socket_space = Some(taken);
            world.run(rate.slot());
            let (heard, unheard) = world.clear();
            // Of the eleventh slot, the messages that the socket took whole.
            let message = 2 * rate.message_samples() + 3;
            let messages = slot / rate.message_samples();
            let part = rate.slot() * (taken / message) as u32 / messages as u32;
            assert_eq!(heard, rate.slot() * 10 + part);
            assert_eq!(heard + unheard, rate.slot() * 50);
            world.run(rate.slot() * 3);
            world.socket_space = None;
            world.run(ms(500));
            assert!(
                world.sound() == ramp(0, slot * 11),
                "{rate:?}, cut at {taken}"
            );
        }
    }
}

#[test]
fn a_hangup_follows_the_rest() {
    for taken in 1..MESSAGE {
        let mut world = blocked_at(taken);
        world.call.hang_up(world.now, EndReason::HungUp);
        world.run(ms(10));
        assert_eq!(world.wire.len(), 10 * MESSAGE + taken);
        world.socket_space = None;
        world.poll();
        world.run(ms(1));
        assert_eq!(world.wire[11 * MESSAGE..], [0, 0, 0], "cut at {taken}");
        assert!(world.shut.is_some());
        assert_eq!(world.heard().last(), Some(&Heard::Hangup));
    }
}

#[test]
fn a_hangup_that_is_cut_itself_is_finished() {
    for taken in [0, 1, 2] {
        let mut world = World::new();
        world.run(ms(50));
        let before = world.wire.len();
        world.call.hang_up(world.now, EndReason::HungUp);
        world.socket_space = Some(taken);
        world.poll();
        assert_eq!((world.wire.len(), world.shut), (before + taken, None));
        world.socket_space = None;
        world.poll();
        assert_eq!(world.wire[before..], [0, 0, 0]);
        assert_eq!(world.shut, Some(world.now));
    }
}

#[test]
fn a_peer_that_never_reads_again_is_closed_1_s_after_the_hangup() {
    for taken in [0, 100] {
        let mut world = blocked_at(taken);
        let hung_up = world.now;
        world.call.hang_up(hung_up, EndReason::HungUp);
        world.run(ms(5000));
        assert_eq!(world.closed, Some(hung_up + ms(1000)));
        assert_eq!(world.reason(), Some(EndReason::HungUp));
    }
}

#[test]
fn live_audio_waits_no_longer_than_its_maximum_delay_for_a_full_socket() {
    let mut world = World::new();
    for n in 0..300 {
        world.run_to(at(20 * n + 5));
        world
            .call
            .jitter_buffer()
            .push(world.now, Rate::Slin, &ramp(n as usize * 160, 160));
        assert!(world.call.jitter_buffer().buffered() <= ms(80));
        match n {
            100 => world.socket_space = Some(7),
            200 => {
                world.socket_space = None;
                world.poll();
            }
            _ => {}
        }
    }
    assert!(world.call.counters().live_dropped >= 96);
    assert!(!world.events.contains(&Event::Underrun));
}
