//! The playout queue: what is heard of utterances, marks and clips, and when.
#![allow(clippy::unwrap_used)]

mod model;

use std::time::Duration;

use sidetone_proto::{Clip, Format, Heard, ItemId, Notice, Playout, Rate, Time};

use crate::support::{at, ms, ramp};

#[derive(Clone, Debug, PartialEq)]
enum Report {
    Ended(u64, Duration, Duration),
    Cleared(Duration, Duration),
    Drained,
}

fn poll_heard(playout: &mut Playout, unsent: Option<usize>) -> Vec<Report> {
    let mut reported = Vec::new();
    playout.poll_heard(0, unsent, &mut |notice| {
        reported.push(match notice {
            Notice::Ended {
                item,
                is_whole,
                heard,
            } => {
                assert!(!is_whole || heard.unheard.is_zero());
                Report::Ended(item.0, heard.heard, heard.unheard)
            }
            Notice::Cleared(cleared) => Report::Cleared(cleared.heard, cleared.unheard),
            Notice::Drained => Report::Drained,
            other => panic!("{other:?}"),
        });
    });
    reported
}

fn pull(playout: &mut Playout, now: Time) -> Option<Vec<i16>> {
    let mut slot = Vec::new();
    playout.pull(now, Rate::Slin, &mut slot).map(|_| slot)
}

fn piece(playout: &mut Playout, now: Time, id: u64, samples: &[i16]) {
    let format = Format::At(Rate::Slin);
    playout.push_piece(now, Some(ItemId(id)), format, samples.into());
}

/// 960 ms were heard, in pieces with underruns between them.
#[test]
fn what_was_heard_of_an_utterance_outlives_its_underruns() {
    for is_named in [true, false] {
        let mut playout = Playout::default();
        if is_named {
            playout.open(at(0), ItemId(1), Duration::ZERO);
        }
        let mut pushed = 0;
        // Five pieces of 215 ms, one every 230 ms, and a clear in the middle of the fifth.
        for n in 0..=50 {
            let now = at(20 * n);
            while pushed < 5 && now >= at(230 * pushed) {
                match is_named {
                    true => piece(&mut playout, now, 1, &[7; 1720]),
                    false => playout.push(now, Rate::Slin, &[7; 1720]),
                }
                pushed += 1;
            }
            pull(&mut playout, now);
            assert_eq!(
                poll_heard(&mut playout, Some(0)),
                [],
                "neither an end nor drained"
            );
        }
        playout.clear();
        let (heard, unheard) = (ms(4 * 215 + 100), ms(115));
        let reported = poll_heard(&mut playout, Some(0));
        let expected = [
            Report::Ended(1, heard, unheard),
            Report::Cleared(heard, unheard),
        ];
        assert_eq!(reported, expected[usize::from(!is_named)..]);
    }
}

#[test]
fn nothing_was_heard_of_what_has_not_begun() {
    let mut playout = Playout::default();
    playout.push_clip(Clip::new(8_000, vec![1; 1600]).unwrap(), ItemId(1));
    for n in 0..12 {
        pull(&mut playout, at(20 * n));
    }
    assert_eq!(
        poll_heard(&mut playout, Some(0)),
        [Report::Ended(1, ms(200), ms(0)), Report::Drained]
    );
    playout.push_clip(Clip::new(8_000, vec![2; 800]).unwrap(), ItemId(2));
    playout.push(at(240), Rate::Slin, &[3; 800]);
    playout.clear();
    let reported = poll_heard(&mut playout, Some(0));
    assert_eq!(
        reported,
        [
            Report::Ended(2, ms(0), ms(100)),
            Report::Cleared(ms(0), ms(200))
        ]
    );
    assert_eq!(pull(&mut playout, at(240)), None);
    assert_eq!(
        poll_heard(&mut playout, Some(0)),
        [],
        "what was cleared was not drained"
    );
}

#[test]
fn what_a_player_writes_after_a_second_of_nothing_is_another_utterance() {
    let mut playout = Playout::default();
    playout.push(at(0), Rate::Slin, &[1; 160]);
    let mut drained = None;
    for n in 0..200 {
        if n == 40 {
            playout.push(at(20 * n), Rate::Slin, &[1; 160]);
        }
        pull(&mut playout, at(20 * n));
        if let [Report::Drained] = poll_heard(&mut playout, Some(0))[..] {
            assert_eq!(drained.replace(n), None, "once");
        }
    }
    assert_eq!(
        drained,
        Some(41 + 50),
        "a second after the second piece, not after the first"
    );
    playout.push(at(4_000), Rate::Slin, &[1; 160]);
    playout.clear();
    assert_eq!(
        poll_heard(&mut playout, Some(0)),
        [Report::Cleared(ms(0), ms(20))]
    );
}

#[test]
fn an_open_utterance_keeps_its_place_and_an_unnamed_one_gives_it_up() {
    let mut playout = Playout::default();
    playout.open(at(0), ItemId(1), Duration::ZERO);
    piece(&mut playout, at(0), 1, &[1; 160]);
    playout.push(at(0), Rate::Slin, &[2; 160]);
    playout.push_clip(Clip::new(8_000, vec![3; 160]).unwrap(), ItemId(2));
    assert_eq!(pull(&mut playout, at(0)), Some(vec![1; 160]));
    assert_eq!(pull(&mut playout, at(20)), None);
    piece(&mut playout, at(30), 1, &[1; 80]);
    playout.end(ItemId(1));
    piece(&mut playout, at(30), 1, &[-1; 80]);
    let slot = [[1; 80], [2; 80]].concat();
    assert_eq!(pull(&mut playout, at(40)), Some(slot), "joined");
    let slot = [[2; 80], [3; 80]].concat();
    assert_eq!(pull(&mut playout, at(60)), Some(slot));
    pull(&mut playout, at(80));
    let reported = poll_heard(&mut playout, Some(0));
    let expected = [
        Report::Ended(1, ms(30), ms(0)),
        Report::Ended(2, ms(20), ms(0)),
        Report::Drained,
    ];
    assert_eq!(reported, expected);
}

/// The slots, of a hundred, with which `Drained` is reported; `act` is called before each slot.
fn drained(act: impl Fn(usize, &mut Playout)) -> Vec<usize> {
    let mut playout = Playout::default();
    let mut slots = Vec::new();
    for n in 0..100 {
        act(n, &mut playout);
        pull(&mut playout, at(20 * n as u64));
        let reported = poll_heard(&mut playout, Some(0)).into_iter();
        slots.extend(
            reported
                .filter(|reported| *reported == Report::Drained)
                .map(|_| n),
        );
    }
    slots
}

#[test]
fn drained_comes_once_when_all_came_to_its_end_and_not_when_the_last_was_stopped() {
    // Of two slots.
    let clip = || Clip::new(8_000, vec![1; 320]).unwrap();
    let clips = |count: u64| {
        move |n, playout: &mut Playout| {
            (0..count * u64::from(n == 0)).for_each(|id| playout.push_clip(clip(), ItemId(id)));
        }
    };
    assert_eq!(drained(clips(1)), [1]);
    assert_eq!(drained(clips(3)), [5], "not between them");
    let again = drained(|n, playout| {
        if n % 40 == 0 {
            playout.push_clip(clip(), ItemId(n as u64));
            playout.push_mark(ItemId(n as u64 + 1));
        }
    });
    assert_eq!(again, [1, 41, 81], "each time");
    let mark =
        drained(|n, playout| (0..usize::from(n == 0)).for_each(|_| playout.push_mark(ItemId(1))));
    assert_eq!(mark, [], "a mark is no audio");
    for slot in 0..4 {
        let stopped = drained(|n, playout| {
            clips(2)(n, playout);
            if n == slot {
                playout.stop(ItemId(1));
            }
        });
        // While the first plays, it is the last one then.
        let end: &[usize] = if slot < 2 { &[1] } else { &[] };
        assert_eq!(stopped, end, "the last was stopped before slot {slot}");
        let first = drained(|n, playout| {
            clips(2)(n, playout);
            if n == slot {
                playout.stop(ItemId(0));
            }
        });
        let end = 1 + slot.min(2);
        assert_eq!(first, [end], "the first was stopped before slot {slot}");
        let cleared = drained(|n, playout| {
            clips(2)(n, playout);
            if n == slot {
                playout.clear();
            }
        });
        assert_eq!(cleared, [], "cleared before slot {slot}");
    }
    let late = drained(|n, playout| {
        clips(1)(n, playout);
        if n == 9 {
            playout.stop(ItemId(0));
            playout.clear();
        }
    });
    assert_eq!(late, [1], "nothing was left to be stopped");
}

#[test]
fn drained_does_not_come_where_an_utterance_has_nothing_to_play() {
    let speak = |n, playout: &mut Playout| {
        if n == 0 {
            playout.open(at(0), ItemId(1), ms(0));
        }
        // A slot of every ten, for so long.
        if n % 10 == 0 && n <= 60 {
            piece(playout, at(20 * n as u64), 1, &[1; 160]);
        }
    };
    assert_eq!(drained(speak), [], "it may go on");
    let ended = drained(|n, playout| {
        speak(n, playout);
        if n == 75 {
            playout.end(ItemId(1));
        }
    });
    assert_eq!(ended, [75]);
    let stopped = drained(|n, playout| {
        speak(n, playout);
        if n == 75 {
            playout.stop(ItemId(1));
        }
    });
    assert_eq!(stopped, []);
    // Only a second without audio shows that a player writes no more.
    let player = drained(|n, playout| {
        if n % 10 == 0 && n <= 30 {
            playout.push(at(20 * n as u64), Rate::Slin, &[1; 160]);
        }
    });
    assert_eq!(player, [81]);
}

#[test]
fn what_waits_in_the_send_queue_is_not_heard_and_ends_nothing() {
    let mut playout = Playout::default();
    playout.push_clip(Clip::new(8_000, vec![1; 320]).unwrap(), ItemId(1));
    playout.push_mark(ItemId(2));
    playout.push_clip(Clip::new(8_000, vec![1; 1600]).unwrap(), ItemId(3));
    for n in 0..5 {
        pull(&mut playout, at(20 * n));
    }
    let bytes = Rate::Slin.slot_bytes();
    assert_eq!(poll_heard(&mut playout, Some(4 * bytes)), []);
    assert_eq!(
        poll_heard(&mut playout, Some(3 * bytes)),
        [
            Report::Ended(1, ms(40), ms(0)),
            Report::Ended(2, ms(0), ms(0))
        ]
    );
    playout.stop(ItemId(3));
    let reported = poll_heard(&mut playout, Some(bytes + 1));
    assert_eq!(
        reported,
        [Report::Ended(3, ms(20), ms(180))],
        "a message that is sent in part is not heard"
    );
}

#[test]
fn where_the_kernel_cant_be_asked_the_uncertainty_is_reported() {
    for (slots, expected) in [(4, ms(80)), (50, ms(200))] {
        let mut playout = Playout::default();
        playout.push_clip(Clip::new(8_000, vec![1; 16_000]).unwrap(), ItemId(1));
        for n in 0..slots {
            pull(&mut playout, at(20 * n));
        }
        playout.stop(ItemId(1));
        let mut reported: Vec<Heard> = Vec::new();
        playout.poll_heard(0, None, &mut |notice| {
            if let Notice::Ended { heard, .. } = notice {
                reported.push(heard);
            }
        });
        assert_eq!(reported[0].heard, ms(20 * slots));
        assert_eq!(reported[0].uncertainty, expected);
    }
}

#[test]
fn a_prebuffer_waits_for_its_audio_or_what_ends_it_or_the_end_of_the_pieces() {
    let start = |prepare: &dyn Fn(&mut Playout)| {
        let mut playout = Playout::default();
        playout.set_prebuffer(ms(100));
        playout.push(at(0), Rate::Slin, &[1; 160]);
        prepare(&mut playout);
        (0..20)
            .map(|n| at(20 * n))
            .find(|&now| pull(&mut playout, now).is_some())
    };
    assert_eq!(start(&|_| {}), Some(at(100)), "nothing more came");
    assert_eq!(
        start(&|p| p.push(at(30), Rate::Slin, &[1; 160])),
        Some(at(140))
    );
    assert_eq!(
        start(&|p| p.push(at(0), Rate::Slin, &[1; 640])),
        Some(at(0))
    );
    assert_eq!(start(&|p| p.push_mark(ItemId(1))), Some(at(0)));
    assert_eq!(start(&Playout::end_unnamed), Some(at(0)));
}

#[test]
fn an_utterance_that_ran_dry_is_prebuffered_again_and_one_that_runs_is_not() {
    let mut playout = Playout::default();
    playout.open(at(0), ItemId(1), ms(60));
    piece(&mut playout, at(0), 1, &[1; 480]);
    for n in 0..3 {
        assert!(pull(&mut playout, at(20 * n)).is_some());
    }
    piece(&mut playout, at(55), 1, &[1; 160]);
    assert!(pull(&mut playout, at(60)).is_some(), "it came in time");
    assert_eq!(pull(&mut playout, at(80)), None);
    piece(&mut playout, at(90), 1, &[1; 160]);
    assert_eq!(pull(&mut playout, at(100)), None, "20 of 60 ms");
    piece(&mut playout, at(110), 1, &[1; 320]);
    assert!(pull(&mut playout, at(120)).is_some());
}

#[test]
fn what_goes_on_at_another_rate_begins_in_the_next_slot() {
    let mut playout = Playout::default();
    playout.push(at(0), Rate::Slin, &[1; 100]);
    playout.push(at(0), Rate::Slin16, &[2; 320]);
    let mut slot = Vec::new();
    assert_eq!(playout.pull(at(0), Rate::Slin, &mut slot), Some(Rate::Slin));
    assert!(slot == [vec![1; 100], vec![0; 60]].concat());
    slot.clear();
    assert_eq!(
        playout.pull(at(20), Rate::Slin, &mut slot),
        Some(Rate::Slin16)
    );
    assert!(slot == [2; 320]);
    playout.clear();
    let heard = Rate::Slin.duration(100) + ms(20);
    assert_eq!(
        poll_heard(&mut playout, Some(0)),
        [Report::Cleared(heard, ms(0))],
        "padding is not heard"
    );
}

#[test]
fn sums_are_exact_at_rates_whose_samples_are_no_whole_nanoseconds() {
    let mut playout = Playout::default();
    for _ in 0..441 {
        playout.push(at(0), Rate::Slin44, &[1]);
    }
    assert_eq!(playout.queued(), ms(10));
    assert!(pull(&mut playout, at(0)).is_some());
    assert_eq!(playout.queued(), ms(0));
    playout.clear();
    assert_eq!(
        poll_heard(&mut playout, Some(0)),
        [Report::Cleared(ms(10), ms(0))]
    );
}

#[test]
fn a_paused_queue_plays_nothing_reaches_no_mark_and_loses_nothing() {
    let mut playout = Playout::default();
    let said = ramp(0, 480);
    playout.push(at(0), Rate::Slin, &said);
    playout.push_mark(ItemId(1));
    assert_eq!(pull(&mut playout, at(0)).unwrap(), said[..160]);
    playout.pause();
    playout.push_mark(ItemId(2));
    // Longer than an unnamed utterance may have nothing to play.
    for slot in 1..100 {
        assert_eq!(pull(&mut playout, at(20 * slot)), None);
        assert_eq!(poll_heard(&mut playout, Some(0)), []);
    }
    assert_eq!(playout.queued(), ms(40));
    playout.resume();
    let rest: Vec<_> = (100..102)
        .flat_map(|slot| pull(&mut playout, at(20 * slot)).unwrap())
        .collect();
    assert_eq!(rest, said[160..]);
    let ended = |mark| Report::Ended(mark, ms(0), ms(0));
    let all = [ended(1), ended(2), Report::Drained];
    assert_eq!(poll_heard(&mut playout, Some(0)), all);
}

#[test]
fn a_mark_on_an_empty_queue_waits_for_the_end_of_a_pause_and_a_clear_does_not_end_it() {
    let mut playout = Playout::default();
    playout.pause();
    playout.push_mark(ItemId(1));
    assert_eq!(poll_heard(&mut playout, Some(0)), []);
    playout.clear();
    assert_eq!(
        poll_heard(&mut playout, Some(0)),
        [
            Report::Ended(1, ms(0), ms(0)),
            Report::Cleared(ms(0), ms(0))
        ]
    );
    playout.push(at(0), Rate::Slin, &[1; 160]);
    assert_eq!(pull(&mut playout, at(20)), None);
    playout.resume();
    assert_eq!(pull(&mut playout, at(40)).unwrap(), [1; 160]);
}

#[test]
fn a_call_that_finishes_while_its_queue_is_paused_plays_it() {
    let mut playout = Playout::default();
    playout.push(at(0), Rate::Slin, &[1; 160]);
    playout.pause();
    assert_eq!(pull(&mut playout, at(0)), None);
    playout.end_all();
    assert_eq!(pull(&mut playout, at(20)).unwrap(), [1; 160]);
    assert!(playout.is_empty());
}

#[test]
fn a_call_that_finishes_lets_a_loop_end_with_its_round() {
    // 50 slots are 40 rounds, 52 are 41 and three fifths.
    for (slots, expected) in [(50, 40 * 200), (52, 42 * 200)] {
        let mut playout = Playout::default();
        playout.push_clip(Clip::new(8_000, vec![1; 200]).unwrap().looped(), ItemId(1));
        let mut sounding = 0;
        for n in 0..100 {
            if n == slots {
                playout.end_all();
            }
            sounding += pull(&mut playout, at(20 * n)).map_or(0, |slot| slot.iter().sum());
        }
        assert_eq!(sounding, expected);
        let heard = Rate::Slin.duration(expected as u64);
        assert_eq!(
            poll_heard(&mut playout, Some(0)),
            [Report::Ended(1, heard, ms(0)), Report::Drained]
        );
        assert_eq!(playout.queued(), ms(0));
    }
}
