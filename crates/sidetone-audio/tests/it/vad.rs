//! Speech is noticed, other sounds are not, and the decisions do not flicker.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sidetone_audio::level::rms_dbfs;
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
fn starts_and_ends_alternate_in_order() {
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
fn the_decisions_do_not_depend_on_how_the_sound_is_split() {
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

/// One second of silence, four of speech and two of silence, in frames of 20 ms whose rates come from
/// `rate`, which gets the time of the frame in ms.
fn call_at(rate: impl Fn(usize) -> u32) -> Vec<(u32, Vec<i16>)> {
    let at = |rate: u32| {
        let second = rate as usize;
        let voice = caller_voice(rate, Duration::from_secs(4), 7);
        [vec![0; second], voice, vec![0; 2 * second]].concat()
    };
    let sounds: Vec<(u32, Vec<i16>)> = [8000, 16_000, 44_100, 48_000].map(|it| (it, at(it))).into();
    let frame = |number: usize| {
        let rate = rate(number * 20);
        let (_, sound) = sounds.iter().find(|it| it.0 == rate).unwrap();
        let len = rate as usize / 50;
        (rate, sound[number * len..(number + 1) * len].to_vec())
    };
    (0..350).map(frame).collect()
}

fn bridging_pauses() -> Timing {
    Timing {
        hangover: Duration::from_millis(1500),
        ..Timing::default()
    }
}

fn detect_call(call: &[(u32, Vec<i16>)]) -> Vec<VoiceEvent> {
    let mut detector = VoiceDetector::with_unknown_rate(bridging_pauses());
    let mut events = Vec::new();
    for (rate, samples) in call {
        events.extend(detector.push_at(*rate, samples).unwrap());
    }
    events
}

#[test]
fn a_rate_that_changes_in_the_middle_of_speech_changes_no_event() {
    let near = |at: Duration, seconds: f64| (at.as_secs_f64() - seconds).abs() < 0.3;
    for (before, after) in [
        (8000, 16_000),
        (16_000, 8000),
        (8000, 48_000),
        (44_100, 8000),
    ] {
        for change in [500, 1500, 2000, 2340, 3500, 6000] {
            let call = call_at(|ms| if ms < change { before } else { after });
            let events = detect_call(&call);
            let [
                VoiceEvent::SpeechStarted { at: start },
                VoiceEvent::SpeechEnded { at: end },
            ] = events[..]
            else {
                panic!("{before} to {after} Hz at {change} ms: {events:?}");
            };
            assert!(near(start, 1.0) && near(end, 5.0), "{events:?}");
        }
    }
}

#[test]
fn many_changes_of_the_rate_do_not_shift_the_times() {
    let steady = detect_call(&call_at(|_| 8000));
    let changing = detect_call(&call_at(|ms| [8000, 16_000, 44_100][ms / 100 % 3]));
    assert_eq!(steady.len(), 2);
    assert_eq!(steady.len(), changing.len(), "{changing:?}");
    for (steady, changing) in steady.into_iter().zip(changing) {
        let (steady, changing) = match (steady, changing) {
            (VoiceEvent::SpeechStarted { at }, VoiceEvent::SpeechStarted { at: other })
            | (VoiceEvent::SpeechEnded { at }, VoiceEvent::SpeechEnded { at: other }) => {
                (at, other)
            }
            pair => panic!("{pair:?}"),
        };
        let off = steady.abs_diff(changing);
        assert!(off < Duration::from_millis(100), "{steady:?}, {changing:?}");
    }
}

#[test]
fn time_counts_before_the_rate_is_known() {
    let mut detector = VoiceDetector::default();
    let quiet = detector.push_silence(Duration::from_secs(5));
    assert_eq!(quiet.count(), 0);
    let Some(VoiceEvent::SpeechStarted { at }) = detector.push_at(8000, &voice(2)).unwrap().next()
    else {
        panic!("no speech detected");
    };
    assert!(
        at.abs_diff(Duration::from_secs(5)) < Duration::from_millis(300),
        "{at:?}"
    );
}

#[test]
fn the_pre_roll_follows_the_rate() {
    let mut detector = VoiceDetector::new(8000).unwrap();
    let voice = voice(2);
    detector.push(&voice).for_each(drop);
    detector.set_rate(16_000).unwrap();
    assert_eq!(detector.pre_roll().len(), 4800);
    let level = rms_dbfs(detector.pre_roll());
    let expected = rms_dbfs(&voice[voice.len() - 2400..]);
    assert!((level - expected).abs() < 1.0, "{level} for {expected}");
    detector.push(&[1000; 320]).for_each(drop);
    assert_eq!(detector.pre_roll()[4480..], [1000; 320]);
    assert_eq!(detector.pre_roll().len(), 4800);
}

#[test]
fn an_unsupported_rate_changes_nothing() {
    let mut detector = VoiceDetector::new(8000).unwrap();
    let sound = [vec![0; SECOND], voice(2), vec![0; SECOND]].concat();
    let mut events = Vec::new();
    for frame in sound.chunks(160) {
        assert!(detector.push_at(0, frame).is_err());
        events.extend(detector.push(frame));
    }
    assert_eq!(events, detect(&sound));
}
