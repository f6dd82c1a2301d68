//! Pass band, stop band and delay of all 72 pairs of AudioSocket rates, measured with full-scale
//! sines. `cargo test -p sidetone-audio --test it -- resample_quality --nocapture` prints the
//! table.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::f64::consts::TAU;

use sidetone_audio::resample::Resampler;

const RATES: [u32; 9] = [
    8_000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000,
];
/// Output samples measured, once the filter is full.
const LOOK: usize = 800;
const AMPLITUDE: f64 = 32_000.0;

/// Fractions of the lower rate; closest together where the filter bends.
const PASS: [f64; 10] = [
    0.011, 0.063, 0.127, 0.191, 0.257, 0.311, 0.367, 0.401, 0.417, 0.425,
];
const STOP: [f64; 10] = [
    0.575, 0.579, 0.583, 0.588, 0.597, 0.611, 0.683, 0.811, 1.037, 1.493,
];

struct Quality {
    /// The largest gain and loss in the pass band.
    ripple_db: f64,
    /// The strongest alias of a sine in the stop band, or image of one in the pass band.
    stop_db: f64,
    delay_ms: f64,
}

fn measure(from: u32, to: u32) -> Quality {
    let lower = f64::from(from.min(to));
    let mut quality = Quality {
        ripple_db: 0.0,
        stop_db: f64::NEG_INFINITY,
        delay_ms: 0.0,
    };
    for hertz in PASS.map(|fraction| fraction * lower) {
        let out = answer(from, to, hertz);
        let (sine, cosine, rest) = fit(&out, hertz / f64::from(to));
        let gain = decibels(sine.hypot(cosine) / AMPLITUDE);
        quality.ripple_db = quality.ripple_db.max(gain.abs());
        quality.stop_db = quality.stop_db.max(decibels(rest / AMPLITUDE));
        if hertz < 0.02 * lower {
            // Only the lowest one's period is long enough for its phase to give one delay.
            let start = out.0 as f64 / f64::from(to);
            let cycles = (TAU * hertz * start - cosine.atan2(sine)) / TAU;
            quality.delay_ms = cycles.rem_euclid(1.0) / hertz * 1000.0;
        }
    }
    for hertz in STOP.map(|fraction| fraction * lower) {
        if hertz < f64::from(from) / 2.0 {
            let (_, out) = answer(from, to, hertz);
            quality.stop_db = quality.stop_db.max(decibels(amplitude(&out) / AMPLITUDE));
        }
    }
    quality
}

/// The output for a sine, from a given sample on.
fn answer(from: u32, to: u32, hertz: f64) -> (usize, Vec<f64>) {
    let skip = 100 + 40 * (to / from).max(1) as usize;
    let len = (skip + LOOK) as u64 * u64::from(from) / u64::from(to) + 1;
    let input: Vec<i16> = (0..len)
        .map(|n| AMPLITUDE * (TAU * hertz * n as f64 / f64::from(from)).sin())
        .map(|value| value.round() as i16)
        .collect();
    let mut out = Vec::new();
    Resampler::new(from, to).unwrap().process(&input, &mut out);
    let out = out[skip..skip + LOOK]
        .iter()
        .map(|&sample| f64::from(sample));
    (skip, out.collect())
}

/// The sine and cosine of this frequency that fit best, and the amplitude of the rest.
fn fit((_, out): &(usize, Vec<f64>), frequency: f64) -> (f64, f64, f64) {
    let basis = |n: usize| (TAU * frequency * n as f64).sin_cos();
    let [mut ss, mut sc, mut cc, mut sy, mut cy] = [0.0; 5];
    for (n, y) in out.iter().enumerate() {
        let (s, c) = basis(n);
        ss += s * s;
        sc += s * c;
        cc += c * c;
        sy += s * y;
        cy += c * y;
    }
    let det = ss * cc - sc * sc;
    let sine = (sy * cc - cy * sc) / det;
    let cosine = (cy * ss - sy * sc) / det;
    let rest: Vec<f64> = out
        .iter()
        .enumerate()
        .map(|(n, y)| y - sine * basis(n).0 - cosine * basis(n).1)
        .collect();
    (sine, cosine, amplitude(&rest))
}

/// Of the sine with the same power.
fn amplitude(values: &[f64]) -> f64 {
    (2.0 * values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64).sqrt()
}

fn decibels(ratio: f64) -> f64 {
    20.0 * ratio.log10()
}

fn assert_quality(from: u32, to: u32) -> Quality {
    let quality = measure(from, to);
    let Quality {
        ripple_db,
        stop_db,
        delay_ms,
    } = quality;
    println!("{from:>6} → {to:>6}: ±{ripple_db:.4} dB, {stop_db:.1} dB, {delay_ms:.3} ms");
    assert!(ripple_db <= 0.1, "{from} to {to}: ripple of {ripple_db} dB");
    assert!(
        stop_db <= -80.0,
        "{from} to {to}: stop band at {stop_db} dB"
    );
    let said = Resampler::new(from, to).unwrap().delay().as_secs_f64() * 1000.0;
    assert!(
        (delay_ms - said).abs() < 0.005,
        "{from} to {to}: {delay_ms} ms, {said} said"
    );
    // 18 samples of the lower rate, rounded up to a whole input sample.
    let limit = 18_000.0 / f64::from(from.min(to)) + 1000.0 / f64::from(from);
    assert!(said <= limit, "{from} to {to}: delay of {said} ms");
    quality
}

#[test]
fn all_pairs_of_rates_meet_the_requirement() {
    let mut worst = Quality {
        ripple_db: 0.0,
        stop_db: f64::NEG_INFINITY,
        delay_ms: 0.0,
    };
    let mut pairs = 0;
    for from in RATES {
        for to in RATES.into_iter().filter(|&to| to != from) {
            let quality = assert_quality(from, to);
            worst.ripple_db = worst.ripple_db.max(quality.ripple_db);
            worst.stop_db = worst.stop_db.max(quality.stop_db);
            worst.delay_ms = worst.delay_ms.max(quality.delay_ms);
            pairs += 1;
        }
    }
    assert_eq!(pairs, 72);
    println!(
        "worst of {pairs}: ±{:.4} dB, {:.1} dB, {:.3} ms",
        worst.ripple_db, worst.stop_db, worst.delay_ms
    );
}

#[test]
fn odd_rates_of_sound_files_meet_it_too() {
    for (from, to) in [
        (11_025, 8_000),
        (22_050, 8_000),
        (8_000, 11_025),
        (8_001, 8_000),
        (44_101, 16_000),
        (16_000, 44_101),
        (384_000, 8_000),
        (191_999, 192_000),
    ] {
        assert_quality(from, to);
    }
}
