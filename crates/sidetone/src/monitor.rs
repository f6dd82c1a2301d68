//! Listening in on a call, without its handler.

mod mixer;
mod mono_mix;

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    call::CallHandle,
    error::PlayError,
    event::OwnedFrame,
    media::{CallRef, Purpose, Side, Sides, Tap, TapBuffer, TapFrame, clock},
};
pub use mono_mix::MonoMix;

/// How often it is looked whether something came.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What one side of a call says, or both, silence included, frame by frame.
///
/// Each frame comes with the [`Side`] that it is of. [Offsets](OwnedFrame::offset) are on the call's clock, the same as those of
/// [`Event::Audio`](crate::Event::Audio), so both sides of a conversation can be aligned. A frame arrives up to 100 ms after it
/// passed the socket. Frames that are not read in time are dropped: ten seconds of audio are kept, both sides together. That
/// shows in the offsets, and costs the call nothing. To *hear* a call, take a [`MonoMix`].
///
/// Made by [`CallHandle::monitor`]. Dropping it ends it.
///
/// ```no_run
/// use sidetone::Sides;
///
/// # async fn example(call: sidetone::CallHandle) -> Result<(), sidetone::PlayError> {
/// let mut monitor = call.monitor(Sides::Both)?;
/// while let Some((side, frame)) = monitor.next().await {
///     println!("{side:?} {:?}: {} samples of {} Hz", frame.offset(), frame.samples().len(), frame.rate().hz());
/// }
/// # Ok(()) }
/// ```
pub struct Monitor {
    tap: MonitorTap,
    frames: VecDeque<(Side, OwnedFrame)>,
}

impl Monitor {
    pub(crate) fn new(call: &CallHandle, sides: Sides) -> Result<Self, PlayError> {
        Ok(Self {
            tap: MonitorTap::new(call, sides)?,
            frames: VecDeque::new(),
        })
    }

    /// Waits for the next frame. `None` when the call is over and everything was read.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it has taken nothing.
    pub async fn next(&mut self) -> Option<(Side, OwnedFrame)> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            let is_over = self.take();
            if self.frames.is_empty() {
                if is_over {
                    return None;
                }
                sleep(POLL_INTERVAL).await;
            }
        }
    }

    /// Takes what came. Returns whether nothing more will.
    fn take(&mut self) -> bool {
        let (frames, started_at) = (&mut self.frames, self.tap.call.started_at());
        self.tap.take(|frame, samples| {
            let owned = OwnedFrame {
                samples: samples.to_vec(),
                rate: frame.rate,
                offset: frame.offset,
                arrived: frame.at - started_at,
            };
            frames.push_back((frame.side, owned));
        })
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("call", &self.tap.call)
            .field("sides", &self.tap.sides)
            .finish_non_exhaustive()
    }
}

/// The reader of a call's tap, one of a limited number.
struct MonitorTap {
    tap: Arc<Tap>,
    call: CallHandle,
    sides: Sides,
    buffer: TapBuffer,
    _counted: Counted,
}

/// A monitor that counts as one, as long as this is there.
struct Counted(CallRef);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.forget_monitor();
    }
}

impl MonitorTap {
    fn new(call: &CallHandle, sides: Sides) -> Result<Self, PlayError> {
        let shared = call.shared();
        if !shared.count_monitor() {
            return Err(PlayError::TooManyMonitors);
        }
        let counted = Counted(shared.clone());
        Ok(Self {
            tap: shared.add_tap(clock::now(), Purpose::Monitor(sides))?,
            call: call.clone(),
            sides,
            buffer: TapBuffer::default(),
            _counted: counted,
        })
    }

    /// Passes on what came. Returns whether nothing more will.
    fn take(&mut self, mut sink: impl FnMut(TapFrame, &[i16])) -> bool {
        // In this order: what came before the end is in the tap when the end is seen.
        let is_over = self.tap.is_closed() || self.call.ended().is_some();
        self.tap.take(&mut self.buffer);
        for (frame, samples) in self.buffer.frames() {
            // A preroll is of both sides.
            if self.sides.contains(frame.side) {
                sink(frame, samples);
            }
        }
        is_over
    }
}

impl Drop for MonitorTap {
    fn drop(&mut self) {
        self.tap.close();
    }
}
