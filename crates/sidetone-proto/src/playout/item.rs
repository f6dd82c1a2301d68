use std::{sync::Arc, time::Duration};

use sidetone_audio::resample::Filters;

use super::{
    ItemId,
    clip_source::ClipSource,
    stream::{BufferPool, Stream},
    ticks_at, ticks_duration,
};
use crate::{Rate, Time};

/// The rate of queued samples, and the rate at which they go out.
#[derive(Clone, Debug)]
pub enum Format {
    /// They go out at this rate, whatever the call's own rate is.
    At(Rate),
    /// They go out at the call's own rate, resampled when their slot is due.
    From(Arc<Filters>),
}

/// An item of the playout queue.
#[derive(Debug)]
pub(super) struct Item {
    /// Its number in this queue, whether it has an ID or not.
    pub(super) number: u64,
    pub(super) id: Option<ItemId>,
    pub(super) source: Source,
    pub(super) input: Input,
    /// How much of it must be queued before it plays, while more may come.
    pub(super) prebuffer: Duration,
    /// It has not started, or has run dry, and waits for its prebuffer.
    pub(super) needs_prebuffer: bool,
    pub(super) last_push: Time,
    /// Since when it has had nothing to play.
    pub(super) starved_since: Option<Time>,
    /// How much of it was written, in ticks.
    pub(super) written: u64,
}

/// Whether more audio may be pushed to an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// No more comes.
    Closed,
    /// More may come until something else is queued, or nothing has come for a while.
    OpenUntilIdle,
    /// More may come until it is ended.
    Open,
}

#[derive(Debug)]
pub(super) enum Source {
    Mark,
    Clip(ClipSource),
    Stream(Stream),
}

impl Item {
    /// How much of it is left, in ticks.
    pub(super) fn queued(&self) -> u64 {
        match &self.source {
            Source::Mark => 0,
            Source::Clip(clip) => clip.queued(),
            Source::Stream(stream) => stream.queued(),
        }
    }

    /// Whether it has nothing to play and never will.
    pub(super) fn is_over(&self) -> bool {
        self.input == Input::Closed
            && match &self.source {
                Source::Mark => true,
                Source::Clip(clip) => clip.is_over(),
                Source::Stream(stream) => stream.is_over(),
            }
    }

    pub(super) fn has_audio(&self) -> bool {
        !matches!(self.source, Source::Mark)
    }

    /// The rate of its next sample on a call whose rate is `own`; `None` if it has none now.
    pub(super) fn next_rate(&self, own: Rate) -> Option<Rate> {
        let is_closed = self.input == Input::Closed;
        match &self.source {
            Source::Mark => None,
            Source::Clip(clip) => (!clip.is_over()).then_some(own),
            Source::Stream(stream) => stream.next_rate(own, is_closed),
        }
    }

    /// Moves samples at `rate` to the end of `slot` until that has `whole` samples or there are none for now.
    pub(super) fn take(
        &mut self,
        rate: Rate,
        whole: usize,
        slot: &mut Vec<i16>,
        pool: &mut BufferPool,
    ) {
        let is_closed = self.input == Input::Closed;
        match &mut self.source {
            Source::Mark => {}
            Source::Clip(clip) => clip.take(rate, whole, slot),
            Source::Stream(stream) => stream.take(rate, whole, is_closed, slot, pool),
        }
    }
}

impl Format {
    pub(super) fn hz(&self) -> u32 {
        match self {
            Self::At(rate) => rate.hz(),
            Self::From(filters) => filters.from(),
        }
    }

    /// How long `samples` samples last.
    pub fn duration(&self, samples: usize) -> Duration {
        ticks_duration(ticks_at(self.hz(), samples))
    }

    pub(super) fn is_same_rate(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::At(one), Self::At(other)) => one == other,
            (Self::From(one), Self::From(other)) => one.from() == other.from(),
            _ => false,
        }
    }
}
