//! Speech is noticed, other sounds are not, and the decisions do not flicker.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sidetone_audio::tone::caller_voice;
use sidetone_audio::vad::{Timing, VoiceDetector, VoiceEvent};

const SECOND: usize = 8000;

fn voice(seconds: u64) -> Vec<i16> {
    caller_voice(8000, Duration::from_secs(seconds), 7)
}

fn events(detector: &mut VoiceDetector, sound: &[i16], frame: usize) -> Vec<VoiceEvent> {
    let frames = sound.chunks(frame);
    let mut events = Vec::new();
    frames.for_each(|frame| events.extend(detector.push(frame)));
    events
}

fn detect(sound: &[i16]) -> Vec<VoiceEvent> {
    events(&mut VoiceDetector::new(8000).unwrap(), sound, 160)
}

#[test]
fn speech_between_silences_starts_and_ends_where_it_is() {
    let sound = [vec![0; 2 * SECOND], voice(2), vec![0; 2 * SECOND]].concat();
    let events = detect(&sound);
    let (Some(VoiceEvent::SpeechStarted { at: start }), Some(VoiceEvent::SpeechEnded { at: end })) =
        (events.first(), events.last())
    else {
        panic!("{events:?}");
    };
    let near = |at: &Duration, seconds: f64| (at.as_secs_f64() - seconds).abs() < 0.3;
    assert!(near(start, 2.0) && near(end, 4.0), "{events:?}");
}

#[test]
fn starts_and_ends_take_turns_in_order() {
    let events = detect(&[voice(10), vec![0; SECOND]].concat());
    assert!(
        events.len() >= 2 && events.len().is_multiple_of(2),
        "{events:?}"
    );
    let mut latest = Duration::ZERO;
    for (n, event) in events.into_iter().enumerate() {
        let (at, starts) = match event {
            VoiceEvent::SpeechStarted { at } => (at, true),
            VoiceEvent::SpeechEnded { at } => (at, false),
        };
        assert_eq!(starts, n % 2 == 0);
        assert!(at >= latest, "{at:?} after {latest:?}");
        latest = at;
    }
}

#[test]
fn silence_and_line_noise_are_no_speech() {
    assert_eq!(detect(&vec![0; 5 * SECOND]), []);
    let mut state = 1u64;
    let mut hiss = |amplitude: f64| {
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / f64::from(1u32 << 30) - 1.0
        };
        let sound = (0..5 * SECOND).map(|_| (amplitude * next()) as i16);
        sound.collect::<Vec<_>>()
    };
    for amplitude in [10.0, 100.0, 300.0] {
        assert_eq!(detect(&hiss(amplitude)), [], "hiss of {amplitude}");
    }
}

#[test]
fn the_decisions_do_not_depend_on_how_the_sound_is_cut() {
    let sound = [vec![0; SECOND], voice(3), vec![0; SECOND]].concat();
    let expected = detect(&sound);
    assert!(!expected.is_empty());
    for frame in [1, 80, 333, 8000, sound.len()] {
        let mut detector = VoiceDetector::new(8000).unwrap();
        assert_eq!(
            events(&mut detector, &sound, frame),
            expected,
            "cut at {frame}"
        );
    }
}

#[test]
fn a_longer_hangover_bridges_pauses() {
    let sound = [voice(10), vec![0; 3 * SECOND]].concat();
    let count = |hangover| {
        let timing = Timing {
            hangover: Duration::from_millis(hangover),
            ..Timing::default()
        };
        let mut detector = VoiceDetector::with_timing(8000, timing).unwrap();
        events(&mut detector, &sound, 160).len()
    };
    assert_eq!(count(2000), 2);
    assert!(count(100) > 4);
}

#[test]
fn the_pre_roll_holds_the_beginning_of_the_speech() {
    let sound = [vec![0; SECOND], voice(2)].concat();
    let mut detector = VoiceDetector::new(8000).unwrap();
    for (n, frame) in sound.chunks(160).enumerate() {
        let started = detector.push(frame).next();
        let pushed = (n + 1) * 160;
        let expected = &sound[pushed.saturating_sub(2400)..pushed];
        assert!(detector.pre_roll() == expected, "after {pushed} samples");
        if let Some(VoiceEvent::SpeechStarted { at }) = started {
            assert!(detector.is_speaking());
            let start = (at.as_secs_f64() * 8000.0) as usize;
            assert!(
                start >= pushed - 2400 && start < pushed,
                "{start} before {pushed}"
            );
            return;
        }
        assert!(!detector.is_speaking());
    }
    panic!("no speech detected");
}
