use std::{collections::VecDeque, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::Notify, time::Instant};

use crate::{Format, losses::Losses, timeline::Timeline};

/// How much audio is kept for a recognizer that is slow, away, or has to hear a piece again.
const KEPT: Duration = Duration::from_secs(30);
/// A pause in the audio is heard as so much silence, enough to end what was being said.
const PAUSE: Duration = Duration::from_millis(600);
/// The most of a pause that is heard as silence while it lasts. Kaldi's decoder, which Vosk has, ends an utterance after 2 s of
/// silence whatever it has understood; others sooner. More would only cost money, where silence is paid for as speech is.
const LONGEST_PAUSE: Duration = Duration::from_millis(2500);
/// Audio that is out of place by less follows on: clocks drift.
const TOLERANCE: Duration = Duration::from_millis(60);
/// A recognizer may not yet have said anything of what came last, or what it was sent last.
const UNHEARD: Duration = Duration::from_secs(2);
/// How exactly it is remembered when it was sent what.
const MARKED: Duration = Duration::from_millis(100);
/// A final transcript may end so much before the interim one that it replaces.
const TRIMMED: Duration = Duration::from_millis(500);

/// The latest audio of a call, written by it and read by a recognizer, which may ask for a part again.
///
/// Positions count the samples written. The oldest go when there is no room; whoever had not read them yet
/// jumps over them, and that is noted as a loss.
#[derive(Debug)]
pub(crate) struct Tape {
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
    /// So many of the latest samples are silence that stands for audio that does not come.
    silence: u64,
    /// From positions to samples on the call's clock.
    places: Timeline,
    /// Before this position everything has its final transcript.
    settled: u64,
    /// Up to where an interim transcript tells of speech after that.
    unfinished: Option<u64>,
    /// Up to here somebody has read.
    read: u64,
    /// Where the connection began that reads now, or the next one will.
    begin: u64,
    /// Since then: up to where it had read, and when.
    marks: VecDeque<(Instant, u64)>,
    losses: Losses,
    /// No recognizer will read any more: what is written is lost, and not kept.
    refused: bool,
    ended: bool,
}

/// A part of the call that no recognizer got, on the call's clock.
pub(crate) type Lost = (Duration, Duration);

impl Tape {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            inner: Mutex::new(Inner {
                samples: VecDeque::new(),
                start: 0,
                silence: 0,
                places: Timeline::new(0, 0),
                settled: 0,
                unfinished: None,
                read: 0,
                begin: 0,
                marks: VecDeque::new(),
                losses: Losses::default(),
                refused: false,
                ended: false,
            }),
            written: Notify::new(),
            lost: Notify::new(),
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Adds samples whose first belongs at `at` on the call's clock.
    pub(crate) fn write(&self, at: Duration, samples: &[i16]) {
        let mut inner = self.inner.lock();
        if inner.ended || samples.is_empty() {
            return;
        }
        let (due, at) = (inner.due(), self.samples_in(at));
        let tolerance = self.samples_in(TOLERANCE);
        let gap = at.saturating_sub(due);
        if gap > tolerance {
            let pause = self.samples_in(PAUSE).saturating_sub(inner.silence);
            let heard = gap.min(pause);
            inner.samples.extend(std::iter::repeat_n(0, heard as usize));
            let end = inner.end();
            if heard < gap {
                inner.places.jump(end, at);
            }
        } else if inner.silence > 0 && due.saturating_sub(at) > tolerance {
            // It was only late, and silence has taken its place.
            let end = inner.end();
            inner.places.jump(end, at);
        }
        inner.silence = 0;
        inner.samples.extend(samples);
        self.written(inner);
    }

    /// No audio came from `at` on for so long.
    ///
    /// It is heard as silence once it is a [`PAUSE`]: what is late for less goes on as if it had not been, as nothing tells that
    /// a word was torn.
    pub(crate) fn write_silence(&self, at: Duration, duration: Duration) {
        let mut inner = self.inner.lock();
        if inner.ended || inner.refused || inner.end() == 0 {
            return;
        }
        let until = self.samples_in(at.saturating_add(duration));
        let pause = until.saturating_sub(inner.due().saturating_sub(inner.silence));
        if pause < self.samples_in(PAUSE) {
            return;
        }
        let heard = pause.min(self.samples_in(LONGEST_PAUSE));
        let more = heard.saturating_sub(inner.silence);
        if more == 0 {
            return;
        }
        inner.samples.extend(std::iter::repeat_n(0, more as usize));
        inner.silence += more;
        self.written(inner);
    }

    /// Forgets what there is no room for, and wakes whoever waits for what was written.
    fn written(&self, mut inner: MutexGuard<'_, Inner>) {
        let kept = match inner.refused {
            true => 0,
            false => self.samples_in(KEPT) as usize,
        };
        let surplus = inner.samples.len().saturating_sub(kept);
        inner.samples.drain(..surplus);
        inner.start += surplus as u64;
        let settled = inner.settled;
        // A connection may still tell of what it read, though it is no longer here.
        let known = inner.start.min(settled);
        inner.places.forget(known);
        inner.losses.forget(settled);
        drop(inner);
        self.written.notify_waiters();
    }

    /// No more will be written.
    pub(crate) fn end(&self) {
        self.inner.lock().ended = true;
        self.written.notify_waiters();
    }

    /// Appends the samples from `position` on, at most `most`, once there are `least` of them or no more will
    /// come. Answers where they began, and nothing at the end. Cancel safe.
    pub(crate) async fn read(
        &self,
        position: u64,
        least: usize,
        most: usize,
        into: &mut Vec<i16>,
    ) -> Option<u64> {
        loop {
            let mut written = std::pin::pin!(self.written.notified());
            written.as_mut().enable();
            {
                let mut inner = self.inner.lock();
                let from = position.max(inner.start);
                let there = (inner.end() - from.min(inner.end())) as usize;
                if there >= least.max(1) || inner.ended {
                    if from > position {
                        self.lose(&mut inner, position, from);
                    }
                    let take = there.min(most);
                    let skip = (from - inner.start) as usize;
                    into.extend(inner.samples.range(skip..skip + take));
                    inner.read = inner.read.max(from + take as u64);
                    inner.mark();
                    return (take > 0).then_some(from);
                }
            }
            written.await;
        }
    }

    /// How many samples there are from `position` on.
    pub(crate) fn waiting(&self, position: u64) -> u64 {
        self.inner.lock().end().saturating_sub(position)
    }

    /// Waits until there is something to read from where the next reader begins; false if nothing will come.
    pub(crate) async fn has_more(&self) -> bool {
        loop {
            let mut written = std::pin::pin!(self.written.notified());
            written.as_mut().enable();
            {
                let inner = self.inner.lock();
                let fresh = inner.end() > self.next(&inner);
                if fresh || inner.ended {
                    return fresh;
                }
            }
            written.await;
        }
    }

    /// Whether nothing is left to be read, and nothing will come.
    pub(crate) fn is_over(&self) -> bool {
        let inner = self.inner.lock();
        inner.ended && self.next(&inner) >= inner.end()
    }

    /// Waits until no more will be written.
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

    /// Where a new reader begins, so that nothing is missed that has no final transcript.
    ///
    /// To be called when a connection has ended, too: it hears no more of what it was sent last.
    pub(crate) fn resume(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.begin = self.next(&inner);
        inner.marks.clear();
        inner.begin
    }

    fn next(&self, inner: &Inner) -> u64 {
        match inner.unfinished {
            Some(_) => inner.settled,
            None => {
                let latest = inner.read.saturating_sub(self.samples_in(UNHEARD));
                let heard = inner.sent_before(UNHEARD).map(|it| it.min(latest));
                inner.settled.max(heard.unwrap_or(inner.begin))
            }
        }
    }

    /// Everything before `until` has its final transcript.
    pub(crate) fn settle(&self, until: Duration) {
        let mut inner = self.inner.lock();
        let position = self.position(&inner, until);
        self.settle_at(&mut inner, position);
    }

    fn settle_at(&self, inner: &mut Inner, position: u64) {
        inner.settled = inner.settled.max(position);
        let reached = inner.settled + self.samples_in(TRIMMED);
        // Where two connections overlap, the speech of the interim transcript may be a later one.
        inner.unfinished = inner.unfinished.filter(|until| *until > reached);
    }

    /// The position that belongs at `place` on the call's clock, among what was read.
    fn position(&self, inner: &Inner, place: Duration) -> u64 {
        let position = inner.places.unmap(self.samples_in(place));
        position.min(inner.read)
    }

    /// What was read between these places, on the call's clock, gets no transcript; what was before it has its own.
    pub(crate) fn give_up(&self, from: Duration, to: Duration) {
        let mut inner = self.inner.lock();
        let (from, to) = (self.position(&inner, from), self.position(&inner, to));
        if from < to {
            self.lose(&mut inner, from, to);
        }
        self.settle_at(&mut inner, to);
    }

    /// What was read is dealt with, whether there was speech in it or not.
    pub(crate) fn settle_read(&self) {
        let mut inner = self.inner.lock();
        inner.settled = inner.settled.max(inner.read);
        inner.unfinished = None;
    }

    /// There is speech before `until` that has no final transcript yet.
    pub(crate) fn note_speech(&self, until: Duration) {
        let mut inner = self.inner.lock();
        let position = self.position(&inner, until);
        inner.unfinished = inner.unfinished.max(Some(position));
    }

    /// What is before this has its final transcript.
    pub(crate) fn settled(&self) -> Duration {
        let inner = self.inner.lock();
        self.duration(inner.places.map(inner.settled))
    }

    /// Gives up what is left of it. Nothing more can be written.
    pub(crate) fn abandon(&self) {
        let mut inner = self.inner.lock();
        let (from, end) = (self.next(&inner), inner.end());
        if from < end {
            self.lose(&mut inner, from, end);
        }
        inner.ended = true;
        inner.settled = end;
        inner.read = end;
        inner.unfinished = None;
    }

    /// Gives up what is left of it and what still comes, which takes no room any more. To be called when every
    /// earlier loss was taken: this one grows until [`abandon`](Self::abandon).
    pub(crate) fn refuse(&self) {
        let mut inner = self.inner.lock();
        let begin = self.next(&inner);
        inner.settled = begin;
        inner.unfinished = Some(u64::MAX);
        inner.refused = true;
        let kept = inner.samples.len();
        inner.samples = VecDeque::new();
        inner.start += kept as u64;
    }

    /// Waits for the next part that is lost.
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
        let place = |position| self.duration(inner.places.map(position));
        Some((place(lost.start), place(lost.end)))
    }

    fn lose(&self, inner: &mut Inner, from: u64, to: u64) {
        inner.losses.add(from..to);
        self.lost.notify_one();
    }

    /// Where a position is on the call's clock.
    pub(crate) fn place(&self, position: u64) -> Duration {
        self.duration(self.inner.lock().places.map(position))
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
    fn due(&self) -> u64 {
        self.places.map(self.end())
    }

    fn mark(&mut self) {
        let now = Instant::now();
        let last = self.marks.back().map(|it| it.0);
        if last.is_none_or(|it| now - it >= MARKED) {
            self.marks.push_back((now, self.read));
        }
        while self.marks.get(1).is_some_and(|it| now - it.0 >= UNHEARD) {
            self.marks.pop_front();
        }
    }

    /// Up to where the connection had read so long ago.
    fn sent_before(&self, age: Duration) -> Option<u64> {
        let old = |it: &&(Instant, u64)| it.0.elapsed() >= age;
        self.marks.iter().rfind(old).map(|it| it.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_that_nobody_reads_takes_no_more_room_than_half_a_minute() {
        let tape = Tape::new(Format::linear(8000));
        for second in 0..3600 {
            // With a gap after each half second.
            tape.write(Duration::from_secs(second), &[1; 4000]);
        }
        let inner = tape.inner.lock();
        assert_eq!(inner.samples.len(), 30 * 8000);
        assert!(inner.samples.capacity() <= 2 * 30 * 8000 + 8000);
        assert!(inner.places.len() <= 1001);
        drop(inner);
        tape.abandon();
        let lost = (Duration::ZERO, Duration::from_millis(3_599_500));
        assert_eq!(tape.take_loss(), Some(lost));
    }

    #[test]
    fn however_long_nothing_comes_it_is_seconds_of_silence() {
        let tape = Tape::new(Format::linear(8000));
        tape.write_silence(Duration::ZERO, Duration::from_secs(9));
        assert_eq!(tape.waiting(0), 0, "nobody has spoken yet");
        let mut at = Duration::ZERO;
        for pause in 1..4 {
            tape.write(at, &[1; 8000]);
            at += Duration::from_secs(1);
            let before = tape.waiting(0);
            for stretch in 0..36_000 {
                let stretch = Duration::from_millis(100) * stretch;
                tape.write_silence(at + stretch, Duration::from_millis(100));
                if stretch == Duration::from_millis(400) {
                    assert_eq!(tape.waiting(0), before, "it may only be late");
                }
            }
            assert_eq!(tape.waiting(0), pause * 28_000);
            at += Duration::from_secs(3600);
        }
        // Told as one piece it is no more.
        tape.write(at, &[1; 8000]);
        tape.write_silence(at + Duration::from_secs(1), Duration::MAX);
        assert_eq!(tape.waiting(0), 4 * 28_000);
        assert_eq!(tape.place(3 * 28_000), at);
    }

    #[test]
    fn an_hour_after_a_refusal_takes_no_room_and_is_one_loss() {
        let tape = Tape::new(Format::linear(8000));
        let mut second = 0;
        let mut write = |until| {
            for at in second..until {
                tape.write(Duration::from_secs(at), &[1; 4000]);
            }
            second = until;
        };
        write(7);
        tape.settle_read();
        tape.refuse();
        write(3600);
        assert_eq!(tape.take_loss(), None, "not before its end is known");
        let inner = tape.inner.lock();
        assert!(inner.samples.capacity() <= 2 * 8000);
        assert!(inner.places.len() <= 1001);
        drop(inner);
        tape.abandon();
        let lost = (Duration::ZERO, Duration::from_millis(3_599_500));
        assert_eq!(tape.take_loss(), Some(lost));
        assert_eq!(tape.take_loss(), None);
    }
}
