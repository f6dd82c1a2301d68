//! Live audio over long times. Here is what plays a call; the tests are below `jitter_buffer/`.
#![allow(clippy::unwrap_used)]

mod bursts;
mod delay;
mod prebuffer;
mod pushes;
mod underruns;

use std::time::Duration;

use sidetone_proto::{CallConfig, CallMachine, Counters, Notice, Rate, Time};

use crate::support::{Random, at, frame, uuid_message};

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

/// Frames that were pushed and did not leave.
fn cut(outcome: &Outcome) -> Vec<usize> {
    let last = *outcome.left.last().unwrap();
    let mut left = outcome.left.iter().peekable();
    (0..last)
        .filter(|n| left.next_if_eq(&n).is_none())
        .collect()
}
