use std::sync::Arc;

use super::{convert::Converter, ticks, ticks_at};
use crate::{Clip, Rate, clip::Sound};

/// A clip and its position.
#[derive(Debug)]
pub(super) struct ClipSource {
    clip: Clip,
    is_looped: bool,
    has_wrapped: bool,
    /// The index of the sound that plays.
    sound: usize,
    cursor: Cursor,
    /// What is left of this sound, in ticks.
    left: u64,
    /// The length of the sounds behind it, in ticks.
    behind: u64,
    /// The length of all sounds, in ticks.
    total: u64,
}

/// The position in a sound.
#[derive(Debug)]
enum Cursor {
    /// Not started.
    None,
    /// In a variant: its next sample.
    Variant(Rate, Arc<Vec<i16>>, usize),
    /// In the source: the next sample that goes into the resampler.
    Resampled(Box<Converter>, usize),
}

impl ClipSource {
    pub(super) fn new(clip: Clip) -> Self {
        let total = clip.sounds().iter().map(|sound| length(sound)).sum();
        let left = clip.sounds().first().map_or(0, |sound| length(sound));
        Self {
            is_looped: clip.is_looped(),
            has_wrapped: false,
            clip,
            sound: 0,
            cursor: Cursor::None,
            left,
            behind: total - left,
            total,
        }
    }

    pub(super) fn queued(&self) -> u64 {
        self.left + self.behind
    }

    pub(super) fn stop_looping(&mut self) {
        self.is_looped = false;
        if self.has_wrapped && self.queued() == self.total {
            self.sound = self.clip.sounds().len();
            (self.left, self.behind) = (0, 0);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.sound == self.clip.sounds().len()
    }

    pub(super) fn take(&mut self, rate: Rate, whole: usize, slot: &mut Vec<i16>) {
        while slot.len() < whole && !self.is_over() {
            self.switch_rate(rate);
            if self.is_over() {
                (self.left, self.behind) = (0, 0);
                return;
            }
            let before = slot.len();
            let is_at_end = self.take_from_sound(whole, slot);
            let taken = ticks(rate, slot.len() - before);
            self.left = self.left.saturating_sub(taken);
            if is_at_end {
                self.next_sound();
            }
        }
    }

    /// Takes samples from this sound; true at its end.
    fn take_from_sound(&mut self, whole: usize, slot: &mut Vec<i16>) -> bool {
        let wanted = whole - slot.len();
        match &mut self.cursor {
            Cursor::None => true,
            Cursor::Variant(_, samples, next) => {
                let end = samples.len().min(*next + wanted);
                slot.extend_from_slice(&samples[*next..end]);
                *next = end;
                end == samples.len()
            }
            Cursor::Resampled(converter, next) => {
                let samples = &self.clip.sounds()[self.sound].samples;
                while converter.ready() < wanted && *next < samples.len() {
                    let end = samples.len().min(*next + converter.wanted(wanted));
                    converter.feed(&samples[*next..end]);
                    *next = end;
                }
                let wraps = self.is_looped && self.clip.sounds().len() == 1;
                if converter.ready() < wanted && !wraps {
                    converter.flush();
                }
                converter.take(wanted, slot);
                converter.is_over() || (wraps && *next == samples.len())
            }
        }
    }

    /// Goes on to the next sound, or to the first of a loop.
    fn next_sound(&mut self) {
        let sounds = self.clip.sounds().len();
        self.sound += 1;
        if self.is_looped && self.sound == sounds {
            self.sound = 0;
            self.has_wrapped = true;
            self.behind = self.total;
        }
        match &mut self.cursor {
            // A loop of one sound goes through the resampler without a seam.
            Cursor::Resampled(converter, next)
                if self.sound == 0 && sounds == 1 && !converter.is_over() =>
            {
                *next = 0
            }
            cursor => *cursor = Cursor::None,
        }
        self.left = self
            .clip
            .sounds()
            .get(self.sound)
            .map_or(0, |sound| length(sound));
        self.behind = self.behind.saturating_sub(self.left);
    }

    /// Goes on at `rate`: in its variant if that is prepared, else with a resampler.
    fn switch_rate(&mut self, rate: Rate) {
        let Some(sound) = self.clip.sounds().get(self.sound) else {
            return;
        };
        let (place, hz) = match &mut self.cursor {
            Cursor::None => (0, rate.hz()),
            Cursor::Variant(its, ..) if *its == rate => return,
            Cursor::Variant(its, _, next) => (*next as u64, its.hz()),
            Cursor::Resampled(converter, _) if converter.rate() == rate => return,
            Cursor::Resampled(converter, next) => {
                converter.set_rate(rate);
                // A loop that has wrapped while its end is still in the resampler goes on with the resampler.
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
            self.cursor = Cursor::Variant(rate, Arc::clone(variant), next);
            return;
        }
        let next = place_at(sound.hz()).min(sound.samples.len());
        let past =
            &sound.samples[next.saturating_sub(Converter::history_length(&sound.filters))..next];
        match Converter::new(&sound.filters, rate, past) {
            Some(converter) => self.cursor = Cursor::Resampled(Box::new(converter), next),
            // It can't be resampled to any rate of a call.
            None => self.sound = self.clip.sounds().len(),
        }
    }
}

fn length(sound: &Sound) -> u64 {
    ticks_at(sound.hz(), sound.samples.len())
}
