//! What a record holds of a call.

use std::time::Duration;

use sidetone_caller::{CallRecord, Run, Voice, exact_runs, ramp};
use sidetone_proto::Time;

use super::support::{Virtual, caller, ms, us};

/// What a caller heard of frames of 160 samples that arrived at these times.
fn record(frames: impl IntoIterator<Item = (Duration, Vec<i16>)>) -> CallRecord {
    let mut call = Virtual::new(caller().say(Voice::Ramp(1)));
    for (at, samples) in frames {
        let [high, low] = (samples.len() as u16 * 2).to_be_bytes();
        let mut message = vec![0x10, high, low];
        message.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        call.server(at, &message);
    }
    call.leg.into_record(Time::ZERO + call.now)
}

#[test]
fn lateness_is_measured_against_the_calls_own_schedule() {
    let late = |n: u32| if n == 7 { us(3500) } else { Duration::ZERO };
    let record = record((0..20).map(|n| (ms(33) + ms(20) * n + late(n), vec![0; 160])));
    let mut expected = vec![0; 20];
    expected[7] = 3_500_000;
    assert_eq!(record.lateness(), expected);
    assert_eq!(record.first_audio_at(), Some(ms(33)));
    let spacing = record.spacing();
    assert_eq!(
        (spacing.min, spacing.p50, spacing.max),
        (us(16_500), ms(20), us(23_500))
    );
}

#[test]
fn lateness_allows_for_messages_of_other_lengths() {
    let record = record([
        (ms(20), vec![0; 80]),
        (ms(30), vec![0; 320]),
        (ms(70), vec![0; 160]),
    ]);
    assert_eq!(record.lateness(), [0, 0, 0]);
}

#[test]
fn a_call_without_audio_has_no_lateness_and_no_gaps() {
    let record = record([]);
    assert!(record.lateness().is_empty());
    assert_eq!(record.spacing(), sidetone_caller::Spread::default());
    assert!(record.gaps(Duration::ZERO).is_empty());
}

#[test]
fn gaps_are_the_times_without_audio() {
    let times = [ms(20), ms(40), ms(140), ms(160)];
    let record = record(times.map(|at| (at, vec![0; 160])));
    let gaps = record.gaps(ms(30));
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].from, gaps[0].length), (ms(40), ms(100)));
    assert_eq!(record.counts.longest_gap, ms(100));
}

#[test]
fn the_delay_of_an_echo_is_that_of_its_content() {
    // Two frames of silence, then each frame of the ramp 45 ms after it left; the fifth is lost.
    let source = |n: usize| ramp(1, n as u64 * 160, 160);
    let silence = [(ms(5), vec![0; 160]), (ms(25), vec![0; 160])];
    let kept = (0..10).filter(|n| *n != 4);
    let echo = kept.map(|n| (ms(20) * (n as u32 + 1) + ms(45), source(n)));
    let record = record(silence.into_iter().chain(echo));
    assert_eq!(
        record.echo(),
        [
            Run {
                source: 0,
                heard: 320,
                length: 640
            },
            Run {
                source: 800,
                heard: 960,
                length: 800
            },
        ]
    );
    let delays = record.echo_delays();
    assert_eq!(delays.len(), 9);
    assert!(delays.iter().all(|echo| echo.delay == ms(45)), "{delays:?}");
    assert_eq!(delays[0].at, ms(65));
}

#[test]
fn an_echo_across_frame_borders_is_found_and_timed_by_its_first_sample() {
    let source = ramp(1, 0, 480);
    let shifted = [vec![0; 100], source[..220].to_vec()].concat();
    let record = record([(ms(100), shifted), (ms(120), source[220..380].to_vec())]);
    assert_eq!(
        record.echo(),
        [Run {
            source: 0,
            heard: 100,
            length: 380
        }]
    );
    let delays = record.echo_delays();
    assert_eq!(
        delays[0].delay,
        ms(80),
        "sample 0 left in the frame at 20 ms"
    );
    assert_eq!(
        delays[1].delay,
        ms(80),
        "sample 220 left in the frame at 40 ms"
    );
}

#[test]
fn a_clip_is_found_at_its_position() {
    let clip = ramp(77, 0, 300);
    let frames = [vec![0; 160], clip[..160].to_vec(), clip[160..].to_vec()];
    let record = record((0..).zip(frames).map(|(n, frame)| (ms(20) * n, frame)));
    assert_eq!(
        record.find(&clip),
        [Run {
            source: 0,
            heard: 160,
            length: 300
        }]
    );
    assert!(record.find(&ramp(78, 0, 300)).is_empty());
}

#[test]
fn one_changed_sample_breaks_a_run() {
    let source = ramp(3, 0, 1000);
    let mut heard = source.clone();
    heard[500] ^= 1;
    let runs = exact_runs(&source, &heard);
    assert_eq!(
        runs,
        [
            Run {
                source: 0,
                heard: 0,
                length: 500
            },
            Run {
                source: 501,
                heard: 501,
                length: 499
            },
        ]
    );
}

#[test]
fn a_run_of_15_samples_is_found_wherever_it_was_cut_out() {
    let source = ramp(3, 0, 200);
    for start in 0..185 {
        let heard = [&[0; 33], &source[start..start + 15], &[0; 33]].concat();
        let run = Run {
            source: start,
            heard: 33,
            length: 15,
        };
        assert_eq!(exact_runs(&source, &heard), [run]);
    }
}

#[test]
fn silence_between_words_belongs_to_the_run_around_it() {
    let source = [ramp(3, 0, 100), vec![0; 500], ramp(4, 0, 100)].concat();
    let heard = [vec![0; 50], source.clone()].concat();
    let runs = exact_runs(&source, &heard);
    assert_eq!(
        runs,
        [Run {
            source: 0,
            heard: 50,
            length: 700
        }]
    );
}

#[test]
fn a_repetition_is_taken_for_the_continuation_of_the_run() {
    let word = ramp(3, 0, 100);
    let source = [word.clone(), vec![9; 20], word.clone(), ramp(5, 0, 50)].concat();
    let heard = [&source[..120], &[0; 40][..], &source[120..]].concat();
    let runs = exact_runs(&source, &heard);
    assert_eq!(
        runs[1],
        Run {
            source: 120,
            heard: 160,
            length: 150
        }
    );
}

#[test]
fn a_ramp_repeats_nothing_and_is_never_silent() {
    let samples = ramp(11, 0, 200_000);
    assert!(samples.iter().all(|sample| *sample != 0));
    let mut keys: Vec<_> = samples.windows(8).collect();
    keys.sort_unstable();
    assert!(keys.windows(2).all(|pair| pair[0] != pair[1]));
}
