use std::{sync::Arc, time::Duration};

use crate::{Format, replay_buffer::ReplayBuffer, timeline::Timeline};

/// The audio of a call as one connection to a recognizer reads it.
///
/// A connection's audio has no gaps: its *offset* counts the time of the samples read. Services report
/// times as such offsets, and [`call_time`](Self::call_time) turns them into times of the call.
#[derive(Debug)]
pub struct Audio {
    buffer: Arc<ReplayBuffer>,
    /// The position of the next sample.
    position: u64,
    /// Samples read.
    delivered: u64,
    /// From the samples read here to positions.
    positions: Timeline,
}

impl Audio {
    pub(crate) fn resume(buffer: Arc<ReplayBuffer>) -> Self {
        let position = buffer.resume();
        Self {
            buffer,
            position,
            delivered: 0,
            positions: Timeline::new(0, position),
        }
    }

    /// The format of the samples.
    pub fn format(&self) -> Format {
        self.buffer.format()
    }

    /// Waits for `at_least` of audio, or for the end of the call, and appends up to `at_most` to
    /// `samples`. Returns false at the end of the call, once everything was read.
    ///
    /// After a reconnect the first audio may be available at once: what has no final transcript is
    /// replayed.
    ///
    /// This method is cancellation safe: if its future is dropped, no audio was read.
    pub async fn read(
        &mut self,
        at_least: Duration,
        at_most: Duration,
        samples: &mut Vec<i16>,
    ) -> bool {
        let before = samples.len();
        let min = self.buffer.samples_in(at_least) as usize;
        let max = (self.buffer.samples_in(at_most) as usize).max(1);
        let read = self.buffer.read(self.position, min, max, samples).await;
        let Some(from) = read else {
            return false;
        };
        if from != self.position {
            self.positions.jump(self.delivered, from);
        }
        let count = (samples.len() - before) as u64;
        self.position = from + count;
        self.delivered += count;
        true
    }

    /// How much audio this connection has read.
    pub fn delivered(&self) -> Duration {
        self.buffer.duration(self.delivered)
    }

    /// How much audio can be read without waiting.
    pub fn available(&self) -> Duration {
        self.buffer.duration(self.buffer.available(self.position))
    }

    /// The time on the call's clock at `offset` of this connection's audio.
    pub fn call_time(&self, offset: Duration) -> Duration {
        let position = self.positions.map(self.buffer.samples_in(offset));
        self.buffer.call_time(position)
    }

    /// The audio for a second connection, which is opened while this one still runs. It begins with the
    /// first audio that has no final transcript.
    pub fn replay(&self) -> Self {
        Self::resume(Arc::clone(&self.buffer))
    }
}
