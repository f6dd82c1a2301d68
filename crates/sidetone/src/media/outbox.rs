use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sidetone_proto::{CallMachine, Mark, Rate, Time};

use super::{
    batch::ROOM,
    tap::{Purpose, Tap, Taps},
};

/// What a handler has queued since the media thread last looked, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    generation: u64,
    orders: Vec<Order>,
    /// The samples of small writes and of live audio, so that neither allocates for itself.
    samples: Vec<i16>,
    /// How much queued audio has come since the media thread last looked, and how much of it is void.
    audio: Duration,
    voided: Duration,
}

/// What was taken out of an outbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Emptied {
    /// All queued audio that was in it.
    pub(crate) audio: Duration,
    /// The part of it that was void because it had been cleared.
    pub(crate) voided: Duration,
}

/// Where the orders go.
pub(crate) struct Destination<'a> {
    pub(crate) machine: &'a mut CallMachine,
    /// The clips that somebody may be waiting for the end of.
    pub(crate) clips: &'a mut Vec<(Mark, Arc<AtomicBool>)>,
    pub(crate) taps: &'a mut Taps,
}

#[derive(Debug)]
enum Order {
    /// The next `length` of the outbox's samples.
    Play {
        rate: Rate,
        length: usize,
    },
    PlayOwned {
        rate: Rate,
        samples: Vec<i16>,
    },
    PlayClip(ClipOrder),
    Mark(Mark),
    Remove(Mark),
    Cushion(Duration),
    LiveCushion(Duration),
    Live {
        rate: Rate,
        at: Time,
        length: usize,
    },
    Tap(Purpose, Arc<Tap>),
}

/// A clip to be played.
#[derive(Debug)]
pub(crate) struct ClipOrder {
    pub(crate) rate: Rate,
    pub(crate) samples: Arc<Vec<i16>>,
    pub(crate) end: Mark,
    pub(crate) done: Arc<AtomicBool>,
}

/// The media thread looks every 20 ms: where more orders than this lie, live audio would only be late.
const LIVE_LIMIT: usize = 64;

/// Samples that an outbox keeps room for between uses. Not many: its next use may be another call's.
const KEEP: usize = 4 * 1024;

impl Outbox {
    /// What comes now is `audio` long and queued under `generation`; anything from before that is void.
    pub(crate) fn begin(&mut self, generation: u64, audio: Duration) {
        self.audio += audio;
        if self.generation != generation {
            self.void();
            self.generation = generation;
        }
    }

    pub(crate) fn play(&mut self, rate: Rate, samples: &[i16]) {
        self.samples.extend_from_slice(samples);
        self.orders.push(Order::Play {
            rate,
            length: samples.len(),
        });
    }

    pub(crate) fn play_owned(&mut self, rate: Rate, samples: Vec<i16>) {
        self.orders.push(Order::PlayOwned { rate, samples });
    }

    pub(crate) fn play_clip(&mut self, clip: ClipOrder) {
        self.orders.push(Order::PlayClip(clip));
    }

    pub(crate) fn mark(&mut self, mark: Mark) {
        self.orders.push(Order::Mark(mark));
    }

    pub(crate) fn remove(&mut self, end: Mark) {
        self.orders.push(Order::Remove(end));
    }

    pub(crate) fn cushion(&mut self, cushion: Duration) {
        self.orders.push(Order::Cushion(cushion));
    }

    pub(crate) fn live_cushion(&mut self, cushion: Duration) {
        self.orders.push(Order::LiveCushion(cushion));
    }

    pub(crate) fn tap(&mut self, purpose: Purpose, tap: Arc<Tap>) {
        self.orders.push(Order::Tap(purpose, tap));
    }

    /// Adds live audio, unless so much lies here that it would never be heard.
    pub(crate) fn live(&mut self, rate: Rate, at: Time, samples: &[i16]) {
        if self.orders.len() >= LIVE_LIMIT {
            return;
        }
        if self.samples.capacity() == 0 {
            self.samples.reserve_exact(ROOM * rate.slot_samples());
            self.orders.reserve_exact(2 * ROOM);
        }
        self.orders.push(Order::Live {
            rate,
            at,
            length: samples.len(),
        });
        self.samples.extend_from_slice(samples);
    }

    /// Changes places with one that was emptied, maybe another call's.
    pub(crate) fn swap_with(&mut self, emptied: &mut Self) {
        emptied.generation = self.generation;
        std::mem::swap(self, emptied);
    }

    /// Hands everything over to the call's own queues.
    pub(crate) fn empty_into(
        &mut self,
        now: Time,
        generation: u64,
        call: &mut Destination<'_>,
    ) -> Emptied {
        if self.generation != generation {
            self.void();
        }
        let mut begin = 0;
        for order in self.orders.drain(..) {
            match order {
                Order::Play { rate, length } => {
                    call.machine
                        .playout()
                        .push(now, rate, &self.samples[begin..begin + length]);
                    begin += length;
                }
                Order::PlayOwned { rate, samples } => {
                    call.machine.playout().push_owned(now, rate, samples)
                }
                Order::PlayClip(clip) => {
                    call.clips.push((clip.end, clip.done));
                    call.machine
                        .playout()
                        .push_shared(now, clip.rate, clip.samples, clip.end);
                }
                Order::Mark(mark) => call.machine.playout().push_mark(mark),
                Order::Remove(end) => call.machine.playout().remove(end),
                Order::Cushion(cushion) => call.machine.playout().set_cushion(cushion),
                Order::LiveCushion(cushion) => call.machine.live().set_cushion(cushion),
                Order::Live { rate, at, length } => {
                    call.machine
                        .live()
                        .push(at, rate, &self.samples[begin..begin + length]);
                    begin += length;
                }
                Order::Tap(purpose, tap) => call.taps.set(purpose, tap),
            }
        }
        self.samples.clear();
        // A rush of small writes can make them as large as the playback buffer.
        if self.samples.capacity() > KEEP {
            self.samples = Vec::new();
        }
        if self.orders.capacity() > LIVE_LIMIT {
            self.orders = Vec::new();
        }
        Emptied {
            audio: std::mem::take(&mut self.audio),
            voided: std::mem::take(&mut self.voided),
        }
    }

    /// Drops what was queued to be played.
    fn void(&mut self) {
        let voided = &mut self.voided;
        self.orders.retain(|order| {
            match order {
                Order::Play { rate, length } => *voided += rate.duration(*length as u64),
                Order::PlayOwned { rate, samples } => {
                    *voided += rate.duration(samples.len() as u64)
                }
                Order::PlayClip(clip) => {
                    *voided += clip.rate.duration(clip.samples.len() as u64);
                    clip.done.store(true, Ordering::Release);
                }
                Order::Tap(..) | Order::Cushion(_) | Order::LiveCushion(_) => return true,
                Order::Mark(_) | Order::Remove(_) | Order::Live { .. } => {}
            }
            false
        });
        self.samples.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sidetone_proto::CallConfig;

    #[test]
    fn an_outbox_that_was_another_calls_voids_nothing_of_its_new_one() {
        let mut machine = CallMachine::new(Time::ZERO, CallConfig::default());
        let (mut clips, mut taps) = (Vec::new(), Taps::default());
        let mut other = Outbox::default();
        other.begin(7, Duration::ZERO);
        let mut outbox = Outbox::default();
        outbox.begin(3, Duration::ZERO);
        outbox.swap_with(&mut other);

        outbox.mark(Mark(1));
        let mut call = Destination {
            machine: &mut machine,
            clips: &mut clips,
            taps: &mut taps,
        };
        outbox.empty_into(Time::ZERO, 3, &mut call);
        machine.playout().pull(Time::ZERO, &mut Vec::new());
        assert_eq!(machine.playout().take_reached(), Some(Mark(1)));
    }
}
