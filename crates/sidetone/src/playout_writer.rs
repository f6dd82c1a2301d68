use std::{sync::Arc, time::Duration};

use sidetone_audio::resample::{Filters, Resampler, UnsupportedRate};
use sidetone_proto::{Format, ItemId, Rate, filters_from};

use crate::{
    error::PlayError,
    media::{CallRef, CommandQueue, Piece},
    playback::{Playback, wait_for},
};

/// Pieces from this length on are handed over whole instead of being copied under the lock.
const MAX_COPIED: usize = 2048;

/// Samples at a fixed rate on their way into a call's queue.
///
/// Once the call's own rate is known, they are resampled here, on the writer's thread. Before that they are queued as they are,
/// and the media thread resamples each slot when it is due, also of what follows them without a pause.
pub(crate) struct PlayoutWriter {
    pub(crate) shared: CallRef,
    pub(crate) hz: u32,
    filters: Option<Arc<Filters>>,
    resampler: Option<(Rate, Resampler)>,
    /// What was queued last waits to be resampled.
    is_deferred: bool,
    /// The number of clearings when the resampler was last used: what it holds from before is void.
    generation: u64,
    resampled: Vec<i16>,
}

impl PlayoutWriter {
    pub(crate) fn new(shared: CallRef, hz: u32) -> Result<Self, UnsupportedRate> {
        Resampler::new(hz, Rate::Slin.hz())?;
        let generation = shared.generation();
        Ok(Self {
            shared,
            hz,
            filters: None,
            resampler: None,
            is_deferred: false,
            generation,
            resampled: Vec::new(),
        })
    }

    /// Waits until there is room and queues as many of `samples` as fit, of an utterance or of none. Nothing is queued
    /// if it is cleared or stopped meanwhile, or dropped before it is ready.
    pub(crate) async fn write(
        &mut self,
        generation: u64,
        utterance: Option<&UtteranceRef<'_>>,
        samples: &[i16],
    ) -> Result<usize, PlayError> {
        if samples.is_empty() {
            return Ok(0);
        }
        let least = self
            .duration_of(samples.len() as u64)
            .min(Duration::from_millis(20));
        wait_for(&self.shared, |shared| {
            if shared.generation() != generation || utterance.is_some_and(UtteranceRef::is_over) {
                return Some(Err(PlayError::Cleared));
            }
            if shared.buffered() + least <= shared.playback_buffer {
                return Some(Ok(()));
            }
            shared.request_capacity_wake();
            None
        })
        .await??;
        // Another player may have taken the room meanwhile, but a write always gets on.
        let fitting = samples.len().min((self.free_samples() as usize).max(1));
        self.queue(generation, utterance, &samples[..fitting])?;
        Ok(fitting)
    }

    /// As `write` until nothing is left.
    pub(crate) async fn play(
        &mut self,
        generation: u64,
        utterance: Option<&UtteranceRef<'_>>,
        samples: &[i16],
    ) -> Result<(), PlayError> {
        let mut rest = samples;
        while !rest.is_empty() {
            let written = self.write(generation, utterance, rest).await?;
            rest = &rest[written..];
        }
        Ok(())
    }

    /// Queues all of `samples` if there is room for them now, else none.
    pub(crate) fn try_play(
        &mut self,
        generation: u64,
        utterance: Option<&UtteranceRef<'_>>,
        samples: &[i16],
    ) -> Result<(), PlayError> {
        if self.free_samples() < samples.len() as u64 {
            return Err(PlayError::Full);
        }
        self.queue(generation, utterance, samples)
    }

    /// How many samples of this rate fit into the playback buffer.
    fn free_samples(&self) -> u64 {
        let free = self
            .shared
            .playback_buffer
            .saturating_sub(self.shared.buffered());
        (free.as_nanos() * u128::from(self.hz) / 1_000_000_000) as u64
    }

    fn duration_of(&self, samples: u64) -> Duration {
        Duration::from_nanos(samples * 1_000_000_000 / u64::from(self.hz.max(1)))
    }

    fn queue(
        &mut self,
        generation: u64,
        utterance: Option<&UtteranceRef<'_>>,
        samples: &[i16],
    ) -> Result<(), PlayError> {
        if generation != self.generation {
            self.generation = generation;
            self.resampler = None;
            self.is_deferred = false;
        }
        // After a pause nothing has to be joined.
        self.is_deferred &= !self.shared.buffered().is_zero();
        let rate = match self.shared.known_rate() {
            Some(rate) if !self.is_deferred => rate,
            _ => return self.defer(utterance, samples),
        };
        if self.hz == rate.hz() {
            return self.submit(utterance, Format::At(rate), samples, None);
        }
        if self.resampler.as_ref().is_none_or(|(to, _)| *to != rate) {
            self.resampler = Resampler::aligned(self.hz, rate.hz())
                .ok()
                .map(|resampler| (rate, resampler));
        }
        let Some((_, resampler)) = &mut self.resampler else {
            return Ok(());
        };
        let mut resampled = std::mem::take(&mut self.resampled);
        resampled.clear();
        resampler.process(samples, &mut resampled);
        self.submit_resampled(utterance, rate, resampled)
    }

    fn defer(
        &mut self,
        utterance: Option<&UtteranceRef<'_>>,
        samples: &[i16],
    ) -> Result<(), PlayError> {
        let filters = match &self.filters {
            Some(filters) => filters,
            // The rate was tried when this was made.
            None => match filters_from(self.hz) {
                Ok(filters) => self.filters.insert(filters),
                Err(_) => return Ok(()),
            },
        };
        self.is_deferred = true;
        let format = Format::From(Arc::clone(filters));
        self.submit(utterance, format, samples, None)
    }

    /// Queues what the resampler still holds, for nothing is known to follow.
    pub(crate) fn flush(
        &mut self,
        generation: u64,
        utterance: Option<&UtteranceRef<'_>>,
    ) -> Result<(), PlayError> {
        self.is_deferred = false;
        let Some((rate, mut resampler)) = self.resampler.take() else {
            return Ok(());
        };
        if generation != self.generation {
            return Ok(());
        }
        let mut resampled = std::mem::take(&mut self.resampled);
        resampled.clear();
        resampler.flush(&mut resampled);
        self.submit_resampled(utterance, rate, resampled)
    }

    fn submit_resampled(
        &mut self,
        utterance: Option<&UtteranceRef<'_>>,
        rate: Rate,
        resampled: Vec<i16>,
    ) -> Result<(), PlayError> {
        if resampled.is_empty() {
            self.resampled = resampled;
            return Ok(());
        }
        let format = Format::At(rate);
        if resampled.len() >= MAX_COPIED {
            return self.submit(utterance, format, &[], Some(resampled));
        }
        let submitted = self.submit(utterance, format, &resampled, None);
        self.resampled = resampled;
        submitted
    }

    fn submit(
        &self,
        utterance: Option<&UtteranceRef<'_>>,
        format: Format,
        samples: &[i16],
        owned: Option<Vec<i16>>,
    ) -> Result<(), PlayError> {
        let owned = owned.or_else(|| (samples.len() >= MAX_COPIED).then(|| samples.to_vec()));
        let length = owned.as_ref().map_or(samples.len(), Vec::len);
        let audio = format.duration(length);
        let piece = Piece {
            utterance: utterance.map(UtteranceRef::id),
            format,
        };
        let mut is_over = false;
        self.shared.submit(self.generation, audio, |commands| {
            is_over = utterance.is_some_and(|utterance| !utterance.open_in(commands));
            match owned {
                // It was stopped just now: the pieces of what is not open go nowhere.
                Some(owned) => commands.play_owned(piece, owned),
                None => commands.play(piece, samples),
            }
        })?;
        if is_over {
            return Err(PlayError::Cleared);
        }
        Ok(())
    }
}

/// The utterance that samples are of, as its writer sees it.
pub(crate) struct UtteranceRef<'a> {
    pub(crate) playback: &'a Playback,
    pub(crate) prebuffer: Duration,
}

impl UtteranceRef<'_> {
    fn id(&self) -> ItemId {
        self.playback.id()
    }

    fn is_over(&self) -> bool {
        let playing = self.playback.playing();
        playing.is_stopped() || playing.finished().is_some()
    }

    /// Gives it its place in the queue, unless it has one. False when it is over.
    fn open_in(&self, commands: &mut CommandQueue) -> bool {
        let playing = self.playback.playing();
        if self.is_over() {
            return false;
        }
        if !playing.is_opened() {
            playing.note_opened();
            commands.open(self.id(), self.prebuffer, Arc::clone(playing));
        }
        true
    }
}
