#![allow(clippy::unwrap_used)]
use sidetone_caller::{exact_runs, ramp};

use super::*;

fn at(milliseconds: u64) -> Time {
    Time::ZERO + Duration::from_millis(milliseconds)
}

/// A stream that is taken as soon as it is due, which it is at the right time.
struct Stream {
    mixer: Mixer,
    out: Vec<i16>,
}

impl Stream {
    fn new(rate: Rate) -> Self {
        Self {
            mixer: Mixer::new(rate, Time::ZERO),
            out: Vec::new(),
        }
    }

    fn put(&mut self, side: Side, at: Time, samples: &[i16]) {
        self.advance(at);
        self.mixer.put(side, Rate::Slin, at, samples);
    }

    fn advance(&mut self, now: Time) {
        while self.mixer.due() <= now {
            let due = self.mixer.due();
            self.mixer.catch_up(due);
            self.mixer.take(due, &mut self.out);
            let length = self.mixer.rate.duration(self.out.len() as u64);
            assert_eq!(Time::ZERO + length + MIX_DELAY, due, "in real time");
        }
        for track in [&self.mixer.caller, &self.mixer.server] {
            let held = self.mixer.rate.duration(track.samples.len() as u64);
            assert!(held < Duration::from_millis(300), "{held:?}");
        }
    }

    fn finished(mut self) -> Vec<i16> {
        self.mixer.finish(&mut self.out);
        self.out
    }
}

/// Frame `n` of 160 samples.
fn frame(samples: &[i16], n: u64) -> &[i16] {
    &samples[160 * n as usize..][..160]
}

#[test]
fn both_sides_are_mixed_where_they_passed_and_silence_fills_the_gaps() {
    let (said, played) = (ramp(1, 0, 80_000), ramp(2, 0, 80_000));
    let mut stream = Stream::new(Rate::Slin);
    let mut expected = vec![0_i16; 160 * 106];
    for n in 0..100 {
        let mut mix = |start: usize, frame: &[i16]| {
            for (mixed, sample) in expected[start..].iter_mut().zip(frame) {
                *mixed = mixed.saturating_add(*sample);
            }
        };
        // Nobody speaks between 400 and 600 ms, and the caller begins 55 ms after the server.
        if !(20..30).contains(&n) {
            stream.put(Side::Server, at(20 * n + 40), frame(&played, n));
            mix(160 * n as usize + 320, frame(&played, n));
            stream.put(Side::Caller, at(20 * n + 95), frame(&said, n));
            mix(160 * n as usize + 760, frame(&said, n));
        }
    }
    let mixed = stream.finished();
    expected.truncate(mixed.len());
    assert!(mixed == expected);
    assert_eq!(mixed.len(), 760 + 16_000);
}

#[test]
fn what_is_louder_than_full_scale_is_clipped() {
    let mut stream = Stream::new(Rate::Slin);
    for side in [Side::Caller, Side::Server] {
        stream.put(side, at(0), &[20_000, -20_000, 10]);
    }
    assert_eq!(stream.finished(), [i16::MAX, i16::MIN, 20]);
}

#[test]
fn jitter_and_short_stalls_change_no_sample() {
    let said = ramp(3, 0, 80_000);
    let mut stream = Stream::new(Rate::Slin);
    let mut last = Time::ZERO;
    for n in 0..495 {
        // Up to 14 ms of jitter, and every second all audio waits for 80 ms.
        let jitter = (n * n * 7) % 15;
        let stalled_until = if n % 50 > 45 { (n / 50 + 1) * 1_000 } else { 0 };
        last = last.max(at((20 * n + jitter).max(stalled_until)));
        stream.put(Side::Caller, last, frame(&said, n));
    }
    let heard = stream.finished();
    let runs = exact_runs(&said, &heard);
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(runs[0].length, 160 * 495);
}

#[test]
fn after_a_freeze_the_stream_goes_on_with_the_present() {
    let said = ramp(4, 0, 160_000);
    let mut stream = Stream::new(Rate::Slin);
    for n in 0..500 {
        let frozen_until = if (100..200).contains(&n) { 4_000 } else { 0 };
        stream.put(
            Side::Caller,
            at((20 * n).max(frozen_until)),
            frame(&said, n),
        );
    }
    let heard = stream.finished();
    let last = exact_runs(&said, &heard).pop().unwrap();
    assert_eq!(last.source + last.length, 80_000);
    let delay = last.heard as i64 - last.source as i64;
    let max_ahead = Rate::Slin.samples_in(MAX_AHEAD) as i64;
    assert!((0..=max_ahead).contains(&delay), "{delay}");
    // The freeze itself is silence.
    assert!(heard[16_000..31_000].iter().all(|sample| *sample == 0));
}

#[test]
fn a_clock_that_is_off_costs_neither_delay_nor_the_stream() {
    for parts_per_million in [-300, 300] {
        let mut stream = Stream::new(Rate::Slin);
        for n in 0..90_000_i64 {
            let nanos = n * (20_000_000 + 20 * parts_per_million);
            stream.put(Side::Caller, Time::from_nanos(nanos as u64), &[100; 160]);
        }
        let heard = stream.finished();
        let silent = heard.iter().filter(|sample| **sample == 0).count();
        assert!(silent < 8_000, "{silent} samples of half an hour");
    }
}

#[test]
fn every_rate_goes_into_the_stream_at_its_pace() {
    for rate in [Rate::Slin, Rate::Slin16, Rate::Slin48] {
        let mut mixer = Mixer::new(rate, Time::ZERO);
        let mut out = Vec::new();
        for n in 0..100 {
            let now = at(20 * n);
            mixer.take(now, &mut out);
            let wideband = Rate::Slin16;
            mixer.put(Side::Caller, wideband, now, &vec![500; 320]);
            mixer.put(Side::Server, Rate::Slin, now, &[700; 160]);
        }
        mixer.finish(&mut out);
        let missing = 2 * rate.hz() as usize - out.len();
        assert!(missing <= rate.hz() as usize / 250, "{rate:?}: {missing}");
        let middle = &out[out.len() / 4..out.len() * 3 / 4];
        assert!(middle.iter().all(|sample| sample.abs_diff(1_200) < 5));
    }
}

#[test]
fn a_reader_that_was_away_goes_on_with_the_present() {
    let mut mixer = Mixer::new(Rate::Slin, Time::ZERO);
    let mut out = Vec::new();
    mixer.catch_up(at(60_000));
    for n in 0..3_000 {
        mixer.put(Side::Caller, Rate::Slin, at(20 * n), &[1; 160]);
        assert!(mixer.caller.samples.len() <= 1_600, "it does not pile up");
    }
    mixer.take(at(60_000), &mut out);
    assert!(out.len() <= 320, "{} samples", out.len());
    mixer.take(at(60_040), &mut out);
    assert_eq!(&out[out.len() - 320..], [1; 320]);
}

#[test]
fn what_passed_before_the_beginning_is_not_part_of_it() {
    let mut mixer = Mixer::new(Rate::Slin, at(1_000));
    mixer.put(Side::Caller, Rate::Slin, at(980), &[1; 160]);
    mixer.put(Side::Caller, Rate::Slin, at(1_000), &[2; 160]);
    let mut out = Vec::new();
    mixer.finish(&mut out);
    assert_eq!(out, [2; 160]);
}
