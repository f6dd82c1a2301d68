use std::ops::Range;

use hdrhistogram::Histogram;
use sidetone_proto::{Message, Rate};

use crate::{
    frame::{CallId, Content, FRAME, Stamp},
    pacing::Arrival,
    report::Frames,
};

/// The counts of all calls.
pub(crate) struct Counters {
    pub(crate) frames: Frames,
    /// Frames that came back whole, whenever they were sent, without silence.
    pub(crate) verified: u64,
    /// Slots with silence after the first audio.
    pub(crate) underruns: u64,
    /// Round trips of the frames that were sent in the measured time, in nanoseconds.
    pub(crate) round_trips: Histogram<u64>,
    /// The measured time, in nanoseconds since the load began.
    pub(crate) window: Range<u64>,
}

/// Verifies the frames that come back on one call.
#[derive(Debug)]
pub(crate) struct EchoVerifier {
    call: CallId,
    /// The sequence number of the next frame to send.
    next: u32,
    /// One more than the highest sequence number that came back.
    top: u32,
    /// Which of the 64 frames below `top` have come back, the highest in the lowest bit.
    seen: u64,
    /// Of the frames of the measured time that came back: how many, and the sum of their round trips in nanoseconds.
    returned: (u32, u64),
}

/// Verifies the audio that the server plays to one call.
#[derive(Debug)]
pub(crate) struct PlayoutVerifier {
    content: Audio,
    /// The sequence number of the clip's frame that came last.
    last: u32,
    /// Its slot in the call's schedule.
    slot: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Audio {
    Nothing,
    Clip,
    Unknown,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            frames: Frames::default(),
            verified: 0,
            underruns: 0,
            round_trips: histogram(),
            window: 0..0,
        }
    }

    /// Counts a message for which Asterisk drops a call.
    fn forbidden(&mut self) {
        self.frames.forbidden += 1;
    }
}

/// A histogram of nanoseconds, up to a minute, with three significant digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000_000, 3).expect("bounds that the crate takes")
}

/// The whole frames of a message, and whether it holds nothing else.
fn frames<'a>(message: &Message<'a>) -> Option<(&'a [[u8; FRAME]], bool)> {
    match message {
        Message::Audio(audio) if audio.rate == Rate::Slin && !audio.bytes.is_empty() => {
            let (frames, rest) = audio.bytes.as_chunks();
            Some((frames, rest.is_empty()))
        }
        _ => None,
    }
}

impl EchoVerifier {
    pub(crate) fn new(call: CallId) -> Self {
        Self {
            call,
            next: 0,
            top: 0,
            seen: 0,
            returned: (0, 0),
        }
    }

    /// The stamp of the frame to send now.
    pub(crate) fn stamp(&self, now: u64) -> Stamp {
        Stamp {
            call: self.call,
            sequence: self.next,
            sent: now,
        }
    }

    /// Counts the frame as sent.
    pub(crate) fn sent(&mut self, now: u64, counters: &mut Counters) {
        self.next += 1;
        if counters.window.contains(&now) {
            counters.frames.sent += 1;
        }
    }

    /// Verifies a message. Calls `arrived` for each frame of the measured time that came back.
    pub(crate) fn received(
        &mut self,
        message: &Message<'_>,
        now: u64,
        counters: &mut Counters,
        mut arrived: impl FnMut(Arrival),
    ) {
        let Some((frames, whole)) = frames(message) else {
            return counters.forbidden();
        };
        for frame in frames {
            match Content::of(frame) {
                Content::Silence => self.silent(now, counters),
                Content::Other => counters.frames.corrupt += 1,
                Content::Stamped(stamp) if stamp.call != self.call => counters.frames.foreign += 1,
                Content::Stamped(stamp) => {
                    if let Some(arrival) = self.returned(stamp, now, counters) {
                        arrived(arrival);
                    }
                }
            }
        }
        if !whole {
            counters.frames.corrupt += 1;
        }
    }

    fn silent(&self, now: u64, counters: &mut Counters) {
        let count = u64::from(counters.window.contains(&now));
        counters.frames.silence += count;
        counters.underruns += count * u64::from(self.top > 0);
    }

    fn returned(&mut self, stamp: Stamp, now: u64, counters: &mut Counters) -> Option<Arrival> {
        // A frame that was never sent can't come back.
        if stamp.sequence >= self.next || stamp.sent > now {
            counters.frames.corrupt += 1;
            return None;
        }
        if !self.is_new(stamp.sequence) {
            counters.frames.duplicate += 1;
            return None;
        }
        counters.verified += 1;
        if !counters.window.contains(&stamp.sent) {
            return None;
        }
        counters.frames.returned += 1;
        counters.round_trips.saturating_record(now - stamp.sent);
        let (count, sum) = self.returned;
        self.returned = (count + 1, sum + (now - stamp.sent));
        Some(Arrival {
            slot: stamp.sequence,
            at: now,
        })
    }

    /// In nanoseconds; `None` before a frame has come back.
    pub(crate) fn mean_round_trip(&self) -> Option<f64> {
        let (count, sum) = self.returned;
        (count > 0).then(|| sum as f64 / f64::from(count))
    }

    /// Whether this frame comes back for the first time. One that is 64 behind the newest counts as a repeat.
    fn is_new(&mut self, sequence: u32) -> bool {
        if let Some(ahead) = sequence.checked_sub(self.top) {
            self.seen = self.seen.checked_shl(ahead + 1).unwrap_or(0) | 1;
            self.top = sequence + 1;
            return true;
        }
        let below = self.top - 1 - sequence;
        let bit = 1u64.checked_shl(below).unwrap_or(0);
        let new = bit != 0 && self.seen & bit == 0;
        self.seen |= bit;
        new
    }
}

impl PlayoutVerifier {
    pub(crate) fn new() -> Self {
        Self {
            content: Audio::Nothing,
            last: 0,
            slot: 0,
        }
    }

    /// Verifies a message. Calls `arrived` for each frame of the measured time that is not silence.
    pub(crate) fn received(
        &mut self,
        message: &Message<'_>,
        now: u64,
        counters: &mut Counters,
        mut arrived: impl FnMut(Arrival),
    ) {
        let measured = counters.window.contains(&now);
        let Some((frames, whole)) = frames(message) else {
            return counters.forbidden();
        };
        let count = u64::from(measured);
        for frame in frames {
            let slot = match Content::of(frame) {
                Content::Silence => {
                    counters.frames.silence += count;
                    counters.underruns += count * u64::from(self.content == Audio::Clip);
                    self.slot += u32::from(self.content == Audio::Unknown);
                    continue;
                }
                Content::Stamped(stamp) if stamp.call == CallId::CLIP => {
                    match self.clip_frame(stamp.sequence) {
                        Ok(lost) => counters.frames.lost += lost * count,
                        Err(Repeated) => {
                            counters.frames.duplicate += 1;
                            continue;
                        }
                    }
                    counters.verified += 1;
                    self.slot
                }
                Content::Stamped(_) => {
                    counters.frames.foreign += 1;
                    continue;
                }
                Content::Other if self.content == Audio::Clip => {
                    counters.frames.corrupt += 1;
                    continue;
                }
                Content::Other => {
                    counters.frames.unverified += count;
                    self.slot += u32::from(self.content == Audio::Unknown);
                    self.content = Audio::Unknown;
                    self.slot
                }
            };
            counters.frames.returned += count;
            if measured {
                arrived(Arrival { slot, at: now });
            }
        }
        if !whole {
            counters.frames.corrupt += 1;
        }
    }

    /// Returns how many frames of the clip were left out before this one.
    fn clip_frame(&mut self, sequence: u32) -> Result<u64, Repeated> {
        let ahead = match (&self.content, sequence.checked_sub(self.last)) {
            (Audio::Clip, Some(0)) => return Err(Repeated),
            (Audio::Clip, Some(ahead)) => ahead,
            // The clip begins again.
            (Audio::Clip, None) => sequence + 1,
            (Audio::Nothing | Audio::Unknown, _) => 1,
        };
        self.content = Audio::Clip;
        self.last = sequence;
        self.slot += ahead;
        Ok(u64::from(ahead - 1))
    }
}

struct Repeated;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::frame::clip;
    use sidetone_proto::AudioPayload;

    const MS: u64 = 1_000_000;

    fn id(call: usize) -> CallId {
        CallId::new(1, call)
    }

    fn counters() -> Counters {
        let mut counters = Counters::new();
        counters.window = 0..1000 * MS;
        counters
    }

    fn audio(bytes: &[u8]) -> Message<'_> {
        Message::Audio(AudioPayload {
            rate: Rate::Slin,
            bytes,
        })
    }

    /// Sends `count` frames, one every 20 ms from 0 on.
    fn send(call: &mut EchoVerifier, count: usize, counters: &mut Counters) -> Vec<[u8; FRAME]> {
        (0..count as u64)
            .map(|n| {
                let mut frame = [0; FRAME];
                call.stamp(n * 20 * MS).write(&mut frame);
                call.sent(n * 20 * MS, counters);
                frame
            })
            .collect()
    }

    #[test]
    fn frames_that_come_back_whole_are_timed() {
        let (mut call, mut counters) = (EchoVerifier::new(id(5)), counters());
        let sent = send(&mut call, 3, &mut counters);
        let mut slots = vec![];
        for (n, frame) in sent.iter().enumerate() {
            let trip = [2, 20, 21][n] * MS;
            call.received(
                &audio(frame),
                n as u64 * 20 * MS + trip,
                &mut counters,
                |arrival| slots.push(arrival.slot),
            );
        }
        let frames = Frames {
            sent: 3,
            returned: 3,
            ..Frames::default()
        };
        assert_eq!(counters.frames, frames);
        assert_eq!((counters.verified, slots), (3, vec![0, 1, 2]));
        assert!(counters.round_trips.min().abs_diff(2 * MS) < 2000);
        assert_eq!(counters.round_trips.len(), 3);
    }

    #[test]
    fn frames_sent_outside_the_measured_time_count_for_the_servers_work_only() {
        let (mut call, mut counters) = (EchoVerifier::new(id(5)), counters());
        counters.window = 20 * MS..40 * MS;
        let sent = send(&mut call, 3, &mut counters);
        for frame in &sent {
            call.received(&audio(frame), 60 * MS, &mut counters, |_| {});
        }
        assert_eq!((counters.frames.sent, counters.frames.returned), (1, 1));
        assert_eq!(counters.verified, 3);
    }

    #[test]
    fn a_frame_that_comes_twice_is_a_duplicate_and_one_that_overtakes_is_not() {
        let (mut call, mut counters) = (EchoVerifier::new(id(5)), counters());
        let sent = send(&mut call, 4, &mut counters);
        for n in [0, 0, 2, 1, 2, 1, 3] {
            call.received(&audio(&sent[n]), 100 * MS, &mut counters, |_| {});
        }
        assert_eq!(
            (counters.frames.returned, counters.frames.duplicate),
            (4, 3)
        );
    }

    #[test]
    fn a_duplicate_is_detected_64_frames_later_and_beyond() {
        let (mut call, mut counters) = (EchoVerifier::new(id(5)), counters());
        let sent = send(&mut call, 200, &mut counters);
        for frame in &sent {
            call.received(&audio(frame), 5000 * MS, &mut counters, |_| {});
        }
        call.received(&audio(&sent[136]), 5000 * MS, &mut counters, |_| {});
        call.received(&audio(&sent[3]), 5000 * MS, &mut counters, |_| {});
        assert_eq!((counters.verified, counters.frames.duplicate), (200, 2));
    }

    #[test]
    fn a_lost_frame_is_missing_from_what_returned() {
        let (mut call, mut counters) = (EchoVerifier::new(id(5)), counters());
        let sent = send(&mut call, 10, &mut counters);
        for (n, frame) in sent.iter().enumerate() {
            if n != 4 && n != 9 {
                call.received(&audio(frame), 300 * MS, &mut counters, |_| {});
            }
        }
        assert_eq!((counters.frames.sent, counters.frames.returned), (10, 8));
    }

    #[test]
    fn another_calls_frame_is_foreign_and_so_is_another_runs() {
        let (mut call, mut counters) = (EchoVerifier::new(id(5)), counters());
        send(&mut call, 1, &mut counters);
        for other in [id(6), CallId::new(2, 5), CallId::CLIP] {
            let mut frame = [0; FRAME];
            EchoVerifier::new(other).stamp(0).write(&mut frame);
            call.received(&audio(&frame), MS, &mut counters, |_| {});
        }
        assert_eq!((counters.frames.foreign, counters.verified), (3, 0));
    }

    #[test]
    fn damaged_cut_and_never_sent_frames_are_corrupt() {
        let (mut call, mut counters) = (EchoVerifier::new(id(5)), counters());
        let sent = send(&mut call, 2, &mut counters);
        let mut damaged = sent[0];
        damaged[317] ^= 0x40;
        call.received(&audio(&damaged), 50 * MS, &mut counters, |_| {});
        call.received(&audio(&sent[0][..318]), 50 * MS, &mut counters, |_| {});
        let mut early = [0; FRAME];
        call.stamp(40 * MS).write(&mut early);
        call.received(&audio(&early), 50 * MS, &mut counters, |_| {});
        assert_eq!((counters.frames.corrupt, counters.verified), (3, 0));
    }

    #[test]
    fn silence_counts_as_nothing_else() {
        let (mut call, mut counters) = (EchoVerifier::new(id(5)), counters());
        send(&mut call, 1, &mut counters);
        call.received(&audio(&[0; FRAME]), MS, &mut counters, |_| {});
        let frames = Frames {
            sent: 1,
            silence: 1,
            ..Frames::default()
        };
        assert_eq!((counters.frames, counters.verified), (frames, 0));
        assert_eq!(counters.underruns, 0);
    }

    #[test]
    fn silence_between_frames_that_return_is_an_underrun() {
        let (mut call, mut counters) = (EchoVerifier::new(id(5)), counters());
        let sent = send(&mut call, 2, &mut counters);
        for bytes in [&sent[0], &[0; FRAME], &sent[1]] {
            call.received(&audio(bytes), 50 * MS, &mut counters, |_| {});
        }
        assert_eq!((counters.underruns, counters.frames.returned), (1, 2));
    }

    #[test]
    fn what_asterisk_drops_a_call_for_is_forbidden() {
        let (mut call, mut counters) = (EchoVerifier::new(id(5)), counters());
        for message in [Message::Dtmf('1'), audio(&[])] {
            call.received(&message, MS, &mut counters, |_| {});
        }
        assert_eq!(counters.frames.forbidden, 2);
    }

    fn listen(frames: &[&[u8]]) -> (Counters, Vec<u32>) {
        let (mut heard, mut counters, mut slots) = (PlayoutVerifier::new(), counters(), vec![]);
        for (n, frame) in frames.iter().enumerate() {
            let now = n as u64 * 20 * MS;
            heard.received(&audio(frame), now, &mut counters, |arrival| {
                slots.push(arrival.slot);
            });
        }
        (counters, slots)
    }

    fn clip_frames(count: u32) -> Vec<Vec<u8>> {
        let samples = clip(count);
        let frames = samples.chunks_exact(160);
        frames
            .map(|frame| {
                frame
                    .iter()
                    .flat_map(|sample| sample.to_le_bytes())
                    .collect()
            })
            .collect()
    }

    #[test]
    fn a_clip_is_followed_over_losses_repeats_and_its_end() {
        let clip = clip_frames(5);
        let order = [0usize, 1, 3, 3, 4, 0, 2];
        let frames: Vec<&[u8]> = order.iter().map(|n| &clip[*n][..]).collect();
        let (counters, slots) = listen(&frames);
        assert_eq!(slots, [1, 2, 4, 5, 6, 8]);
        assert_eq!((counters.frames.lost, counters.frames.duplicate), (2, 1));
        assert_eq!((counters.frames.returned, counters.verified), (6, 6));
    }

    #[test]
    fn a_clips_damaged_frame_is_corrupt_and_the_next_one_keeps_its_slot() {
        let clip = clip_frames(3);
        let mut damaged = clip[1].clone();
        damaged[0] ^= 1;
        let (counters, slots) = listen(&[&clip[0], &damaged, &clip[2]]);
        assert_eq!(slots, [1, 3]);
        assert_eq!(counters.frames.corrupt, 1);
    }

    #[test]
    fn silence_within_a_clip_is_an_underrun_and_before_it_is_not() {
        let (clip, silence) = (clip_frames(2), [0; FRAME]);
        let (counters, slots) = listen(&[&silence, &clip[0], &silence, &clip[1]]);
        assert_eq!((counters.underruns, counters.frames.silence), (1, 2));
        assert_eq!(slots, [1, 2]);
    }

    #[test]
    fn any_other_audio_is_timed_but_not_verified() {
        let silence = [0; FRAME];
        let (counters, slots) =
            listen(&[&silence, &[1; FRAME], &[2; FRAME], &silence, &[1; FRAME]]);
        assert_eq!(slots, [0, 1, 3]);
        assert_eq!((counters.frames.unverified, counters.verified), (3, 0));
        assert_eq!((counters.frames.silence, counters.frames.corrupt), (2, 0));
    }
}
