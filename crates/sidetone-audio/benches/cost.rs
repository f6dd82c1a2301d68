//! The cost of a frame: `cargo bench -p sidetone-audio`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use sidetone_audio::detect::Detector;
use sidetone_audio::g711::Law;
use sidetone_audio::resample::Resampler;
use sidetone_audio::tone::caller_voice;
use sidetone_audio::vad::VoiceDetector;

fn main() {
    let sound: Vec<i16> = (0..192_000).map(|n| (n * 97) as i16 / 2).collect();

    for law in [Law::Ulaw, Law::Alaw] {
        let (mut codes, mut samples) = (Vec::new(), Vec::new());
        time(&format!("encode 160 samples, {law:?}"), || {
            codes.clear();
            law.encode(black_box(&sound[..160]), &mut codes);
        });
        time(&format!("decode 160 codes, {law:?}"), || {
            samples.clear();
            law.decode(black_box(&codes), &mut samples);
        });
    }

    for (from, to) in [
        (8_000, 16_000),
        (16_000, 8_000),
        (8_000, 24_000),
        (24_000, 8_000),
        (8_000, 48_000),
        (48_000, 8_000),
        (8_000, 44_100),
        (44_100, 8_000),
        (44_100, 48_000),
        (192_000, 8_000),
    ] {
        let mut resampler = Resampler::new(from, to).unwrap();
        let mut out = Vec::new();
        time(&format!("resample 20 ms, {from} to {to}"), || {
            out.clear();
            resampler.process(black_box(&sound[..from as usize / 50]), &mut out);
        });
    }
    time_detection(&caller_voice(8000, Duration::from_secs(1), 1)[1600..]);
}

/// The cost of a frame in both detectors.
fn time_detection(sound: &[i16]) {
    let mut codes = Vec::new();
    Law::Ulaw.encode(sound, &mut codes);
    time("detect 160 codes, undecided", || {
        // A new one each time: it is undecided.
        black_box(Detector::new().push(Duration::ZERO, black_box(&codes[..160])));
    });
    let mut voice = VoiceDetector::new(8000).unwrap();
    time("voice activity, 20 ms at 8 kHz", || {
        voice.push(black_box(&sound[..160])).count();
    });
}

/// Prints the fastest of many rounds, which other processes disturb least.
fn time(what: &str, mut work: impl FnMut()) {
    const EACH: u32 = 200;
    let round = |_| {
        let start = Instant::now();
        (0..EACH).for_each(|_| work());
        start.elapsed() / EACH
    };
    let fastest = (0..100).map(round).min().unwrap_or_default();
    println!("{what:<32} {:>8.3} µs", fastest.as_secs_f64() * 1e6);
}
