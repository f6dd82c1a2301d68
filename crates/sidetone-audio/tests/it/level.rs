//! Levels of sounds whose level is known.

use std::f64::consts::TAU;

use sidetone_audio::level::{FLOOR_DBFS, Meter, peak_dbfs, rms_dbfs};

fn sine(amplitude: f64) -> Vec<i16> {
    (0..8000)
        .map(|n| (amplitude * (TAU * 1000.0 * f64::from(n) / 8000.0 + 0.3).sin()) as i16)
        .collect()
}

#[test]
fn a_full_scale_sine_is_three_decibels_below_a_square() {
    assert!((rms_dbfs(&sine(32_767.0)) + 3.01).abs() < 0.01);
    assert!(rms_dbfs(&[i16::MIN; 10]) == 0.0);
    assert!((rms_dbfs(&sine(3276.7)) + 23.01).abs() < 0.01);
    assert!((peak_dbfs(&sine(16_384.0)) + 6.02).abs() < 0.5);
}

#[test]
fn silence_and_nothing_are_at_the_floor() {
    for samples in [&[0; 160][..], &[]] {
        assert!(rms_dbfs(samples) == FLOOR_DBFS && peak_dbfs(samples) == FLOOR_DBFS);
    }
    assert!(peak_dbfs(&[0, 1]) > FLOOR_DBFS);
}

#[test]
fn a_meter_rises_at_once_and_falls_with_time_not_with_calls() {
    let falls = |frame: usize| {
        let mut meter = Meter::new(16_000);
        meter.push(&[i16::MIN; 160]);
        (0..8000 / frame).for_each(|_| meter.push(&vec![0; frame]));
        meter.dbfs()
    };
    assert!((falls(160) + 12.0).abs() < 0.01);
    assert!((falls(800) + 12.0).abs() < 0.01);
    let mut meter = Meter::new(8000);
    (0..100).for_each(|_| meter.push(&[0; 160]));
    assert!(meter.dbfs() == FLOOR_DBFS);
}
