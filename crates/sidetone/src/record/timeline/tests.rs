#![allow(clippy::unwrap_used)]
use std::{ops::Range, time::Duration};

use sidetone_caller::{exact_runs, ramp};
use sidetone_proto::{CallConfig, CallMachine, Notice, Rate, Received, Time};

use super::*;

const SLOT: u64 = 20_000_000;

/// A file in memory, written as the writer's thread does it: the timeline is asked every 400 ms.
struct MemoryFile {
    timeline: Timeline,
    next: Time,
    left: Vec<i16>,
    right: Vec<i16>,
    replaced: u64,
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn at(milliseconds: u64) -> Time {
    Time::ZERO + ms(milliseconds)
}

impl MemoryFile {
    fn new(rate: Rate) -> Self {
        Self {
            timeline: Timeline::new(rate.hz(), Time::ZERO),
            next: at(400),
            left: Vec::new(),
            right: Vec::new(),
            replaced: 0,
        }
    }

    fn put(&mut self, side: Side, rate: Rate, at: Time, samples: &[i16]) {
        self.advance(at);
        self.timeline.put(side, rate, at, samples);
    }

    fn advance(&mut self, now: Time) {
        while self.next <= now {
            let mut frames = Vec::new();
            let first = self.timeline.take(self.next, &mut frames);
            self.write(first, &frames);
            let due = (self.next.as_nanos() - 250_000_000) as u128 * u128::from(self.timeline.hz);
            let due = (due / 1_000_000_000) as usize;
            assert!(self.left.len() >= due, "a kill would cost more than agreed");
            self.next += ms(400);
        }
    }

    fn finish(&mut self) {
        let mut frames = Vec::new();
        let first = self.timeline.finish(&mut frames);
        self.write(first, &frames);
    }

    fn write(&mut self, first: u64, frames: &[i16]) {
        let first = first as usize;
        assert!(first <= self.left.len(), "a file has no gaps");
        self.replaced += (self.left.len() - first) as u64;
        assert!(first + frames.len() / 2 >= self.left.len());
        self.left.truncate(first);
        self.right.truncate(first);
        self.left.extend(frames.iter().step_by(2));
        self.right.extend(frames.iter().skip(1).step_by(2));
    }

    fn caller(&self) -> Counts {
        self.timeline.counts(Side::Caller)
    }
}

/// Even noise, the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Frame `n` of `ramp`, 160 samples.
fn frame(ramp: &[i16], n: u64) -> &[i16] {
    &ramp[n as usize * 160..][..160]
}

/// A frame from each side every 20 ms; the caller's come up to 5.5 ms after their place in its schedule, that is
/// 14.5 to 25.5 ms apart. `caller` says which are sent.
fn conversation(seconds: u64, caller: impl Fn(u64) -> bool) -> (MemoryFile, Vec<i16>) {
    let said = ramp(1, 0, seconds as usize * 8_000);
    let mut random = Random(99);
    let mut file = MemoryFile::new(Rate::Slin);
    for n in 0..seconds * 50 {
        let slot = Time::from_nanos(n * SLOT);
        file.put(Side::Server, Rate::Slin, slot, frame(&said, n));
        if caller(n) {
            let late = slot + Duration::from_nanos(4_000_000 + random.below(5_500_000));
            file.put(Side::Caller, Rate::Slin, late, frame(&said, n));
        }
    }
    file.finish();
    (file, said)
}

/// How far the sample `heard` is from where it should be, in milliseconds.
fn off_by(heard: usize, said: usize) -> f64 {
    (heard as f64 - said as f64) / 8.0
}

#[test]
fn jitter_inserts_nothing_and_drops_nothing() {
    let (file, said) = conversation(120, |_| true);
    assert_eq!(
        file.right,
        [&said[..], &vec![0; file.right.len() - said.len()]].concat()
    );
    let runs = exact_runs(&said, &file.left);
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!((runs[0].source, runs[0].length), (0, said.len()));
    assert!((4.0..=9.5).contains(&off_by(runs[0].heard, 0)), "{runs:?}");
    assert_eq!(file.caller(), Counts::default());
    assert_eq!(file.replaced, 0);
}

#[test]
fn time_in_which_nothing_came_is_silence_and_counted() {
    let (file, said) = conversation(60, |n| !(1_000..1_500).contains(&n));
    let runs = exact_runs(&said, &file.left);
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert_eq!((runs[0].source, runs[0].length), (0, 160_000));
    assert_eq!((runs[1].source, runs[1].length), (240_000, 240_000));
    assert!(
        off_by(runs[1].heard, runs[1].source).abs() < 10.0,
        "{runs:?}"
    );
    let missing = file.caller().missing as i64;
    assert!((missing - 80_000).abs() < 80, "{missing}");
    assert_eq!(file.replaced, 0);
}

#[test]
fn a_caller_that_says_nothing_at_all_is_silence_to_the_end() {
    let (file, said) = conversation(60, |_| false);
    assert_eq!(file.right, said);
    assert_eq!(file.left, vec![0; said.len()]);
    assert_eq!(file.caller().missing, said.len() as u64);
}

/// The caller's frames from `frozen` on come all at once when it ends.
fn freeze(frozen: Range<u64>) -> (MemoryFile, Vec<i16>) {
    let said = ramp(1, 0, 30 * 8_000);
    let mut file = MemoryFile::new(Rate::Slin);
    for n in 0..30 * 50 {
        let slot = Time::from_nanos(n * SLOT);
        file.put(Side::Server, Rate::Slin, slot, frame(&said, n));
        if n + 1 == frozen.end {
            for n in frozen.clone() {
                file.put(Side::Caller, Rate::Slin, slot, frame(&said, n));
            }
        } else if !frozen.contains(&n) {
            file.put(Side::Caller, Rate::Slin, slot, frame(&said, n));
        }
    }
    file.finish();
    (file, said)
}

#[test]
fn a_backlog_after_a_freeze_takes_the_place_of_the_silence() {
    for frames in [3, 10, 60, 180, 245] {
        let (file, said) = freeze(500..500 + frames);
        assert!(file.left == said, "{frames} frames late");
        assert!(file.right == said, "{frames} frames late");
        assert_eq!(file.caller(), Counts::default(), "{frames} frames late");
    }
}

#[test]
fn a_backlog_after_a_longer_freeze_is_all_there_and_ends_on_time() {
    // 12 s without a frame, and then the last 3.6 s of it: Asterisk keeps no more.
    let said = ramp(1, 0, 30 * 8_000);
    let mut file = MemoryFile::new(Rate::Slin);
    for n in 0..30 * 50 {
        let slot = Time::from_nanos(n * SLOT);
        file.put(Side::Server, Rate::Slin, slot, frame(&said, n));
        let frames = match n {
            500..1_100 => 0..0,
            1_100 => 921..1_101,
            _ => n..n + 1,
        };
        for n in frames {
            file.put(Side::Caller, Rate::Slin, slot, frame(&said, n));
        }
    }
    file.finish();
    let runs = exact_runs(&said, &file.left);
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert_eq!((runs[1].source, runs[1].length), (921 * 160, 579 * 160));
    assert_eq!(runs[1].heard, runs[1].source);
    assert_eq!(file.caller().missing, (921 - 500) * 160);
}

#[test]
fn audio_faster_than_real_time_is_kept_up_to_five_seconds_and_makes_room_in_silence() {
    let loud = [1_000; 160];
    let mut file = MemoryFile::new(Rate::Slin);
    for n in 0..1_500 {
        let slot = Time::from_nanos(n * SLOT);
        file.put(Side::Server, Rate::Slin, slot, &loud);
        file.put(Side::Caller, Rate::Slin, slot, &loud);
        file.put(Side::Caller, Rate::Slin, slot, &loud);
        assert!(file.timeline.caller.samples_held() < 6 * 8_000);
    }
    let discarded = file.caller().discarded;
    assert!(discarded > 15 * 8_000, "{discarded}");
    let quiet = [0; 160];
    for n in 1_500..2_000 {
        let slot = Time::from_nanos(n * SLOT);
        file.put(Side::Server, Rate::Slin, slot, &quiet);
        file.put(Side::Caller, Rate::Slin, slot, &quiet);
    }
    file.finish();
    let late = file.left.len() - file.right.len();
    assert_eq!(late, 0);
    assert!(file.left.len() <= 2_000 * 160 + 80, "{}", file.left.len());
}

#[test]
fn a_flood_is_bounded_while_it_is_in_doubt_too() {
    let second = [1_000; 8_000];
    // At the beginning, and behind a gap.
    for since in [0, 2_000] {
        let mut file = MemoryFile::new(Rate::Slin);
        for n in 0..since / 20 {
            file.put(Side::Server, Rate::Slin, Time::ZERO + ms(n * 20), &[0; 160]);
        }
        let now = Time::ZERO + ms(since + 60);
        for _ in 0..600 {
            file.put(Side::Server, Rate::Slin, now, &second);
        }
        file.finish();
        let most = (since as usize + 60 + 6_000) * 8;
        assert!(file.left.len() <= most, "{}", file.left.len());
        assert!(file.timeline.counts(Side::Server).discarded >= 590 * 8_000);
    }
}

#[test]
fn whatever_comes_whenever_is_placed_once() {
    for seed in 1..=40 {
        let mut random = Random(seed * 0x9e37_79b9);
        let mut file = MemoryFile::new(Rate::Slin);
        let (mut now, mut came) = (Time::ZERO, 0);
        for _ in 0..400 {
            now += match random.below(20) {
                0 => ms(random.below(400)),
                1 => ms(random.below(9_000)),
                2..6 => Duration::ZERO,
                _ => ms(14 + random.below(13)),
            };
            let samples = vec![1_000; 1 + random.below(480) as usize];
            came += samples.len() as u64;
            file.put(Side::Caller, Rate::Slin, now, &samples);
        }
        file.finish();
        let counts = file.caller();
        let there = file.left.iter().filter(|sample| **sample != 0).count() as u64;
        let expected = came + counts.added - counts.removed - counts.discarded;
        assert_eq!(there, expected, "seed {seed}: {counts:?}");
    }
}

#[test]
fn what_comes_at_another_rate_is_resampled_to_its_place() {
    let mut file = MemoryFile::new(Rate::Slin16);
    let marked = |rate: Rate| {
        let mut samples = vec![500; rate.slot_samples()];
        let burst = rate.slot_samples() / 4;
        samples[..burst].fill(20_000);
        samples
    };
    for n in 0..500 {
        let slot = Time::from_nanos(n * SLOT);
        // The server answers at 8 kHz until the first wideband frame has come.
        let rate = if n < 10 { Rate::Slin } else { Rate::Slin16 };
        let samples = if n % 50 == 5 {
            marked(rate)
        } else {
            vec![500; rate.slot_samples()]
        };
        file.put(Side::Server, rate, slot, &samples);
        file.put(Side::Caller, Rate::Slin16, slot, &vec![500; 320]);
    }
    file.finish();
    let starts = rising(&file.right);
    assert_eq!(starts.len(), 10);
    for (n, start) in starts.iter().enumerate() {
        let expected = (n * 50 + 5) * 320;
        let off = (*start as f64 - expected as f64) / 16.0;
        assert!((-1.0..=5.0).contains(&off), "marker {n} is {off} ms off");
    }
}

/// Where a sound louder than 10000 begins.
fn rising(samples: &[i16]) -> Vec<usize> {
    let pairs = samples.windows(2).enumerate();
    pairs
        .filter(|(_, pair)| pair[0] <= 10_000 && pair[1] > 10_000)
        .map(|(index, _)| index + 1)
        .collect()
}

/// A call of half an hour, driven by the call machine itself: 200 ppm of drift, jitter, ten seconds in which
/// nothing comes, and a clear. A marker every second on each side.
fn half_an_hour(ppm: i64) -> (MemoryFile, Vec<f64>, Vec<f64>) {
    let (seconds, gap, clear_at) = (1_800u64, 600..610, 900);
    let mut random = Random(5);
    let mut call = CallMachine::new(Time::ZERO, CallConfig::default());
    let uuid = [&[1, 0, 16][..], &[7; 16]].concat();
    call.handle_received(Time::ZERO, &uuid, &mut |_| {});
    let mut file = MemoryFile::new(Rate::Slin);
    let (mut said, mut played) = (Vec::new(), Vec::new());
    let (mut wire, mut pcm) = (Vec::new(), Vec::new());
    let slot = (SLOT as i64 * (1_000_000 - ppm) / 1_000_000) as u64;
    let arrival = |n: u64, random: &mut Random| {
        Time::from_nanos(10_000_000 + n * slot + random.below(5_500_000))
    };
    let (mut n, mut arrives) = (0, arrival(0, &mut random));
    let mut pushed = 0;
    let end = Time::ZERO + Duration::from_secs(seconds);
    loop {
        let now = arrives.min(call.poll_timeout());
        if now >= end {
            break;
        }
        let second = now.as_nanos() / 1_000_000_000;
        if now == arrives {
            if !gap.contains(&second) {
                let mut samples = [500i16; 160];
                if n % 50 == 7 {
                    samples[80..].fill(20_000);
                    said.push(arrives.as_nanos() as f64 / 1e9 + 0.010);
                }
                let bytes = samples.iter().flat_map(|sample| sample.to_le_bytes());
                let message: Vec<u8> = [0x10, 1, 64].into_iter().chain(bytes).collect();
                call.handle_received(now, &message, &mut |received| {
                    if let Received::Audio { rate, .. } = received {
                        file.put(Side::Caller, rate, now, &samples);
                    }
                });
            }
            n += 1;
            arrives = arrival(n, &mut random);
            continue;
        }
        // A program that queues a second at a time, two seconds ahead, and once throws it away.
        while pushed < second + 2 {
            let mut samples = vec![500i16; 8_000];
            samples[4_000..4_080].fill(20_000);
            call.playout().push(now, Rate::Slin, &samples);
            pushed += 1;
        }
        if second == clear_at && call.playout().queued() > ms(1_500) {
            call.playout().clear();
        }
        call.poll_transmit(now, &mut wire, &mut pcm, &mut |notice| {
            if let Notice::Slot { rate, samples, .. } = notice {
                let start = rising(&[&[0], samples].concat()).first().copied();
                if let Some(start) = start {
                    played.push(now.as_nanos() as f64 / 1e9 + (start - 1) as f64 / 8_000.0);
                }
                file.put(Side::Server, rate, now, samples);
            }
        });
        call.handle_transmitted(&wire, wire.len());
        wire.clear();
    }
    file.finish();
    (file, said, played)
}

#[test]
fn after_half_an_hour_with_drift_a_gap_and_a_clear_both_sides_are_in_place() {
    for ppm in [-200, 200] {
        let (file, said, played) = half_an_hour(ppm);
        for (name, expected, track) in [
            ("caller", said, &file.left),
            ("server", played, &file.right),
        ] {
            let found = rising(track);
            assert_eq!(found.len(), expected.len(), "{ppm} ppm, {name}");
            assert!(found.len() > 1_700, "{ppm} ppm, {name}");
            let off = found.iter().zip(&expected).map(|(place, moment)| {
                let off = *place as f64 / 8.0 - moment * 1_000.0;
                off.abs()
            });
            let worst = off.fold(0.0, f64::max);
            assert!(worst < 20.0, "{ppm} ppm, {name}: {worst} ms off");
        }
        let counts = file.caller();
        let missing = counts.missing as i64 - 80_000;
        assert!(missing.abs() < 240, "{ppm} ppm: {counts:?}");
        let corrected = (counts.added + counts.removed) as f64 / 8_000.0;
        assert!((0.30..0.42).contains(&corrected), "{ppm} ppm: {counts:?}");
    }
}
