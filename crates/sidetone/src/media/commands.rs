use std::{borrow::Cow, sync::Arc, time::Duration};

use sidetone_proto::{CallMachine, Clip, Format, Heard, ItemId, Rate, Time};

use super::{
    batch::RESERVED_SLOTS,
    playing::Playing,
    tap::{Purpose, Tap, Taps},
};

/// The commands that a handler has queued since the media thread last took them, in order.
#[derive(Debug, Default)]
pub(crate) struct CommandQueue {
    generation: u64,
    commands: Vec<Command>,
    /// The samples of small writes and of live audio, so that these need no allocation of their own.
    samples: Vec<i16>,
    /// How much audio has been queued since the media thread last took it, and how much of that a clear discarded.
    audio: Duration,
    discarded: Duration,
    /// Frames of live audio that were to be kept and were too many.
    live_dropped: u64,
    /// How much of the discarded audio belonged to which utterance that the media thread has open.
    discarded_of: Vec<(ItemId, Duration)>,
}

/// The outcome of [`CommandQueue::apply`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applied {
    /// All audio that was in the queue.
    pub(crate) audio: Duration,
    /// The part of it that a clear discarded.
    pub(crate) discarded: Duration,
}

/// What the commands are applied to.
pub(crate) struct Destination<'a> {
    pub(crate) machine: &'a mut CallMachine,
    /// Items whose end a handler may wait for.
    pub(crate) playing: &'a mut Vec<(ItemId, Arc<Playing>)>,
    pub(crate) taps: &'a mut Taps,
}

#[derive(Debug)]
enum Command {
    /// The next `length` samples of the queue.
    Play {
        piece: Piece,
        length: usize,
    },
    PlayOwned {
        piece: Piece,
        samples: Vec<i16>,
    },
    PlayClip {
        clip: Clip,
        id: ItemId,
        playing: Arc<Playing>,
    },
    Open {
        id: ItemId,
        prebuffer: Duration,
        playing: Arc<Playing>,
    },
    End(ItemId),
    EndAnonymous,
    Mark {
        id: ItemId,
        playing: Option<Arc<Playing>>,
    },
    Stop(ItemId),
    Prebuffer(Duration),
    LivePrebuffer(Duration),
    KeepBursts,
    Pause,
    Resume,
    Live {
        rate: Rate,
        at: Time,
        length: usize,
    },
    Tap {
        purpose: Purpose,
        tap: Arc<Tap>,
        from_preroll: bool,
    },
}

/// What queued samples belong to, and their format.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// `None`: the anonymous utterance, that of a `Player`.
    pub(crate) utterance: Option<ItemId>,
    pub(crate) format: Format,
}

/// Live audio is dropped if this many commands are queued. The media thread takes them every 20 ms, so the audio would
/// be late anyway.
const MAX_COMMANDS_BEFORE_LIVE: usize = 64;

/// Where bursts of live audio are kept: beyond this many samples they are dropped, and counted.
const MAX_BURST_SAMPLES: usize = 600 * 8_000;

/// Samples of capacity that a queue keeps between uses. Not many, since its next use may be another call's.
const KEPT_SAMPLES: usize = 4 * 1024;

impl CommandQueue {
    /// The commands that follow queue `audio` under `generation`. Discards audio of an earlier generation.
    pub(crate) fn begin_submission(&mut self, generation: u64, audio: Duration) {
        self.audio += audio;
        if self.generation != generation {
            self.discard();
            self.generation = generation;
        }
    }

    pub(crate) fn play(&mut self, piece: Piece, samples: &[i16]) {
        self.samples.extend_from_slice(samples);
        self.commands.push(Command::Play {
            piece,
            length: samples.len(),
        });
    }

    pub(crate) fn play_owned(&mut self, piece: Piece, samples: Vec<i16>) {
        self.commands.push(Command::PlayOwned { piece, samples });
    }

    pub(crate) fn play_clip(&mut self, clip: Clip, id: ItemId, playing: Arc<Playing>) {
        self.commands.push(Command::PlayClip { clip, id, playing });
    }

    pub(crate) fn open(&mut self, id: ItemId, prebuffer: Duration, playing: Arc<Playing>) {
        self.commands.push(Command::Open {
            id,
            prebuffer,
            playing,
        });
    }

    pub(crate) fn end(&mut self, id: ItemId) {
        self.commands.push(Command::End(id));
    }

    pub(crate) fn end_anonymous(&mut self) {
        self.commands.push(Command::EndAnonymous);
    }

    pub(crate) fn mark(&mut self, id: ItemId, playing: Option<Arc<Playing>>) {
        self.commands.push(Command::Mark { id, playing });
    }

    pub(crate) fn stop(&mut self, id: ItemId) {
        self.commands.push(Command::Stop(id));
    }

    pub(crate) fn prebuffer(&mut self, prebuffer: Duration) {
        self.commands.push(Command::Prebuffer(prebuffer));
    }

    pub(crate) fn live_prebuffer(&mut self, prebuffer: Duration) {
        self.commands.push(Command::LivePrebuffer(prebuffer));
    }

    pub(crate) fn keep_bursts(&mut self) {
        self.commands.push(Command::KeepBursts);
    }

    pub(crate) fn pause(&mut self) {
        self.commands.push(Command::Pause);
    }

    pub(crate) fn resume(&mut self) {
        self.commands.push(Command::Resume);
    }

    pub(crate) fn tap(&mut self, purpose: Purpose, tap: Arc<Tap>, from_preroll: bool) {
        self.commands.push(Command::Tap {
            purpose,
            tap,
            from_preroll,
        });
    }

    /// Adds live audio, unless so many commands are queued that it would never be heard.
    pub(crate) fn live(&mut self, rate: Rate, at: Time, samples: &[i16]) {
        if self.commands.len() >= MAX_COMMANDS_BEFORE_LIVE {
            return;
        }
        self.push_live(rate, at, samples);
    }

    fn push_live(&mut self, rate: Rate, at: Time, samples: &[i16]) {
        if self.samples.capacity() == 0 {
            self.samples
                .reserve_exact(RESERVED_SLOTS * rate.slot_samples());
            self.commands.reserve_exact(2 * RESERVED_SLOTS);
        }
        self.commands.push(Command::Live {
            rate,
            at,
            length: samples.len(),
        });
        self.samples.extend_from_slice(samples);
    }

    /// Adds live audio whose bursts are kept.
    pub(crate) fn live_whole(&mut self, rate: Rate, at: Time, samples: &[i16]) {
        if self.samples.len() + samples.len() > MAX_BURST_SAMPLES {
            self.live_dropped += samples.len().div_ceil(rate.slot_samples()) as u64;
        } else if self.commands.len() >= MAX_COMMANDS_BEFORE_LIVE
            && let Some(Command::Live {
                rate: last, length, ..
            }) = self.commands.last_mut()
            && *last == rate
        {
            *length += samples.len();
            self.samples.extend_from_slice(samples);
        } else {
            self.push_live(rate, at, samples);
        }
    }

    /// Swaps its content with an empty queue, which may have been another call's.
    pub(crate) fn swap_with(&mut self, empty: &mut Self) {
        empty.generation = self.generation;
        std::mem::swap(self, empty);
    }

    /// Applies all commands, and leaves the queue empty. Audio from before `generation` is discarded.
    pub(crate) fn apply(
        &mut self,
        now: Time,
        generation: u64,
        call: &mut Destination<'_>,
    ) -> Applied {
        if self.generation != generation {
            self.discard();
        }
        self.report_discarded(call.playing);
        let live = call.machine.jitter_buffer();
        live.add_dropped(std::mem::take(&mut self.live_dropped));
        let mut start = 0;
        for command in self.commands.drain(..) {
            match command {
                Command::Play { piece, length } => {
                    let samples = Cow::Borrowed(&self.samples[start..start + length]);
                    let Piece { utterance, format } = piece;
                    let playout = call.machine.playout();
                    playout.push_piece(now, utterance, format, samples);
                    start += length;
                }
                Command::PlayOwned { piece, samples } => {
                    let Piece { utterance, format } = piece;
                    let playout = call.machine.playout();
                    playout.push_piece(now, utterance, format, samples.into());
                }
                Command::PlayClip { clip, id, playing } => {
                    call.playing.push((id, playing));
                    call.machine.playout().push_clip(clip, id);
                }
                Command::Open {
                    id,
                    prebuffer,
                    playing,
                } => {
                    call.playing.push((id, playing));
                    call.machine.playout().open(now, id, prebuffer);
                }
                Command::End(id) => call.machine.playout().end(id),
                Command::EndAnonymous => call.machine.playout().end_unnamed(),
                Command::Mark { id, playing } => {
                    call.playing.extend(playing.map(|playing| (id, playing)));
                    call.machine.playout().push_mark(id);
                }
                Command::Stop(id) => call.machine.playout().stop(id),
                Command::Prebuffer(prebuffer) => call.machine.playout().set_prebuffer(prebuffer),
                Command::LivePrebuffer(prebuffer) => {
                    call.machine.jitter_buffer().set_prebuffer(prebuffer)
                }
                Command::KeepBursts => call.machine.jitter_buffer().keep_bursts(),
                Command::Pause => call.machine.playout().pause(),
                Command::Resume => call.machine.playout().resume(),
                Command::Live { rate, at, length } => {
                    call.machine.jitter_buffer().push(
                        at,
                        rate,
                        &self.samples[start..start + length],
                    );
                    start += length;
                }
                Command::Tap {
                    purpose,
                    tap,
                    from_preroll,
                } => call.taps.add(purpose, tap, from_preroll),
            }
        }
        self.samples.clear();
        self.shrink();
        Applied {
            audio: std::mem::take(&mut self.audio),
            discarded: std::mem::take(&mut self.discarded),
        }
    }

    /// Frees what a burst of small writes took: up to the size of the playback buffer.
    fn shrink(&mut self) {
        if self.samples.capacity() > KEPT_SAMPLES {
            self.samples = Vec::new();
        }
        if self.commands.capacity() > MAX_COMMANDS_BEFORE_LIVE {
            self.commands = Vec::new();
        }
    }

    fn report_discarded(&mut self, playing: &[(ItemId, Arc<Playing>)]) {
        for (id, discarded) in self.discarded_of.drain(..) {
            if let Some((_, playing)) = playing.iter().find(|(other, _)| *other == id) {
                playing.add_discarded(discarded);
            }
        }
    }

    /// Discards everything, since the call is over. Only taps are still added: they get what has passed.
    pub(crate) fn discard_all(&mut self, playing: &[(ItemId, Arc<Playing>)], taps: &mut Taps) {
        self.discard();
        self.report_discarded(playing);
        for command in self.commands.drain(..) {
            if let Command::Tap {
                purpose,
                tap,
                from_preroll,
            } = command
            {
                taps.add(purpose, tap, from_preroll);
            }
        }
        (self.audio, self.discarded) = (Duration::ZERO, Duration::ZERO);
    }

    /// Discards the audio that was queued, and finishes what can be waited for.
    fn discard(&mut self) {
        let (discarded, discarded_of) = (&mut self.discarded, &mut self.discarded_of);
        let mut opened = Vec::new();
        self.commands.retain_mut(|command| {
            match command {
                Command::Play { piece, length } => {
                    *discarded += piece.discard(*length, discarded_of);
                }
                Command::PlayOwned { piece, samples } => {
                    *discarded += piece.discard(samples.len(), discarded_of);
                }
                Command::PlayClip { clip, playing, .. } => {
                    *discarded += clip.duration();
                    playing.finish(Heard::nothing_of(clip.duration()));
                }
                Command::Open { id, playing, .. } => opened.push((*id, Arc::clone(playing))),
                Command::Mark { playing, .. } => {
                    if let Some(playing) = playing {
                        playing.finish(Heard::default());
                    }
                }
                Command::Tap { .. }
                | Command::Prebuffer(_)
                | Command::LivePrebuffer(_)
                | Command::KeepBursts
                | Command::Pause
                | Command::Resume
                | Command::Stop(_) => {
                    return true;
                }
                Command::End(_) | Command::EndAnonymous | Command::Live { .. } => {}
            }
            false
        });
        for (id, playing) in opened {
            let written = discarded_of.iter().filter(|(other, _)| *other == id);
            let unheard = written.map(|(_, discarded)| *discarded).sum();
            playing.finish(Heard::nothing_of(unheard));
            discarded_of.retain(|(other, _)| *other != id);
        }
        self.samples.clear();
    }
}

impl Piece {
    /// Notes that so many of its samples are not played, and returns how long they are.
    fn discard(&self, samples: usize, of: &mut Vec<(ItemId, Duration)>) -> Duration {
        let discarded = self.format.duration(samples);
        of.extend(self.utterance.map(|id| (id, discarded)));
        discarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sidetone_proto::{CallConfig, Notice};

    #[test]
    fn a_queue_of_another_call_discards_nothing_of_its_new_call() {
        let mut machine = CallMachine::new(Time::ZERO, CallConfig::default());
        let (mut playing, mut taps) = (Vec::new(), Taps::default());
        let mut other = CommandQueue::default();
        other.begin_submission(7, Duration::ZERO);
        let mut queue = CommandQueue::default();
        queue.begin_submission(3, Duration::ZERO);
        queue.swap_with(&mut other);

        queue.mark(ItemId(1), None);
        let mut call = Destination {
            machine: &mut machine,
            playing: &mut playing,
            taps: &mut taps,
        };
        queue.apply(Time::ZERO, 3, &mut call);
        let mut ended = Vec::new();
        machine.poll_heard(Some(0), &mut |notice| {
            if let Notice::Ended { item, .. } = notice {
                ended.push(item);
            }
        });
        assert_eq!(ended, [ItemId(1)]);
    }

    #[test]
    fn audio_discarded_before_the_media_thread_takes_it_is_unheard() {
        let piece = |utterance| Piece {
            utterance,
            format: Format::At(Rate::Slin),
        };
        let [clip, known, new] = [(); 3].map(|()| Arc::<Playing>::default());
        let mut machine = CallMachine::new(Time::ZERO, CallConfig::default());
        let mut playing = vec![(ItemId(1), Arc::clone(&known))];
        let mut taps = Taps::default();
        let mut queue = CommandQueue::default();
        queue.begin_submission(0, Duration::from_millis(120));
        queue.play(piece(Some(ItemId(1))), &[1; 160]);
        queue.open(ItemId(2), Duration::ZERO, Arc::clone(&new));
        queue.play(piece(Some(ItemId(2))), &[1; 320]);
        queue.play(piece(None), &[1; 160]);
        if let Ok(sound) = Clip::new(8_000, vec![1; 320]) {
            queue.play_clip(sound, ItemId(3), Arc::clone(&clip));
        }
        let mut call = Destination {
            machine: &mut machine,
            playing: &mut playing,
            taps: &mut taps,
        };
        let applied = queue.apply(Time::ZERO, 1, &mut call);
        let millis = Duration::from_millis;
        assert_eq!(
            (applied.audio, applied.discarded),
            (millis(120), millis(120))
        );
        assert!(machine.playout().is_empty());
        assert_eq!(new.finished(), Some(Heard::nothing_of(millis(40))));
        assert_eq!(clip.finished(), Some(Heard::nothing_of(millis(40))));
        assert_eq!(known.finished(), None);
        known.finish(Heard::nothing_of(millis(5)));
        assert_eq!(known.finished(), Some(Heard::nothing_of(millis(25))));
    }
}
