//! The playout queue against a model of it: what comes out is what went in, in order, minus what was cut off, and what was
//! heard is reported for each item.

use std::{collections::VecDeque, time::Duration};

use proptest::prelude::*;
use sidetone_proto::{Clip, Format, ItemId, Playout, Rate, Time};

use super::{Report, poll_heard};
use crate::support::{SLOT, ms, ramp};

#[derive(Clone, Debug)]
enum Step {
    Push(Rate, usize),
    PushClip(usize),
    PushMark,
    Open(u64),
    /// A piece of one of the utterances opened so far.
    PushTo(prop::sample::Index, Rate, usize),
    End(prop::sample::Index),
    Stop(prop::sample::Index),
    EndUnnamed,
    Pull(usize),
    Clear,
    Pause,
    Resume,
    Prebuffer(u64),
    /// This many bytes wait in the send queue.
    PollHeard(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let rate = prop::sample::select(vec![Rate::Slin, Rate::Slin, Rate::Slin12, Rate::Slin44]);
    let samples = prop_oneof![0..400usize, 1..3usize, 1500..6000usize];
    let which = any::<prop::sample::Index>;
    prop_oneof![
        4 => (rate.clone(), samples.clone()).prop_map(|(r, n)| Step::Push(r, n)),
        2 => samples.clone().prop_map(Step::PushClip),
        3 => Just(Step::PushMark),
        2 => (0..100u64).prop_map(Step::Open),
        4 => (which(), rate, samples).prop_map(|(i, r, n)| Step::PushTo(i, r, n)),
        2 => which().prop_map(Step::End),
        1 => which().prop_map(Step::Stop),
        1 => Just(Step::EndUnnamed),
        6 => (1..12usize).prop_map(Step::Pull),
        1 => Just(Step::Clear),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
        1 => (0..100u64).prop_map(Step::Prebuffer),
        4 => prop_oneof![Just(0), 0..3000usize].prop_map(Step::PollHeard),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Input {
    OpenUntilIdle,
    Open,
    Closed,
}

/// One item, sample by sample.
#[derive(Clone, Debug)]
struct Item {
    id: Option<u64>,
    is_mark: bool,
    input: Input,
    samples: VecDeque<(Rate, i16)>,
    /// The samples that were written, each with the last byte of its message.
    written: Vec<(Rate, u64)>,
    starved_since: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum RemovedBy {
    End,
    Stop,
    Clear,
}

#[derive(Default)]
struct Model {
    items: VecDeque<Item>,
    /// With the number of bytes that must have been sent.
    removed: Vec<(Item, RemovedBy, u64)>,
    bytes: u64,
    unreported_clear: bool,
    has_played: bool,
    is_cut: bool,
    is_paused: bool,
}

impl Model {
    fn add(&mut self, id: Option<u64>, is_mark: bool, input: Input) -> &mut Item {
        self.end_unnamed();
        self.is_cut = false;
        self.items.push_back(Item {
            id,
            is_mark,
            input,
            samples: VecDeque::new(),
            written: Vec::new(),
            starved_since: None,
        });
        self.items.back_mut().unwrap()
    }

    fn push(&mut self, rate: Rate, samples: &[i16]) {
        if samples.is_empty() {
            return;
        }
        let is_unnamed = |item: &Item| item.input == Input::OpenUntilIdle;
        if !self.items.back().is_some_and(is_unnamed) {
            self.add(None, false, Input::OpenUntilIdle);
        }
        let item = self.items.back_mut().unwrap();
        item.samples
            .extend(samples.iter().map(|&sample| (rate, sample)));
        item.starved_since = None;
    }

    fn find(&mut self, id: u64) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.id == Some(id))
    }

    fn end_unnamed(&mut self) {
        if let Some(item) = self.items.back_mut()
            && item.input == Input::OpenUntilIdle
        {
            item.input = Input::Closed;
        }
        self.remove_finished(self.bytes);
    }

    fn remove_finished(&mut self, end: u64) {
        while !self.is_paused
            && let Some(item) = self.items.front()
            && item.input == Input::Closed
            && item.samples.is_empty()
        {
            let item = self.items.pop_front().unwrap();
            self.removed.push((item, RemovedBy::End, end));
        }
    }

    fn cut(&mut self, index: usize, by: RemovedBy) {
        let item = self.items.remove(index).unwrap();
        self.is_cut = self.items.is_empty();
        self.removed.push((item, by, 0));
    }

    fn pull(&mut self, now: Time) -> Option<(Rate, Vec<i16>)> {
        if self.is_paused {
            return None;
        }
        if let Some(item) = self.items.front_mut()
            && item.input == Input::OpenUntilIdle
            && item
                .starved_since
                .is_some_and(|since| now - since >= ms(1_000))
        {
            item.input = Input::Closed;
        }
        self.remove_finished(self.bytes);
        let mut slot = Vec::new();
        let mut going = None;
        while let Some(item) = self.items.front_mut() {
            let Some(&(rate, sample)) = item.samples.front() else {
                item.starved_since.get_or_insert(now);
                break;
            };
            if *going.get_or_insert(rate) != rate || slot.len() == rate.slot_samples() {
                break;
            }
            let message = (slot.len() / rate.message_samples() + 1) as u64;
            let bytes = message * (2 * rate.message_samples() as u64 + 3);
            item.written.push((rate, self.bytes + bytes));
            item.samples.pop_front();
            slot.push(sample);
            self.remove_finished(self.bytes + rate.slot_bytes() as u64);
        }
        let rate: Rate = going?;
        slot.resize(rate.slot_samples(), 0);
        self.bytes += rate.slot_bytes() as u64;
        Some((rate, slot))
    }

    fn poll_heard(&mut self, unsent: usize) -> Vec<Report> {
        let sent = self.bytes.saturating_sub(unsent as u64);
        let (mut reported, mut cleared) = (Vec::new(), (Vec::new(), Vec::new()));
        let mut removed = std::mem::take(&mut self.removed);
        removed.retain(|(item, by, end)| {
            if *by == RemovedBy::End && *end > sent {
                return true;
            }
            self.has_played |= *by == RemovedBy::End && !item.is_mark && !item.written.is_empty();
            let (mut heard, mut unheard) = (Vec::new(), Vec::new());
            for &(rate, byte) in &item.written {
                if byte <= sent {
                    heard.push(rate)
                } else {
                    unheard.push(rate)
                }
            }
            unheard.extend(item.samples.iter().map(|(rate, _)| *rate));
            if *by == RemovedBy::Clear {
                cleared.0.extend_from_slice(&heard);
                cleared.1.extend_from_slice(&unheard);
            }
            if let Some(id) = item.id {
                reported.push(Report::Ended(id, total(heard), total(unheard)));
            }
            false
        });
        self.removed = removed;
        if std::mem::take(&mut self.unreported_clear) {
            reported.push(Report::Cleared(total(cleared.0), total(cleared.1)));
        }
        let is_over = self.items.is_empty() && self.removed.is_empty();
        if is_over && std::mem::take(&mut self.has_played) && !self.is_cut {
            reported.push(Report::Drained);
        }
        reported
    }

    fn queued(&self) -> Duration {
        let samples = self.items.iter().flat_map(|item| &item.samples);
        total(samples.map(|(rate, _)| *rate))
    }
}

/// How long one sample of each of these rates lasts, all together: exact, since all rates divide this number.
fn total(rates: impl IntoIterator<Item = Rate>) -> Duration {
    const COMMON: u128 = 28_224_000;
    let ticks = rates.into_iter().map(|rate| COMMON / u128::from(rate.hz()));
    Duration::from_nanos((ticks.sum::<u128>() * 1_000_000_000 / COMMON) as u64)
}

proptest! {
    #![proptest_config(crate::support::cases(400))]
    #[test]
    fn any_order_of_operations_keeps_the_invariants(steps in prop::collection::vec(any_step(), 1..80)) {
        let mut playout = Playout::default();
        let mut model = Model::default();
        let (mut now, mut next_sample, mut next_id) = (Time::ZERO, 0, 0);
        let mut named = Vec::new();
        let mut prebuffers = false;
        for step in steps {
            match step {
                Step::Push(rate, n) => {
                    let samples = ramp(next_sample, n);
                    playout.push(now, rate, &samples);
                    model.push(rate, &samples);
                    next_sample += n;
                }
                Step::PushClip(n) => {
                    let samples = ramp(next_sample, n);
                    next_id += 1;
                    named.push(next_id);
                    playout.push_clip(Clip::new(8_000, samples.clone()).unwrap(), ItemId(next_id));
                    let item = model.add(Some(next_id), false, Input::Closed);
                    item.samples.extend(samples.iter().map(|&sample| (Rate::Slin, sample)));
                    model.remove_finished(model.bytes);
                    next_sample += n;
                }
                Step::PushMark => {
                    next_id += 1;
                    playout.push_mark(ItemId(next_id));
                    model.add(Some(next_id), true, Input::Closed);
                    model.remove_finished(model.bytes);
                }
                Step::Open(prebuffer) => {
                    next_id += 1;
                    named.push(next_id);
                    prebuffers |= prebuffer > 0;
                    playout.open(now, ItemId(next_id), ms(prebuffer));
                    model.add(Some(next_id), false, Input::Open);
                }
                Step::PushTo(which, rate, n) => if !named.is_empty() {
                    let id = *which.get(&named);
                    let samples = ramp(next_sample, n);
                    next_sample += n;
                    playout.push_piece(now, Some(ItemId(id)), Format::At(rate), samples.clone().into());
                    if let Some(item) = model.find(id)
                        && item.input == Input::Open
                        && n > 0
                    {
                        item.samples.extend(samples.iter().map(|&sample| (rate, sample)));
                        item.starved_since = None;
                    }
                },
                Step::End(which) => if !named.is_empty() {
                    let id = *which.get(&named);
                    playout.end(ItemId(id));
                    if let Some(item) = model.find(id) {
                        item.input = Input::Closed;
                    }
                    model.remove_finished(model.bytes);
                },
                Step::Stop(which) => if !named.is_empty() {
                    let id = *which.get(&named);
                    playout.stop(ItemId(id));
                    let index = model.items.iter().position(|item| item.id == Some(id));
                    if let Some(index) = index {
                        model.cut(index, RemovedBy::Stop);
                    }
                    model.remove_finished(model.bytes);
                },
                Step::EndUnnamed => {
                    playout.end_unnamed();
                    model.end_unnamed();
                }
                Step::Pull(times) => for _ in 0..times {
                    now += SLOT;
                    let mut slot = vec![-7];
                    let rate = playout.pull(now, Rate::Slin, &mut slot);
                    if rate.is_none() && prebuffers && model.queued() > Duration::ZERO {
                        prop_assert_eq!(slot, [-7]);
                        // It waits, unless it has been queued for long enough.
                        model.remove_finished(model.bytes);
                        continue;
                    }
                    let expected = model.pull(now);
                    if prebuffers && rate == expected.as_ref().map(|(rate, _)| *rate)
                        && slot[1..] != *expected.as_ref().map_or(&[][..], |(_, slot)| slot)
                    {
                        // An item that begins within a slot may wait, too; another test covers that.
                        return Ok(());
                    }
                    prop_assert_eq!(rate, expected.as_ref().map(|(rate, _)| *rate));
                    let expected = expected.map_or(Vec::new(), |(_, slot)| slot);
                    prop_assert!(slot[1..] == expected, "the slot is appended, whole");
                },
                Step::Clear => {
                    playout.clear();
                    model.unreported_clear = true;
                    let was_cut = model.is_cut;
                    model.is_cut |= !model.items.is_empty();
                    let is_cut = model.is_cut;
                    while !model.items.is_empty() {
                        model.cut(0, RemovedBy::Clear);
                    }
                    model.is_cut = is_cut || was_cut;
                }
                Step::Pause => {
                    playout.pause();
                    model.is_paused = true;
                }
                Step::Resume => {
                    playout.resume();
                    model.is_paused = false;
                    model.remove_finished(model.bytes);
                }
                Step::Prebuffer(millis) => {
                    playout.set_prebuffer(ms(millis));
                    prebuffers |= millis > 0;
                }
                Step::PollHeard(unsent) => {
                    let news = playout.has_unreported();
                    let reported = poll_heard(&mut playout, Some(unsent));
                    prop_assert_eq!(&reported, &model.poll_heard(unsent));
                    prop_assert!(news || reported.is_empty(), "{:?}", reported);
                }
            }
            prop_assert_eq!(playout.queued(), model.queued());
            let is_silent = model.is_paused || model.queued() == Duration::ZERO;
            prop_assert_eq!(playout.is_silent(), is_silent);
            prop_assert_eq!(playout.is_empty(), model.items.is_empty());
        }
    }
}
