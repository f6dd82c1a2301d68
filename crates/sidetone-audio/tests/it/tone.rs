//! The demonstration's sounds have the right length and level, and can't be mistaken.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sidetone_audio::level::{peak_dbfs, rms_dbfs};
use sidetone_audio::resample::resample_clip;
use sidetone_audio::tone::{caller_voice, greeting};

const FIVE_SECONDS: Duration = Duration::from_secs(5);

/// The normalised correlation of two sounds, the second `lag` samples later.
fn correlation(a: &[i16], b: &[i16], lag: usize) -> f64 {
    let product = |(&a, &b): (&i16, &i16)| i64::from(a) * i64::from(b);
    let dot: i64 = a[lag..].iter().zip(b).map(product).sum();
    let power = |s: &[i16]| s.iter().zip(s).map(product).sum::<i64>() as f64;
    dot as f64 / (power(a) * power(b)).sqrt()
}

#[test]
fn the_greeting_correlates_with_itself_in_one_place() {
    let sound = greeting(8000);
    assert_eq!(sound.len(), 14_400);
    assert!((correlation(&sound, &sound, 0) - 1.0).abs() < 1e-9);
    // No peak comes near beyond half a period of the lowest note.
    for lag in 10..4000 {
        let side = correlation(&sound, &sound, lag).abs();
        assert!(side < 0.6, "{side} at a lag of {lag}");
    }
}

#[test]
fn the_greeting_is_loud_and_not_clipped() {
    let sound = greeting(8000);
    assert!(
        (-8.0..-1.0).contains(&peak_dbfs(&sound)),
        "{}",
        peak_dbfs(&sound)
    );
    assert!(
        (-22.0..-12.0).contains(&rms_dbfs(&sound)),
        "{}",
        rms_dbfs(&sound)
    );
    assert_eq!((sound[0], sound[14_399]), (0, 0), "no click at the ends");
}

#[test]
fn every_rate_sounds_the_same() {
    for rate in [16_000, 44_100, 48_000] {
        for (sound, narrow) in [
            (greeting(rate), greeting(8000)),
            (
                caller_voice(rate, Duration::from_secs(1), 1),
                caller_voice(8000, Duration::from_secs(1), 1),
            ),
        ] {
            let lower = resample_clip(&sound, rate, 8000).unwrap();
            let likeness = correlation(&lower, &narrow, 0);
            assert!(likeness > 0.98, "{likeness} at {rate} Hz");
        }
    }
}

#[test]
fn a_seed_gives_one_speaker() {
    let voice = caller_voice(8000, FIVE_SECONDS, 1);
    assert_eq!(voice.len(), 40_000);
    assert_eq!(voice, caller_voice(8000, FIVE_SECONDS, 1));
    assert_ne!(voice, caller_voice(8000, FIVE_SECONDS, 2));
    assert_ne!(voice, greeting(8000));
}

#[test]
fn the_voice_speaks_pauses_and_never_clips() {
    for seed in 0..20 {
        let voice = caller_voice(8000, FIVE_SECONDS, seed);
        assert!(
            (-12.0..-0.5).contains(&peak_dbfs(&voice)),
            "{}",
            peak_dbfs(&voice)
        );
        let frames = || voice.chunks(160);
        let loud = frames().filter(|f| rms_dbfs(f) > -30.0).count();
        let silent = frames().filter(|f| rms_dbfs(f) < -80.0).count();
        assert!(
            loud > 100 && silent > 25,
            "{loud} loud, {silent} silent of 250"
        );
    }
}
