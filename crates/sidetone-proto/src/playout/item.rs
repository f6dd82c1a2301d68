use std::{borrow::Cow, collections::VecDeque, sync::Arc, time::Duration};

use sidetone_audio::resample::Filters;

use super::{ItemId, convert::Converter, ticks, ticks_at, ticks_duration};
use crate::{Clip, Rate, Time, clip::Sound};

/// Pieces longer than this are kept as they were given instead of being copied behind the last one.
const COPY_BELOW: usize = 2048;

/// The rate of samples that are queued, and what becomes of it.
#[derive(Clone, Debug)]
pub enum Format {
    /// They go out at this rate, whatever the call's own is.
    At(Rate),
    /// They go out at the call's own rate, resampled when their slot is due.
    From(Arc<Filters>),
}

/// Something in the queue.
#[derive(Debug)]
pub(super) struct Item {
    /// Which it is in this queue, named or not.
    pub(super) number: u64,
    pub(super) id: Option<ItemId>,
    pub(super) source: Source,
    pub(super) openness: Openness,
    /// How much must be queued before it plays, while more may come.
    pub(super) prebuffer: Duration,
    /// It waits for that.
    pub(super) is_waiting: bool,
    pub(super) last_push: Time,
    /// Since when it has had nothing to play.
    pub(super) dry_since: Option<Time>,
    /// In ticks.
    pub(super) written: u64,
}

/// Whether more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Openness {
    Closed,
    /// Until something else is queued, or nothing comes for a while.
    Loose,
    /// Until its owner says.
    Held,
}

#[derive(Debug)]
pub(super) enum Source {
    Mark,
    Clip(ClipSource),
    Stream(Stream),
}

impl Item {
    /// What it has left, in ticks.
    pub(super) fn queued(&self) -> u64 {
        match &self.source {
            Source::Mark => 0,
            Source::Clip(clip) => clip.queued(),
            Source::Stream(stream) => stream.queued(),
        }
    }

    /// Whether it has nothing to play and never will.
    pub(super) fn is_over(&self) -> bool {
        self.openness == Openness::Closed
            && match &self.source {
                Source::Mark => true,
                Source::Clip(clip) => clip.is_over(),
                Source::Stream(stream) => stream.is_over(),
            }
    }

    pub(super) fn has_audio(&self) -> bool {
        !matches!(self.source, Source::Mark)
    }

    /// At which rate its next sample goes out, on a call of the rate `own`; `None` if it has none now.
    pub(super) fn next_rate(&self, own: Rate) -> Option<Rate> {
        let is_closed = self.openness == Openness::Closed;
        match &self.source {
            Source::Mark => None,
            Source::Clip(clip) => (!clip.is_over()).then_some(own),
            Source::Stream(stream) => stream.next_rate(own, is_closed),
        }
    }

    /// Moves samples at `rate` to the end of `slot` until that is `whole`, or there are none for now.
    pub(super) fn take(
        &mut self,
        rate: Rate,
        whole: usize,
        slot: &mut Vec<i16>,
        spare: &mut Spare,
    ) {
        let is_closed = self.openness == Openness::Closed;
        match &mut self.source {
            Source::Mark => {}
            Source::Clip(clip) => clip.take(rate, whole, slot),
            Source::Stream(stream) => stream.take(rate, whole, is_closed, slot, spare),
        }
    }
}

/// Emptied buffers, to be used again.
#[derive(Debug, Default)]
pub(super) struct Spare {
    samples: VecDeque<i16>,
    pub(super) pieces: VecDeque<Piece>,
}

/// Audio that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pieces: VecDeque<Piece>,
    converter: Option<Box<Converter>>,
    /// In the pieces, in ticks.
    unfed: u64,
}

#[derive(Debug)]
pub(super) struct Piece {
    format: Format,
    samples: VecDeque<i16>,
    /// How long it is, in ticks.
    ticks: u64,
}

impl Format {
    fn hz(&self) -> u32 {
        match self {
            Self::At(rate) => rate.hz(),
            Self::From(filters) => filters.from(),
        }
    }

    /// How long so many samples are.
    pub fn duration(&self, samples: usize) -> Duration {
        ticks_duration(ticks_at(self.hz(), samples))
    }

    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::At(one), Self::At(other)) => one == other,
            (Self::From(one), Self::From(other)) => one.from() == other.from(),
            _ => false,
        }
    }
}

impl Stream {
    pub(super) fn new(spare: &mut Spare) -> Self {
        Self {
            pieces: std::mem::take(&mut spare.pieces),
            ..Self::default()
        }
    }

    /// What is left of it may be used for another.
    pub(super) fn recycle(mut self, spare: &mut Spare) {
        self.pieces.clear();
        if self.pieces.capacity() <= 64 {
            spare.pieces = self.pieces;
        }
    }

    pub(super) fn push(&mut self, format: Format, samples: Cow<'_, [i16]>, spare: &mut Spare) {
        let ticks = ticks_at(format.hz(), samples.len());
        self.unfed += ticks;
        if samples.len() < COPY_BELOW
            && let Some(last) = self.pieces.back_mut()
            && last.format.is_like(&format)
            && last.samples.len() < COPY_BELOW
        {
            last.samples.extend(samples.iter());
            last.ticks += ticks;
            return;
        }
        let samples = match samples {
            Cow::Owned(samples) if samples.len() >= COPY_BELOW => samples.into(),
            samples => {
                let mut buffer = std::mem::take(&mut spare.samples);
                buffer.extend(samples.iter());
                buffer
            }
        };
        self.pieces.push_back(Piece {
            format,
            samples,
            ticks,
        });
    }

    pub(super) fn queued(&self) -> u64 {
        let ahead = |converter: &Converter| ticks_at(converter.hz(), converter.ahead() as usize);
        self.unfed + self.converter.as_deref().map_or(0, ahead)
    }

    fn is_over(&self) -> bool {
        self.pieces.is_empty() && self.converter.is_none()
    }

    /// Forgets what a resampler holds back until more comes, and says how much that is in ticks.
    pub(super) fn drop_tail(&mut self) -> u64 {
        let before = self.queued();
        self.converter = None;
        before - self.queued()
    }

    fn next_rate(&self, own: Rate, is_closed: bool) -> Option<Rate> {
        if let Some(converter) = &self.converter
            && (converter.ready() > 0 || is_closed)
        {
            return Some(own);
        }
        match self.pieces.front()?.format {
            // What the resampler holds comes first.
            Format::At(_) if self.converter.is_some() => Some(own),
            Format::At(rate) => Some(rate),
            Format::From(_) => Some(own),
        }
    }

    fn take(
        &mut self,
        rate: Rate,
        whole: usize,
        is_closed: bool,
        slot: &mut Vec<i16>,
        spare: &mut Spare,
    ) {
        while slot.len() < whole {
            let wanted = whole - slot.len();
            if self.converter.is_some() {
                if !self.convert(rate, wanted, is_closed, slot, spare) {
                    return;
                }
                continue;
            }
            match self.pieces.front() {
                None => return,
                Some(Piece {
                    format: Format::At(its),
                    ..
                }) if *its != rate => return,
                Some(Piece {
                    format: Format::At(_),
                    ..
                }) => self.move_front(wanted, slot, spare),
                Some(Piece {
                    format: Format::From(filters),
                    ..
                }) => match Converter::new(filters, rate, &[]) {
                    Some(converter) => self.converter = Some(Box::new(converter)),
                    // There is no way to make it heard.
                    None => self.drop_front(spare),
                },
            }
        }
    }

    /// Takes up to `wanted` samples from the converter; false when it has none for now.
    fn convert(
        &mut self,
        rate: Rate,
        wanted: usize,
        is_closed: bool,
        slot: &mut Vec<i16>,
        spare: &mut Spare,
    ) -> bool {
        let Some(mut converter) = self.converter.take() else {
            return false;
        };
        converter.turn_to(rate);
        let mut ends = false;
        while converter.ready() < wanted && !ends {
            match self.pieces.front_mut() {
                Some(piece) if matches!(&piece.format, Format::From(its) if converter.is_from(its)) =>
                {
                    let fed = converter.wanted(wanted).min(piece.samples.len());
                    let (front, back) = piece.samples.as_slices();
                    let split = fed.min(front.len());
                    converter.feed(&front[..split]);
                    converter.feed(&back[..fed - split]);
                    piece.samples.drain(..fed);
                    let ticks = ticks_at(piece.format.hz(), fed).min(piece.ticks);
                    piece.ticks -= ticks;
                    self.unfed -= ticks;
                    if piece.samples.is_empty() {
                        self.drop_front(spare);
                    }
                }
                next => {
                    ends = true;
                    if next.is_some() || is_closed {
                        converter.flush();
                    }
                }
            }
        }
        let before = slot.len();
        converter.take(wanted, slot);
        let is_over = converter.is_over();
        if !is_over {
            self.converter = Some(converter);
        }
        is_over || slot.len() > before
    }

    fn move_front(&mut self, wanted: usize, slot: &mut Vec<i16>, spare: &mut Spare) {
        let Some(piece) = self.pieces.front_mut() else {
            return;
        };
        let taken = wanted.min(piece.samples.len());
        move_front(&mut piece.samples, taken, slot);
        let ticks = ticks_at(piece.format.hz(), taken).min(piece.ticks);
        piece.ticks -= ticks;
        self.unfed -= ticks;
        if piece.samples.is_empty() {
            self.drop_front(spare);
        }
    }

    fn drop_front(&mut self, spare: &mut Spare) {
        let Some(mut piece) = self.pieces.pop_front() else {
            return;
        };
        self.unfed -= piece.ticks;
        if piece.samples.capacity() <= 2 * COPY_BELOW {
            piece.samples.clear();
            spare.samples = piece.samples;
        }
    }
}

/// A clip, and how far it has played.
#[derive(Debug)]
pub(super) struct ClipSource {
    clip: Clip,
    is_looped: bool,
    has_gone_round: bool,
    /// Which of its sounds.
    sound: usize,
    using: Using,
    /// What is left of this sound, and what is behind it, in ticks.
    left: u64,
    behind: u64,
    /// All of it.
    total: u64,
}

/// What of a sound is played.
#[derive(Debug)]
enum Using {
    /// Nothing yet.
    Nothing,
    /// A variant, and the number of the next sample.
    Variant(Rate, Arc<Vec<i16>>, usize),
    /// The source, and the number of the next sample that goes in.
    Source(Box<Converter>, usize),
}

impl ClipSource {
    pub(super) fn new(clip: Clip) -> Self {
        let total = clip.sounds().iter().map(|sound| length(sound)).sum();
        let left = clip.sounds().first().map_or(0, |sound| length(sound));
        Self {
            is_looped: clip.is_looped(),
            has_gone_round: false,
            clip,
            sound: 0,
            using: Using::Nothing,
            left,
            behind: total - left,
            total,
        }
    }

    fn queued(&self) -> u64 {
        self.left + self.behind
    }

    pub(super) fn end_with_this_round(&mut self) {
        self.is_looped = false;
        if self.has_gone_round && self.queued() == self.total {
            self.sound = self.clip.sounds().len();
            (self.left, self.behind) = (0, 0);
        }
    }

    fn is_over(&self) -> bool {
        self.sound == self.clip.sounds().len()
    }

    fn take(&mut self, rate: Rate, whole: usize, slot: &mut Vec<i16>) {
        while slot.len() < whole && !self.is_over() {
            self.use_rate(rate);
            if self.is_over() {
                (self.left, self.behind) = (0, 0);
                return;
            }
            let before = slot.len();
            let is_at_end = self.take_of_sound(whole, slot);
            let taken = ticks(rate, slot.len() - before);
            self.left = self.left.saturating_sub(taken);
            if is_at_end {
                self.go_on();
            }
        }
    }

    /// Takes samples of this sound; true at its end.
    fn take_of_sound(&mut self, whole: usize, slot: &mut Vec<i16>) -> bool {
        let wanted = whole - slot.len();
        match &mut self.using {
            Using::Nothing => true,
            Using::Variant(_, samples, next) => {
                let end = samples.len().min(*next + wanted);
                slot.extend_from_slice(&samples[*next..end]);
                *next = end;
                end == samples.len()
            }
            Using::Source(converter, next) => {
                let samples = &self.clip.sounds()[self.sound].samples;
                while converter.ready() < wanted && *next < samples.len() {
                    let end = samples.len().min(*next + converter.wanted(wanted));
                    converter.feed(&samples[*next..end]);
                    *next = end;
                }
                let goes_round = self.is_looped && self.clip.sounds().len() == 1;
                if converter.ready() < wanted && !goes_round {
                    converter.flush();
                }
                converter.take(wanted, slot);
                converter.is_over() || (goes_round && *next == samples.len())
            }
        }
    }

    /// To the next sound, or round again.
    fn go_on(&mut self) {
        let sounds = self.clip.sounds().len();
        self.sound += 1;
        if self.is_looped && self.sound == sounds {
            self.sound = 0;
            self.has_gone_round = true;
            self.behind = self.total;
        }
        match &mut self.using {
            // The resampler knows nothing of the join.
            Using::Source(converter, next)
                if self.sound == 0 && sounds == 1 && !converter.is_over() =>
            {
                *next = 0
            }
            using => *using = Using::Nothing,
        }
        self.left = self
            .clip
            .sounds()
            .get(self.sound)
            .map_or(0, |sound| length(sound));
        self.behind = self.behind.saturating_sub(self.left);
    }

    /// Goes on in the variant for `rate`, if that is made, else with a resampler.
    fn use_rate(&mut self, rate: Rate) {
        let Some(sound) = self.clip.sounds().get(self.sound) else {
            return;
        };
        let (place, hz) = match &mut self.using {
            Using::Nothing => (0, rate.hz()),
            Using::Variant(its, ..) if *its == rate => return,
            Using::Variant(its, _, next) => (*next as u64, its.hz()),
            Using::Source(converter, _) if converter.rate() == rate => return,
            Using::Source(converter, next) => {
                converter.turn_to(rate);
                // A sound that went round while its end is still in the resampler goes on with that.
                match (*next as u64).checked_sub(converter.ahead()) {
                    Some(place) if sound.at(rate).is_some() => (place, converter.hz()),
                    _ => return,
                }
            }
        };
        let place_at =
            |to: u32| ((place * u64::from(to) + u64::from(hz) / 2) / u64::from(hz)) as usize;
        if let Some(variant) = sound.at(rate) {
            let next = place_at(rate.hz()).min(variant.len());
            self.using = Using::Variant(rate, Arc::clone(variant), next);
            return;
        }
        let next = place_at(sound.hz()).min(sound.samples.len());
        let past = &sound.samples[next.saturating_sub(Converter::kept(&sound.filters))..next];
        match Converter::new(&sound.filters, rate, past) {
            Some(converter) => self.using = Using::Source(Box::new(converter), next),
            // There is no way to make it heard.
            None => self.sound = self.clip.sounds().len(),
        }
    }
}

fn length(sound: &Sound) -> u64 {
    ticks_at(sound.hz(), sound.samples.len())
}

/// Moves the first `count` of `samples` to the end of `slot`, in two strokes instead of one by one.
pub(crate) fn move_front(samples: &mut VecDeque<i16>, count: usize, slot: &mut Vec<i16>) {
    let (front, back) = samples.as_slices();
    let split = count.min(front.len());
    slot.extend_from_slice(&front[..split]);
    slot.extend_from_slice(&back[..count - split]);
    samples.drain(..count);
}
