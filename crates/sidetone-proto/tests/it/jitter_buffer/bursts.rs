//! Much audio at once, which is cut to the maximum delay unless bursts are kept.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sidetone_proto::{JitterBuffer, Pulled, Rate, Time};

use super::{MAX_DELAY, Outcome, Source, echo_of, loud, run, run_as, stalled};
use crate::support::{Random, SLOT, World, at, ms, ramp, us};

#[test]
fn a_burst_after_a_stall_is_bounded_by_the_maximum_delay_and_re_centred() {
    for at_once in [true, false] {
        let mut pushes: Vec<Time> = (0..500).map(|n| at(20 * n + 7)).collect();
        let resume = at(20_007);
        let mut random = Random(9);
        for n in 0..12 {
            pushes.push(if at_once { resume } else { resume + us(10 * n) });
        }
        pushes.extend((1..3000).map(|n| (resume + SLOT * n).shifted(random.jitter(ms(6)))));
        let outcome = run(&[], &pushes, loud);
        assert!(
            outcome.worst_delay() <= MAX_DELAY,
            "{:?}",
            outcome.worst_delay()
        );
        assert!(outcome.worst_buffered <= MAX_DELAY);
        let last = &outcome.delays[outcome.delays.len() - 1000..];
        assert!(
            last.iter().max() <= Some(&ms(34 + 12)),
            "{:?}",
            last.iter().max()
        );
    }
}

#[test]
fn two_hundred_fifty_milliseconds_in_one_push_keep_the_newest_80() {
    let mut live = JitterBuffer::default();
    live.push(at(0), Rate::Slin, &ramp(0, 2000));
    assert_eq!(live.buffered(), ms(70), "in whole slots");
    assert_eq!(live.dropped(), 9);
    let mut slot = Vec::new();
    assert_eq!(
        live.pull(at(0), &mut slot),
        Pulled::Audio(Rate::Slin),
        "there is enough to start"
    );
    assert_eq!(slot, ramp(9 * 160, 160));
}

#[test]
fn a_burst_that_is_kept_is_played_whole_whether_it_comes_in_one_piece_or_in_many() {
    for pieces in [1, 500, 1_000] {
        let mut world = World::new();
        world.call.jitter_buffer().keep_bursts();
        let sound = ramp(0, 80_000);
        for piece in sound.chunks(sound.len() / pieces) {
            let now = world.now;
            world.call.jitter_buffer().push(now, Rate::Slin, piece);
        }
        world.run(ms(11_000));
        assert!(
            world.sound() == sound,
            "{pieces}: {:?}",
            world.call.counters()
        );
        assert_eq!(world.call.counters().live_dropped, 0);
    }
}

#[test]
fn what_follows_an_announcement_waits_for_its_turn() {
    let mut world = World::new();
    world.call.jitter_buffer().keep_bursts();
    let sound = ramp(0, 24_000 + 1_000 * 160);
    let mut rest = &sound[24_000..];
    let now = world.now;
    world
        .call
        .jitter_buffer()
        .push(now, Rate::Slin, &sound[..24_000]);
    let mut random = Random(4);
    while !rest.is_empty() {
        world.run(ms(20));
        // Now and then the source is late, and makes up for it.
        let late = if random.below(50) == 0 { 10 } else { 1 };
        world.run(ms(20 * (late - 1)));
        for _ in 0..late {
            let (frame, later) = rest.split_at(160.min(rest.len()));
            let now = world.now;
            world.call.jitter_buffer().push(now, Rate::Slin, frame);
            rest = later;
        }
    }
    world.run(ms(4_000));
    assert!(world.sound() == sound, "{:?}", world.call.counters());
    assert_eq!(world.call.counters().live_dropped, 0);
}

#[test]
fn a_backlog_is_cut_at_once_when_it_lasts() {
    let mut world = World::new();
    world.call.jitter_buffer().keep_bursts();
    let mut latest = Vec::new();
    for frame in 0..1_000_i16 {
        // Three seconds late at the beginning, and on time from then on.
        let pushes = if frame == 0 { 150 } else { 1 };
        for _ in 0..pushes {
            let now = world.now;
            world
                .call
                .jitter_buffer()
                .push(now, Rate::Slin, &[20_000 + frame; 160]);
        }
        world.run(ms(20));
        latest.push(20_000 + frame - world.sound().last().unwrap());
    }
    assert_eq!(latest[40], 40, "it is heard first");
    assert!(latest[600] <= 2, "{}", latest[600]);
    let dropped = world.call.counters().live_dropped;
    assert!((146..=150).contains(&dropped), "{dropped}");
}

#[test]
fn an_echo_whose_bursts_are_kept_is_as_soon_as_any_and_stays_so() {
    for ppm in [-200, 0, 200] {
        let source = Source { ppm, jitter: ms(6) };
        let inbound = source.arrivals(11, ms(600_000));
        let pushes = stalled(&echo_of(&inbound, 5), ms(300), 9);
        let run = |keeps| run_as(keeps, Duration::ZERO, &inbound, &pushes, loud);
        let (any, kept) = (run(false), run(true));
        assert_eq!(kept.delays[..20], any.delays[..20], "{ppm}");
        assert!(kept.worst_delay() < ms(700), "{:?}", kept.worst_delay());
        let dropped = |outcome: &Outcome| outcome.counters.live_dropped;
        assert!(
            dropped(&kept) < dropped(&any),
            "{}, {}",
            dropped(&kept),
            dropped(&any)
        );
    }
}

#[test]
fn more_than_ten_minutes_are_not_kept_and_counted() {
    let mut live = JitterBuffer::default();
    live.keep_bursts();
    live.push(at(0), Rate::Slin, &vec![1; 600 * 8_000]);
    live.push(at(0), Rate::Slin, &[2; 161]);
    assert_eq!((live.buffered(), live.dropped()), (ms(600_000), 2));
    live.push(at(0), Rate::Slin16, &[3; 320]);
    let after = (live.buffered(), live.dropped());
    assert_eq!(after, (ms(20), 30_002), "the rate changed");
}
