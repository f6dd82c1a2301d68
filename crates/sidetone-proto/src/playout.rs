use std::{borrow::Cow, collections::VecDeque, time::Duration};

mod clip_source;
mod convert;
mod heard;
mod item;
mod stream;

pub use heard::Heard;
pub use item::Format;

pub(crate) use stream::move_front;

use crate::{Clip, Notice, Rate, Time, rate::duration_of};
use clip_source::ClipSource;
use heard::{HeardTicks, Sent, SentLog};
use item::{Input, Item, Source};
use stream::{BufferPool, Stream};

/// A sample of any rate lasts a whole number of ticks, so that sums of ticks are exact.
const TICKS_PER_SECOND: u64 = 28_224_000;

/// An utterance without an ID ends when it has had nothing to play for this long.
const MAX_IDLE: Duration = Duration::from_secs(1);

/// The ID of an item in a call's playout queue: a clip, a mark or an utterance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(pub u64);

/// The playout queue of a call: items that play in order, each to its end.
///
/// An *item* is a clip; a mark, which has no audio; or an *utterance*, whose audio comes in pieces. An utterance is open
/// while more may come, and keeps its place when it has nothing to play. Audio [pushed](Self::push) without an ID is an
/// unnamed utterance. It is open until anything else is queued, [`end_unnamed`](Self::end_unnamed) is called, or it has
/// had nothing to play for a second.
///
/// [`poll_heard`](Self::poll_heard) reports what was heard of an item. It is called after the slots were sent.
///
/// ```
/// use sidetone_proto::{ItemId, Notice, Playout, Rate, Time};
///
/// let mut playout = Playout::default();
/// playout.push(Time::ZERO, Rate::Slin, &[7; 200]);
/// playout.push_mark(ItemId(1));
///
/// let mut slot = Vec::new();
/// assert_eq!(playout.pull(Time::ZERO, Rate::Slin, &mut slot), Some(Rate::Slin));
/// assert_eq!(slot.len(), 160);
/// slot.clear();
/// playout.pull(Time::ZERO, Rate::Slin, &mut slot);
/// assert_eq!(slot[39..42], [7, 0, 0], "its slot is due, so the remainder is padded");
///
/// let mut reported = Vec::new();
/// let report = &mut |notice: Notice<'_>| reported.push(format!("{notice:?}"));
/// playout.poll_heard(0, Some(323), report); // the second slot waits in the socket's queue
/// playout.poll_heard(0, Some(0), report);
/// assert!(reported[0].starts_with("Ended { item: ItemId(1), is_whole: true"));
/// assert_eq!(reported[1..], ["Drained"]);
/// ```
#[derive(Debug, Default)]
pub struct Playout {
    items: VecDeque<Item>,
    /// Items that were removed from the queue and are not reported yet.
    removed: VecDeque<RemovedItem>,
    sent_log: SentLog,
    /// How much audio is queued, in ticks.
    queued: u64,
    /// What was heard of the items that were cleared, while that is not reported.
    unreported_clear: Option<HeardTicks>,
    /// Audio has been heard to its end since the queue was last empty.
    has_played: bool,
    /// The last item of the queue was stopped or cleared.
    is_cut: bool,
    /// Nothing more will be heard, so reports don't wait for what is unsent.
    is_call_over: bool,
    /// Nothing plays and no item ends until it is resumed.
    is_paused: bool,
    prebuffer: Duration,
    next_number: u64,
    pool: BufferPool,
}

/// An item that was removed from the queue.
#[derive(Clone, Copy, Debug)]
struct RemovedItem {
    number: u64,
    id: Option<ItemId>,
    by: RemovedBy,
    has_audio: bool,
    /// How much of it was written, in ticks.
    written: u64,
    /// How much of it was not written, in ticks.
    discarded: u64,
    /// It has been heard to its end when this many bytes were sent.
    end: u64,
}

/// Why an item was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RemovedBy {
    /// It was written to its end.
    End,
    Stop,
    Clear,
}

impl Playout {
    /// Queues a copy of `samples` as part of the unnamed utterance; it goes out at `rate`.
    pub fn push(&mut self, now: Time, rate: Rate, samples: &[i16]) {
        self.push_piece(now, None, Format::At(rate), samples.into());
    }

    /// Queues a piece of an utterance, which is the unnamed one if `utterance` is `None`. A piece of an utterance that is
    /// not open is discarded.
    pub fn push_piece(
        &mut self,
        now: Time,
        utterance: Option<ItemId>,
        format: Format,
        samples: Cow<'_, [i16]>,
    ) {
        if samples.is_empty() {
            return;
        }
        let index = match utterance {
            Some(id) => self
                .items
                .iter()
                .rposition(|item| item.id == Some(id) && item.input == Input::Open),
            None => Some(self.open_unnamed()),
        };
        let Some(item) = index.and_then(|index| self.items.get_mut(index)) else {
            return;
        };
        if let Source::Stream(stream) = &mut item.source {
            let before = stream.queued();
            stream.push(format, samples, &mut self.pool);
            self.queued += stream.queued() - before;
            item.last_push = now;
            item.starved_since = None;
        }
    }

    /// Opens an utterance behind what is queued. It starts, and restarts after it had nothing to play, when `prebuffer`
    /// of it is queued, when it is ended, or when nothing more came for as long as that.
    pub fn open(&mut self, now: Time, utterance: ItemId, prebuffer: Duration) {
        let stream = Source::Stream(Stream::new(&mut self.pool));
        self.add(Some(utterance), stream, Input::Open);
        if let Some(item) = self.items.back_mut() {
            item.prebuffer = prebuffer;
            item.last_push = now;
        }
    }

    /// Ends an utterance: what is queued of it plays to its end.
    pub fn end(&mut self, utterance: ItemId) {
        let mut items = self.items.iter_mut();
        if let Some(item) = items.find(|item| item.id == Some(utterance)) {
            item.close();
        }
        self.remove_finished(self.sent_log.written());
    }

    /// Ends the unnamed utterance, if there is one.
    pub fn end_unnamed(&mut self) {
        if let Some(item) = self.items.back_mut()
            && item.input == Input::OpenUntilIdle
        {
            item.close();
        }
        self.remove_finished(self.sent_log.written());
    }

    /// Holds the queue where it is, from the next slot on: nothing plays, no item ends and no mark is reached until it is
    /// [resumed](Self::resume). More may be queued, and all of it cleared or stopped, meanwhile.
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// Goes on where the queue was paused.
    pub fn resume(&mut self) {
        self.is_paused = false;
        self.remove_finished(self.sent_log.written());
    }

    /// Ends all items: nothing more comes. A looped clip ends with this round, and a paused queue goes on.
    pub fn end_all(&mut self) {
        self.is_paused = false;
        for item in &mut self.items {
            item.close();
            let before = item.queued();
            if let Source::Clip(clip) = &mut item.source {
                clip.stop_looping();
            }
            self.queued = (self.queued + item.queued()).saturating_sub(before);
        }
        self.remove_finished(self.sent_log.written());
    }

    /// Queues a clip.
    pub fn push_clip(&mut self, clip: Clip, id: ItemId) {
        let clip = Source::Clip(ClipSource::new(clip));
        self.add(Some(id), clip, Input::Closed);
    }

    /// Queues a mark, which ends when everything before it has ended.
    pub fn push_mark(&mut self, mark: ItemId) {
        self.add(Some(mark), Source::Mark, Input::Closed);
    }

    /// Sets the prebuffer of the unnamed utterance, which has the meaning it has in [`open`](Self::open).
    pub fn set_prebuffer(&mut self, prebuffer: Duration) {
        self.prebuffer = prebuffer;
        if let Some(item) = self.items.back_mut()
            && item.input == Input::OpenUntilIdle
        {
            item.prebuffer = prebuffer;
        }
    }

    /// Removes an item from the queue, whether it plays already or not.
    pub fn stop(&mut self, id: ItemId) {
        let index = self.items.iter().position(|item| item.id == Some(id));
        if let Some(item) = index.and_then(|index| self.items.remove(index)) {
            self.remove(item, RemovedBy::Stop);
            self.is_cut = self.items.is_empty();
        }
        self.remove_finished(self.sent_log.written());
    }

    /// Removes all items from the queue at the end of the call: nothing more will be heard.
    pub fn stop_all(&mut self) {
        self.is_call_over = true;
        self.cut_all(RemovedBy::Stop);
    }

    /// Removes all items from the queue, open utterances included. What was heard is reported for each item, and for all
    /// together.
    pub fn clear(&mut self) {
        self.unreported_clear.get_or_insert_default();
        self.cut_all(RemovedBy::Clear);
    }

    /// Appends the next slot to `slot` on a call whose own rate is `own`, and returns the slot's rate; `None` if there is
    /// nothing to play.
    ///
    /// The slot is always whole: if the queue ends within it, or goes on at another rate, the rest is silence. It counts
    /// as written.
    pub fn pull(&mut self, now: Time, own: Rate, slot: &mut Vec<i16>) -> Option<Rate> {
        if self.is_paused {
            return None;
        }
        self.close_if_idle(now);
        self.remove_finished(self.sent_log.written());
        let begin = slot.len();
        let mut slot_rate: Option<Rate> = None;
        while let Some(item) = self.items.front_mut() {
            if item.is_prebuffering(now) {
                break;
            }
            let next = item.next_rate(own);
            let Some(rate) = next.filter(|next| slot_rate.is_none_or(|rate| rate == *next)) else {
                if next.is_none() {
                    item.mark_starved(now);
                }
                break;
            };
            let (before, queued) = (slot.len(), item.queued());
            let whole = begin + rate.slot_samples();
            item.take(rate, whole, slot, &mut self.pool);
            self.queued = (self.queued + item.queued()).saturating_sub(queued);
            let taken = slot.len() - before;
            if taken > 0 {
                slot_rate = Some(rate);
                item.needs_prebuffer = false;
                item.written += ticks(rate, taken);
                self.sent_log
                    .record(item.number, rate, before - begin, taken);
            }
            let is_over = item.is_over();
            if slot.len() < whole && taken == 0 && !is_over {
                // The resampler needs more input for its next sample.
                item.mark_starved(now);
                break;
            }
            let bytes = slot_rate.map_or(0, |rate| rate.slot_bytes() as u64);
            self.remove_finished(self.sent_log.written() + bytes);
            if slot.len() == whole {
                break;
            }
        }
        let rate = slot_rate?;
        slot.resize(begin + rate.slot_samples(), 0);
        self.sent_log.end_slot(rate);
        Some(rate)
    }

    /// Records a slot that was written with no queued audio in it.
    pub fn record_other_slot(&mut self, rate: Rate) {
        self.sent_log.end_slot(rate);
    }

    /// Whether [`poll_heard`](Self::poll_heard) has something to report, now or when more has been sent.
    pub fn has_unreported(&self) -> bool {
        !self.removed.is_empty() || self.unreported_clear.is_some()
    }

    /// Reports what was heard of the items that were removed from the queue: of an item that was written to its end, when
    /// all of it has been sent; of one that was stopped or cleared, at once.
    ///
    /// Of the bytes written, `pending` have not been given to the kernel, and `unsent` are in the socket's send queue;
    /// `None` if that can't be known.
    ///
    /// [`Notice::Drained`] is reported when all audio has been heard and the last item was neither stopped nor cleared. A
    /// queue that held only marks does not drain.
    pub fn poll_heard(
        &mut self,
        pending: usize,
        unsent: Option<usize>,
        report: &mut dyn FnMut(Notice<'_>),
    ) {
        let sent = self.sent_log.sent(pending, unsent);
        let mut removed = std::mem::take(&mut self.removed);
        removed.retain(|item| !self.try_report(item, sent, report));
        self.removed = removed;
        if let Some(cleared) = self.unreported_clear.take() {
            report(Notice::Cleared(cleared.durations()));
        }
        let is_over = self.items.is_empty() && self.removed.is_empty();
        if is_over && std::mem::take(&mut self.has_played) && !self.is_cut {
            report(Notice::Drained);
        }
    }

    /// Whether nothing is queued, marks and open utterances included.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether there is nothing to play: no audio is queued, or the queue is paused.
    pub fn is_silent(&self) -> bool {
        self.queued == 0 || self.is_paused
    }

    /// How much audio is queued; of a looped clip, the rest of this round.
    pub fn queued(&self) -> Duration {
        ticks_duration(self.queued)
    }

    fn add(&mut self, id: Option<ItemId>, source: Source, input: Input) {
        self.end_unnamed();
        let item = Item {
            number: self.next_number,
            id,
            source,
            input,
            prebuffer: Duration::ZERO,
            needs_prebuffer: input != Input::Closed,
            last_push: Time::ZERO,
            starved_since: None,
            written: 0,
        };
        self.next_number += 1;
        self.is_cut = false;
        self.queued += item.queued();
        self.items.push_back(item);
        self.remove_finished(self.sent_log.written());
    }

    /// The index of the unnamed utterance, which is the last item. It is opened if there is none.
    fn open_unnamed(&mut self) -> usize {
        let is_open = self
            .items
            .back()
            .is_some_and(|item| item.input == Input::OpenUntilIdle);
        if !is_open {
            let stream = Source::Stream(Stream::new(&mut self.pool));
            self.add(None, stream, Input::OpenUntilIdle);
            if let Some(item) = self.items.back_mut() {
                item.prebuffer = self.prebuffer;
            }
        }
        self.items.len() - 1
    }

    fn cut_all(&mut self, by: RemovedBy) {
        self.is_cut |= !self.items.is_empty();
        while let Some(item) = self.items.pop_front() {
            self.remove(item, by);
        }
        self.queued = 0;
    }

    fn close_if_idle(&mut self, now: Time) {
        if let Some(item) = self.items.front_mut()
            && item.input == Input::OpenUntilIdle
            && item
                .starved_since
                .is_some_and(|since| now - since >= MAX_IDLE)
            && let Source::Stream(stream) = &mut item.source
        {
            item.input = Input::Closed;
            self.queued = self.queued.saturating_sub(stream.drop_tail());
        }
    }

    /// Removes the items at the front that are over: they have been heard when `end` bytes were sent.
    fn remove_finished(&mut self, end: u64) {
        while !self.is_paused && self.items.front().is_some_and(Item::is_over) {
            if let Some(item) = self.items.pop_front() {
                self.remove_at(item, RemovedBy::End, end);
            }
        }
    }

    fn remove(&mut self, item: Item, by: RemovedBy) {
        self.remove_at(item, by, self.sent_log.written());
    }

    fn remove_at(&mut self, item: Item, by: RemovedBy, end: u64) {
        let discarded = item.queued();
        self.queued = self.queued.saturating_sub(discarded);
        self.removed.push_back(RemovedItem {
            number: item.number,
            id: item.id,
            by,
            has_audio: item.has_audio(),
            written: item.written,
            discarded,
            end,
        });
        if let Source::Stream(stream) = item.source {
            stream.recycle(&mut self.pool);
        }
    }

    /// Reports what was heard of an item; false if it is still to be heard.
    fn try_report(
        &mut self,
        item: &RemovedItem,
        sent: Sent,
        report: &mut dyn FnMut(Notice<'_>),
    ) -> bool {
        let is_whole = item.by == RemovedBy::End && sent.has(item.end);
        if item.by == RemovedBy::End && !is_whole && !self.is_call_over {
            return false;
        }
        let RemovedItem {
            number,
            written,
            discarded,
            ..
        } = *item;
        let heard = self.sent_log.heard(number, written, discarded, sent);
        if let (RemovedBy::Clear, Some(cleared)) = (item.by, &mut self.unreported_clear) {
            cleared.add(heard);
        }
        self.has_played |= is_whole && item.has_audio && written > 0;
        if let Some(item) = item.id {
            let heard = heard.durations();
            report(Notice::Ended {
                item,
                is_whole,
                heard,
            });
        }
        true
    }
}

impl Item {
    fn close(&mut self) {
        self.input = Input::Closed;
    }

    fn is_prebuffering(&self, now: Time) -> bool {
        self.needs_prebuffer
            && self.input != Input::Closed
            && ticks_duration(self.queued()) < self.prebuffer
            && now - self.last_push < self.prebuffer
    }

    /// Marks that its slot is due and it has nothing to play.
    fn mark_starved(&mut self, now: Time) {
        self.needs_prebuffer = self.input != Input::Closed;
        self.starved_since.get_or_insert(now);
    }
}

const fn ticks(rate: Rate, samples: usize) -> u64 {
    ticks_at(rate.hz(), samples)
}

/// Rounded down to a tick where a sample is no whole number of them.
const fn ticks_at(hz: u32, samples: usize) -> u64 {
    samples as u64 * TICKS_PER_SECOND / hz as u64
}

const fn ticks_duration(ticks: u64) -> Duration {
    duration_of(ticks, TICKS_PER_SECOND)
}
