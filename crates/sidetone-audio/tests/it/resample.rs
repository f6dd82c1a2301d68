//! The resampler's invariants, for any rates and any split of the stream.
#![allow(clippy::unwrap_used)]

use std::f64::consts::TAU;

use proptest::prelude::*;
use sidetone_audio::resample::{
    Filters, MAX_RATE, MIN_RATE, Resampler, UnsupportedRate, resample_clip,
};

const RATES: [u32; 9] = [
    8_000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000,
];

fn sine(rate: u32, hertz: f64, amplitude: f64, len: usize) -> Vec<i16> {
    (0..len)
        .map(|n| (amplitude * (TAU * hertz * n as f64 / f64::from(rate)).sin()).round() as i16)
        .collect()
}

fn any_rate() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => prop::sample::select(&RATES[..]),
        1 => prop::sample::select(&[4_000, 11_025, 22_050, 384_000][..]),
        1 => MIN_RATE..=MAX_RATE,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_output_does_not_depend_on_how_the_input_is_split(
        from in any_rate(),
        to in any_rate(),
        input in prop::collection::vec(any::<i16>(), 0..3000),
        cuts in prop::collection::vec(1usize..700, 1..40),
    ) {
        let mut whole = Vec::new();
        let mut resampler = Resampler::new(from, to).unwrap();
        resampler.process(&input, &mut whole);
        let expected = (input.len() as u64 * u64::from(to)).div_ceil(u64::from(from));
        prop_assert_eq!(whole.len() as u64, expected);
        resampler.flush(&mut whole);

        let mut pieces = Vec::new();
        let mut resampler = Resampler::new(from, to).unwrap();
        let mut rest = &input[..];
        for cut in cuts.iter().cycle() {
            let (piece, later) = rest.split_at(rest.len().min(*cut));
            resampler.process(piece, &mut pieces);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        resampler.flush(&mut pieces);
        prop_assert_eq!(&pieces, &whole);

        let mut again = Vec::new();
        resampler.process(&input, &mut again);
        resampler.flush(&mut again);
        prop_assert_eq!(again, whole, "a flushed resampler is as good as new");
    }

    #[test]
    fn a_clip_is_as_long_as_it_should_be(
        from in any_rate(),
        to in any_rate(),
        len in 0usize..3000,
    ) {
        let clip = resample_clip(&vec![1000; len], from, to).unwrap();
        let exact = len as f64 * f64::from(to) / f64::from(from);
        prop_assert_eq!(clip.len() as f64, (exact + 0.5).floor());
    }
}

#[test]
fn one_sample_at_a_time_gives_the_same_as_a_frame() {
    for (from, to) in [(8_000, 16_000), (48_000, 8_000), (44_100, 16_000)] {
        let input = sine(from, 700.0, 9000.0, 2000);
        let (mut frame, mut single) = (Vec::new(), Vec::new());
        Resampler::new(from, to)
            .unwrap()
            .process(&input, &mut frame);
        let mut resampler = Resampler::new(from, to).unwrap();
        for sample in &input {
            resampler.process(std::slice::from_ref(sample), &mut single);
        }
        assert_eq!(single, frame);
    }
}

#[test]
fn equal_rates_copy_bit_by_bit() {
    let input: Vec<i16> = (0..1000).map(|n| (n * 4099) as i16).collect();
    let mut resampler = Resampler::new(8_000, 8_000).unwrap();
    let mut out = Vec::new();
    resampler.process(&input, &mut out);
    resampler.flush(&mut out);
    assert_eq!(out, input);
    assert!(resampler.delay().is_zero());
    assert_eq!(resample_clip(&input, 8_000, 8_000).unwrap(), input);
}

#[test]
fn resampling_does_not_shift_a_clip() {
    for from in RATES {
        for to in RATES {
            let clip = resample_clip(&sine(from, 440.0, 8000.0, from as usize / 4), from, to);
            let expected = sine(to, 440.0, 8000.0, to as usize / 4);
            let clip = clip.unwrap();
            // Except at the ends, where the sound begins and ends abruptly.
            let edge = to as usize / 100;
            for (got, want) in clip
                .iter()
                .zip(&expected)
                .skip(edge)
                .take(expected.len() - 2 * edge)
            {
                assert!(got.abs_diff(*want) <= 3, "{from} to {to}: {got} for {want}");
            }
        }
    }
}

#[test]
fn full_scale_clips_and_never_wraps() {
    // A square wave overshoots after any filter.
    let square: Vec<i16> = (0..1600)
        .map(|n| if n / 40 % 2 == 0 { i16::MAX } else { i16::MIN })
        .collect();
    let out = resample_clip(&square, 8_000, 16_000).unwrap();
    for (n, sample) in out.iter().enumerate() {
        let within = n % 80;
        if (8..72).contains(&within) {
            assert_eq!(*sample > 0, n / 80 % 2 == 0, "sample {n} is {sample}");
        }
    }
    assert!(out.contains(&i16::MAX) && out.contains(&i16::MIN));
}

#[test]
fn silence_stays_silence() {
    for from in RATES {
        for to in RATES {
            let clip = resample_clip(&[0; 500], from, to).unwrap();
            assert!(clip.iter().all(|&sample| sample == 0));
        }
    }
}

#[test]
fn a_rate_out_of_range_is_refused() {
    for rate in [0, MIN_RATE - 1, MAX_RATE + 1, u32::MAX] {
        let refused = Some(UnsupportedRate { rate });
        assert_eq!(Resampler::new(rate, 8_000).err(), refused);
        assert_eq!(Resampler::new(8_000, rate).err(), refused);
        assert_eq!(resample_clip(&[1], rate, 8_000).err(), refused);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn an_aligned_stream_equals_the_resampled_clip(
        from in any_rate(),
        to in any_rate(),
        input in prop::collection::vec(any::<i16>(), 1..3000),
        cut in 1usize..700,
    ) {
        let clip = resample_clip(&input, from, to).unwrap();
        let filters = Filters::new(from, [8_000, to]).unwrap();
        for mut resampler in [Resampler::aligned(from, to).unwrap(), filters.aligned(to).unwrap()] {
            let mut out = Vec::new();
            for piece in input.chunks(cut) {
                resampler.process(piece, &mut out);
            }
            resampler.flush(&mut out);
            let length = (input.len() as u64 * u64::from(to)).div_ceil(u64::from(from));
            prop_assert_eq!(out.len() as u64, length);
            let both = out.len().min(clip.len());
            prop_assert_eq!(&out[..both], &clip[..both]);
        }
    }

    #[test]
    fn a_stream_that_restarts_in_the_middle_continues_there(
        from in prop::sample::select(&RATES[..]),
        to in prop::sample::select(&RATES[..]),
        input in prop::collection::vec(any::<i16>(), 8_000..9_000),
        frames in 1usize..3,
        more in 0usize..4,
    ) {
        // Where both rates have a sample: other positions are up to half a sample off.
        let begin = frames * from as usize / 100;
        let past = begin.min(from as usize / 200 + more);
        let whole = resample_clip(&input, from, to).unwrap();
        let mut resampler = Resampler::aligned(from, to).unwrap();
        resampler.process(&input[..100], &mut Vec::new());
        resampler.restart_after(&input[begin - past..begin]);
        let mut out = Vec::new();
        resampler.process(&input[begin..], &mut out);
        let rest = &whole[frames * to as usize / 100..];
        prop_assert!(!out.is_empty() && out[..] == rest[..out.len()]);
    }
}

#[test]
fn filters_serve_the_rates_they_were_made_for() {
    let filters = Filters::new(24_000, [8_000, 24_000]).unwrap();
    assert_eq!(filters.from(), 24_000);
    assert!(filters.aligned(16_000).is_none());
    let mut out = Vec::new();
    filters
        .aligned(24_000)
        .unwrap()
        .process(&[1, 2, 3], &mut out);
    assert_eq!(out, [1, 2, 3], "bit by bit and at once");
    assert_eq!(
        Filters::new(1, [8_000]).unwrap_err(),
        UnsupportedRate { rate: 1 }
    );
}
