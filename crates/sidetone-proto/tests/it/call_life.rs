//! From the connection to its close.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sidetone_proto::{CallConfig, EndReason, EndedBy, ItemId, Phase, Rate};

use crate::support::{
    Event, Heard, SLOT, World, at, audio, frame, message, ms, ramp, uuid_message,
};

const LINGER: Duration = Duration::from_secs(1);

fn playing() -> World {
    let mut world = World::new();
    world.call.playout().push(at(0), Rate::Slin, &ramp(0, 1600));
    world.run(ms(50));
    world
}

#[test]
fn after_a_clear_the_next_slot_is_silence_wherever_in_a_slot_it_comes() {
    for millis in 0..200 {
        let mut world = World::new();
        world.call.playout().push(at(0), Rate::Slin, &ramp(0, 1600));
        world.call.playout().push_mark(ItemId(1));
        world.run(ms(millis));
        let left = millis / 20 + 1;
        // What was heard to its end was not cut off.
        let heard = if left == 10 { 0 } else { 20 * left };
        assert_eq!(world.clear(), (ms(heard), ms(200 - 20 * left)));
        world.call.playout().push(world.now, Rate::Slin, &[-9; 160]);
        world.run(ms(100));
        let expected = [ramp(0, 160 * left as usize), vec![-9; 160]].concat();
        assert!(world.sound() == expected);
        assert_eq!(
            world.ended() == [1],
            left == 10,
            "only a mark whose audio has left"
        );
    }
}

#[test]
fn finish_plays_out_and_then_sends_exactly_a_hangup() {
    let mut world = playing();
    world.call.playout().push_mark(ItemId(7));
    world
        .call
        .jitter_buffer()
        .push(world.now, Rate::Slin, &[-3; 160]);
    world.call.playout().push(world.now, Rate::Slin, &[5; 40]);
    world.call.finish(EndReason::Finished);
    world.run(ms(5000));
    let sound = [ramp(0, 1600), vec![5; 40]].concat();
    assert!(world.sound() == sound, "live audio made way for the queue");
    assert_eq!(world.ended(), [7]);
    assert_eq!(world.events[1..], [Event::Drained]);
    assert_eq!(world.wire.len(), 11 * 323 + 3);
    assert_eq!(world.wire[11 * 323..], [0, 0, 0]);
    assert_eq!(
        world.shut,
        Some(at(220)),
        "when the last slot has been heard"
    );
    assert_eq!(world.closed, Some(at(220) + LINGER));
    assert_eq!(world.reason(), Some(EndReason::Finished));
}

#[test]
fn finish_waits_for_live_audio_too() {
    let mut world = World::new();
    world
        .call
        .jitter_buffer()
        .push(world.now, Rate::Slin, &ramp(0, 200));
    world.call.finish(EndReason::Finished);
    world.run(ms(500));
    assert!(world.sound() == ramp(0, 200));
    assert_eq!(world.heard().last(), Some(&Heard::Hangup));
}

#[test]
fn finish_with_nothing_queued_hangs_up_at_the_next_slot() {
    let mut world = World::new();
    world.run(ms(50));
    world.call.finish(EndReason::Finished);
    world.run(ms(10));
    assert_eq!(world.wire.len(), 3 * 323 + 3);
}

#[test]
fn the_end_of_the_stream_ends_the_lingering() {
    let mut world = playing();
    world.call.hang_up(world.now, EndReason::HungUp);
    world.run(ms(5));
    assert_eq!((world.shut, world.closed), (Some(at(50)), None));
    world.receive(&frame(&[1; 160]));
    assert_eq!(world.events, [], "what still comes in is discarded");
    world.call.handle_end_of_stream();
    world.run(ms(1));
    assert_eq!(world.closed, Some(at(55)));
    assert_eq!(world.reason(), Some(EndReason::HungUp));
    assert_eq!(world.wire[3 * 323..], [0, 0, 0]);
}

#[test]
fn a_hangup_discards_the_queue() {
    let mut world = playing();
    world.call.hang_up(world.now, EndReason::HandlerFailed);
    world.call.hang_up(world.now, EndReason::HungUp);
    world.call.finish(EndReason::Finished);
    world.run(ms(5000));
    assert_eq!(world.wire.len(), 3 * 323 + 3);
    assert_eq!(
        world.reason(),
        Some(EndReason::HandlerFailed),
        "the first reason stays"
    );
}

#[test]
fn the_end_of_the_stream_and_a_reset_have_a_meaning_in_every_phase() {
    type Prepare = fn() -> World;
    let lingering: Prepare = || {
        let mut world = playing();
        world.call.hang_up(world.now, EndReason::HungUp);
        world.run(ms(1));
        assert!(matches!(world.call.phase(), Phase::Lingering { .. }));
        world
    };
    let hanging_up: Prepare = || {
        let mut world = playing();
        world.call.hang_up(world.now, EndReason::HungUp);
        world
    };
    let talking: Prepare = || {
        let mut world = playing();
        world.receive(&[&[0x10, 1, 64][..], &[7; 320]].concat());
        world
    };
    let finishing: Prepare = || {
        let mut world = playing();
        world.receive(&[&[0x10, 1, 64][..], &[7; 320]].concat());
        world.call.finish(EndReason::Finished);
        world
    };
    let closed: Prepare = || {
        let mut world = playing();
        world.call.handle_end_of_stream();
        world
    };
    let opening: Prepare = || World::silent(CallConfig::default());
    let reset = EndReason::ConnectionReset;
    for (prepare, fin, rst) in [
        (opening, EndReason::NoIdentity, reset),
        (playing as Prepare, EndReason::CallerHungUp, reset),
        // How the caller's host answers unread data when the caller hangs up.
        (talking, EndReason::CallerHungUp, EndReason::CallerHungUp),
        (finishing, EndReason::CallerHungUp, EndReason::CallerHungUp),
        (hanging_up, EndReason::HungUp, EndReason::HungUp),
        (lingering, EndReason::HungUp, EndReason::HungUp),
        (closed, EndReason::CallerHungUp, EndReason::CallerHungUp),
    ] {
        for (is_reset, expected) in [(false, fin), (true, rst)] {
            let mut world = prepare();
            let written = world.wire.len();
            if is_reset {
                world.call.handle_connection_lost(reset);
            } else {
                world.call.handle_end_of_stream();
            }
            world.run(ms(0));
            assert_eq!(world.reason(), Some(expected));
            let was_over = matches!(prepare().call.phase(), Phase::Closed(_));
            let is_callers = expected == EndReason::CallerHungUp && !was_over;
            assert_eq!(world.call.counters().reset, is_reset && is_callers);
            assert_eq!(world.closed, Some(world.now));
            assert_eq!(world.wire.len(), written, "the other side no longer reads");
        }
    }
    assert_eq!(EndReason::CallerHungUp.by(), EndedBy::Caller);
    assert_eq!(reset.by(), EndedBy::Connection);
    assert_eq!(EndReason::Finished.by(), EndedBy::Server);
}

#[test]
fn a_hangup_message_of_the_other_side_is_answered_with_a_shutdown_alone() {
    let mut world = playing();
    world.receive(&[0, 0, 0]);
    world.run(ms(5000));
    assert_eq!(world.wire.len(), 3 * 323);
    assert_eq!(world.shut, Some(at(50)));
    assert_eq!(world.closed, Some(at(50) + LINGER));
}

#[test]
fn a_call_is_rejected_with_a_hangup_and_nothing_else() {
    let mut world = World::silent(CallConfig::default());
    world.receive(&uuid_message());
    world.call.hang_up(world.now, EndReason::Full);
    world.run(ms(100));
    assert_eq!(world.wire, [0, 0, 0]);
    assert!(EndReason::Full.is_rejected());
}

#[test]
fn a_connection_that_sends_nothing_is_closed_after_the_identity_timeout() {
    let identity_timeout = ms(3000);
    let config = CallConfig {
        identity_timeout,
        ..CallConfig::default()
    };
    let mut world = World::silent(config);
    world.run(ms(60_000));
    assert_eq!(world.wire, [0, 0, 0]);
    assert_eq!(world.shut, Some(at(3000)));
    assert_eq!(world.closed, Some(at(3000) + LINGER));
    assert_eq!(world.reason(), Some(EndReason::IdentityTimeout));
}

#[test]
fn a_limit_may_be_as_long_as_a_duration_can_be() {
    let config = CallConfig {
        identity_timeout: Duration::MAX,
        idle_timeout: Some(Duration::MAX),
        max_duration: Some(Duration::MAX),
    };
    let mut world = World::silent(config);
    world.run(ms(100_000));
    world.receive(&uuid_message());
    world.run(ms(1000));
    assert_eq!(world.call.phase(), Phase::Running);
}

#[test]
fn the_idle_timeout_counts_from_the_last_audio_or_digit() {
    let config = CallConfig {
        idle_timeout: Some(ms(2000)),
        ..CallConfig::default()
    };
    let mut world = World::silent(config);
    world.receive(&uuid_message());
    for (time, bytes) in [
        (1500, message(0x03, b"1")),
        (3000, frame(&[0; 160])),
        (4000, message(0x10, &[])),
        (4500, message(0x42, &[1])),
    ] {
        world.run_to(at(time));
        world.receive(&bytes);
    }
    world.run(ms(10_000));
    assert_eq!(world.reason(), Some(EndReason::IdleTimeout));
    assert_eq!(
        world.shut,
        Some(at(5000)),
        "empty audio and unknown kinds don't count"
    );
}

#[test]
fn a_muted_caller_keeps_the_call() {
    let mut world = World::new();
    world.run(ms(600_000));
    assert_eq!(world.call.phase(), Phase::Running);
    assert_eq!(world.slots.len(), 30_001);
}

#[test]
fn the_longest_duration_holds_even_while_a_call_is_finishing() {
    for finish in [false, true] {
        let config = CallConfig {
            max_duration: Some(ms(1000)),
            ..CallConfig::default()
        };
        let mut world = World::silent(config);
        world.run(ms(500));
        world.receive(&uuid_message());
        world
            .call
            .playout()
            .push(world.now, Rate::Slin, &ramp(0, 80_000));
        if finish {
            world.call.finish(EndReason::Finished);
        }
        world.run(ms(10_000));
        assert_eq!(world.reason(), Some(EndReason::MaxDuration));
        assert_eq!(world.shut, Some(at(1500)));
        assert!(world.sound() == ramp(0, 50 * 160));
    }
}

#[test]
fn the_longest_duration_can_be_changed_while_a_call_runs() {
    let config = CallConfig {
        max_duration: Some(ms(1000)),
        ..CallConfig::default()
    };
    for (changed, shut) in [(Some(ms(700)), Some(at(700))), (None, None)] {
        let mut world = World::silent(config.clone());
        world.receive(&uuid_message());
        world.run(ms(500));
        world.call.set_max_duration(changed);
        world.run(ms(5_000));
        assert_eq!(world.shut, shut);
        assert_eq!(world.reason(), changed.map(|_| EndReason::MaxDuration));
    }
}

#[test]
fn what_is_queued_leaves_at_its_own_rate_when_wideband_comes_in() {
    let mut world = World::new();
    world
        .call
        .playout()
        .push(at(0), Rate::Slin, &ramp(0, 160 * 4));
    world.run(ms(30));
    assert_eq!(world.call.rate(), Rate::Slin);
    world.receive(&audio(Rate::Slin16, &[0; 320]));
    assert_eq!(world.call.rate(), Rate::Slin16);
    world
        .call
        .playout()
        .push(at(0), Rate::Slin16, &ramp(5000, 320));
    world.run(ms(100));
    let heard = world.heard();
    let rates: Vec<Rate> = world.slots.iter().map(|(_, rate, _)| *rate).collect();
    assert_eq!(rates[..4], [Rate::Slin; 4]);
    assert_eq!(heard[4], Heard::Audio(Rate::Slin16, ramp(5000, 320)));
    assert_eq!(
        heard[5],
        Heard::Audio(Rate::Slin16, vec![0; 320]),
        "silence, too"
    );
    world.receive(&frame(&[0; 160]));
    assert_eq!(world.call.rate(), Rate::Slin16, "0x10 does not switch back");
}

#[test]
fn every_rate_has_its_schedule_and_messages_that_fit_a_segment() {
    for rate in Rate::ALL {
        let mut world = World::new();
        world.receive(&audio(rate, &vec![0; rate.slot_samples()]));
        world
            .call
            .playout()
            .push(at(0), rate, &ramp(0, rate.slot_samples() * 10));
        world.run(ms(400) - ms(1));
        let slots = 400 / rate.slot().as_millis() as usize;
        assert_eq!(world.slots.len(), slots, "{rate:?}");
        for (n, (time, its, _)) in world.slots.iter().enumerate() {
            assert_eq!((*time, *its), (at(0) + rate.slot() * n as u32, rate));
        }
        assert_eq!(world.writes.len(), slots, "one write a slot");
        let heard = world.heard();
        assert_eq!(
            heard.len(),
            slots * rate.slot_samples() / rate.message_samples()
        );
        assert_eq!(world.call.counters().frames_out, heard.len() as u64);
        for message in &heard {
            assert!(matches!(message, Heard::Audio(its, samples)
                if *its == rate && samples.len() * 2 + 3 <= 1448));
        }
        assert!(world.sound() == ramp(0, rate.slot_samples() * 10));
    }
}

#[test]
fn marks_are_reported_with_the_slot_that_ends_what_is_before_them() {
    let mut world = World::new();
    for n in 0..5 {
        world.call.playout().push(at(0), Rate::Slin, &ramp(0, 320));
        world.call.playout().push_mark(ItemId(n));
    }
    for n in 0..5 {
        world.run_to(at(40 * n + 19));
        assert_eq!(world.events.len(), n as usize);
        world.run_to(at(40 * n + 20));
        assert_eq!(world.ended().last(), Some(&n));
    }
    assert_eq!(world.events[5..], [Event::Drained]);
    world.run(SLOT * 10);
    assert_eq!(world.events.len(), 6);
}

#[test]
fn a_caller_who_sends_nothing_is_reported_while_it_lasts() {
    let mut world = World::new();
    for n in 0..50 {
        world.run_to(at(20 * n));
        world.receive(&audio(Rate::Slin, &ramp(0, 160)));
    }
    assert_eq!(world.silent, []);
    // The last frame came at 980 and lasts until 1000. A slot looks every 20 ms.
    world.run_to(at(1119));
    assert_eq!(world.silent, [(ms(1000), ms(100))]);
    world.run_to(at(4500));
    let span = |offset, duration| (ms(offset), ms(duration));
    let tenths = (0..10).map(|n| span(1000 + 100 * n, 100));
    let seconds = (2..4).map(|n| span(1000 * n, 1000));
    assert_eq!(world.silent, tenths.chain(seconds).collect::<Vec<_>>());
    assert_eq!(world.call.counters().gaps, 0, "it may still be late");

    // It speaks again, and is silent again.
    for n in 0..10 {
        world.run_to(at(4500 + 20 * n));
        world.receive(&audio(Rate::Slin, &ramp(0, 160)));
    }
    let before = world.silent.len();
    world.run_to(at(5000));
    let (offset, _) = world.silent[before];
    assert!(offset >= ms(4690) && offset <= ms(4710), "{offset:?}");
}

#[test]
fn a_caller_who_never_sends_anything_is_reported_from_the_beginning() {
    let mut world = World::new();
    world.run(ms(320));
    assert_eq!(world.silent, [0, 100, 200].map(|n| (ms(n), ms(100))));
}
