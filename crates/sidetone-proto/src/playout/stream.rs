use std::{borrow::Cow, collections::VecDeque};

use super::{convert::Converter, item::Format, ticks_at};
use crate::Rate;

/// A piece of at least this many samples is kept as it was given. A shorter one is copied behind the last.
const MIN_KEPT_SAMPLES: usize = 2048;

/// Empty buffers for reuse.
#[derive(Debug, Default)]
pub(super) struct BufferPool {
    samples: VecDeque<i16>,
    pub(super) pieces: VecDeque<Piece>,
}

/// Audio that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pieces: VecDeque<Piece>,
    converter: Option<Box<Converter>>,
    /// How much the pieces hold, in ticks.
    pieces_ticks: u64,
}

#[derive(Debug)]
pub(super) struct Piece {
    format: Format,
    samples: VecDeque<i16>,
    /// How much is left of it, in ticks.
    ticks: u64,
}

impl Stream {
    pub(super) fn new(pool: &mut BufferPool) -> Self {
        Self {
            pieces: std::mem::take(&mut pool.pieces),
            ..Self::default()
        }
    }

    /// Gives its buffers to the pool.
    pub(super) fn recycle(mut self, pool: &mut BufferPool) {
        self.pieces.clear();
        if self.pieces.capacity() <= 64 {
            pool.pieces = self.pieces;
        }
    }

    pub(super) fn push(&mut self, format: Format, samples: Cow<'_, [i16]>, pool: &mut BufferPool) {
        let ticks = ticks_at(format.hz(), samples.len());
        self.pieces_ticks += ticks;
        if samples.len() < MIN_KEPT_SAMPLES
            && let Some(last) = self.pieces.back_mut()
            && last.format.is_same_rate(&format)
            && last.samples.len() < MIN_KEPT_SAMPLES
        {
            last.samples.extend(samples.iter());
            last.ticks += ticks;
            return;
        }
        let samples = match samples {
            Cow::Owned(samples) if samples.len() >= MIN_KEPT_SAMPLES => samples.into(),
            samples => {
                let mut buffer = std::mem::take(&mut pool.samples);
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
        self.pieces_ticks + self.converter.as_deref().map_or(0, ahead)
    }

    pub(super) fn is_over(&self) -> bool {
        self.pieces.is_empty() && self.converter.is_none()
    }

    /// Discards what the resampler holds back until more comes, and returns how much that is, in ticks.
    pub(super) fn drop_tail(&mut self) -> u64 {
        let before = self.queued();
        self.converter = None;
        before - self.queued()
    }

    pub(super) fn next_rate(&self, own: Rate, is_closed: bool) -> Option<Rate> {
        if let Some(converter) = &self.converter
            && (converter.ready() > 0 || is_closed)
        {
            return Some(own);
        }
        match self.pieces.front()?.format {
            // The rest in the resampler comes first.
            Format::At(_) if self.converter.is_some() => Some(own),
            Format::At(rate) => Some(rate),
            Format::From(_) => Some(own),
        }
    }

    pub(super) fn take(
        &mut self,
        rate: Rate,
        whole: usize,
        is_closed: bool,
        slot: &mut Vec<i16>,
        pool: &mut BufferPool,
    ) {
        while slot.len() < whole {
            let wanted = whole - slot.len();
            if self.converter.is_some() {
                if !self.convert(rate, wanted, is_closed, slot, pool) {
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
                }) => self.move_front(wanted, slot, pool),
                Some(Piece {
                    format: Format::From(filters),
                    ..
                }) => match Converter::new(filters, rate, &[]) {
                    Some(converter) => self.converter = Some(Box::new(converter)),
                    // It can't be resampled to any rate of a call.
                    None => self.drop_front(pool),
                },
            }
        }
    }

    /// Takes up to `wanted` samples from the converter; false if it has none for now.
    fn convert(
        &mut self,
        rate: Rate,
        wanted: usize,
        is_closed: bool,
        slot: &mut Vec<i16>,
        pool: &mut BufferPool,
    ) -> bool {
        let Some(mut converter) = self.converter.take() else {
            return false;
        };
        converter.set_rate(rate);
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
                    self.pieces_ticks -= ticks;
                    if piece.samples.is_empty() {
                        self.drop_front(pool);
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

    fn move_front(&mut self, wanted: usize, slot: &mut Vec<i16>, pool: &mut BufferPool) {
        let Some(piece) = self.pieces.front_mut() else {
            return;
        };
        let taken = wanted.min(piece.samples.len());
        move_front(&mut piece.samples, taken, slot);
        let ticks = ticks_at(piece.format.hz(), taken).min(piece.ticks);
        piece.ticks -= ticks;
        self.pieces_ticks -= ticks;
        if piece.samples.is_empty() {
            self.drop_front(pool);
        }
    }

    fn drop_front(&mut self, pool: &mut BufferPool) {
        let Some(mut piece) = self.pieces.pop_front() else {
            return;
        };
        self.pieces_ticks -= piece.ticks;
        if piece.samples.capacity() <= 2 * MIN_KEPT_SAMPLES {
            piece.samples.clear();
            pool.samples = piece.samples;
        }
    }
}

/// Moves the first `count` of `samples` to the end of `slot`.
pub(crate) fn move_front(samples: &mut VecDeque<i16>, count: usize, slot: &mut Vec<i16>) {
    let (front, back) = samples.as_slices();
    let split = count.min(front.len());
    slot.extend_from_slice(&front[..split]);
    slot.extend_from_slice(&back[..count - split]);
    samples.drain(..count);
}
