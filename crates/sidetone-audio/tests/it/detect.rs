//! Decisions about unnamed streams: none may be wrong, and most must come soon.
//!
//! The lab tests the same with human speech, and includes `line.rs` for that.
#![allow(clippy::unwrap_used)]

use std::f64::consts::TAU;
use std::time::Duration;

use sidetone_audio::detect::{Detector, Verdict};
use sidetone_audio::tone::{caller_voice, greeting};

use crate::line::{Codec, Line};

static SILENCE: [i16; 40_000] = [0; 40_000];

fn voice(seed: u64) -> Vec<i16> {
    caller_voice(8000, Duration::from_secs(3), seed)
}

fn scaled(sound: &[i16], factor: f64) -> Vec<i16> {
    sound
        .iter()
        .map(|&s| (f64::from(s) * factor) as i16)
        .collect()
}

/// White noise of this amplitude.
fn noise(amplitude: f64, len: usize, seed: u64) -> Vec<i16> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1u32 << 30) - 1.0
    };
    (0..len).map(|_| (amplitude * next()) as i16).collect()
}

/// The verdict, and the milliseconds of the stream until it came.
fn decide(messages: &[(Duration, Vec<u8>)], bytes_per_ms: usize) -> (Verdict, usize) {
    let mut detector = Detector::new();
    let mut bytes = 0;
    for (at, payload) in messages {
        bytes += payload.len();
        if detector.push(*at, payload) != Verdict::Undecided {
            break;
        }
    }
    (detector.verdict(), bytes / bytes_per_ms)
}

fn right(codec: Codec) -> Verdict {
    match codec {
        Codec::Slin => Verdict::Slin,
        Codec::Ulaw => Verdict::Ulaw,
        Codec::Alaw => Verdict::Alaw,
        Codec::G722 => Verdict::Unsupported {
            bytes_per_second: 8000,
        },
    }
}

#[test]
fn no_stream_is_taken_for_another_codec_and_few_stay_undecided() {
    let (mut decisions, mut undecided) = (0, 0);
    for seed in 0..8 {
        let voice = voice(seed);
        let hiss = noise(100.0, 16_000, seed);
        let sounds = [
            ("as it is", voice.clone()),
            (
                "after five seconds of silence",
                [&SILENCE[..], &voice].concat(),
            ),
            ("at -45 dBFS", scaled(&voice, 0.056)),
            ("after comfort noise", [&hiss[..], &voice].concat()),
        ];
        for (what, sound) in &sounds {
            for codec in Codec::ALL {
                let bytes = codec.encode(sound);
                for (n, ptime) in [10, 20, 30, 40, 60].into_iter().enumerate() {
                    let mut line = Line::new(ptime, seed);
                    let frames = sound.len() / 8 / ptime;
                    match (n + seed as usize) % 4 {
                        0 => {}
                        1 => line.burst = Some((0, 180.min(frames / 2))),
                        2 => line.burst = Some((7, 10)),
                        _ => line.gap = Some((4, 10)),
                    }
                    let rate = codec.bytes_per_ms();
                    let (verdict, _) = decide(&line.deliver(&bytes, rate), rate);
                    decisions += 1;
                    if verdict == Verdict::Undecided {
                        undecided += 1;
                    } else {
                        assert_eq!(verdict, right(codec), "{codec:?} {what}, {line:?}");
                    }
                }
            }
        }
    }
    assert_eq!(decisions, 640);
    assert!(undecided <= 20, "{undecided} of {decisions} undecided");
}

#[test]
fn two_hundred_milliseconds_of_speech_suffice_at_any_frame_length() {
    for seed in 0..10 {
        let voice = voice(seed);
        for codec in [Codec::Slin, Codec::Ulaw, Codec::Alaw] {
            let bytes = codec.encode(&voice);
            for ptime in [10, 20, 30, 40, 60] {
                let rate = codec.bytes_per_ms();
                let messages = Line::new(ptime, seed).deliver(&bytes, rate);
                let (verdict, after) = decide(&messages, rate);
                assert_eq!(verdict, right(codec));
                assert!(
                    after <= 200,
                    "{codec:?} at {ptime} ms: after {after} ms, {seed}"
                );
            }
        }
    }
}

#[test]
fn frames_that_come_in_pairs_are_not_taken_for_half_the_rate() {
    // Two frames of 10 ms at once, every 20 ms.
    for (codec, len) in [(Codec::Slin, 160), (Codec::Ulaw, 80)] {
        let bytes = codec.encode(&voice(3));
        let pairs = bytes.chunks(len).enumerate();
        let messages: Vec<_> = pairs
            .map(|(n, payload)| (Duration::from_millis(n as u64 / 2 * 20), payload.to_vec()))
            .collect();
        let rate = codec.bytes_per_ms();
        assert_eq!(decide(&messages, rate).0, right(codec));
    }
}

#[test]
fn companded_silence_leaves_the_law_undecided() {
    for idle in [0xFF, 0x7F, 0xD5, 0x55] {
        let messages = Line::new(20, 1).deliver(&[idle; 80_000], 8);
        assert_eq!(decide(&messages, 8).0, Verdict::Undecided);
    }
}

#[test]
fn tones_that_fit_both_laws_are_never_taken_for_the_wrong_one() {
    let pairs = [
        (350.0, 440.0),
        (440.0, 480.0),
        (425.0, 425.0),
        (1000.0, 1000.0),
        (2100.0, 2100.0),
        (697.0, 1209.0),
        (770.0, 1336.0),
        (941.0, 1477.0),
        (852.0, 1633.0),
    ];
    for (low, high) in pairs {
        for amplitude in [100.0, 1000.0, 8000.0, 16_000.0] {
            let tone = |hertz: f64, n: f64| (TAU * hertz * n / 8000.0).sin() * amplitude;
            let sound: Vec<i16> = (0..16_000)
                .map(f64::from)
                .map(|n| (tone(low, n) + tone(high, n)) as i16)
                .collect();
            for codec in [Codec::Ulaw, Codec::Alaw] {
                let messages = Line::new(20, 1).deliver(&codec.encode(&sound), 8);
                let (verdict, _) = decide(&messages, 8);
                assert!(
                    [Verdict::Undecided, right(codec)].contains(&verdict),
                    "{codec:?}, {low} and {high} Hz at {amplitude}: {verdict:?}"
                );
            }
        }
    }
}

#[test]
fn a_melody_is_as_good_as_speech() {
    for codec in Codec::ALL {
        let rate = codec.bytes_per_ms();
        let messages = Line::new(20, 5).deliver(&codec.encode(&greeting(8000)), rate);
        assert_eq!(decide(&messages, rate).0, right(codec));
    }
}

#[test]
fn sixteen_kilobytes_per_second_are_slin_with_any_sound() {
    for ptime in [10, 20, 60] {
        let hiss = noise(32_767.0, 20_000, 4);
        let messages = Line::new(ptime, 5).deliver(&Codec::Slin.encode(&hiss), 16);
        assert_eq!(decide(&messages, 16).0, Verdict::Slin, "{ptime}");
    }
}

#[test]
fn the_byte_rate_alone_decides_wideband() {
    for (hz, bytes) in [(12_000, 480), (16_000, 640), (48_000, 1920)] {
        for amplitude in [0.0, 300.0, 30_000.0] {
            let sound = Codec::Slin.encode(&noise(amplitude, bytes * 50, 8));
            let mut line = Line::new(20, 3);
            for burst in [None, Some((0, 30)), Some((7, 10))] {
                line.burst = burst;
                let (verdict, _) = decide(&line.deliver(&sound, bytes / 20), bytes / 20);
                assert_eq!(verdict, Verdict::Wideband { hz }, "{amplitude} {burst:?}");
            }
        }
    }
}

#[test]
fn sound_without_a_verdict_is_timed_and_silence_is_not() {
    let lasts = |sound: &[i16]| {
        let mut detector = Detector::new();
        let messages = Line::new(20, 1).deliver(&Codec::Ulaw.encode(sound), 8);
        let mut end = Duration::ZERO;
        for (at, payload) in &messages {
            detector.push(*at, payload);
            end = *at;
        }
        assert_eq!(detector.verdict(), Verdict::Undecided);
        detector.sound_undecided(end).as_millis()
    };
    let hiss = noise(8_000.0, 16_000, 4);
    assert!((1_900..2_000).contains(&lasts(&hiss)));
    let late = [&SILENCE[..24_000], &hiss].concat();
    assert!((1_900..2_000).contains(&lasts(&late)));
    for quiet in [&SILENCE[..], &noise(60.0, 200, 1)] {
        assert_eq!(lasts(quiet), 0);
    }
}

#[test]
fn other_rates_are_unsupported_and_reported() {
    // G.729, GSM and a 32 kbit/s ADPCM all look random.
    for (len, rate) in [(20, 1000), (33, 1650), (80, 4000)] {
        let chance = noise(32_767.0, 4000 * len / 20, 9);
        let bytes: Vec<u8> = chance.iter().map(|s| (s >> 4) as u8).collect();
        let messages: Vec<_> = bytes
            .chunks(len)
            .zip((0..).step_by(20).map(Duration::from_millis))
            .map(|(payload, at)| (at, payload.to_vec()))
            .collect();
        let expected = Verdict::Unsupported {
            bytes_per_second: rate,
        };
        assert_eq!(decide(&messages, 1).0, expected);
    }
}

#[test]
fn the_first_verdict_is_final() {
    let mut detector = Detector::new();
    let mut at = Duration::ZERO;
    for (codec, expected) in [(Codec::Ulaw, Verdict::Ulaw), (Codec::Alaw, Verdict::Ulaw)] {
        for payload in codec.encode(&voice(1)).chunks(160) {
            detector.push(at, payload);
            at += Duration::from_millis(20);
        }
        assert_eq!(detector.verdict(), expected);
    }
}

#[test]
fn empty_and_odd_payloads_do_no_harm() {
    let mut detector = Detector::new();
    for n in 0..100u64 {
        detector.push(
            Duration::from_millis(n * 20),
            &vec![n as u8; n as usize % 3],
        );
        detector.push(Duration::from_millis(n), &[]);
    }
    assert_eq!(detector.verdict(), Verdict::Undecided);
}
