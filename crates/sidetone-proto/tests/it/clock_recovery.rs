//! Late audio is not lost, lost audio is not late, and neither moves the schedule.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sidetone_proto::{CallConfig, Rate, Time};

use crate::support::{Event, Random, SLOT, World, at, frame, message, ms, us, uuid_message};

/// The offsets of the audio so far.
fn offsets(world: &World) -> Vec<Duration> {
    let audio = |event: &Event| match event {
        Event::Audio { offset, .. } => Some(*offset),
        _ => None,
    };
    world.events.iter().filter_map(audio).collect()
}

/// A call that received `frames` frames, one every 20 ms from 25 ms on, and whose clock recovery is locked.
fn running(frames: u64) -> World {
    let mut world = World::new();
    for n in 0..frames {
        receive_at(&mut world, at(25 + 20 * n));
    }
    world
}

fn receive_at(world: &mut World, time: Time) {
    world.run_to(time);
    world.receive(&frame(&[9; 160]));
}

/// How far the schedule is from where it would be if nothing had moved it.
fn moved(world: &World) -> i64 {
    let nominal = Time::ZERO + SLOT * world.slots.len() as u32;
    world.call.poll_timeout().nanos_since(nominal)
}

#[test]
fn audio_has_its_offset_on_the_calls_clock() {
    let mut world = World::new();
    for n in 0..4 {
        receive_at(&mut world, at(55 + 20 * n));
    }
    assert_eq!(offsets(&world), [ms(35), ms(55), ms(75), ms(95)]);
    assert_eq!(
        world.call.counters().gaps,
        0,
        "the time before the first frame is no gap"
    );
}

#[test]
fn a_call_that_begins_muted_has_its_audio_in_place_from_the_second_frame_on() {
    let mut world = World::new();
    for n in 0..4 {
        receive_at(&mut world, at(10_015 + 20 * n));
    }
    assert_eq!(offsets(&world), [ms(0), ms(10_015), ms(10_035), ms(10_055)]);
    assert_eq!(world.call.counters().gaps, 0);
}

#[test]
fn a_caller_on_mute_for_10_s_keeps_the_call_and_leaves_one_gap() {
    let mut world = running(500);
    let end = at(25 + 20 * 499);
    for n in 1..=100 {
        receive_at(&mut world, end + ms(10_000) + SLOT * n);
    }
    let counters = world.call.counters();
    assert_eq!((counters.gaps, counters.gap_time), (1, ms(10_000)));
    assert_eq!(offsets(&world).last(), Some(&(world.now - at(0) - SLOT)));
    assert_eq!(
        world.slots.len() as u64,
        (world.now - at(0)).as_millis() as u64 / 20 + 1
    );
    assert_eq!(moved(&world), 0);
}

#[test]
fn a_backlog_after_a_freeze_is_no_gap_and_moves_nothing_however_it_is_read() {
    for frames_a_read in [1, 7, 60, 180] {
        for apart in [us(0), us(100), us(700), us(5_000)] {
            let mut world = running(500);
            let thaw = at(25 + 20 * (500 + 179) + 3);
            for (n, reads) in (0..).zip((0..180).step_by(frames_a_read)) {
                world.run_to(thaw + apart * n);
                let frames = frames_a_read.min(180 - reads);
                world.receive(&frame(&[9; 160]).repeat(frames));
            }
            for n in 680..2000 {
                receive_at(&mut world, at(25 + 20 * n));
            }
            let counters = world.call.counters();
            assert_eq!(
                (counters.gaps, counters.gap_time),
                (0, ms(0)),
                "{frames_a_read} {apart:?}"
            );
            assert_eq!(offsets(&world).last(), Some(&(ms(25 + 20 * 1999) - SLOT)));
            assert!(moved(&world).abs() < 100_000, "{} ns", moved(&world));
        }
    }
}

#[test]
fn a_backlog_from_the_first_frame_on_is_in_place() {
    let mut world = World::new();
    world.run_to(at(3600));
    for _ in 0..180 {
        world.receive(&frame(&[9; 160]));
    }
    for n in 1..100 {
        receive_at(&mut world, at(3600) + SLOT * n);
    }
    let expected: Vec<Duration> = (0..279).map(|n| SLOT * n).collect();
    assert_eq!(offsets(&world), expected);
    assert_eq!(world.call.counters().gaps, 0);
}

#[test]
fn lost_packets_are_counted_and_shift_neither_the_clock_nor_the_schedule() {
    let mut world = World::new();
    let mut random = Random(11);
    let (mut lost, mut last) = (0, 0);
    for n in 0..30_000 {
        // Not at the end, so that every loss is found.
        if random.below(50) == 0 && (100..29_000).contains(&n) {
            lost += 1;
            continue;
        }
        let jitter = random.jitter(us(5_500));
        receive_at(&mut world, at(30 + 20 * n).shifted(jitter));
        last = n;
    }
    let counters = world.call.counters();
    assert!(lost > 500);
    // Three in a row are a pause, which is measured, jitter and all.
    assert!(counters.gap_time.abs_diff(SLOT * lost) < ms(15));
    let place = *offsets(&world).last().unwrap();
    let nominal = ms(30 + 20 * last) - SLOT;
    assert!(
        place.abs_diff(nominal) < ms(15),
        "{place:?} instead of {nominal:?}"
    );
    assert!(moved(&world).abs() < 1_000_000, "{} ns", moved(&world));
}

#[test]
fn jitter_of_any_frame_length_moves_nothing() {
    for (bytes, every) in [(80, 10), (160, 20), (240, 30)] {
        let mut world = World::new();
        world.call.set_companded(true);
        let mut random = Random(every);
        for n in 0..20_000 {
            world.run_to(at(40 + every * n).shifted(random.jitter(us(5_500))));
            world.receive(&message(0x10, &vec![0xff; bytes]));
            world.events.clear();
            world.slots.truncate(1_000_000);
        }
        assert!(
            moved(&world).abs() < 2_000_000,
            "{every}: {} ns",
            moved(&world)
        );
        assert_eq!(world.call.counters().gaps, 0, "{every}");
    }
}

#[test]
fn wideband_under_the_kind_of_8_khz_is_in_its_place_once_its_rate_is_known() {
    for rate in [Rate::Slin12, Rate::Slin16, Rate::Slin48] {
        let mut world = World::new();
        let mut random = Random(u64::from(rate.hz()));
        let bytes = vec![0; rate.slot_samples().max(rate.hz() as usize / 50) * 2];
        for n in 0..3_000 {
            world.run_to(at(40 + 20 * n).shifted(random.jitter(us(5_500))));
            world.receive(&message(0x10, &bytes));
            if n == 5 {
                // The first frame came after 40 ms.
                let moved = Some((offsets(&world)[0], ms(20)));
                world.call.set_linear_rate(rate, moved);
            }
        }
        // The offsets of the first frames are corrected by the caller.
        for (n, place) in offsets(&world).iter().enumerate().skip(6) {
            let nominal = ms(20) + SLOT * n as u32;
            assert!(place.abs_diff(nominal) < ms(6), "{rate:?}: {place:?}");
        }
        assert_eq!(world.call.counters().gaps, 0);
        assert!(moved(&world).abs() < 2_000_000, "{} ns", moved(&world));
        assert_eq!(world.call.rate(), Rate::Slin, "what goes out");
    }
}

#[test]
fn drift_is_followed_and_no_gap() {
    for ppm in [200, -200] {
        let mut world = World::new();
        let period = 20_000_000 - 20 * ppm;
        for n in 0..50_000 {
            receive_at(&mut world, at(30).shifted(period * n));
            world.events.clear();
        }
        let drift = -20 * ppm * 50_000;
        // It lags by 1 ms, and acquired its phase in the first 64 frames.
        assert!(
            (moved(&world) - drift).abs() < 1_600_000,
            "{ppm}: {}",
            moved(&world)
        );
        assert_eq!(world.call.counters().gaps, 0);
    }
}

#[test]
fn a_clock_that_can_only_be_wrong_is_not_followed() {
    // 1 % off: the frames are not as long as their kind says.
    let mut world = World::new();
    for n in 0..5_000 {
        receive_at(&mut world, at(30).shifted(20_200_000 * n));
    }
    assert!(moved(&world) < 50_000_000, "{} of 1000 ms", moved(&world));
    let place = *offsets(&world).last().unwrap();
    assert!(
        place.abs_diff(world.now - at(0)) < ms(80),
        "but the offsets of its audio stay right"
    );
}

#[test]
fn a_phase_acquired_late_is_corrected() {
    // The first frame was 50 ms late, as happens when a call is set up.
    let mut world = World::new();
    receive_at(&mut world, at(80));
    for n in 1..500 {
        receive_at(&mut world, at(30 + 20 * n).max(at(80)));
    }
    assert_eq!(world.call.counters().gaps, 0);
    assert_eq!(moved(&world), 0);
}

#[test]
fn the_length_of_inbound_audio_changes_with_the_codec() {
    let mut world = World::new();
    for n in 0..100 {
        world.run_to(at(20 + 20 * n));
        world.receive(&message(0x10, &[0xff; 160]));
        if n == 10 {
            world.call.set_companded(true);
        }
    }
    let counters = world.call.counters();
    assert_eq!((counters.gaps, counters.gap_time), (0, ms(0)));
    assert_eq!(offsets(&world).last(), Some(&ms(20 * 99)));
}

#[test]
fn digits_and_audio_are_on_one_clock() {
    let mut world = World::silent(CallConfig::default());
    world.run_to(at(3_000));
    world.receive(&uuid_message());
    receive_at(&mut world, at(3_030));
    receive_at(&mut world, at(3_050));
    world.receive(&message(0x03, b"1"));
    assert_eq!(offsets(&world), [ms(10), ms(30)]);
    let offset = ms(50);
    assert_eq!(
        world.events.last(),
        Some(&Event::Dtmf { digit: '1', offset })
    );
    assert_eq!(world.call.rate(), Rate::Slin);
}
