use std::{borrow::Cow, collections::VecDeque, time::Duration};

mod convert;
mod heard;
mod item;

pub use heard::Heard;
pub use item::Format;

pub(crate) use item::move_front;

use crate::{Clip, Notice, Rate, Time, rate::duration_of};
use heard::{HeardTicks, Sent, Trail};
use item::{ClipSource, Item, Openness, Source, Spare, Stream};

/// Samples of every rate last a whole number of these, so that sums of them are exact.
const TICKS_A_SECOND: u64 = 28_224_000;

/// What nobody ends is taken for ended when it has had nothing to play for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// Which of the things in a call's queue: a clip, a mark or an utterance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(pub u64);

/// The queued audio of a call: items, which play in order and each to its end.
///
/// An *item* is a clip, a mark, which has no audio, or an *utterance*, audio that comes in pieces. An utterance that is
/// open, because more may come, keeps its place whenever it has nothing to play. What is [pushed](Self::push) without a
/// name is an utterance, too, open until anything else is queued, [`end_loose`](Self::end_loose) is called, or it has had
/// nothing to play for a second.
///
/// What became of an item is told by [`confirm`](Self::confirm), which is to be asked when what was written has been
/// handed to the kernel.
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
/// let mut told = Vec::new();
/// let tell = &mut |notice: Notice<'_>| told.push(format!("{notice:?}"));
/// playout.confirm(0, Some(323), tell); // the second slot waits in the socket's queue
/// playout.confirm(0, Some(0), tell);
/// assert!(told[0].starts_with("Ended { item: ItemId(1), is_whole: true"));
/// assert_eq!(told[1..], ["Drained"]);
/// ```
#[derive(Debug, Default)]
pub struct Playout {
    items: VecDeque<Item>,
    /// Items that have left the queue and of which has not been told what was heard.
    leaving: VecDeque<Leaving>,
    trail: Trail,
    /// In ticks.
    queued: u64,
    /// What was heard of what was cleared, while some of it has not been told.
    clearing: Option<HeardTicks>,
    /// Sound has come to its end since the queue was last empty.
    has_sounded: bool,
    /// The last of the queue was stopped or cleared.
    is_cut: bool,
    /// Nothing more will be heard: what waits is not waited for.
    is_over: bool,
    prebuffer: Duration,
    next_number: u64,
    spare: Spare,
}

/// An item that has left the queue.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    number: u64,
    id: Option<ItemId>,
    why: Why,
    has_audio: bool,
    /// In ticks.
    written: u64,
    thrown_away: u64,
    /// Bytes that must have been sent before it has been heard to its end.
    end: u64,
}

/// Why an item has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Written,
    Stopped,
    Cleared,
}

impl Playout {
    /// Queues a copy of `samples` that goes out at this rate.
    pub fn push(&mut self, now: Time, rate: Rate, samples: &[i16]) {
        self.push_piece(now, None, Format::At(rate), samples.into());
    }

    /// Queues a piece of the utterance of that name, or of none. What comes for one that is not open goes nowhere.
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
                .rposition(|item| item.id == Some(id) && item.openness == Openness::Held),
            None => Some(self.loose()),
        };
        let Some(item) = index.and_then(|index| self.items.get_mut(index)) else {
            return;
        };
        if let Source::Stream(stream) = &mut item.source {
            let before = stream.queued();
            stream.push(format, samples, &mut self.spare);
            self.queued += stream.queued() - before;
            item.last_push = now;
            item.dry_since = None;
        }
    }

    /// Opens an utterance behind what is queued. It starts, and starts again when it has had nothing to play, only when
    /// `prebuffer` of it is queued, or it is ended, or nothing more came for as long as that.
    pub fn open(&mut self, now: Time, utterance: ItemId, prebuffer: Duration) {
        let stream = Source::Stream(Stream::new(&mut self.spare));
        self.add(Some(utterance), stream, Openness::Held);
        if let Some(item) = self.items.back_mut() {
            item.prebuffer = prebuffer;
            item.last_push = now;
        }
    }

    /// Nothing more comes for this utterance: what is queued of it plays to its end.
    pub fn end(&mut self, utterance: ItemId) {
        let mut items = self.items.iter_mut();
        if let Some(item) = items.find(|item| item.id == Some(utterance)) {
            item.close();
        }
        self.retire(self.trail.written());
    }

    /// Nothing more comes for the utterance without a name, if there is one.
    pub fn end_loose(&mut self) {
        if let Some(item) = self.items.back_mut()
            && item.openness == Openness::Loose
        {
            item.close();
        }
        self.retire(self.trail.written());
    }

    /// Nothing more comes at all. A clip that is looped ends with this round.
    pub fn end_all(&mut self) {
        for item in &mut self.items {
            item.close();
            let before = item.queued();
            if let Source::Clip(clip) = &mut item.source {
                clip.end_with_this_round();
            }
            self.queued = (self.queued + item.queued()).saturating_sub(before);
        }
        self.retire(self.trail.written());
    }

    /// Queues a clip.
    pub fn push_clip(&mut self, clip: Clip, id: ItemId) {
        let clip = Source::Clip(ClipSource::new(clip));
        self.add(Some(id), clip, Openness::Closed);
    }

    /// Queues a mark, which is at its end when everything before it is.
    pub fn push_mark(&mut self, mark: ItemId) {
        self.add(Some(mark), Source::Mark, Openness::Closed);
    }

    /// As [`open`](Self::open) has it, for what is pushed without a name from now on.
    pub fn set_prebuffer(&mut self, prebuffer: Duration) {
        self.prebuffer = prebuffer;
        if let Some(item) = self.items.back_mut()
            && item.openness == Openness::Loose
        {
            item.prebuffer = prebuffer;
        }
    }

    /// Takes an item out of the queue, whether it plays already or not.
    pub fn stop(&mut self, id: ItemId) {
        let index = self.items.iter().position(|item| item.id == Some(id));
        if let Some(item) = index.and_then(|index| self.items.remove(index)) {
            self.leave(item, Why::Stopped);
            self.is_cut = self.items.is_empty();
        }
        self.retire(self.trail.written());
    }

    /// Takes everything out of the queue, for nothing will be heard any more.
    pub fn stop_all(&mut self) {
        self.is_over = true;
        self.cut_all(Why::Stopped);
    }

    /// Throws everything queued away, open utterances with it. What was heard is told of each item, and of all together.
    pub fn clear(&mut self) {
        self.clearing.get_or_insert_default();
        self.cut_all(Why::Cleared);
    }

    /// Appends the next slot to `slot` on a call whose own rate is `own`, and says at which rate it is; `None` when
    /// nothing is to be played.
    ///
    /// The slot is always whole: when the queue ends in its middle, or goes on at another rate, the rest is silence. It
    /// counts as written.
    pub fn pull(&mut self, now: Time, own: Rate, slot: &mut Vec<i16>) -> Option<Rate> {
        self.end_what_paused(now);
        self.retire(self.trail.written());
        let begin = slot.len();
        let mut going: Option<Rate> = None;
        while let Some(item) = self.items.front_mut() {
            if item.is_prebuffering(now) {
                break;
            }
            let next = item.next_rate(own);
            let Some(rate) = next.filter(|next| going.is_none_or(|rate| rate == *next)) else {
                if next.is_none() {
                    item.note_dry(now);
                }
                break;
            };
            let (before, queued) = (slot.len(), item.queued());
            let whole = begin + rate.slot_samples();
            item.take(rate, whole, slot, &mut self.spare);
            self.queued = (self.queued + item.queued()).saturating_sub(queued);
            let taken = slot.len() - before;
            if taken > 0 {
                going = Some(rate);
                item.is_waiting = false;
                item.written += ticks(rate, taken);
                self.trail.note(item.number, rate, before - begin, taken);
            }
            let is_over = item.is_over();
            if slot.len() < whole && taken == 0 && !is_over {
                // What a resampler holds back until more comes is not enough for a sample.
                item.note_dry(now);
                break;
            }
            let bytes = going.map_or(0, |rate| rate.slot_bytes() as u64);
            self.retire(self.trail.written() + bytes);
            if slot.len() == whole {
                break;
            }
        }
        let rate = going?;
        slot.resize(begin + rate.slot_samples(), 0);
        self.trail.end_slot(rate);
        Some(rate)
    }

    /// Takes note of a slot with nothing of this in it.
    pub fn note_other_slot(&mut self, rate: Rate) {
        self.trail.end_slot(rate);
    }

    /// Whether there is something for [`confirm`](Self::confirm) to tell, now or when more has been sent.
    pub fn has_news(&self) -> bool {
        !self.leaving.is_empty() || self.clearing.is_some()
    }

    /// Tells what was heard of what has left the queue: of an item that was written to its end when all of it has been
    /// sent, of one that was stopped or cleared at once. Of the bytes written, `rest` have not been given to the kernel,
    /// and it holds `held` that it has not sent, unless that can't be known.
    ///
    /// When there is nothing left to be heard, the last of the queue came to its end, and not all of it was marks, that is
    /// told, too.
    pub fn confirm(&mut self, rest: usize, held: Option<usize>, tell: &mut dyn FnMut(Notice<'_>)) {
        let sent = self.trail.sent(rest, held);
        let mut leaving = std::mem::take(&mut self.leaving);
        leaving.retain(|item| !self.has_told(item, sent, tell));
        self.leaving = leaving;
        if let Some(cleared) = self.clearing.take() {
            tell(Notice::Cleared(cleared.durations()));
        }
        let is_over = self.items.is_empty() && self.leaving.is_empty();
        if is_over && std::mem::take(&mut self.has_sounded) && !self.is_cut {
            tell(Notice::Drained);
        }
    }

    /// Whether nothing is queued, neither a mark nor an utterance that is open.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether nothing queued has audio.
    pub fn is_silent(&self) -> bool {
        self.queued == 0
    }

    /// How much audio is queued; of a clip that is looped, the rest of this round.
    pub fn queued(&self) -> Duration {
        ticks_duration(self.queued)
    }

    fn add(&mut self, id: Option<ItemId>, source: Source, openness: Openness) {
        self.end_loose();
        let item = Item {
            number: self.next_number,
            id,
            source,
            openness,
            prebuffer: Duration::ZERO,
            is_waiting: openness != Openness::Closed,
            last_push: Time::ZERO,
            dry_since: None,
            written: 0,
        };
        self.next_number += 1;
        self.is_cut = false;
        self.queued += item.queued();
        self.items.push_back(item);
        self.retire(self.trail.written());
    }

    /// The place of the utterance without a name, which is the last item.
    fn loose(&mut self) -> usize {
        let is_there = self
            .items
            .back()
            .is_some_and(|item| item.openness == Openness::Loose);
        if !is_there {
            let stream = Source::Stream(Stream::new(&mut self.spare));
            self.add(None, stream, Openness::Loose);
            if let Some(item) = self.items.back_mut() {
                item.prebuffer = self.prebuffer;
            }
        }
        self.items.len() - 1
    }

    fn cut_all(&mut self, why: Why) {
        self.is_cut |= !self.items.is_empty();
        while let Some(item) = self.items.pop_front() {
            self.leave(item, why);
        }
        self.queued = 0;
    }

    fn end_what_paused(&mut self, now: Time) {
        if let Some(item) = self.items.front_mut()
            && item.openness == Openness::Loose
            && item.dry_since.is_some_and(|since| now - since >= PAUSE)
            && let Source::Stream(stream) = &mut item.source
        {
            item.openness = Openness::Closed;
            self.queued = self.queued.saturating_sub(stream.drop_tail());
        }
    }

    /// Lets what is over leave from the front: it is heard to its end when `end` bytes have been sent.
    fn retire(&mut self, end: u64) {
        while self.items.front().is_some_and(Item::is_over) {
            if let Some(item) = self.items.pop_front() {
                self.leave_at(item, Why::Written, end);
            }
        }
    }

    fn leave(&mut self, item: Item, why: Why) {
        self.leave_at(item, why, self.trail.written());
    }

    fn leave_at(&mut self, item: Item, why: Why, end: u64) {
        let thrown_away = item.queued();
        self.queued = self.queued.saturating_sub(thrown_away);
        self.leaving.push_back(Leaving {
            number: item.number,
            id: item.id,
            why,
            has_audio: item.has_audio(),
            written: item.written,
            thrown_away,
            end,
        });
        if let Source::Stream(stream) = item.source {
            stream.recycle(&mut self.spare);
        }
    }

    /// Tells what was heard of an item, unless it is still to be heard.
    fn has_told(&mut self, item: &Leaving, sent: Sent, tell: &mut dyn FnMut(Notice<'_>)) -> bool {
        let is_whole = item.why == Why::Written && sent.has(item.end);
        if item.why == Why::Written && !is_whole && !self.is_over {
            return false;
        }
        let Leaving {
            number,
            written,
            thrown_away,
            ..
        } = *item;
        let heard = self.trail.heard(number, written, thrown_away, sent);
        if let (Why::Cleared, Some(cleared)) = (item.why, &mut self.clearing) {
            cleared.add(heard);
        }
        self.has_sounded |= is_whole && item.has_audio && written > 0;
        if let Some(item) = item.id {
            let heard = heard.durations();
            tell(Notice::Ended {
                item,
                is_whole,
                heard,
            });
        }
        true
    }
}

impl Item {
    /// No more comes.
    fn close(&mut self) {
        self.openness = Openness::Closed;
    }

    fn is_prebuffering(&self, now: Time) -> bool {
        self.is_waiting
            && self.openness != Openness::Closed
            && ticks_duration(self.queued()) < self.prebuffer
            && now - self.last_push < self.prebuffer
    }

    /// Its slot is due, and it has nothing to play.
    fn note_dry(&mut self, now: Time) {
        self.is_waiting = self.openness != Openness::Closed;
        self.dry_since.get_or_insert(now);
    }
}

const fn ticks(rate: Rate, samples: usize) -> u64 {
    ticks_at(rate.hz(), samples)
}

/// To the tick below, where a sample is no whole number of them.
const fn ticks_at(hz: u32, samples: usize) -> u64 {
    samples as u64 * TICKS_A_SECOND / hz as u64
}

const fn ticks_duration(ticks: u64) -> Duration {
    duration_of(ticks, TICKS_A_SECOND)
}
