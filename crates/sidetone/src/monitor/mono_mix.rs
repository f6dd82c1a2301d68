use std::fmt;

use sidetone_proto::Rate;
use tokio::time::sleep;

use super::{MonitorTap, mixer::Mixer};
use crate::{
    call::CallHandle,
    error::PlayError,
    media::{Sides, clock},
};

/// What one side of a call says, or both, as one continuous mono stream at a fixed rate, to listen in.
///
/// Where nothing came there is silence, and both sides are mixed as they passed the socket. Samples come out 100 to 200 ms after
/// that, in real time: one second of them each second. Audio that is late by up to 100 ms still finds its place. What comes
/// faster than real time, as after a freeze, is left out, so that the stream never falls behind the call.
///
/// If [`next`](Self::next) is not called for five seconds, the time until then is skipped. The call doesn't notice that
/// anybody listens, nor when that one stops. Memory is bounded.
///
/// Made by [`CallHandle::listen`]. Dropping it ends it.
///
/// ```no_run
/// use sidetone::{Rate, Sides};
///
/// # async fn example(call: sidetone::CallHandle) -> Result<(), sidetone::PlayError> {
/// let mut mix = call.listen(Sides::Both, Rate::Slin16)?;
/// while let Some(samples) = mix.next().await {
///     println!("{} samples of 16 kHz", samples.len());
/// }
/// # Ok(()) }
/// ```
pub struct MonoMix {
    tap: MonitorTap,
    mixer: Mixer,
    block: Vec<i16>,
    is_over: bool,
}

impl MonoMix {
    pub(crate) fn new(call: &CallHandle, sides: Sides, rate: Rate) -> Result<Self, PlayError> {
        if call.ended().is_some() {
            return Err(PlayError::Closed);
        }
        let start = clock::now();
        Ok(Self {
            tap: MonitorTap::new(call, sides)?,
            mixer: Mixer::new(rate, start),
            block: Vec::new(),
            is_over: false,
        })
    }

    /// The rate of its samples.
    pub fn rate(&self) -> Rate {
        self.mixer.rate()
    }

    /// Waits for the next samples: usually 40 ms of them, always whole slots of [`Rate::slot`], but for the last ones. `None`
    /// when the call is over.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it has taken nothing.
    pub async fn next(&mut self) -> Option<&[i16]> {
        loop {
            if self.is_over {
                return None;
            }
            let (now, due) = (clock::now(), self.mixer.due());
            if now < due {
                sleep(due - now).await;
                continue;
            }
            self.block.clear();
            self.mixer.catch_up(now);
            let mixer = &mut self.mixer;
            self.is_over = self.tap.take(|frame, samples| {
                mixer.put(frame.side, frame.rate, frame.at, samples);
            });
            match self.is_over {
                true => mixer.finish(&mut self.block),
                false => mixer.take(now, &mut self.block),
            }
            if !self.block.is_empty() {
                return Some(&self.block);
            }
        }
    }
}

impl fmt::Debug for MonoMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonoMix")
            .field("call", &self.tap.call)
            .field("sides", &self.tap.sides)
            .field("rate", &self.rate())
            .finish_non_exhaustive()
    }
}
