use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use sidetone_audio::level::peak;
use sidetone_proto::{Rate, Time};

use super::levels::Levels;

/// Audio that is buffered for a reader at most: five seconds of each of two sides. Beyond that frames are lost and counted.
/// The media thread never waits for the reader.
const MAX_BUFFERED: Duration = Duration::from_secs(10);

/// The samples of a silent frame of up to this length are not stored. It is that of a slot at 192 kHz.
static SILENCE: [i16; 3840] = [0; 3840];

/// Samples of capacity that a buffer keeps between uses. What a burst took beyond that is freed.
const KEPT_SAMPLES: usize = 8 * 1024;

/// The direction of audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the caller. The left channel of a recording.
    Caller,
    /// From the server. The right channel of a recording.
    Server,
}

/// One side of a call or both, to listen in on.
///
/// ```
/// use sidetone::{Side, Sides};
///
/// assert!(Sides::Both.contains(Side::Caller));
/// assert!(!Sides::Server.contains(Side::Caller));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sides {
    /// What comes from the caller.
    Caller,
    /// What the server plays, so what the caller hears.
    Server,
    /// Both.
    Both,
}

impl Sides {
    /// Whether `side` is among them.
    pub fn contains(self, side: Side) -> bool {
        match self {
            Self::Caller => side == Side::Caller,
            Self::Server => side == Side::Server,
            Self::Both => true,
        }
    }
}

/// Both sides of a call as a media thread receives and sends them, for one reader.
///
/// `closed` is released after the last push under the mutex, and acquired by the reader before its last `take`. So
/// a reader that sees it closed and takes once more has all that was buffered.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    buffer: Mutex<TapBuffer>,
    /// The reader or the writer is gone: nothing is added any more.
    closed: AtomicBool,
}

/// What a tap is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Of both sides. A new one replaces the one before.
    Recording,
    /// Beside the others.
    Monitor(Sides),
}

/// Audio of both sides, in the order of time.
#[derive(Clone, Debug, Default)]
pub(crate) struct TapBuffer {
    samples: Vec<i16>,
    frames: Vec<TapFrame>,
    buffered: Duration,
    /// Frames that were dropped because the buffer was full.
    lost: u64,
}

/// One inbound frame or outbound slot. Its samples are the next `length` of the buffer, unless it is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TapFrame {
    pub(crate) side: Side,
    pub(crate) rate: Rate,
    /// When it was received or sent.
    pub(crate) at: Time,
    /// The place of its first sample on the call's clock.
    pub(crate) offset: Duration,
    length: usize,
    is_silence: bool,
}

/// The reader's end. While it holds the lock, the media thread keeps its audio in a backlog.
impl Tap {
    /// The tap of a call that is over: `buffer` is all its audio.
    pub(crate) fn completed(buffer: TapBuffer) -> Self {
        Self {
            buffer: Mutex::new(buffer),
            closed: AtomicBool::new(true),
        }
    }

    /// Swaps the buffered audio with `buffer`, whose content is discarded.
    pub(crate) fn take(&self, buffer: &mut TapBuffer) {
        buffer.clear();
        mem::swap(&mut *self.buffer.lock(), buffer);
    }

    /// The time and rate of the first frame, and the rate of the first frame from the caller.
    pub(crate) fn first_audio(&self) -> Option<(Time, Rate, Option<Rate>)> {
        let buffer = self.buffer.lock();
        let first = buffer.frames.first()?;
        let caller = buffer
            .frames
            .iter()
            .find(|frame| frame.side == Side::Caller);
        Some((first.at, first.rate, caller.map(|frame| frame.rate)))
    }

    /// The reader is done. Nothing is buffered any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        *self.buffer.lock() = TapBuffer::default();
    }

    /// Whether the next [`take`](Self::take) is the last one that returns anything.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// The media thread's end of a tap. It never blocks.
#[derive(Debug)]
pub(crate) struct TapWriter {
    tap: Arc<Tap>,
    sides: Sides,
    /// Audio that came while the reader held the lock.
    backlog: TapBuffer,
}

impl TapWriter {
    /// `preroll` precedes what is put.
    fn new(tap: Arc<Tap>, sides: Sides, preroll: TapBuffer) -> Self {
        Self {
            tap,
            sides,
            backlog: preroll,
        }
    }

    fn put(&mut self, frame: TapFrame, samples: &[i16]) {
        if !self.sides.contains(frame.side) || self.tap.is_closed() {
            return;
        }
        match self.tap.buffer.try_lock() {
            Some(mut shared) => {
                shared.append(&mut self.backlog);
                shared.put(frame, samples);
            }
            None => self.backlog.put(frame, samples),
        }
    }

    /// Hands over the backlog and closes the tap. Returns false if the reader holds the lock.
    pub(crate) fn try_end(&mut self) -> bool {
        let Some(mut shared) = self.tap.buffer.try_lock() else {
            return false;
        };
        shared.append(&mut self.backlog);
        self.tap.closed.store(true, Ordering::Release);
        true
    }
}

/// The taps of one call, its preroll, and how loud it is.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    levels: Levels,
    recording: Option<Box<TapWriter>>,
    monitors: Vec<TapWriter>,
    preroll: Preroll,
}

/// The start of a call, kept for taps that its handler adds later.
#[derive(Debug, Default)]
enum Preroll {
    /// Kept, and no audio has passed yet.
    #[default]
    Empty,
    Kept(Box<TapBuffer>),
    /// No longer kept.
    Over,
}

impl Taps {
    /// Adds a tap. It starts with the preroll if `from_preroll` and if that is still kept.
    pub(crate) fn add(&mut self, purpose: Purpose, tap: Arc<Tap>, from_preroll: bool) {
        let preroll = match &self.preroll {
            Preroll::Kept(kept) if from_preroll => TapBuffer::clone(kept),
            _ => TapBuffer::default(),
        };
        match purpose {
            Purpose::Recording => {
                let writer = TapWriter::new(tap, Sides::Both, preroll);
                self.recording = Some(Box::new(writer));
            }
            Purpose::Monitor(sides) => {
                self.monitors.retain(|monitor| !monitor.tap.is_closed());
                self.monitors.push(TapWriter::new(tap, sides, preroll));
            }
        }
    }

    /// Whether the preroll is still kept.
    pub(crate) fn keeps_preroll(&self) -> bool {
        !matches!(self.preroll, Preroll::Over)
    }

    /// Ends the preroll, and returns it if it was still kept.
    pub(crate) fn end_preroll(&mut self) -> Option<Box<TapBuffer>> {
        match mem::replace(&mut self.preroll, Preroll::Over) {
            Preroll::Kept(kept) => Some(kept),
            Preroll::Empty => Some(Box::default()),
            Preroll::Over => None,
        }
    }

    /// Takes samples that passed the socket at `at`, and whose first one stands at `offset` on the call's clock.
    pub(crate) fn put(
        &mut self,
        side: Side,
        rate: Rate,
        at: Time,
        offset: Duration,
        samples: &[i16],
    ) {
        if samples.is_empty() {
            return;
        }
        let peak = peak(samples);
        self.levels.put(side, at, peak);
        let frame = TapFrame {
            side,
            rate,
            at,
            offset,
            length: samples.len(),
            is_silence: peak == 0 && samples.len() <= SILENCE.len(),
        };
        match &mut self.preroll {
            Preroll::Over => {}
            Preroll::Kept(kept) => kept.put(frame, samples),
            Preroll::Empty => {
                let mut kept = Box::<TapBuffer>::default();
                kept.put(frame, samples);
                self.preroll = Preroll::Kept(kept);
            }
        }
        for tap in self.all() {
            tap.put(frame, samples);
        }
    }

    /// How loud the call is.
    pub(crate) fn levels(&self) -> &Levels {
        &self.levels
    }

    /// Closes all taps. Returns false if a reader holds a lock; it is to be called again then.
    pub(crate) fn try_end(&mut self) -> bool {
        self.all().all(|tap| tap.try_end())
    }

    fn all(&mut self) -> impl Iterator<Item = &mut TapWriter> {
        let recording = self.recording.iter_mut().map(Box::as_mut);
        recording.chain(&mut self.monitors)
    }
}

#[cfg(test)]
impl TapFrame {
    pub(crate) fn of(side: Side, rate: Rate, at: Time, offset: Duration, length: usize) -> Self {
        Self {
            side,
            rate,
            at,
            offset,
            length,
            is_silence: false,
        }
    }
}

impl Drop for TapWriter {
    fn drop(&mut self) {
        // Another tap takes its place. If the reader holds the lock just now, a frame may be lost.
        let _ = !self.tap.is_closed() && self.try_end();
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

    /// Frames that were dropped because the buffer was full.
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
        let offset = Duration::ZERO;
        let frame = TapFrame::of(Side::Caller, rate, Time::ZERO, offset, samples.len());
        writer.put(frame, &samples);
    }

    #[test]
    fn audio_that_comes_while_the_reader_holds_the_lock_is_not_lost() {
        let tap = Arc::new(Tap::default());
        let mut writer = TapWriter::new(Arc::clone(&tap), Sides::Both, TapBuffer::default());
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
    fn the_limit_is_the_same_duration_at_every_rate() {
        for rate in Rate::ALL {
            let tap = Arc::new(Tap::default());
            let mut writer = TapWriter::new(Arc::clone(&tap), Sides::Both, TapBuffer::default());
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
    fn a_closed_tap_takes_no_memory() {
        let tap = Arc::new(Tap::default());
        let mut writer = TapWriter::new(Arc::clone(&tap), Sides::Both, TapBuffer::default());
        tap.close();
        put(&mut writer, Rate::Slin, 1);
        assert_eq!(tap.buffer.lock().samples.capacity(), 0);
    }

    #[test]
    fn a_monitor_gets_its_sides_beside_others_until_it_is_closed() {
        let mut taps = Taps::default();
        let [caller, both, closed] = [(); 3].map(|()| Arc::<Tap>::default());
        let monitors = [
            (Sides::Caller, &caller),
            (Sides::Both, &both),
            (Sides::Both, &closed),
        ];
        for (sides, tap) in monitors {
            taps.add(Purpose::Monitor(sides), Arc::clone(tap), true);
        }
        closed.close();
        for side in [Side::Server, Side::Caller] {
            taps.put(side, Rate::Slin, Time::ZERO, Duration::ZERO, &[1; 160]);
        }
        let sides = |tap: &Tap| -> Vec<Side> {
            let mut buffer = TapBuffer::default();
            tap.take(&mut buffer);
            buffer.frames().map(|(frame, _)| frame.side).collect()
        };
        assert_eq!(sides(&caller), [Side::Caller]);
        assert_eq!(sides(&both), [Side::Server, Side::Caller]);
        assert_eq!(sides(&closed), []);
        taps.add(Purpose::Recording, Arc::default(), true);
        taps.add(Purpose::Monitor(Sides::Both), Arc::default(), true);
        assert_eq!(taps.monitors.len(), 3, "the closed one is gone");
        assert!(taps.try_end() && caller.is_closed() && both.is_closed());
    }
}
