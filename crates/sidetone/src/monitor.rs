use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    call::CallHandle,
    event::OwnedFrame,
    media::{Side, Tap, TapBuffer},
};

/// How often it is looked whether something came.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What a call's other side hears, silence included, frame by frame.
///
/// Offsets are on the same clock as those of inbound frames, so both sides of a conversation can be aligned. A frame arrives
/// up to 100 ms after it was sent. Frames that are not read for five seconds are dropped, which shows in the offsets and
/// costs the call nothing.
///
/// Made by [`CallHandle::monitor`]. Dropping it ends it.
///
/// ```no_run
/// # async fn example(call: sidetone::Call) -> Result<(), sidetone::PlayError> {
/// let mut monitor = call.handle().monitor()?;
/// while let Some(frame) = monitor.next().await {
///     println!("{:?}: {} samples of {} Hz", frame.offset(), frame.samples().len(), frame.rate().hz());
/// }
/// # Ok(()) }
/// ```
pub struct Monitor {
    tap: Arc<Tap>,
    call: CallHandle,
    buffer: TapBuffer,
    frames: VecDeque<OwnedFrame>,
}

impl Monitor {
    pub(crate) fn new(tap: Arc<Tap>, call: CallHandle) -> Self {
        Self {
            tap,
            call,
            buffer: TapBuffer::default(),
            frames: VecDeque::new(),
        }
    }

    /// Waits for the next frame. `None` when the call is over and everything was read.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it has taken nothing.
    pub async fn next(&mut self) -> Option<OwnedFrame> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            // In this order: what came before the end is in the tap when the end is seen.
            let over = self.tap.is_closed() || self.call.ended().is_some();
            self.take();
            if self.frames.is_empty() {
                if over {
                    return None;
                }
                sleep(POLL_INTERVAL).await;
            }
        }
    }

    fn take(&mut self) {
        let started_at = self.call.started_at();
        self.tap.take(&mut self.buffer);
        let heard = self.buffer.frames();
        let heard = heard.filter(|(piece, _)| piece.side == Side::Server);
        self.frames.extend(heard.map(|(piece, samples)| {
            let offset = piece.at - started_at;
            OwnedFrame {
                samples: samples.to_vec(),
                rate: piece.rate,
                offset,
                arrived: offset,
            }
        }));
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.tap.close();
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}
