//! The latest audio of a call, kept so that a new connection can replay what the last one left
//! without a final transcript.
//!
//! The call writes at the end. One connection at a time reads, from wherever it likes. A *position*
//! counts the samples ever written. Four positions describe the state:
//!
//! ```text
//!   start        acked          delivered        end
//!     |------------|----------------|-------------|
//!      final        sent, without    not sent yet
//!      transcript   a final one
//! ```
//!
//! - `start` is the oldest sample still kept. It moves on when more than [`CAPACITY`] is buffered. A
//!   reader that has not reached it yet skips to it, and what it skips is a *loss*.
//! - `acked` is where final transcripts end: nothing before it is needed again.
//! - `delivered` is how far any connection has read.
//! - `pending` is the end of speech that an interim transcript covers and no final one does.
//!
//! A new connection starts at [`resume_at`](ReplayBuffer::resume_at). With speech pending that is
//! `acked`. Without, most of what was delivered was silence, so only the last [`UNCONFIRMED`] of it
//! are replayed: the service may not have replied to those yet.
//!
//! [`Timeline`] maps positions to the call's clock, since audio that never came has no samples here.
//! [`Losses`] holds the ranges that get no transcript until they are reported, each once.

use std::{collections::VecDeque, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::Notify, time::Instant};

use crate::{Format, losses::Losses, timeline::Timeline};

/// How much audio is kept for a recognizer that is slow, disconnected, or has to replay a part.
const CAPACITY: Duration = Duration::from_secs(30);
/// A gap in the audio becomes this much silence, which is enough to end an utterance.
const GAP_SILENCE: Duration = Duration::from_millis(600);
/// The longest silence written for a gap that still lasts. Vosk's decoder (Kaldi) ends an utterance
/// after 2 s of silence in any case, other services sooner. More would only cost money where silence
/// is billed as speech is.
const MAX_SILENCE: Duration = Duration::from_millis(2500);
/// Audio that is off its place by less than this continues without a gap: clocks drift.
const TOLERANCE: Duration = Duration::from_millis(60);
/// How much of the latest delivered audio the service may not have processed yet.
const UNCONFIRMED: Duration = Duration::from_secs(2);
/// The resolution at which delivery times are kept.
const DELIVERY_STEP: Duration = Duration::from_millis(100);
/// How much earlier a final transcript may end than the interim one it replaces.
const FINAL_SHORTFALL: Duration = Duration::from_millis(500);

/// The buffer that the call's [`SpeechInput`](crate::SpeechInput), its connections and its session
/// share. See the module's documentation for the model.
#[derive(Debug)]
pub(crate) struct ReplayBuffer {
    format: Format,
    inner: Mutex<Inner>,
    written: Notify,
    lost: Notify,
}

#[derive(Debug)]
struct Inner {
    samples: VecDeque<i16>,
    /// The position of the oldest sample.
    start: u64,
    /// How many of the latest samples are silence written for a gap that still lasts.
    silence: u64,
    /// From positions to samples on the call's clock.
    timeline: Timeline,
    /// Everything before this position has its final transcript.
    acked: u64,
    /// Where speech ends that has an interim transcript only.
    pending: Option<u64>,
    /// How far any connection has read.
    delivered: u64,
    /// Where the current connection began, or the next one will.
    connection_start: u64,
    /// Since then: how far the connection had read, and when.
    deliveries: VecDeque<(Instant, u64)>,
    losses: Losses,
    /// No recognizer will read any more: what is written is counted, not kept.
    discarding: bool,
    ended: bool,
}

/// A part of the call without a transcript: its start and end on the call's clock.
pub(crate) type Lost = (Duration, Duration);

impl ReplayBuffer {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            inner: Mutex::new(Inner {
                samples: VecDeque::new(),
                start: 0,
                silence: 0,
                timeline: Timeline::new(0, 0),
                acked: 0,
                pending: None,
                delivered: 0,
                connection_start: 0,
                deliveries: VecDeque::new(),
                losses: Losses::default(),
                discarding: false,
                ended: false,
            }),
            written: Notify::new(),
            lost: Notify::new(),
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Appends samples. The first belongs at `at` on the call's clock.
    pub(crate) fn write(&self, at: Duration, samples: &[i16]) {
        let mut inner = self.inner.lock();
        if inner.ended || samples.is_empty() {
            return;
        }
        let (due, at) = (inner.next_due(), self.samples_in(at));
        let tolerance = self.samples_in(TOLERANCE);
        let gap = at.saturating_sub(due);
        if gap > tolerance {
            let missing = self.samples_in(GAP_SILENCE).saturating_sub(inner.silence);
            let silence = gap.min(missing);
            inner
                .samples
                .extend(std::iter::repeat_n(0, silence as usize));
            let end = inner.end();
            if silence < gap {
                inner.timeline.jump(end, at);
            }
        } else if inner.silence > 0 && due.saturating_sub(at) > tolerance {
            // The audio was only late, and silence has taken its place.
            let end = inner.end();
            inner.timeline.jump(end, at);
        }
        inner.silence = 0;
        inner.samples.extend(samples);
        self.trim_and_notify(inner);
    }

    /// Records that no audio came from `at` on for `duration`.
    ///
    /// Silence is written once the gap reaches [`GAP_SILENCE`]. Audio that is late for less continues
    /// without a gap, as nothing tells whether a word was torn.
    pub(crate) fn write_silence(&self, at: Duration, duration: Duration) {
        let mut inner = self.inner.lock();
        if inner.ended || inner.discarding || inner.end() == 0 {
            return;
        }
        let until = self.samples_in(at.saturating_add(duration));
        let gap = until.saturating_sub(inner.next_due().saturating_sub(inner.silence));
        if gap < self.samples_in(GAP_SILENCE) {
            return;
        }
        let silence = gap.min(self.samples_in(MAX_SILENCE));
        let more = silence.saturating_sub(inner.silence);
        if more == 0 {
            return;
        }
        inner.samples.extend(std::iter::repeat_n(0, more as usize));
        inner.silence += more;
        self.trim_and_notify(inner);
    }

    /// Drops what exceeds the capacity, and wakes the readers.
    fn trim_and_notify(&self, mut inner: MutexGuard<'_, Inner>) {
        let capacity = match inner.discarding {
            true => 0,
            false => self.samples_in(CAPACITY) as usize,
        };
        let surplus = inner.samples.len().saturating_sub(capacity);
        inner.samples.drain(..surplus);
        inner.start += surplus as u64;
        let acked = inner.acked;
        // A connection may still send transcripts of samples that are no longer kept.
        let needed = inner.start.min(acked);
        inner.timeline.forget(needed);
        inner.losses.forget(acked);
        drop(inner);
        self.written.notify_waiters();
    }

    /// Ends the audio: nothing more is written.
    pub(crate) fn finish(&self) {
        self.inner.lock().ended = true;
        self.written.notify_waiters();
    }

    /// Waits until `min` samples follow `position`, or the audio has ended, and appends up to `max` of
    /// them to `into`. Returns the position of the first, or `None` at the end of the audio.
    ///
    /// This method is cancellation safe: if its future is dropped, nothing was read.
    pub(crate) async fn read(
        &self,
        position: u64,
        min: usize,
        max: usize,
        into: &mut Vec<i16>,
    ) -> Option<u64> {
        loop {
            let mut written = std::pin::pin!(self.written.notified());
            written.as_mut().enable();
            {
                let mut inner = self.inner.lock();
                let from = position.max(inner.start);
                let available = (inner.end() - from.min(inner.end())) as usize;
                if available >= min.max(1) || inner.ended {
                    if from > position {
                        self.add_loss(&mut inner, position, from);
                    }
                    let count = available.min(max);
                    let index = (from - inner.start) as usize;
                    into.extend(inner.samples.range(index..index + count));
                    inner.delivered = inner.delivered.max(from + count as u64);
                    inner.note_delivery();
                    return (count > 0).then_some(from);
                }
            }
            written.await;
        }
    }

    /// How many samples follow `position`.
    pub(crate) fn available(&self, position: u64) -> u64 {
        self.inner.lock().end().saturating_sub(position)
    }

    /// Waits until a new connection would have something to read. Returns false if the audio ended
    /// before that.
    pub(crate) async fn wait_for_audio(&self) -> bool {
        loop {
            let mut written = std::pin::pin!(self.written.notified());
            written.as_mut().enable();
            {
                let inner = self.inner.lock();
                let has_audio = inner.end() > self.resume_at(&inner);
                if has_audio || inner.ended {
                    return has_audio;
                }
            }
            written.await;
        }
    }

    /// Whether the audio has ended and a new connection would have nothing to read.
    pub(crate) fn is_drained(&self) -> bool {
        let inner = self.inner.lock();
        inner.ended && self.resume_at(&inner) >= inner.end()
    }

    /// Waits until the audio has ended.
    pub(crate) async fn ended(&self) {
        loop {
            let mut written = std::pin::pin!(self.written.notified());
            written.as_mut().enable();
            if self.inner.lock().ended {
                return;
            }
            written.await;
        }
    }

    /// Starts a new connection's reading, and returns the position it reads from.
    ///
    /// Call it when a connection has ended, too: from then on no reply can confirm what that one was
    /// sent last.
    pub(crate) fn resume(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.connection_start = self.resume_at(&inner);
        inner.deliveries.clear();
        inner.connection_start
    }

    /// Where a new connection has to read from, so that it misses nothing without a final transcript.
    fn resume_at(&self, inner: &Inner) -> u64 {
        match inner.pending {
            Some(_) => inner.acked,
            None => {
                let confirmed = inner.delivered.saturating_sub(self.samples_in(UNCONFIRMED));
                let processed = inner
                    .delivered_before(UNCONFIRMED)
                    .map(|it| it.min(confirmed));
                inner.acked.max(processed.unwrap_or(inner.connection_start))
            }
        }
    }

    /// Acknowledges everything before `until`: it has its final transcript.
    pub(crate) fn ack(&self, until: Duration) {
        let mut inner = self.inner.lock();
        let position = self.delivered_position(&inner, until);
        self.ack_position(&mut inner, position);
    }

    fn ack_position(&self, inner: &mut Inner, position: u64) {
        inner.acked = inner.acked.max(position);
        let reached = inner.acked + self.samples_in(FINAL_SHORTFALL);
        // Where two connections overlap, the interim transcript may be of later speech.
        inner.pending = inner.pending.filter(|until| *until > reached);
    }

    /// The position at `place` on the call's clock, at most as far as was delivered.
    fn delivered_position(&self, inner: &Inner, place: Duration) -> u64 {
        let position = inner.timeline.unmap(self.samples_in(place));
        position.min(inner.delivered)
    }

    /// Records what was delivered between two places on the call's clock as lost, and acknowledges
    /// everything before the second.
    pub(crate) fn mark_lost(&self, from: Duration, to: Duration) {
        let mut inner = self.inner.lock();
        let from = self.delivered_position(&inner, from);
        let to = self.delivered_position(&inner, to);
        if from < to {
            self.add_loss(&mut inner, from, to);
        }
        self.ack_position(&mut inner, to);
    }

    /// Acknowledges everything delivered, whether there was speech in it or not.
    pub(crate) fn ack_delivered(&self) {
        let mut inner = self.inner.lock();
        inner.acked = inner.acked.max(inner.delivered);
        inner.pending = None;
    }

    /// Records that speech before `until` has no final transcript yet.
    pub(crate) fn mark_pending(&self, until: Duration) {
        let mut inner = self.inner.lock();
        let position = self.delivered_position(&inner, until);
        inner.pending = inner.pending.max(Some(position));
    }

    /// Where final transcripts end, on the call's clock.
    pub(crate) fn acked(&self) -> Duration {
        let inner = self.inner.lock();
        self.duration(inner.timeline.map(inner.acked))
    }

    /// Ends the audio and records everything without a transcript as lost.
    pub(crate) fn abandon(&self) {
        let mut inner = self.inner.lock();
        let (from, end) = (self.resume_at(&inner), inner.end());
        if from < end {
            self.add_loss(&mut inner, from, end);
        }
        inner.ended = true;
        inner.acked = end;
        inner.delivered = end;
        inner.pending = None;
    }

    /// Drops the audio kept and everything still to be written, as no recognizer will read it. The
    /// loss grows until [`abandon`](Self::abandon) records it, so take every earlier loss before this.
    pub(crate) fn discard_rest(&self) {
        let mut inner = self.inner.lock();
        let from = self.resume_at(&inner);
        inner.acked = from;
        inner.pending = Some(u64::MAX);
        inner.discarding = true;
        let kept = inner.samples.len();
        inner.samples = VecDeque::new();
        inner.start += kept as u64;
    }

    /// Waits for the next loss to report.
    pub(crate) async fn next_loss(&self) -> Lost {
        loop {
            if let Some(lost) = self.take_loss() {
                return lost;
            }
            self.lost.notified().await;
        }
    }

    pub(crate) fn take_loss(&self) -> Option<Lost> {
        let mut inner = self.inner.lock();
        let lost = inner.losses.take()?;
        let call_time = |position| self.duration(inner.timeline.map(position));
        Some((call_time(lost.start), call_time(lost.end)))
    }

    fn add_loss(&self, inner: &mut Inner, from: u64, to: u64) {
        inner.losses.add(from..to);
        self.lost.notify_one();
    }

    /// Where a position is on the call's clock.
    pub(crate) fn call_time(&self, position: u64) -> Duration {
        self.duration(self.inner.lock().timeline.map(position))
    }

    pub(crate) fn samples_in(&self, duration: Duration) -> u64 {
        let samples = duration.as_nanos() * u128::from(self.format.hz) / 1_000_000_000;
        u64::try_from(samples).unwrap_or(u64::MAX)
    }

    pub(crate) fn duration(&self, samples: u64) -> Duration {
        let hz = u64::from(self.format.hz);
        let rest = (samples % hz) * 1_000_000_000;
        Duration::from_secs(samples / hz) + Duration::from_nanos(rest.div_ceil(hz))
    }
}

impl Inner {
    fn end(&self) -> u64 {
        self.start + self.samples.len() as u64
    }

    /// Where on the call's clock the next sample belongs if nothing is missing before it.
    fn next_due(&self) -> u64 {
        self.timeline.map(self.end())
    }

    fn note_delivery(&mut self) {
        let now = Instant::now();
        let last = self.deliveries.back().map(|it| it.0);
        if last.is_none_or(|it| now - it >= DELIVERY_STEP) {
            self.deliveries.push_back((now, self.delivered));
        }
        while self
            .deliveries
            .get(1)
            .is_some_and(|it| now - it.0 >= UNCONFIRMED)
        {
            self.deliveries.pop_front();
        }
    }

    /// How far the connection had read `age` ago.
    fn delivered_before(&self, age: Duration) -> Option<u64> {
        let old = |it: &&(Instant, u64)| it.0.elapsed() >= age;
        self.deliveries.iter().rfind(old).map(|it| it.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_without_a_reader_takes_the_memory_of_half_a_minute() {
        let buffer = ReplayBuffer::new(Format::linear(8000));
        for second in 0..3600 {
            // With a gap after each half second.
            buffer.write(Duration::from_secs(second), &[1; 4000]);
        }
        let inner = buffer.inner.lock();
        assert_eq!(inner.samples.len(), 30 * 8000);
        assert!(inner.samples.capacity() <= 2 * 30 * 8000 + 8000);
        assert!(inner.timeline.len() <= 1001);
        drop(inner);
        buffer.abandon();
        let lost = (Duration::ZERO, Duration::from_millis(3_599_500));
        assert_eq!(buffer.take_loss(), Some(lost));
    }

    #[test]
    fn a_gap_of_any_length_becomes_seconds_of_silence() {
        let buffer = ReplayBuffer::new(Format::linear(8000));
        buffer.write_silence(Duration::ZERO, Duration::from_secs(9));
        assert_eq!(buffer.available(0), 0, "no audio has come yet");
        let mut at = Duration::ZERO;
        for pause in 1..4 {
            buffer.write(at, &[1; 8000]);
            at += Duration::from_secs(1);
            let before = buffer.available(0);
            for step in 0..36_000 {
                let elapsed = Duration::from_millis(100) * step;
                buffer.write_silence(at + elapsed, Duration::from_millis(100));
                if elapsed == Duration::from_millis(400) {
                    assert_eq!(buffer.available(0), before, "the audio may only be late");
                }
            }
            assert_eq!(buffer.available(0), pause * 28_000);
            at += Duration::from_secs(3600);
        }
        // Reported in one call it is no more.
        buffer.write(at, &[1; 8000]);
        buffer.write_silence(at + Duration::from_secs(1), Duration::MAX);
        assert_eq!(buffer.available(0), 4 * 28_000);
        assert_eq!(buffer.call_time(3 * 28_000), at);
    }

    #[test]
    fn an_hour_after_a_refusal_takes_no_memory_and_is_one_loss() {
        let buffer = ReplayBuffer::new(Format::linear(8000));
        let mut second = 0;
        let mut write = |until| {
            for at in second..until {
                buffer.write(Duration::from_secs(at), &[1; 4000]);
            }
            second = until;
        };
        write(7);
        buffer.ack_delivered();
        buffer.discard_rest();
        write(3600);
        assert_eq!(buffer.take_loss(), None, "not before its end is known");
        let inner = buffer.inner.lock();
        assert!(inner.samples.capacity() <= 2 * 8000);
        assert!(inner.timeline.len() <= 1001);
        drop(inner);
        buffer.abandon();
        let lost = (Duration::ZERO, Duration::from_millis(3_599_500));
        assert_eq!(buffer.take_loss(), Some(lost));
        assert_eq!(buffer.take_loss(), None);
    }
}
