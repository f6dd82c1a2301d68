//! Live audio over long times: its delay stays below the maximum, and it costs no more than the drift.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sidetone_proto::{CallConfig, CallMachine, Counters, JitterBuffer, Notice, Pulled, Rate, Time};

use crate::support::{Event, Random, SLOT, World, at, frame, message, ms, ramp, us, uuid_message};

const MAX_DELAY: Duration = Duration::from_millis(80);
const HOUR: Duration = Duration::from_secs(3600);

/// A source with a clock of its own, which makes a frame every 20 ms, and the jitter of its frames.
#[derive(Clone, Copy)]
struct Source {
    ppm: i64,
    jitter: Duration,
}

impl Source {
    /// When its frames arrive; the first is at least 10 ms after the call began.
    fn arrivals(self, seed: u64, duration: Duration) -> Vec<Time> {
        let mut random = Random(seed);
        let phase = 10_000_000 + random.below(20_000_000);
        let slot = 20_000_000 * (1_000_000 - self.ppm) / 1_000_000;
        (0..duration.as_nanos() as i64 / slot)
            .map(|n| Time::from_nanos(phase).shifted(n * slot + random.jitter(self.jitter)))
            .collect()
    }
}

#[derive(Debug)]
struct Outcome {
    counters: Counters,
    /// From push to leaving, of each frame that left.
    delays: Vec<Duration>,
    /// Numbers of the frames that left.
    left: Vec<usize>,
    worst_buffered: Duration,
    pushed: usize,
}

impl Outcome {
    fn corrections(&self) -> u64 {
        self.counters.live_dropped + self.counters.underruns
    }

    fn worst_delay(&self) -> Duration {
        *self.delays.iter().max().unwrap()
    }
}

/// Runs a call that receives frames at the times `inbound` and whose program pushes frames at `pushes`. The samples of a
/// frame identify it.
fn run(inbound: &[Time], pushes: &[Time], is_loud: impl Fn(usize) -> bool) -> Outcome {
    run_with(Duration::ZERO, inbound, pushes, is_loud)
}

fn run_with(
    prebuffer: Duration,
    inbound: &[Time],
    pushes: &[Time],
    is_loud: impl Fn(usize) -> bool,
) -> Outcome {
    run_as(false, prebuffer, inbound, pushes, is_loud)
}

fn run_as(
    keeps_bursts: bool,
    prebuffer: Duration,
    inbound: &[Time],
    pushes: &[Time],
    is_loud: impl Fn(usize) -> bool,
) -> Outcome {
    let mut call = CallMachine::new(Time::ZERO, CallConfig::default());
    if keeps_bursts {
        call.jitter_buffer().keep_bursts();
    }
    call.jitter_buffer().set_prebuffer(prebuffer);
    call.handle_received(Time::ZERO, &uuid_message(), &mut |_| {});
    let silence = frame(&[0; 160]);
    let (mut wire, mut pcm) = (Vec::new(), Vec::new());
    let mut outcome = Outcome {
        counters: Counters::default(),
        delays: Vec::new(),
        left: Vec::new(),
        worst_buffered: Duration::ZERO,
        pushed: pushes.len(),
    };
    let (mut next_in, mut next_push, mut expected) = (0, 0, 0);
    let never = Time::from_nanos(u64::MAX);
    let end = *pushes.last().unwrap();
    loop {
        let read = inbound.get(next_in).copied().unwrap_or(never);
        let push = pushes.get(next_push).copied().unwrap_or(never);
        let slot = call.poll_timeout();
        let now = read.min(push).min(slot);
        if now > end {
            break;
        }
        if now == read {
            call.handle_received(now, &silence, &mut |_| {});
            next_in += 1;
        } else if now == push {
            call.jitter_buffer().push(
                now,
                Rate::Slin,
                &[content(next_push, is_loud(next_push)); 160],
            );
            outcome.worst_buffered = outcome.worst_buffered.max(call.jitter_buffer().buffered());
            next_push += 1;
        } else {
            wire.clear();
            call.poll_transmit(now, &mut wire, &mut pcm, &mut |notice| {
                if let Notice::Slot { samples, .. } = notice
                    && samples[159] != 0
                {
                    let sample = samples[159];
                    let faded = if outcome.left.is_empty() { 0 } else { 40 };
                    assert!(
                        samples[faded..].iter().all(|other| *other == sample),
                        "whole frames leave, the first quarter of one behind a cut faded"
                    );
                    while content(expected, is_loud(expected)) != sample {
                        expected += 1;
                        assert!(
                            expected < next_push,
                            "what leaves was pushed, whole and in order"
                        );
                    }
                    outcome.left.push(expected);
                    outcome.delays.push(now - pushes[expected]);
                    expected += 1;
                }
            });
            call.handle_transmitted(&wire, wire.len());
        }
    }
    outcome.counters = call.counters();
    outcome
}

/// The samples of frame `number`: never 0, but quieter than −50 dBFS unless it is loud.
fn content(number: usize, is_loud: bool) -> i16 {
    let value = if is_loud {
        number % 30_000 + 1_000
    } else {
        number % 100 + 1
    };
    value as i16
}

fn loud(_: usize) -> bool {
    true
}

/// What a program that echoes pushes: each inbound frame up to 1 ms later.
fn echo_of(inbound: &[Time], seed: u64) -> Vec<Time> {
    let mut random = Random(seed);
    inbound
        .iter()
        .map(|&arrival| arrival + Duration::from_nanos(random.below(1_000_000)))
        .collect()
}

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

/// Pushes of which, about twice in a second, those of up to `stall` come at once at its end.
fn stalled(pushes: &[Time], stall: Duration, seed: u64) -> Vec<Time> {
    let mut random = Random(seed);
    let mut until = Time::ZERO;
    pushes
        .iter()
        .map(|&push| {
            if push > until && random.below(25) == 0 {
                until = push + Duration::from_nanos(random.below(stall.as_nanos() as u64));
            }
            push.max(until)
        })
        .collect()
}

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

/// A settled echo of a steady caller, some of whose frames come `late`; frames overtake none.
fn steady_but(late: &[(usize, Duration)]) -> Vec<Time> {
    let mut pushes: Vec<Time> = (0..1500).map(|n| at(20 * n + 15)).collect();
    for &(number, by) in late {
        let moment = pushes[number] + by;
        for push in &mut pushes[number..] {
            *push = moment.max(*push);
        }
    }
    pushes
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
fn with_a_prebuffer_sound_is_never_cut() {
    let steady = steady_but(&[]);
    let outcome = run_with(ms(40), &steady, &steady_but(&[(1000, ms(90))]), loud);
    assert_eq!(outcome.counters.live_dropped, 0);
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

/// Frames that were pushed and did not leave.
fn cut(outcome: &Outcome) -> Vec<usize> {
    let last = *outcome.left.last().unwrap();
    let mut left = outcome.left.iter().peekable();
    (0..last)
        .filter(|n| left.next_if_eq(&n).is_none())
        .collect()
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
