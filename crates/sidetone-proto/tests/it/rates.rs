//! Audio that is queued before a call's own rate is known goes out at that rate once it is known.
#![allow(clippy::unwrap_used)]

use sidetone_audio::resample::resample_clip;
use sidetone_proto::{Clip, Format, ItemId, Notice, Playout, Rate, filters_from};

use crate::support::{SLOT, World, at, audio, ms};

/// A second and a bit of something at `hz` that never repeats.
fn sound(hz: u32) -> Vec<i16> {
    let tone = |n: u32| {
        let t = f64::from(n) / f64::from(hz);
        9_000.0 * (t * 2_000.0 * (1.0 + t)).sin() + 4_000.0 * (t * 9_000.0).cos()
    };
    (0..hz + hz / 7).map(|n| tone(n) as i16).collect()
}

/// Slots, at 8 kHz to begin with and then at `rate`, until nothing comes any more.
fn heard(playout: &mut Playout, rate: Rate, at_8_khz: u64) -> (Vec<i16>, Vec<i16>) {
    let (mut first, mut then) = (Vec::new(), Vec::new());
    for n in 0.. {
        let (own, to) = match n < at_8_khz {
            true => (Rate::Slin, &mut first),
            false => (rate, &mut then),
        };
        match playout.pull(at(20 * n), own, to) {
            Some(went) => assert_eq!(went, own, "slot {n}"),
            None => break,
        }
    }
    (first, then)
}

/// `heard` is `expected` and then silence to the end of the slot.
#[track_caller]
fn assert_is(heard: &[i16], expected: &[i16], name: &str) {
    // The last sample of a stream is one that a clip of the same sound rounds away, or not.
    let most = expected.len() - 1;
    let differs = (0..most).find(|&n| heard[n] != expected[n]);
    assert_eq!(differs, None, "{name}");
    let rest = &heard[expected.len() + 1..];
    assert!(rest.iter().all(|sample| *sample == 0), "{name}");
    assert!(rest.len() < 480, "{name}");
}

#[test]
fn from_the_slot_on_in_which_the_rate_is_known_it_is_as_if_it_always_had_been() {
    for hz in [8_000, 11_025, 16_000, 22_050, 24_000, 48_000] {
        for rate in [Rate::Slin, Rate::Slin12, Rate::Slin16, Rate::Slin24] {
            for at_8_khz in [0, 1, 3] {
                let source = sound(hz);
                let [narrow, wide] =
                    [Rate::Slin, rate].map(|rate| resample_clip(&source, hz, rate.hz()).unwrap());
                let samples = at_8_khz as usize * rate.slot_samples();
                let name = format!("{hz} Hz to {rate:?} after {at_8_khz} slots");
                let begin = |playout: &mut Playout, way: &str| match way {
                    "piece" | "pieces" => {
                        let format = Format::From(filters_from(hz).unwrap());
                        let length = if way == "piece" { source.len() } else { 777 };
                        for piece in source.chunks(length) {
                            playout.push_piece(at(0), None, format.clone(), piece.into());
                        }
                        playout.end_unnamed();
                    }
                    _ => {
                        let clip = Clip::new(hz, source.clone()).unwrap();
                        if way == "prepared clip" {
                            clip.prepare(Rate::Slin);
                            clip.prepare(rate);
                        }
                        playout.push_clip(clip, ItemId(1));
                    }
                };
                for way in ["piece", "pieces", "clip", "prepared clip"] {
                    let name = format!("{name}: {way}");
                    let mut playout = Playout::default();
                    begin(&mut playout, way);
                    let (first, then) = heard(&mut playout, rate, at_8_khz);
                    let most = at_8_khz as usize * 160;
                    assert!(first == narrow[..most], "{name}");
                    // At 11.025 and 22.05 kHz, 20 ms are no whole number of samples: it goes on at the nearest.
                    if at_8_khz == 0 || hz % 1_000 == 0 || way == "prepared clip" {
                        assert_is(&then, &wide[samples..], &name);
                    } else {
                        assert!(then.len().abs_diff(wide.len() - samples) < 480, "{name}");
                    }
                    assert_eq!(playout.queued(), ms(0), "{name}");
                }
            }
        }
    }
}

#[test]
fn what_was_heard_and_what_not_are_all_there_was_whatever_the_rates() {
    for hz in [8_000, 16_000, 24_000, 48_000] {
        for way in ["clip", "utterance"] {
            let mut playout = Playout::default();
            let source = sound(hz);
            if way == "clip" {
                playout.push_clip(Clip::new(hz, source.clone()).unwrap(), ItemId(1));
            } else {
                playout.open(at(0), ItemId(1), ms(0));
                let format = Format::From(filters_from(hz).unwrap());
                playout.push_piece(at(0), Some(ItemId(1)), format, source.as_slice().into());
            }
            for n in 0..30 {
                let own = if n < 2 { Rate::Slin } else { Rate::Slin16 };
                playout.pull(at(20 * n), own, &mut Vec::new());
            }
            playout.stop(ItemId(1));
            let mut reported = Vec::new();
            playout.poll_heard(0, Some(0), &mut |notice| {
                if let Notice::Ended { heard, .. } = notice {
                    reported.push(heard);
                }
            });
            assert_eq!(reported[0].heard, ms(600), "{hz} Hz {way}");
            let all = Rate::from_hz(hz).unwrap().duration(source.len() as u64);
            let sum = reported[0].heard + reported[0].unheard;
            assert!(
                sum.abs_diff(all) <= ms(1) / 10,
                "{hz} Hz {way}: {sum:?} of {all:?}"
            );
        }
    }
}

#[test]
fn a_loop_is_one_sound_in_every_variant_and_without_one() {
    for (hz, length) in [
        (8_000, 4_321),
        (24_000, 4_800),
        (24_000, 30),
        (48_000, 9_999),
    ] {
        // A tone with a whole number of waves in the loop: a seam would show.
        let waves = (length / 30) as f64;
        let tone: Vec<i16> = (0..length)
            .map(|n| {
                let turn = std::f64::consts::TAU * waves * n as f64 / length as f64;
                (10_000.0 * turn.sin()) as i16
            })
            .collect();
        for rate in [Rate::Slin, Rate::Slin16] {
            for is_prepared in [false, true] {
                let looped = Clip::new(hz, tone.clone()).unwrap().looped();
                if is_prepared {
                    looped.prepare(rate);
                }
                let mut playout = Playout::default();
                playout.push_clip(looped, ItemId(1));
                let mut heard = Vec::new();
                for n in 0..100 {
                    playout.pull(at(20 * n), rate, &mut heard).unwrap();
                }
                assert_eq!(heard.len(), 100 * rate.slot_samples());
                // A filter rings in before the first round only.
                let heard = &heard[rate.slot_samples()..];
                let step = std::f64::consts::TAU * waves * f64::from(hz)
                    / (length as f64 * f64::from(rate.hz()));
                // Each sample of a sine follows from the two before it.
                let worst = heard.windows(3).map(|next| {
                    let [one, two, three] = [0, 1, 2].map(|n| f64::from(next[n]));
                    (2.0 * step.cos() * two - one - three).abs()
                });
                let worst = worst.fold(0.0, f64::max);
                let name =
                    format!("{length} samples at {hz} Hz to {rate:?}, prepared: {is_prepared}");
                // A variant's length is rounded to a sample, which moves the wave by half of one.
                let bound = 10_000.0 * step * 0.6 + 4.0;
                assert!(worst < bound, "{name}: {worst} of {bound}");
            }
        }
    }
}

#[test]
fn a_sequence_joins_to_the_sample_and_shares_its_variants() {
    let part = |value: i16, length: usize| Clip::new(8_000, vec![value; length]).unwrap();
    let (one, two) = (part(1, 130), part(2, 77));
    let wide = Clip::new(16_000, vec![3; 400]).unwrap();
    let all = Clip::sequence([&one, &two, &wide, &one]);
    assert_eq!(all.duration(), Rate::Slin.duration(130 + 77 + 200 + 130));
    one.prepare(Rate::Slin16);
    two.prepare(Rate::Slin16);
    assert!(all.is_prepared(Rate::Slin16));
    let mut playout = Playout::default();
    playout.push_clip(all.looped(), ItemId(1));
    let mut heard = Vec::new();
    for n in 0..100 {
        playout.pull(at(20 * n), Rate::Slin, &mut heard).unwrap();
    }
    // Of what is resampled, the length is enough.
    let flat: Vec<i16> = heard.iter().map(|&sample| sample.min(3)).collect();
    for round in flat.chunks_exact(537) {
        assert_eq!(round[..130], [1; 130]);
        assert_eq!(round[130..207], [2; 77]);
        assert!(round[220..390].iter().all(|&sample| sample == 3));
        assert_eq!(round[407..], [1; 130]);
    }
}

/// The wire of a call whose first inbound frame comes so late.
#[test]
fn a_wideband_call_is_wideband_from_the_slot_on_after_its_first_frame() {
    for late in [1, 7, 19, 21, 507] {
        for hz in [8_000, 16_000, 24_000] {
            let mut world = World::new();
            world
                .call
                .playout()
                .push_clip(Clip::new(hz, sound(hz)).unwrap(), ItemId(1));
            let format = Format::From(filters_from(hz).unwrap());
            world
                .call
                .playout()
                .push_piece(at(0), None, format, sound(hz)[..].into());
            world.run(ms(late));
            while world.slots.len() < 100 {
                world.receive(&audio(Rate::Slin16, &[0; 320]));
                world.run(SLOT);
            }
            let narrow = world.slots.iter().filter(|slot| slot.1 == Rate::Slin);
            let before = world.slots.iter().filter(|slot| slot.0 < at(late));
            assert_eq!(narrow.count(), before.count());
            let first = resample_clip(&sound(hz), hz, 16_000).unwrap();
            let wide: Vec<i16> = world
                .slots
                .iter()
                .filter(|slot| slot.1 == Rate::Slin16)
                .flat_map(|slot| slot.2.clone())
                .collect();
            let begin = 320 * (late as usize).div_ceil(20);
            let rest = &first[begin..];
            assert!(wide[..rest.len()] == *rest, "{hz} Hz, {late} ms late");
        }
    }
}
