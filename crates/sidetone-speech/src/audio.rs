use std::{sync::Arc, time::Duration};

use crate::{Format, tape::Tape, timeline::Timeline};

/// The audio of a call, as one connection to a recognizer reads it.
#[derive(Debug)]
pub struct Audio {
    tape: Arc<Tape>,
    /// The position of the next sample.
    position: u64,
    /// Samples read.
    taken: u64,
    /// From the samples read here to positions.
    positions: Timeline,
}

impl Audio {
    pub(crate) fn resume(tape: Arc<Tape>) -> Self {
        let position = tape.resume();
        Self {
            tape,
            position,
            taken: 0,
            positions: Timeline::new(0, position),
        }
    }

    /// What the samples are.
    pub fn format(&self) -> Format {
        self.tape.format()
    }

    /// Waits until there is `at_least` of audio, or no more will come, and appends it to `samples`, no more
    /// than `at_most`. Answers false at the end of the call, when everything was read.
    ///
    /// After a connection broke the first pieces may be there at once: what has no final transcript comes
    /// again. Cancel safe: a read that is dropped has taken nothing.
    pub async fn read(
        &mut self,
        at_least: Duration,
        at_most: Duration,
        samples: &mut Vec<i16>,
    ) -> bool {
        let before = samples.len();
        let least = self.tape.samples_in(at_least) as usize;
        let most = (self.tape.samples_in(at_most) as usize).max(1);
        let Some(from) = self.tape.read(self.position, least, most, samples).await else {
            return false;
        };
        if from != self.position {
            self.positions.jump(self.taken, from);
        }
        let read = (samples.len() - before) as u64;
        self.position = from + read;
        self.taken += read;
        true
    }

    /// How much was read here.
    pub fn taken(&self) -> Duration {
        self.tape.duration(self.taken)
    }

    /// How much is there to be read at once.
    pub fn waiting(&self) -> Duration {
        self.tape.duration(self.tape.waiting(self.position))
    }

    /// The place on the call's clock of what came here after `offset` of audio: how a recognizer tells times.
    pub fn on_call(&self, offset: Duration) -> Duration {
        let position = self.positions.map(self.tape.samples_in(offset));
        self.tape.place(position)
    }

    /// Another reader, which begins with the first audio that has no final transcript: for a connection
    /// that is opened while this one still runs.
    pub fn again(&self) -> Self {
        Self::resume(Arc::clone(&self.tape))
    }
}
