use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use sidetone_proto::{Rate, Time};

/// How much audio waits for a reader at most: five seconds of both sides. What comes beyond that is lost
/// and counted, never waited for.
const MAX_BUFFERED: Duration = Duration::from_secs(10);

/// A frame of silence up to this long takes no room for its samples: a slot at 192 kHz.
static SILENCE: [i16; 3840] = [0; 3840];

/// Samples that a buffer keeps room for between uses; what a burst took beyond that is given back.
const KEPT_SAMPLES: usize = 8 * 1024;

/// Which way a frame of audio went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the caller: left in a recording.
    Caller,
    /// From the server: right.
    Server,
}

/// Both sides of a call as a media thread sees them, for somebody who listens in.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    buffer: Mutex<TapBuffer>,
    /// One of the two ends is gone: nothing more comes.
    closed: AtomicBool,
}

/// What somebody listens in for. A call has one listener of each kind at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Recording,
    Monitor,
}

/// Audio of both sides in the command in which it passed.
#[derive(Clone, Debug, Default)]
pub(crate) struct TapBuffer {
    samples: Vec<i16>,
    frames: Vec<TapFrame>,
    buffered: Duration,
    /// Pieces that found no room.
    lost: u64,
}

/// One frame or slot; its samples are the next `length` of the buffer, unless it is silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TapFrame {
    pub(crate) side: Side,
    pub(crate) rate: Rate,
    /// When it passed the socket.
    pub(crate) at: Time,
    length: usize,
    is_silence: bool,
}

/// The reader's end. The media thread skips a turn, and keeps what it has, rather than wait for it.
impl Tap {
    /// One for a call that is over: all that will ever be in it.
    pub(crate) fn completed(buffer: TapBuffer) -> Self {
        Self {
            buffer: Mutex::new(buffer),
            closed: AtomicBool::new(true),
        }
    }

    /// Swaps what has come in with `buffer`, which has been read.
    pub(crate) fn take(&self, buffer: &mut TapBuffer) {
        buffer.clear();
        mem::swap(&mut *self.buffer.lock(), buffer);
    }

    /// The rate of the first audio that came from the caller, and when the first of either side came.
    pub(crate) fn first_audio(&self) -> Option<(Time, Rate, Option<Rate>)> {
        let buffer = self.buffer.lock();
        let first = buffer.frames.first()?;
        let caller = buffer
            .frames
            .iter()
            .find(|frame| frame.side == Side::Caller);
        Some((first.at, first.rate, caller.map(|frame| frame.rate)))
    }

    /// Nobody reads any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        *self.buffer.lock() = TapBuffer::default();
    }

    /// Nothing comes any more that [`take`](Self::take) will not find now.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// The media thread's end of a tap. It never waits for the reader.
#[derive(Debug)]
pub(crate) struct TapWriter {
    tap: Arc<Tap>,
    /// What came while the reader was just taking the rest.
    backlog: TapBuffer,
}

impl TapWriter {
    /// `preroll` is what passed before.
    pub(crate) fn new(tap: Arc<Tap>, preroll: TapBuffer) -> Self {
        Self {
            tap,
            backlog: preroll,
        }
    }

    pub(crate) fn put(&mut self, side: Side, rate: Rate, at: Time, samples: &[i16]) {
        if samples.is_empty() || self.tap.is_closed() {
            return;
        }
        let frame = TapFrame::new(side, rate, at, samples);
        match self.tap.buffer.try_lock() {
            Some(mut shared) => {
                shared.append(&mut self.backlog);
                shared.put(frame, samples);
            }
            None => self.backlog.put(frame, samples),
        }
    }

    /// Says that nothing more comes; false if that has to be said again.
    pub(crate) fn try_end(&mut self) -> bool {
        let Some(mut shared) = self.tap.buffer.try_lock() else {
            return false;
        };
        shared.append(&mut self.backlog);
        self.tap.closed.store(true, Ordering::Release);
        true
    }
}

/// All who listen in on one call.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    recording: Option<Box<TapWriter>>,
    monitor: Option<Box<TapWriter>>,
    preroll: Preroll,
}

/// What passed before the call's handler could have somebody listen in.
#[derive(Debug, Default)]
enum Preroll {
    /// Nothing has passed yet.
    #[default]
    Nothing,
    Kept(Box<TapBuffer>),
    /// The handler has had its chance.
    Over,
}

impl Taps {
    /// From now on this one listens, in place of the one of its kind, and to what was kept of the preroll if it wants that.
    pub(crate) fn set(&mut self, purpose: Purpose, tap: Arc<Tap>, from_preroll: bool) {
        let place = match purpose {
            Purpose::Recording => &mut self.recording,
            Purpose::Monitor => &mut self.monitor,
        };
        let preroll = match &self.preroll {
            Preroll::Kept(kept) if from_preroll => TapBuffer::clone(kept),
            _ => TapBuffer::default(),
        };
        *place = Some(Box::new(TapWriter::new(tap, preroll)));
    }

    /// Whether the preroll of the call is still kept.
    pub(crate) fn keeps_preroll(&self) -> bool {
        !matches!(self.preroll, Preroll::Over)
    }

    /// Keeps the preroll of the call no longer, and gives what was kept of it.
    pub(crate) fn end_preroll(&mut self) -> Option<Box<TapBuffer>> {
        match mem::replace(&mut self.preroll, Preroll::Over) {
            Preroll::Kept(kept) => Some(kept),
            Preroll::Nothing => Some(Box::default()),
            Preroll::Over => None,
        }
    }

    pub(crate) fn put(&mut self, side: Side, rate: Rate, at: Time, samples: &[i16]) {
        match &mut self.preroll {
            Preroll::Over => {}
            Preroll::Kept(_) | Preroll::Nothing if samples.is_empty() => {}
            Preroll::Kept(kept) => kept.put(TapFrame::new(side, rate, at, samples), samples),
            Preroll::Nothing => {
                let mut kept = Box::<TapBuffer>::default();
                kept.put(TapFrame::new(side, rate, at, samples), samples);
                self.preroll = Preroll::Kept(kept);
            }
        }
        for tap in self.all() {
            tap.put(side, rate, at, samples);
        }
    }

    /// Says that nothing more comes; false if that has to be said again.
    pub(crate) fn try_end(&mut self) -> bool {
        self.all().all(|tap| tap.try_end())
    }

    fn all(&mut self) -> impl Iterator<Item = &mut TapWriter> {
        let taps = self.recording.iter_mut().chain(&mut self.monitor);
        taps.map(Box::as_mut)
    }
}

impl TapFrame {
    fn new(side: Side, rate: Rate, at: Time, samples: &[i16]) -> Self {
        Self {
            side,
            rate,
            at,
            length: samples.len(),
            is_silence: samples.len() <= SILENCE.len() && samples.iter().all(|sample| *sample == 0),
        }
    }
}

impl Drop for TapWriter {
    fn drop(&mut self) {
        self.tap.closed.store(true, Ordering::Release);
    }
}

impl TapBuffer {
    /// Every frame with its samples, in order.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (TapFrame, &[i16])> {
        let mut rest = self.samples.as_slice();
        self.frames.iter().map(move |frame| {
            if frame.is_silence {
                return (*frame, &SILENCE[..frame.length]);
            }
            let (samples, behind) = rest.split_at(frame.length);
            rest = behind;
            (*frame, samples)
        })
    }

    /// Pieces that found no room.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    fn put(&mut self, frame: TapFrame, samples: &[i16]) {
        if self.buffered >= MAX_BUFFERED {
            self.lost += 1;
            return;
        }
        self.buffered += frame.rate.duration(samples.len() as u64);
        if !frame.is_silence {
            self.samples.extend_from_slice(samples);
        }
        self.frames.push(frame);
    }

    fn append(&mut self, other: &mut Self) {
        for (frame, samples) in other.frames() {
            self.put(frame, samples);
        }
        self.lost += other.lost;
        other.clear();
    }

    fn clear(&mut self) {
        self.samples.clear();
        self.samples.shrink_to(KEPT_SAMPLES);
        self.frames.clear();
        self.frames.shrink_to(KEPT_SAMPLES / 160);
        self.buffered = Duration::ZERO;
        self.lost = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn put(writer: &mut TapWriter, rate: Rate, value: i16) {
        let samples = vec![value; rate.slot_samples()];
        writer.put(Side::Caller, rate, Time::ZERO, &samples);
    }

    #[test]
    fn what_comes_while_the_reader_takes_is_not_lost() {
        let tap = Arc::new(Tap::default());
        let mut writer = TapWriter::new(Arc::clone(&tap), TapBuffer::default());
        put(&mut writer, Rate::Slin, 1);
        let taking = tap.buffer.lock();
        put(&mut writer, Rate::Slin, 2);
        assert!(!writer.try_end());
        drop(taking);
        assert!(writer.try_end() && tap.is_closed());
        let mut buffer = TapBuffer::default();
        tap.take(&mut buffer);
        let values: Vec<i16> = buffer.frames().map(|(_, samples)| samples[0]).collect();
        assert_eq!(values, [1, 2]);
    }

    #[test]
    fn the_limit_is_the_same_time_at_every_rate() {
        for rate in Rate::ALL {
            let tap = Arc::new(Tap::default());
            let mut writer = TapWriter::new(Arc::clone(&tap), TapBuffer::default());
            let slots = (MAX_BUFFERED.as_millis() / rate.slot().as_millis()) as u64;
            for _ in 0..slots + 7 {
                put(&mut writer, rate, 1);
            }
            let mut buffer = TapBuffer::default();
            tap.take(&mut buffer);
            assert_eq!(buffer.frames().count() as u64, slots, "{rate:?}");
            assert_eq!(buffer.lost(), 7, "{rate:?}");
            tap.take(&mut buffer);
            assert_eq!((buffer.frames().count(), buffer.lost()), (0, 0));
            assert!(buffer.samples.capacity() <= KEPT_SAMPLES, "{rate:?}");
        }
    }

    #[test]
    fn a_tap_that_nobody_reads_takes_no_memory() {
        let tap = Arc::new(Tap::default());
        let mut writer = TapWriter::new(Arc::clone(&tap), TapBuffer::default());
        tap.close();
        put(&mut writer, Rate::Slin, 1);
        assert_eq!(tap.buffer.lock().samples.capacity(), 0);
    }
}
