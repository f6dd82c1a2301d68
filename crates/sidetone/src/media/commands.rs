use std::{borrow::Cow, sync::Arc, time::Duration};

use sidetone_proto::{CallMachine, Clip, Format, Heard, ItemId, Rate, Time};

use super::{
    batch::ROOM,
    playing::Playing,
    tap::{Purpose, Tap, Taps},
};

/// What a handler has queued since the media thread last looked, in order.
#[derive(Debug, Default)]
pub(crate) struct CommandQueue {
    generation: u64,
    commands: Vec<Command>,
    /// The samples of small writes and of live audio, so that neither allocates for itself.
    samples: Vec<i16>,
    /// How much queued audio has come since the media thread last looked, and how much of it is void.
    audio: Duration,
    voided: Duration,
    /// Of what is void, how much was of utterances that the media thread knows.
    voided_of: Vec<(ItemId, Duration)>,
}

/// What was taken out of an outbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Emptied {
    /// All queued audio that was in it.
    pub(crate) audio: Duration,
    /// The part of it that was void because it had been cleared.
    pub(crate) voided: Duration,
}

/// Where the commands go.
pub(crate) struct Destination<'a> {
    pub(crate) machine: &'a mut CallMachine,
    /// What somebody may be waiting for the end of.
    pub(crate) playing: &'a mut Vec<(ItemId, Arc<Playing>)>,
    pub(crate) taps: &'a mut Taps,
}

#[derive(Debug)]
enum Command {
    /// The next `length` of the outbox's samples.
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
    EndLoose,
    Mark {
        id: ItemId,
        playing: Option<Arc<Playing>>,
    },
    Stop(ItemId),
    Prebuffer(Duration),
    LivePrebuffer(Duration),
    Live {
        rate: Rate,
        at: Time,
        length: usize,
    },
    Tap {
        purpose: Purpose,
        tap: Arc<Tap>,
        from_beginning: bool,
    },
}

/// What samples are.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Which utterance they belong to, or to none in particular.
    pub(crate) utterance: Option<ItemId>,
    pub(crate) format: Format,
}

/// The media thread looks every 20 ms: where more commands than this lie, live audio would only be late.
const LIVE_LIMIT: usize = 64;

/// Samples that an outbox keeps room for between uses. Not many: its next use may be another call's.
const KEEP: usize = 4 * 1024;

impl CommandQueue {
    /// What comes now is `audio` long and queued under `generation`; anything from before that is void.
    pub(crate) fn begin(&mut self, generation: u64, audio: Duration) {
        self.audio += audio;
        if self.generation != generation {
            self.void();
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

    pub(crate) fn end_loose(&mut self) {
        self.commands.push(Command::EndLoose);
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

    pub(crate) fn tap(&mut self, purpose: Purpose, tap: Arc<Tap>, from_beginning: bool) {
        self.commands.push(Command::Tap {
            purpose,
            tap,
            from_beginning,
        });
    }

    /// Adds live audio, unless so much lies here that it would never be heard.
    pub(crate) fn live(&mut self, rate: Rate, at: Time, samples: &[i16]) {
        if self.commands.len() >= LIVE_LIMIT {
            return;
        }
        if self.samples.capacity() == 0 {
            self.samples.reserve_exact(ROOM * rate.slot_samples());
            self.commands.reserve_exact(2 * ROOM);
        }
        self.commands.push(Command::Live {
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
        for (id, voided) in self.voided_of.drain(..) {
            if let Some((_, playing)) = call.playing.iter().find(|(its, _)| *its == id) {
                playing.note_voided(voided);
            }
        }
        let mut begin = 0;
        for command in self.commands.drain(..) {
            match command {
                Command::Play { piece, length } => {
                    let samples = Cow::Borrowed(&self.samples[begin..begin + length]);
                    let Piece { utterance, format } = piece;
                    let playout = call.machine.playout();
                    playout.push_piece(now, utterance, format, samples);
                    begin += length;
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
                Command::EndLoose => call.machine.playout().end_unnamed(),
                Command::Mark { id, playing } => {
                    call.playing.extend(playing.map(|playing| (id, playing)));
                    call.machine.playout().push_mark(id);
                }
                Command::Stop(id) => call.machine.playout().stop(id),
                Command::Prebuffer(prebuffer) => call.machine.playout().set_prebuffer(prebuffer),
                Command::LivePrebuffer(prebuffer) => {
                    call.machine.jitter_buffer().set_prebuffer(prebuffer)
                }
                Command::Live { rate, at, length } => {
                    call.machine.jitter_buffer().push(
                        at,
                        rate,
                        &self.samples[begin..begin + length],
                    );
                    begin += length;
                }
                Command::Tap {
                    purpose,
                    tap,
                    from_beginning,
                } => call.taps.set(purpose, tap, from_beginning),
            }
        }
        self.samples.clear();
        // A rush of small writes can make them as large as the playback buffer.
        if self.samples.capacity() > KEEP {
            self.samples = Vec::new();
        }
        if self.commands.capacity() > LIVE_LIMIT {
            self.commands = Vec::new();
        }
        Emptied {
            audio: std::mem::take(&mut self.audio),
            voided: std::mem::take(&mut self.voided),
        }
    }

    /// Drops everything, for the call is over. Only who listens in gets what there was to hear.
    pub(crate) fn give_up(&mut self, playing: &[(ItemId, Arc<Playing>)], taps: &mut Taps) {
        self.void();
        for (id, voided) in self.voided_of.drain(..) {
            if let Some((_, playing)) = playing.iter().find(|(its, _)| *its == id) {
                playing.note_voided(voided);
            }
        }
        for command in self.commands.drain(..) {
            if let Command::Tap {
                purpose,
                tap,
                from_beginning,
            } = command
            {
                taps.set(purpose, tap, from_beginning);
            }
        }
        (self.audio, self.voided) = (Duration::ZERO, Duration::ZERO);
    }

    /// Drops what was queued to be played.
    fn void(&mut self) {
        let (voided, voided_of) = (&mut self.voided, &mut self.voided_of);
        let mut opened = Vec::new();
        self.commands.retain_mut(|command| {
            match command {
                Command::Play { piece, length } => {
                    *voided += piece.void(*length, voided_of);
                }
                Command::PlayOwned { piece, samples } => {
                    *voided += piece.void(samples.len(), voided_of);
                }
                Command::PlayClip { clip, playing, .. } => {
                    *voided += clip.duration();
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
                | Command::Stop(_) => {
                    return true;
                }
                Command::End(_) | Command::EndLoose | Command::Live { .. } => {}
            }
            false
        });
        for (id, playing) in opened {
            let of_it = voided_of.iter().filter(|(its, _)| *its == id);
            playing.finish(Heard::nothing_of(of_it.map(|(_, voided)| *voided).sum()));
            voided_of.retain(|(its, _)| *its != id);
        }
        self.samples.clear();
    }
}

impl Piece {
    /// How long so many samples of it were, which are not played.
    fn void(&self, samples: usize, of: &mut Vec<(ItemId, Duration)>) -> Duration {
        let voided = self.format.duration(samples);
        of.extend(self.utterance.map(|id| (id, voided)));
        voided
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sidetone_proto::{CallConfig, Notice};

    #[test]
    fn an_outbox_that_was_another_calls_voids_nothing_of_its_new_one() {
        let mut machine = CallMachine::new(Time::ZERO, CallConfig::default());
        let (mut playing, mut taps) = (Vec::new(), Taps::default());
        let mut other = CommandQueue::default();
        other.begin(7, Duration::ZERO);
        let mut outbox = CommandQueue::default();
        outbox.begin(3, Duration::ZERO);
        outbox.swap_with(&mut other);

        outbox.mark(ItemId(1), None);
        let mut call = Destination {
            machine: &mut machine,
            playing: &mut playing,
            taps: &mut taps,
        };
        outbox.empty_into(Time::ZERO, 3, &mut call);
        let mut told = Vec::new();
        machine.poll_heard(Some(0), &mut |notice| {
            if let Notice::Ended { item, .. } = notice {
                told.push(item);
            }
        });
        assert_eq!(told, [ItemId(1)]);
    }

    #[test]
    fn what_is_void_before_the_media_thread_saw_it_was_not_heard() {
        let piece = |utterance| Piece {
            utterance,
            format: Format::At(Rate::Slin),
        };
        let [clip, known, new] = [(); 3].map(|()| Arc::<Playing>::default());
        let mut machine = CallMachine::new(Time::ZERO, CallConfig::default());
        let mut playing = vec![(ItemId(1), Arc::clone(&known))];
        let mut taps = Taps::default();
        let mut outbox = CommandQueue::default();
        outbox.begin(0, Duration::from_millis(120));
        outbox.play(piece(Some(ItemId(1))), &[1; 160]);
        outbox.open(ItemId(2), Duration::ZERO, Arc::clone(&new));
        outbox.play(piece(Some(ItemId(2))), &[1; 320]);
        outbox.play(piece(None), &[1; 160]);
        if let Ok(sound) = Clip::new(8_000, vec![1; 320]) {
            outbox.play_clip(sound, ItemId(3), Arc::clone(&clip));
        }
        let mut call = Destination {
            machine: &mut machine,
            playing: &mut playing,
            taps: &mut taps,
        };
        let emptied = outbox.empty_into(Time::ZERO, 1, &mut call);
        let millis = Duration::from_millis;
        assert_eq!((emptied.audio, emptied.voided), (millis(120), millis(120)));
        assert!(machine.playout().is_empty());
        assert_eq!(new.finished(), Some(Heard::nothing_of(millis(40))));
        assert_eq!(clip.finished(), Some(Heard::nothing_of(millis(40))));
        assert_eq!(known.finished(), None);
        known.finish(Heard::nothing_of(millis(5)));
        assert_eq!(known.finished(), Some(Heard::nothing_of(millis(25))));
    }
}
