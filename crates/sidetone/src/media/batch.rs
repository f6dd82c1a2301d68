use std::{collections::VecDeque, time::Duration};

use sidetone_proto::{EndReason, Rate, Time};

use super::clock;
use crate::{
    error::CallError,
    event::{ClosingNotice, CodecNotice, Event, Frame, Mark},
};

/// Bytes of memory that a batch keeps between uses for its samples, and again for its entries. What a burst took
/// beyond that is freed. Enough for [`RESERVED_SLOTS`] slots at 96 kHz.
const KEPT_BYTES: usize = 16 * 1024;

/// Slots of audio that a call's buffers have capacity for from the first frame on. A thread that is late by up to so
/// many allocates nothing in the middle of a call. Slots, not frames, since a peer may send frames of any length.
pub(super) const RESERVED_SLOTS: usize = 4;

/// Events on their way from a media thread to a handler, with all their samples in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    samples: Vec<i16>,
    /// The first sample that has been neither taken nor dropped.
    start: usize,
    /// The duration of the samples from `start` on.
    buffered: Duration,
    entries: VecDeque<Entry>,
    /// How many of the entries come from the peer and are never dropped.
    never_dropped: usize,
}

/// One event. Its samples, if any, are the next `length` of the batch.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Audio(AudioEntry),
    Lagged {
        frames: u64,
    },
    Dtmf(char),
    Mark(Mark),
    Drained,
    Underrun,
    NoAudio {
        offset: Duration,
        duration: Duration,
    },
    Codec(CodecNotice),
    Error(CallError),
    /// The server ends the call then.
    Closing {
        reason: EndReason,
        at: Time,
    },
    Ended(EndReason),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct AudioEntry {
    pub(crate) rate: Rate,
    pub(crate) length: usize,
    /// The last sample is a byte alone.
    pub(crate) is_odd: bool,
    pub(crate) offset: Duration,
    pub(crate) arrived: Time,
}

impl Entry {
    fn is_never_dropped(&self) -> bool {
        matches!(self, Self::Dtmf(_) | Self::Error(_))
    }
}

impl Entry {
    /// The event that it is for a handler, with its samples, on a call that `began` then.
    pub(crate) fn into_event(self, samples: &[i16], began: Time) -> Event<'_> {
        match self {
            Self::Audio(audio) => Event::Audio(Frame {
                samples,
                is_odd: audio.is_odd,
                rate: audio.rate,
                offset: audio.offset,
                arrived: audio.arrived - began,
            }),
            Self::Lagged { frames } => Event::Lagged { frames },
            Self::Dtmf(digit) => Event::Dtmf(digit),
            Self::Mark(mark) => Event::MarkReached(mark),
            Self::Drained => Event::PlaybackDrained,
            Self::Underrun => Event::Underrun,
            Self::NoAudio { offset, duration } => Event::NoAudio { offset, duration },
            Self::Codec(notice) => Event::Codec(notice),
            Self::Error(error) => Event::Error(error),
            Self::Closing { reason, at } => {
                Event::Closing(ClosingNotice::new(reason, at, clock::now()))
            }
            Self::Ended(reason) => Event::Ended(reason),
        }
    }
}

impl AudioEntry {
    fn duration(&self) -> Duration {
        self.rate.duration(self.length as u64)
    }
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        if !self.merge_into_last(&entry) {
            self.never_dropped += usize::from(entry.is_never_dropped());
            self.entries.push_back(entry);
        }
    }

    /// Merges `new` into the last entry if that says the same: of several equal entries in a row one is enough, and
    /// a silence that continues is one. Returns whether it did. So the batch stays bounded if it isn't read.
    fn merge_into_last(&mut self, new: &Entry) -> bool {
        match (new, self.entries.back_mut()) {
            (Entry::Underrun, Some(Entry::Underrun)) | (Entry::Drained, Some(Entry::Drained)) => {
                true
            }
            (Entry::Error(new), Some(Entry::Error(last))) => new == last,
            (
                Entry::Closing { reason, at },
                Some(Entry::Closing {
                    reason: same,
                    at: last,
                }),
            ) if reason == same => {
                *last = *at;
                true
            }
            (
                Entry::NoAudio { offset, duration },
                Some(Entry::NoAudio {
                    offset: begin,
                    duration: known,
                }),
            ) if *begin + *known == *offset => {
                *known += *duration;
                true
            }
            _ => false,
        }
    }

    /// The number of digits and errors. Only the peer limits it if the batch isn't read.
    pub(crate) fn never_dropped(&self) -> usize {
        self.never_dropped
    }

    /// Adds audio whose samples `fill` appends. It returns whether the last of them is a byte alone.
    pub(crate) fn push_audio(
        &mut self,
        rate: Rate,
        offset: Duration,
        arrived: Time,
        fill: impl FnOnce(&mut Vec<i16>) -> bool,
    ) {
        self.reserve(rate);
        let before = self.samples.len();
        let is_odd = fill(&mut self.samples);
        let entry = AudioEntry {
            rate,
            length: self.samples.len() - before,
            is_odd,
            offset,
            arrived,
        };
        if entry.length > 0 {
            self.buffered += entry.duration();
            self.entries.push_back(Entry::Audio(entry));
        }
    }

    fn reserve(&mut self, rate: Rate) {
        let capacity = RESERVED_SLOTS * rate.slot_samples();
        if self.samples.capacity() < capacity {
            self.samples.reserve_exact(capacity - self.samples.len());
            self.entries.reserve_exact(2 * RESERVED_SLOTS);
        }
    }

    /// Drops the oldest audio until at most `limit` is left, and puts a `Lagged` in its place. All other entries
    /// stay. Returns the number of dropped frames.
    pub(crate) fn drop_oldest(&mut self, limit: Duration) -> u64 {
        let mut dropped = 0;
        while self.buffered > limit {
            let oldest = self
                .entries
                .iter()
                .position(|entry| matches!(entry, Entry::Audio(_)));
            let Some(index) = oldest else { break };
            let Entry::Audio(audio) = self.entries[index] else {
                break;
            };
            self.start += audio.length;
            self.buffered = self.buffered.saturating_sub(audio.duration());
            dropped += 1;
            self.mark_lagged(index);
        }
        // Every few frames, so that a call whose handler never reads holds little more than its limit.
        if self.start > self.samples.len() / 8 {
            self.samples.drain(..self.start);
            self.start = 0;
        }
        dropped
    }

    /// Replaces the audio at `index` by a `Lagged`, or counts it in an earlier one if only momentary entries lie
    /// between the two. Of these the last of each kind is kept. A silence among dropped audio counts as momentary,
    /// since it is lost with that audio.
    fn mark_lagged(&mut self, index: usize) {
        let is_momentary = |entry: &Entry| {
            matches!(
                entry,
                Entry::Drained | Entry::Underrun | Entry::NoAudio { .. }
            )
        };
        let momentary = self.entries.range(..index).rev();
        let begin = index - momentary.take_while(|entry| is_momentary(entry)).count();
        let before = begin.checked_sub(1).map(|before| &mut self.entries[before]);
        let Some(Entry::Lagged { frames }) = before else {
            self.entries[index] = Entry::Lagged { frames: 1 };
            return;
        };
        *frames += 1;
        self.entries.remove(index);
        let (mut at, mut end) = (begin, index);
        while at < end {
            let mut later = self.entries.range(at + 1..end);
            if later.any(|later| is_same(later, &self.entries[at])) {
                self.entries.remove(at);
                end -= 1;
            } else {
                at += 1;
            }
        }
    }

    /// The duration of the audio that has been neither taken nor dropped.
    pub(crate) fn buffered(&self) -> Duration {
        self.buffered
    }

    /// The same without the next entry.
    pub(crate) fn buffered_after_next(&self) -> Duration {
        match self.entries.front() {
            Some(Entry::Audio(audio)) => self.buffered.saturating_sub(audio.duration()),
            _ => self.buffered,
        }
    }

    /// The number of samples. With [`samples_from`](Self::samples_from) it gives access to what a push has added.
    pub(crate) fn samples_len(&self) -> usize {
        self.samples.len()
    }

    pub(crate) fn samples_from(&self, begin: usize) -> &[i16] {
        &self.samples[begin..]
    }

    /// Appends the content of `other`. If this batch is empty the two are swapped, and no sample is copied.
    pub(crate) fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, other);
            other.clear();
            return;
        }
        let rate = other.entries.iter().find_map(|entry| match entry {
            Entry::Audio(audio) => Some(audio.rate),
            _ => None,
        });
        if let Some(rate) = rate {
            self.reserve(rate);
        }
        if let Some(first) = other.entries.front()
            && self.merge_into_last(first)
        {
            other.never_dropped -= usize::from(first.is_never_dropped());
            other.entries.pop_front();
        }
        self.never_dropped += other.never_dropped;
        self.entries.append(&mut other.entries);
        self.samples
            .extend_from_slice(&other.samples[other.start..]);
        self.buffered += other.buffered;
        other.clear();
    }

    /// Takes the next entry and its samples.
    pub(crate) fn take(&mut self) -> Option<(Entry, &[i16])> {
        let entry = self.entries.pop_front()?;
        self.never_dropped -= usize::from(entry.is_never_dropped());
        let length = match &entry {
            Entry::Audio(audio) => {
                self.buffered = self.buffered.saturating_sub(audio.duration());
                audio.length
            }
            _ => 0,
        };
        let begin = self.start;
        self.start += length;
        Some((entry, &self.samples[begin..begin + length]))
    }

    /// Empties the batch, and frees what a burst took.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.samples.clear();
        self.start = 0;
        self.buffered = Duration::ZERO;
        self.never_dropped = 0;
        if self.samples.capacity() * size_of::<i16>() > KEPT_BYTES {
            self.samples = Vec::new();
        }
        if self.entries.capacity() * size_of::<Entry>() > KEPT_BYTES {
            self.entries = VecDeque::new();
        }
    }
}

fn is_same(one: &Entry, other: &Entry) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn audio(batch: &mut Batch, value: i16) {
        batch.push_audio(Rate::Slin, Duration::ZERO, Time::ZERO, |samples| {
            samples.extend([value; 160]);
            false
        });
    }

    #[test]
    fn an_unread_silence_is_one_entry() {
        let mut inbox = Batch::default();
        for second in 0..3600 {
            let mut iteration = Batch::default();
            iteration.push(Entry::NoAudio {
                offset: Duration::from_secs(second),
                duration: Duration::from_secs(1),
            });
            inbox.append(&mut iteration);
        }
        let entry = inbox.take().unwrap().0;
        let Entry::NoAudio { offset, duration } = entry else {
            panic!("{entry:?}");
        };
        assert_eq!((offset.as_secs(), duration.as_secs()), (0, 3600));
        assert!(inbox.is_empty());
    }

    #[test]
    fn entries_come_out_in_the_order_they_went_in() {
        let mut batch = Batch::default();
        audio(&mut batch, 1);
        batch.push(Entry::Drained);
        audio(&mut batch, 2);
        assert_eq!(batch.take().unwrap().1, [1; 160]);
        assert!(matches!(batch.take(), Some((Entry::Drained, &[]))));
        assert_eq!(batch.take().unwrap().1, [2; 160]);
        assert!(batch.take().is_none());
    }

    #[test]
    fn the_oldest_audio_is_dropped_and_its_place_is_marked() {
        let mut batch = Batch::default();
        audio(&mut batch, 1);
        batch.push(Entry::Dtmf('5'));
        audio(&mut batch, 2);
        audio(&mut batch, 3);
        audio(&mut batch, 4);
        assert_eq!(batch.drop_oldest(Duration::from_millis(20)), 3);
        assert!(matches!(
            batch.take(),
            Some((Entry::Lagged { frames: 1 }, _))
        ));
        assert!(matches!(batch.take(), Some((Entry::Dtmf('5'), _))));
        assert!(matches!(
            batch.take(),
            Some((Entry::Lagged { frames: 2 }, _))
        ));
        assert_eq!(batch.take().unwrap().1, [4; 160]);
    }

    #[test]
    fn memory_does_not_grow_if_nothing_is_read() {
        let mut batch = Batch::default();
        for _ in 0..100_000 {
            audio(&mut batch, 1);
            batch.push(Entry::Underrun);
            batch.push(Entry::Underrun);
            batch.push(Entry::Drained);
            batch.drop_oldest(Duration::from_millis(200));
        }
        assert!(batch.entries.len() < 50, "{}", batch.entries.len());
        let lagged = batch.entries.iter().map(|entry| match entry {
            Entry::Lagged { frames } => *frames,
            _ => 0,
        });
        assert_eq!(lagged.sum::<u64>(), 99_990);
        assert!(
            batch.samples.capacity() < 2 * 1600,
            "{}",
            batch.samples.capacity()
        );
    }

    #[test]
    fn a_few_frames_at_once_take_no_more_memory_than_one() {
        let (mut batch, mut other) = (Batch::default(), Batch::default());
        let capacities = |batch: &Batch| (batch.samples.capacity(), batch.entries.capacity());
        audio(&mut other, 1);
        batch.append(&mut other);
        let capacity = capacities(&batch);
        for _ in 1..RESERVED_SLOTS {
            audio(&mut other, 1);
            other.push(Entry::Drained);
            batch.append(&mut other);
        }
        assert_eq!(capacities(&batch), capacity);
    }

    #[test]
    fn a_long_frame_takes_no_more_memory_than_its_length() {
        let (mut batch, mut other) = (Batch::default(), Batch::default());
        let longest = usize::from(u16::MAX) / 2;
        other.push_audio(Rate::Slin, Duration::ZERO, Time::ZERO, |samples| {
            samples.extend(std::iter::repeat_n(1, longest));
            false
        });
        batch.append(&mut other);
        assert!(batch.samples.capacity() < 2 * longest);
    }

    #[test]
    fn entries_that_are_never_dropped_are_counted() {
        let (mut batch, mut other) = (Batch::default(), Batch::default());
        for batch in [&mut batch, &mut other] {
            audio(batch, 1);
            batch.push(Entry::Dtmf('5'));
            batch.push(Entry::Error(CallError::Memory));
            batch.push(Entry::Error(CallError::Memory));
            batch.push(Entry::Underrun);
        }
        batch.append(&mut other);
        assert_eq!((batch.never_dropped(), other.never_dropped()), (4, 0));
        while batch.take().is_some() {}
        assert_eq!(batch.never_dropped(), 0);
    }

    #[test]
    fn the_memory_of_a_burst_is_freed() {
        let (mut batch, mut other) = (Batch::default(), Batch::default());
        for _ in 0..10_000 {
            other.push(Entry::Dtmf('5'));
        }
        batch.append(&mut other);
        while batch.take().is_some() {}
        batch.clear();
        for batch in [batch, other] {
            assert!(batch.entries.capacity() < 1_000);
        }
    }
}
