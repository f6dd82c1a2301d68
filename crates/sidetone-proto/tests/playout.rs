//! The queue against a model of it: what comes out is what went in, in order, minus what was cleared.
#![allow(clippy::unwrap_used)]

use std::{collections::VecDeque, sync::Arc, time::Duration};

use proptest::prelude::*;
use sidetone_proto::{Cleared, Mark, Playout, Rate, Time};

mod support;
use support::{SLOT, at, ms, ramp};

#[derive(Clone, Debug)]
enum Step {
    Push(Rate, usize),
    PushOwned(Rate, usize),
    PushShared(Rate, usize),
    PushMark,
    Pull(usize),
    Clear,
    /// Takes out one of the clips pushed so far.
    Remove(prop::sample::Index),
    Cushion(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let rate = prop::sample::select(vec![Rate::Slin, Rate::Slin, Rate::Slin12, Rate::Slin44]);
    let samples = prop_oneof![0..400usize, 1..3usize, 1500..6000usize];
    prop_oneof![
        4 => (rate.clone(), samples.clone()).prop_map(|(r, n)| Step::Push(r, n)),
        1 => (rate.clone(), samples.clone()).prop_map(|(r, n)| Step::PushOwned(r, n)),
        2 => (rate, samples).prop_map(|(r, n)| Step::PushShared(r, n)),
        3 => Just(Step::PushMark),
        6 => (1..12usize).prop_map(Step::Pull),
        1 => Just(Step::Clear),
        1 => any::<prop::sample::Index>().prop_map(Step::Remove),
        1 => (0..100u64).prop_map(Step::Cushion),
    ]
}

/// What is queued, sample by sample.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Item {
    Sample {
        rate: Rate,
        value: i16,
        clip: Option<Mark>,
    },
    Mark(Mark),
    ClipEnd(Mark),
}

#[derive(Default)]
struct Model {
    items: VecDeque<Item>,
    /// Samples of each rate written in the current playback.
    played: Vec<Rate>,
    is_playing: bool,
    reached: Vec<Mark>,
}

impl Model {
    fn push(&mut self, rate: Rate, samples: &[i16], clip: Option<Mark>) {
        if !samples.is_empty() && !self.is_playing {
            self.is_playing = true;
            self.played.clear();
        }
        let samples = samples
            .iter()
            .map(|&value| Item::Sample { rate, value, clip });
        self.items.extend(samples);
        self.items.extend(clip.map(Item::ClipEnd));
    }

    fn reach(&mut self) {
        while let Some(Item::Mark(mark) | Item::ClipEnd(mark)) = self.items.front() {
            self.reached.push(*mark);
            self.items.pop_front();
        }
    }

    fn pull(&mut self) -> Option<(Rate, Vec<i16>)> {
        self.reach();
        let &Item::Sample { rate, .. } = self.items.front()? else {
            unreachable!("marks are gone");
        };
        let mut slot = Vec::new();
        while slot.len() < rate.slot_samples()
            && let Some(&Item::Sample {
                rate: its, value, ..
            }) = self.items.front()
            && its == rate
        {
            slot.push(value);
            self.played.push(rate);
            self.items.pop_front();
            self.reach();
        }
        slot.resize(rate.slot_samples(), 0);
        Some((rate, slot))
    }

    fn queued(&self) -> Duration {
        total(self.items.iter().filter_map(|item| match item {
            Item::Sample { rate, .. } => Some(*rate),
            _ => None,
        }))
    }

    fn note_end(&mut self) -> bool {
        self.items.is_empty() && std::mem::take(&mut self.is_playing)
    }
}

/// How long one sample of each of these rates lasts in all: exact, as their hertz divide this number.
fn total(rates: impl Iterator<Item = Rate>) -> Duration {
    const COMMON: u128 = 28_224_000;
    let sum: u128 = rates.map(|rate| COMMON / u128::from(rate.hz())).sum();
    Duration::from_nanos((sum * 1_000_000_000 / COMMON) as u64)
}

proptest! {
    #![proptest_config(support::cases(400))]
    #[test]
    fn any_order_of_operations_keeps_the_invariants(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut playout = Playout::default();
        let mut model = Model::default();
        let (mut now, mut next_sample, mut next_mark) = (Time::ZERO, 0, 0);
        let mut clips = Vec::new();
        let mut has_cushion = false;
        let mut is_drained = false;
        let mut reached = Vec::new();
        for step in steps {
            match step {
                Step::Push(rate, n) => {
                    let samples = ramp(next_sample, n);
                    playout.push(now, rate, &samples);
                    model.push(rate, &samples, None);
                    next_sample += n;
                }
                Step::PushOwned(rate, n) => {
                    let samples = ramp(next_sample, n);
                    model.push(rate, &samples, None);
                    playout.push_owned(now, rate, samples);
                    next_sample += n;
                }
                Step::PushShared(rate, n) => {
                    let samples: Arc<Vec<i16>> = ramp(next_sample, n).into();
                    next_mark += 1;
                    clips.push(Mark(next_mark));
                    model.push(rate, &samples, Some(Mark(next_mark)));
                    playout.push_shared(now, rate, samples, Mark(next_mark));
                    next_sample += n;
                }
                Step::PushMark => {
                    next_mark += 1;
                    playout.push_mark(Mark(next_mark));
                    model.items.push_back(Item::Mark(Mark(next_mark)));
                }
                Step::Pull(times) => for _ in 0..times {
                    now += SLOT;
                    let mut slot = vec![-7];
                    let rate = playout.pull(now, &mut slot);
                    if rate.is_none() && has_cushion {
                        prop_assert_eq!(slot, [-7]);
                        model.reach();
                    } else {
                        let expected = model.pull();
                        prop_assert_eq!(rate, expected.as_ref().map(|(rate, _)| *rate));
                        let expected = expected.map_or(Vec::new(), |(_, slot)| slot);
                        prop_assert!(slot[1..] == expected, "the slot is appended, whole");
                    }
                    is_drained |= model.note_end();
                    prop_assert_eq!(playout.take_drained(), std::mem::take(&mut is_drained));
                },
                Step::Clear => {
                    let expected = Cleared {
                        played: total(model.played.iter().copied()),
                        discarded: model.queued(),
                    };
                    prop_assert_eq!(playout.clear(), expected);
                    model.is_playing = false;
                    for item in model.items.drain(..) {
                        if let Item::ClipEnd(mark) = item {
                            model.reached.push(mark);
                        }
                    }
                }
                Step::Remove(which) => if !clips.is_empty() {
                    let clip = *which.get(&clips);
                    let is_queued = model.items.contains(&Item::ClipEnd(clip));
                    playout.remove(clip);
                    if is_queued {
                        model.items.retain(|item| !matches!(item, Item::Sample { clip: its, .. } if *its == Some(clip)) && *item != Item::ClipEnd(clip));
                        model.reached.push(clip);
                    }
                    is_drained |= model.note_end();
                },
                Step::Cushion(millis) => {
                    playout.set_cushion(ms(millis));
                    has_cushion = millis > 0;
                }
            }
            prop_assert_eq!(playout.queued(), model.queued());
            prop_assert_eq!(playout.played(), total(model.played.iter().copied()));
            prop_assert_eq!(playout.is_empty(), model.items.is_empty());
            reached.extend(std::iter::from_fn(|| playout.take_reached()));
            prop_assert_eq!(&reached, &model.reached);
        }
        let mut once = reached.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), reached.len(), "no mark is reached twice");
    }
}

fn pull(playout: &mut Playout, now: Time) -> Option<Vec<i16>> {
    let mut slot = Vec::new();
    playout.pull(now, &mut slot).map(|_| slot)
}

#[test]
fn a_playback_that_was_cleared_before_its_first_slot_played_nothing() {
    let mut playout = Playout::default();
    playout.push(at(0), Rate::Slin, &[1; 160]);
    pull(&mut playout, at(0));
    playout.push(at(0), Rate::Slin, &[1; 320]);
    let (played, discarded) = (ms(0), ms(40));
    assert_eq!(playout.clear(), Cleared { played, discarded });
    assert_eq!(pull(&mut playout, at(20)), None);
    assert!(playout.take_drained(), "of the first");
}

#[test]
fn a_clip_that_is_stopped_before_a_mark_ends_its_playback() {
    let mut playout = Playout::default();
    playout.push_shared(at(0), Rate::Slin, vec![1; 800].into(), Mark(1));
    playout.push_mark(Mark(2));
    pull(&mut playout, at(0));
    playout.remove(Mark(1));
    assert_eq!(playout.take_reached(), Some(Mark(1)));
    assert!(!playout.take_drained(), "the mark is still to come");
    assert_eq!(pull(&mut playout, at(20)), None);
    assert_eq!(playout.take_reached(), Some(Mark(2)));
    assert!(playout.take_drained());
}

#[test]
fn a_cushion_waits_for_its_audio_or_a_mark_or_the_end_of_the_pieces() {
    let start = |prepare: &dyn Fn(&mut Playout)| {
        let mut playout = Playout::default();
        playout.set_cushion(ms(100));
        playout.push(at(0), Rate::Slin, &[1; 160]);
        prepare(&mut playout);
        (0..20)
            .map(|n| at(20 * n))
            .find(|&now| pull(&mut playout, now).is_some())
    };
    assert_eq!(start(&|_| {}), Some(at(100)), "nothing more came");
    assert_eq!(
        start(&|p| p.push(at(30), Rate::Slin, &[1; 160])),
        Some(at(140))
    );
    assert_eq!(
        start(&|p| p.push(at(0), Rate::Slin, &[1; 640])),
        Some(at(0))
    );
    assert_eq!(start(&|p| p.push_mark(Mark(1))), Some(at(0)));
}

#[test]
fn a_playback_that_runs_is_not_cushioned_again() {
    let mut playout = Playout::default();
    playout.set_cushion(ms(100));
    playout.push(at(0), Rate::Slin, &[1; 800]);
    for n in 0..5 {
        assert!(pull(&mut playout, at(20 * n)).is_some());
        if n == 3 {
            playout.push(at(60), Rate::Slin, &[1; 160]);
        }
    }
    assert!(pull(&mut playout, at(100)).is_some());
}

#[test]
fn what_goes_on_at_another_rate_begins_in_the_next_slot() {
    let mut playout = Playout::default();
    playout.push(at(0), Rate::Slin, &[1; 100]);
    playout.push(at(0), Rate::Slin16, &[2; 320]);
    let mut slot = Vec::new();
    assert_eq!(playout.pull(at(0), &mut slot), Some(Rate::Slin));
    assert!(slot == [vec![1; 100], vec![0; 60]].concat());
    slot.clear();
    assert_eq!(playout.pull(at(20), &mut slot), Some(Rate::Slin16));
    assert!(slot == [2; 320]);
    assert_eq!(
        playout.played(),
        Rate::Slin.duration(100) + ms(20),
        "padding is not played"
    );
}

#[test]
fn sums_are_exact_at_rates_whose_samples_are_no_whole_nanoseconds() {
    let mut playout = Playout::default();
    for _ in 0..441 {
        playout.push(at(0), Rate::Slin44, &[1]);
    }
    assert_eq!(playout.queued(), ms(10));
    assert!(pull(&mut playout, at(0)).is_some());
    assert_eq!((playout.queued(), playout.played()), (ms(0), ms(10)));
}
