use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::{Rate, Time, rate::duration_of};

/// Pieces longer than this are kept as they were given instead of being copied behind the last one.
const COPY_BELOW: usize = 2048;

/// Samples of every rate last a whole number of these, so that sums of them are exact.
const TICKS_A_SECOND: u64 = 28_224_000;

/// A place in the queued audio that is reported when it has been written, or a whole piece of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(pub u64);

/// What [`Playout::clear`] threw away, and what had been written before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// How much of the current playback was written, or of the last one if none is playing.
    pub played: Duration,
    /// How much queued audio was thrown away.
    pub discarded: Duration,
}

/// The queued audio of a call: samples, shared clips and marks, in the order in which they play.
///
/// A *playback* runs from the moment audio is queued in silence until all of it is written.
///
/// ```
/// use sidetone_proto::{Mark, Playout, Rate, Time};
///
/// let mut playout = Playout::default();
/// playout.push(Time::ZERO, Rate::Slin, &[7; 200]);
/// playout.push_mark(Mark(1));
///
/// let mut slot = Vec::new();
/// assert_eq!(playout.pull(Time::ZERO, &mut slot), Some(Rate::Slin));
/// assert_eq!(slot.len(), 160);
/// slot.clear();
/// playout.pull(Time::ZERO, &mut slot);
/// assert_eq!(slot[39..42], [7, 0, 0], "its slot is due, so the remainder is padded");
/// assert_eq!(playout.take_reached(), Some(Mark(1)));
/// assert!(playout.take_drained());
/// ```
#[derive(Debug, Default)]
pub struct Playout {
    pieces: VecDeque<Piece>,
    /// In ticks.
    queued: u64,
    /// In ticks.
    played: u64,
    stage: Stage,
    drained: bool,
    reached: VecDeque<Mark>,
    cushion: Duration,
    last_push: Time,
    /// The emptied buffer of the last copied piece, to be used again.
    spare: VecDeque<i16>,
}

/// How far a playback is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Silent,
    /// Audio is queued, and none of it written.
    Waiting,
    Playing,
}

#[derive(Debug)]
enum Piece {
    Copied {
        rate: Rate,
        samples: VecDeque<i16>,
    },
    Shared {
        rate: Rate,
        samples: Arc<Vec<i16>>,
        position: usize,
        end: Mark,
    },
    Mark(Mark),
}

impl Playout {
    /// Queues a copy of `samples`.
    pub fn push(&mut self, now: Time, rate: Rate, samples: &[i16]) {
        if samples.is_empty() {
            return;
        }
        self.note_push(now, rate, samples.len());
        match self.pieces.back_mut() {
            Some(Piece::Copied {
                rate: last,
                samples: queued,
            }) if *last == rate && queued.len() < COPY_BELOW => {
                queued.extend(samples);
            }
            _ => {
                let mut queued = std::mem::take(&mut self.spare);
                queued.extend(samples);
                self.pieces.push_back(Piece::Copied {
                    rate,
                    samples: queued,
                });
            }
        }
    }

    /// Queues `samples`, moving them when they are many.
    pub fn push_owned(&mut self, now: Time, rate: Rate, samples: Vec<i16>) {
        if samples.len() < COPY_BELOW {
            return self.push(now, rate, &samples);
        }
        self.note_push(now, rate, samples.len());
        self.pieces.push_back(Piece::Copied {
            rate,
            samples: samples.into(),
        });
    }

    /// Queues a clip that others may be playing, too. `end` is reached when its last sample is written or
    /// it is taken out with [`remove`](Self::remove).
    pub fn push_shared(&mut self, now: Time, rate: Rate, samples: Arc<Vec<i16>>, end: Mark) {
        if !samples.is_empty() {
            self.note_push(now, rate, samples.len());
        }
        self.pieces.push_back(Piece::Shared {
            rate,
            samples,
            position: 0,
            end,
        });
    }

    /// Queues a mark: it is reached when everything before it is written.
    pub fn push_mark(&mut self, mark: Mark) {
        self.pieces.push_back(Piece::Mark(mark));
    }

    /// From now on a playback starts only when `cushion` of audio is queued, or a mark is, or nothing more
    /// came for as long as the cushion is. For speech that is made while it plays, in uneven pieces.
    pub fn set_cushion(&mut self, cushion: Duration) {
        self.cushion = cushion;
    }

    /// Takes the clip that ends with `end` out of the queue, whether it plays already or not. Its end
    /// counts as reached.
    pub fn remove(&mut self, end: Mark) {
        let is_it = |piece: &Piece| matches!(piece, Piece::Shared { end: its, .. } if *its == end);
        if let Some(index) = self.pieces.iter().position(is_it)
            && let Some(Piece::Shared {
                rate,
                samples,
                position,
                ..
            }) = self.pieces.remove(index)
        {
            self.queued -= ticks(rate, samples.len() - position);
            self.reached.push_back(end);
            self.note_end();
        }
    }

    /// Throws everything queued away. Marks among it are not reached, but for the ends of clips. The
    /// playback is over, but it was not drained.
    pub fn clear(&mut self) -> Cleared {
        let cleared = Cleared {
            played: self.played(),
            discarded: self.queued(),
        };
        for piece in self.pieces.drain(..) {
            if let Piece::Shared { end, .. } = piece {
                self.reached.push_back(end);
            }
        }
        self.queued = 0;
        self.stage = Stage::Silent;
        cleared
    }

    /// Appends the next slot to `slot` and says at which rate it is; `None` when nothing is to be played.
    ///
    /// The slot is always whole: when the queue ends in its middle, or goes on at another rate, the rest is
    /// silence.
    pub fn pull(&mut self, now: Time, slot: &mut Vec<i16>) -> Option<Rate> {
        self.reach_marks();
        self.note_end();
        if self.stage == Stage::Waiting && self.is_cushioning(now) {
            return None;
        }
        let rate = match self.pieces.front()? {
            Piece::Copied { rate, .. } | Piece::Shared { rate, .. } => *rate,
            Piece::Mark(_) => return None,
        };
        self.stage = Stage::Playing;
        let whole = slot.len() + rate.slot_samples();
        let begin = slot.len();
        while slot.len() < whole && self.take_from_front(rate, whole, slot) {
            self.reach_marks();
        }
        let taken = ticks(rate, slot.len() - begin);
        self.played += taken;
        self.queued -= taken;
        slot.resize(whole, 0);
        self.note_end();
        Some(rate)
    }

    /// The next mark that was reached, in order.
    pub fn take_reached(&mut self) -> Option<Mark> {
        self.reached.pop_front()
    }

    /// Whether a playback came to its end since this was last asked.
    pub fn take_drained(&mut self) -> bool {
        std::mem::take(&mut self.drained)
    }

    /// Whether nothing is queued, not even a mark.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How much audio is queued.
    pub fn queued(&self) -> Duration {
        duration(self.queued)
    }

    /// How much of the current playback was written, or of the last one if none is playing.
    pub fn played(&self) -> Duration {
        duration(self.played)
    }

    fn note_push(&mut self, now: Time, rate: Rate, samples: usize) {
        if self.stage == Stage::Silent {
            self.stage = Stage::Waiting;
            self.played = 0;
        }
        self.queued += ticks(rate, samples);
        self.last_push = now;
    }

    fn is_cushioning(&self, now: Time) -> bool {
        self.queued() < self.cushion
            && now - self.last_push < self.cushion
            && !self
                .pieces
                .iter()
                .any(|piece| matches!(piece, Piece::Mark(_)))
    }

    /// Moves samples of `rate` from the front piece into `slot`, up to `whole`; false when the front is not
    /// of that rate.
    fn take_from_front(&mut self, rate: Rate, whole: usize, slot: &mut Vec<i16>) -> bool {
        let wanted = whole - slot.len();
        match self.pieces.front_mut() {
            Some(Piece::Copied { rate: its, samples }) if *its == rate => {
                let taken = wanted.min(samples.len());
                move_front(samples, taken, slot);
                if samples.is_empty()
                    && let Some(Piece::Copied { samples, .. }) = self.pieces.pop_front()
                    && samples.capacity() <= 2 * COPY_BELOW
                {
                    self.spare = samples;
                }
                true
            }
            Some(Piece::Shared {
                rate: its,
                samples,
                position,
                ..
            }) if *its == rate => {
                let taken = wanted.min(samples.len() - *position);
                slot.extend_from_slice(&samples[*position..*position + taken]);
                *position += taken;
                true
            }
            _ => false,
        }
    }

    /// Takes what has no audio (any more) from the front.
    fn reach_marks(&mut self) {
        loop {
            let mark = match self.pieces.front() {
                Some(Piece::Mark(mark)) => *mark,
                Some(Piece::Shared {
                    samples,
                    position,
                    end,
                    ..
                }) if *position == samples.len() => *end,
                _ => return,
            };
            self.reached.push_back(mark);
            self.pieces.pop_front();
        }
    }

    fn note_end(&mut self) {
        if self.stage != Stage::Silent && self.pieces.is_empty() {
            self.stage = Stage::Silent;
            self.drained = true;
        }
    }
}

/// Moves the first `count` of `samples` to the end of `slot`, in two strokes instead of one by one.
pub(crate) fn move_front(samples: &mut VecDeque<i16>, count: usize, slot: &mut Vec<i16>) {
    let (front, back) = samples.as_slices();
    let split = count.min(front.len());
    slot.extend_from_slice(&front[..split]);
    slot.extend_from_slice(&back[..count - split]);
    samples.drain(..count);
}

const fn ticks(rate: Rate, samples: usize) -> u64 {
    samples as u64 * (TICKS_A_SECOND / rate.hz() as u64)
}

const fn duration(ticks: u64) -> Duration {
    duration_of(ticks, TICKS_A_SECOND)
}
