//! Utterances that come slower or faster than they play, and are stopped at any moment: what is reported as heard is what
//! the other side had received.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sidetone_audio::resample::resample_clip;
use sidetone_proto::{EndReason, Format, ItemId, Rate, Time, filters_from};

use crate::support::{Event, Heard, Random, SLOT, World, at, audio, ms, ramp};

/// Samples that never repeat within an utterance, and are never 0.
fn said(hz: u32) -> Vec<i16> {
    let mut random = Random(7);
    let sample = |random: &mut Random| (random.below(30_000) as i16 - 15_000) | 1;
    (0..4 * hz).map(|_| sample(&mut random)).collect()
}

/// What the other side has received when the last `unsent` bytes of the wire are not sent: whole messages only.
fn got(world: &World, unsent: usize) -> Vec<i16> {
    let mut rest = &world.wire[..world.wire.len().saturating_sub(unsent)];
    let mut samples = Vec::new();
    while let [_, high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(payload) = more.get(..length) else {
            break;
        };
        let pairs = payload.chunks(2);
        samples.extend(pairs.map(|pair| i16::from_le_bytes([pair[0], pair[1]])));
        rest = &more[length..];
    }
    samples
}

/// The one end of item 1.
fn ended(world: &World) -> (bool, Duration, Duration) {
    let mut ends = world.events.iter().filter_map(|event| match event {
        Event::Ended {
            is_whole,
            heard,
            unheard,
            ..
        } => Some((*is_whole, *heard, *unheard)),
        _ => None,
    });
    let end = ends.next().unwrap();
    assert_eq!(ends.next(), None, "it ends once");
    end
}

/// Plays uneven pieces until `stop`.
fn play_until(
    world: &mut World,
    stop: Time,
    said: &[i16],
    hz: u32,
    speed: f64,
    seed: u64,
) -> usize {
    let mut random = Random(seed);
    let prebuffer = ms(random.below(3) * 40);
    world.call.playout().open(world.now, ItemId(1), prebuffer);
    let format = match Rate::from_hz(hz) {
        Some(rate) if rate == world.call.rate() => Format::At(rate),
        _ => Format::From(filters_from(hz).unwrap()),
    };
    let (mut given, mut next) = (0, world.now);
    while next < stop && given < said.len() {
        world.run_to(next);
        let length = hz as usize * (5 + random.below(300) as usize) / 1_000;
        let piece = &said[given..said.len().min(given + length)];
        let playout = world.call.playout();
        playout.push_piece(next, Some(ItemId(1)), format.clone(), piece.into());
        given += piece.len();
        next += Duration::from_secs_f64(piece.len() as f64 / f64::from(hz) / speed);
    }
    world.run_to(stop);
    given
}

#[test]
fn an_utterance_stopped_at_any_moment_was_heard_as_far_as_reported() {
    for rate in [Rate::Slin, Rate::Slin16] {
        for speed in [0.5, 1.0, 10.0] {
            for moment in 0..50 {
                let mut random = Random(moment);
                let hz = [rate.hz(), 24_000][random.below(2) as usize];
                let said = said(hz);
                let mut world = World::new();
                world.run(ms(3));
                world.receive(&audio(rate, &vec![0; rate.slot_samples()]));
                let stop = at(3) + Duration::from_micros(random.below(1_500_000));
                let given = play_until(&mut world, stop, &said, hz, speed, moment);
                // In half of the cases a part of what was written is not sent.
                let unsent = match random.below(2) {
                    0 => 0,
                    _ => random.below(2 * 16 * 200 + 60) as usize,
                };
                let unsent = unsent.min(world.wire.len());
                world.unsent = unsent;
                world.stop(ItemId(1));
                let (is_whole, heard, unheard) = ended(&world);
                let name =
                    format!("{rate:?} at {speed}, stopped at {stop:?} with {unsent} bytes here");
                assert!(!is_whole, "{name}");

                let expected = resample_clip(&said, hz, rate.hz()).unwrap();
                let got: Vec<i16> = got(&world, unsent)
                    .into_iter()
                    .filter(|it| *it != 0)
                    .collect();
                let samples = (heard.as_secs_f64() * f64::from(rate.hz())).round() as usize;
                let heard_of_it = expected[..samples].iter().filter(|it| **it != 0);
                assert!(
                    heard_of_it.eq(&got),
                    "{name}: {} samples, reported {samples}",
                    got.len()
                );
                let all = Duration::from_secs_f64(given as f64 / f64::from(hz));
                let sum = heard + unheard;
                assert!(sum.abs_diff(all) < ms(1) / 4, "{name}: {sum:?} of {all:?}");

                // And nothing more of it leaves.
                let sound = world.sound();
                world.unsent = 0;
                world.run(ms(200));
                assert!(world.sound() == sound, "{name}");
            }
        }
    }
}

#[test]
fn an_end_is_reported_when_its_last_sample_has_left_the_socket() {
    let mut world = World::new();
    world.unsent = 1_000;
    world.call.playout().open(at(0), ItemId(1), ms(0));
    let format = Format::At(Rate::Slin);
    world
        .call
        .playout()
        .push_piece(at(0), Some(ItemId(1)), format, ramp(0, 400)[..].into());
    world.call.playout().end(ItemId(1));
    world.call.playout().push_mark(ItemId(2));
    // Three slots; then silence pushes them through, four slots for a thousand bytes.
    world.run_to(at(119));
    assert_eq!(world.events, []);
    world.run_to(at(120));
    assert_eq!(world.ended(), [1, 2]);
    assert_eq!(world.events.last(), Some(&Event::Drained));
    assert_eq!(world.events.len(), 3);
}

/// A call that ends reports what was heard of everything by then.
#[test]
fn the_end_of_a_call_is_the_end_of_what_plays() {
    for unsent in [0, 323, 1_000] {
        for way in 0..3 {
            let mut world = World::new();
            world.call.playout().open(at(0), ItemId(1), ms(0));
            let format = Format::At(Rate::Slin);
            let pieces = ramp(0, 1_600);
            world
                .call
                .playout()
                .push_piece(at(0), Some(ItemId(1)), format, pieces[..].into());
            world.run_to(at(99));
            world.unsent = unsent;
            match way {
                0 => world.call.hang_up(world.now, EndReason::HungUp),
                1 => world.call.handle_end_of_stream(),
                _ => world
                    .call
                    .handle_connection_lost(EndReason::ConnectionReset),
            }
            world.run(SLOT);
            world.report_heard();
            let (is_whole, heard, unheard) = ended(&world);
            let waiting = unsent.div_ceil(323) as u64 * 20;
            assert!(!is_whole);
            assert_eq!((heard, unheard), (ms(100 - waiting), ms(100 + waiting)));
        }
    }
}

/// A stall makes the last slot and the hang-up one write.
#[test]
fn what_ends_together_with_its_call_is_reported_whole() {
    let mut world = World::new();
    world.call.playout().push(at(0), Rate::Slin, &ramp(0, 480));
    world.call.playout().push_mark(ItemId(1));
    world.call.finish(EndReason::Finished);
    world.run_to(at(25));
    world.stall(ms(40));
    world.run(ms(100));
    assert_eq!(world.ended(), [1]);
    assert_eq!(world.heard().last(), Some(&Heard::Hangup));
    assert!(world.events.contains(&Event::Drained));
}
