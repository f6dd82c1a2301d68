use {
    super::{
        frame::{Content, FRAME, Line, Stamp},
        grid::Arrival,
        report::Frames,
    },
    hdrhistogram::Histogram,
    sidetone_proto::{Message, Rate},
    std::ops::Range,
};

/// What all calls have counted.
pub(super) struct Tally {
    pub(super) frames: Frames,
    /// Frames that came back whole, whenever they were sent. Silence is none.
    pub(super) verified: u64,
    /// Slots that had silence in them once there was sound.
    pub(super) underruns: u64,
    /// Round trips of the frames that were sent in the measured time, in nanoseconds.
    pub(super) round_trips: Histogram<u64>,
    /// The measured time.
    pub(super) window: Range<u64>,
}

/// What one call knows of the frames it sent and got back.
#[derive(Debug)]
pub(super) struct Echoed {
    line: Line,
    /// The sequence number of the next frame to send.
    next: u32,
    /// One more than the highest that came back.
    top: u32,
    /// Which of the 64 below that have come back, the highest in the lowest bit.
    seen: u64,
    /// Of its frames of the measured time that came back: how many, and the sum of their round trips.
    returned: (u32, u64),
}

/// What one call knows of the sound it hears.
#[derive(Debug)]
pub(super) struct Heard {
    content: Sound,
    /// The clip's frame that came last.
    last: u32,
    /// Its place on the call's grid.
    place: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Sound {
    Nothing,
    Clip,
    Unknown,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            frames: Frames::default(),
            verified: 0,
            underruns: 0,
            round_trips: histogram(),
            window: 0..0,
        }
    }

    /// Counts what isn't audio that a caller can hear.
    fn forbidden(&mut self) {
        self.frames.forbidden += 1;
    }
}

/// For nanoseconds, up to a minute, with three digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000_000, 3).expect("bounds that the crate takes")
}

/// The whole frames of a message, and whether there was nothing else in it.
fn frames<'a>(message: &Message<'a>) -> Option<(&'a [[u8; FRAME]], bool)> {
    match message {
        Message::Audio(audio) if audio.rate == Rate::Slin && !audio.bytes.is_empty() => {
            let (frames, rest) = audio.bytes.as_chunks();
            Some((frames, rest.is_empty()))
        }
        _ => None,
    }
}

impl Echoed {
    pub(super) fn new(line: Line) -> Self {
        Self {
            line,
            next: 0,
            top: 0,
            seen: 0,
            returned: (0, 0),
        }
    }

    /// The stamp of the frame to send now.
    pub(super) fn stamp(&self, now: u64) -> Stamp {
        Stamp {
            line: self.line,
            sequence: self.next,
            sent: now,
        }
    }

    /// The frame has been sent.
    pub(super) fn sent(&mut self, now: u64, tally: &mut Tally) {
        self.next += 1;
        if tally.window.contains(&now) {
            tally.frames.sent += 1;
        }
    }

    /// Judges what came, and gives each frame of the measured time that returned its place.
    pub(super) fn received(
        &mut self,
        message: &Message<'_>,
        now: u64,
        tally: &mut Tally,
        mut arrived: impl FnMut(Arrival),
    ) {
        let Some((frames, whole)) = frames(message) else {
            return tally.forbidden();
        };
        for frame in frames {
            match Content::of(frame) {
                Content::Silence => self.silent(now, tally),
                Content::Other => tally.frames.corrupt += 1,
                Content::Stamped(stamp) if stamp.line != self.line => tally.frames.foreign += 1,
                Content::Stamped(stamp) => {
                    if let Some(arrival) = self.returned(stamp, now, tally) {
                        arrived(arrival);
                    }
                }
            }
        }
        if !whole {
            tally.frames.corrupt += 1;
        }
    }

    fn silent(&self, now: u64, tally: &mut Tally) {
        let count = u64::from(tally.window.contains(&now));
        tally.frames.silence += count;
        tally.underruns += count * u64::from(self.top > 0);
    }

    fn returned(&mut self, stamp: Stamp, now: u64, tally: &mut Tally) -> Option<Arrival> {
        // What was never sent can't come back.
        if stamp.sequence >= self.next || stamp.sent > now {
            tally.frames.corrupt += 1;
            return None;
        }
        if !self.is_new(stamp.sequence) {
            tally.frames.duplicate += 1;
            return None;
        }
        tally.verified += 1;
        if !tally.window.contains(&stamp.sent) {
            return None;
        }
        tally.frames.returned += 1;
        tally.round_trips.saturating_record(now - stamp.sent);
        let (count, sum) = self.returned;
        self.returned = (count + 1, sum + (now - stamp.sent));
        Some(Arrival {
            place: stamp.sequence,
            at: now,
        })
    }

    /// In nanoseconds; none before a frame has come back.
    pub(super) fn mean_round_trip(&self) -> Option<f64> {
        let (count, sum) = self.returned;
        (count > 0).then(|| sum as f64 / f64::from(count))
    }

    /// Whether this one comes back for the first time, as far as 64 frames tell.
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

impl Heard {
    pub(super) fn new() -> Self {
        Self {
            content: Sound::Nothing,
            last: 0,
            place: 0,
        }
    }

    /// Judges what came and gives each frame that sounded its place.
    pub(super) fn received(
        &mut self,
        message: &Message<'_>,
        now: u64,
        tally: &mut Tally,
        mut arrived: impl FnMut(Arrival),
    ) {
        let measured = tally.window.contains(&now);
        let Some((frames, whole)) = frames(message) else {
            return tally.forbidden();
        };
        let count = u64::from(measured);
        for frame in frames {
            let place = match Content::of(frame) {
                Content::Silence => {
                    tally.frames.silence += count;
                    tally.underruns += count * u64::from(self.content == Sound::Clip);
                    self.place += u32::from(self.content == Sound::Unknown);
                    continue;
                }
                Content::Stamped(stamp) if stamp.line == Line::CLIP => {
                    match self.clip_frame(stamp.sequence) {
                        Ok(lost) => tally.frames.lost += lost * count,
                        Err(Repeated) => {
                            tally.frames.duplicate += 1;
                            continue;
                        }
                    }
                    tally.verified += 1;
                    self.place
                }
                Content::Stamped(_) => {
                    tally.frames.foreign += 1;
                    continue;
                }
                Content::Other if self.content == Sound::Clip => {
                    tally.frames.corrupt += 1;
                    continue;
                }
                Content::Other => {
                    tally.frames.unverified += count;
                    self.place += u32::from(self.content == Sound::Unknown);
                    self.content = Sound::Unknown;
                    self.place
                }
            };
            tally.frames.returned += count;
            if measured {
                arrived(Arrival { place, at: now });
            }
        }
        if !whole {
            tally.frames.corrupt += 1;
        }
    }

    /// How many were left out before this frame of the clip.
    fn clip_frame(&mut self, sequence: u32) -> Result<u64, Repeated> {
        let ahead = match (&self.content, sequence.checked_sub(self.last)) {
            (Sound::Clip, Some(0)) => return Err(Repeated),
            (Sound::Clip, Some(ahead)) => ahead,
            // It begins again.
            (Sound::Clip, None) => sequence + 1,
            (Sound::Nothing | Sound::Unknown, _) => 1,
        };
        self.content = Sound::Clip;
        self.last = sequence;
        self.place += ahead;
        Ok(u64::from(ahead - 1))
    }
}

struct Repeated;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::load::frame::clip;
    use sidetone_proto::AudioPayload;

    const MS: u64 = 1_000_000;

    fn line(call: usize) -> Line {
        Line::of_call(1, call)
    }

    fn tally() -> Tally {
        let mut tally = Tally::new();
        tally.window = 0..1000 * MS;
        tally
    }

    fn audio(bytes: &[u8]) -> Message<'_> {
        Message::Audio(AudioPayload {
            rate: Rate::Slin,
            bytes,
        })
    }

    /// Sends `count` frames, one every 20 ms from 0 on.
    fn send(call: &mut Echoed, count: usize, tally: &mut Tally) -> Vec<[u8; FRAME]> {
        (0..count as u64)
            .map(|n| {
                let mut frame = [0; FRAME];
                call.stamp(n * 20 * MS).write(&mut frame);
                call.sent(n * 20 * MS, tally);
                frame
            })
            .collect()
    }

    #[test]
    fn frames_that_come_back_whole_are_timed() {
        let (mut call, mut tally) = (Echoed::new(line(5)), tally());
        let sent = send(&mut call, 3, &mut tally);
        let mut places = vec![];
        for (n, frame) in sent.iter().enumerate() {
            let trip = [2, 20, 21][n] * MS;
            call.received(
                &audio(frame),
                n as u64 * 20 * MS + trip,
                &mut tally,
                |arrival| places.push(arrival.place),
            );
        }
        let frames = Frames {
            sent: 3,
            returned: 3,
            ..Frames::default()
        };
        assert_eq!(tally.frames, frames);
        assert_eq!((tally.verified, places), (3, vec![0, 1, 2]));
        assert!(tally.round_trips.min().abs_diff(2 * MS) < 2000);
        assert_eq!(tally.round_trips.len(), 3);
    }

    #[test]
    fn what_was_sent_outside_the_measured_time_counts_for_the_servers_work_only() {
        let (mut call, mut tally) = (Echoed::new(line(5)), tally());
        tally.window = 20 * MS..40 * MS;
        let sent = send(&mut call, 3, &mut tally);
        for frame in &sent {
            call.received(&audio(frame), 60 * MS, &mut tally, |_| {});
        }
        assert_eq!((tally.frames.sent, tally.frames.returned), (1, 1));
        assert_eq!(tally.verified, 3);
    }

    #[test]
    fn a_frame_that_comes_twice_is_a_duplicate_and_one_that_overtakes_is_not() {
        let (mut call, mut tally) = (Echoed::new(line(5)), tally());
        let sent = send(&mut call, 4, &mut tally);
        for n in [0, 0, 2, 1, 2, 1, 3] {
            call.received(&audio(&sent[n]), 100 * MS, &mut tally, |_| {});
        }
        assert_eq!((tally.frames.returned, tally.frames.duplicate), (4, 3));
    }

    #[test]
    fn a_duplicate_is_noticed_64_frames_later_and_beyond() {
        let (mut call, mut tally) = (Echoed::new(line(5)), tally());
        let sent = send(&mut call, 200, &mut tally);
        for frame in &sent {
            call.received(&audio(frame), 5000 * MS, &mut tally, |_| {});
        }
        call.received(&audio(&sent[136]), 5000 * MS, &mut tally, |_| {});
        call.received(&audio(&sent[3]), 5000 * MS, &mut tally, |_| {});
        assert_eq!((tally.verified, tally.frames.duplicate), (200, 2));
    }

    #[test]
    fn a_lost_frame_is_missing_from_what_returned() {
        let (mut call, mut tally) = (Echoed::new(line(5)), tally());
        let sent = send(&mut call, 10, &mut tally);
        for (n, frame) in sent.iter().enumerate() {
            if n != 4 && n != 9 {
                call.received(&audio(frame), 300 * MS, &mut tally, |_| {});
            }
        }
        assert_eq!((tally.frames.sent, tally.frames.returned), (10, 8));
    }

    #[test]
    fn another_calls_frame_is_foreign_and_so_is_another_runs() {
        let (mut call, mut tally) = (Echoed::new(line(5)), tally());
        send(&mut call, 1, &mut tally);
        for other in [line(6), Line::of_call(2, 5), Line::CLIP] {
            let mut frame = [0; FRAME];
            Echoed::new(other).stamp(0).write(&mut frame);
            call.received(&audio(&frame), MS, &mut tally, |_| {});
        }
        assert_eq!((tally.frames.foreign, tally.verified), (3, 0));
    }

    #[test]
    fn damaged_cut_and_never_sent_frames_are_corrupt() {
        let (mut call, mut tally) = (Echoed::new(line(5)), tally());
        let sent = send(&mut call, 2, &mut tally);
        let mut damaged = sent[0];
        damaged[317] ^= 0x40;
        call.received(&audio(&damaged), 50 * MS, &mut tally, |_| {});
        call.received(&audio(&sent[0][..318]), 50 * MS, &mut tally, |_| {});
        let mut early = [0; FRAME];
        call.stamp(40 * MS).write(&mut early);
        call.received(&audio(&early), 50 * MS, &mut tally, |_| {});
        assert_eq!((tally.frames.corrupt, tally.verified), (3, 0));
    }

    #[test]
    fn silence_counts_as_nothing_else() {
        let (mut call, mut tally) = (Echoed::new(line(5)), tally());
        send(&mut call, 1, &mut tally);
        call.received(&audio(&[0; FRAME]), MS, &mut tally, |_| {});
        let frames = Frames {
            sent: 1,
            silence: 1,
            ..Frames::default()
        };
        assert_eq!((tally.frames, tally.verified), (frames, 0));
        assert_eq!(tally.underruns, 0);
    }

    #[test]
    fn silence_between_frames_that_return_is_an_underrun() {
        let (mut call, mut tally) = (Echoed::new(line(5)), tally());
        let sent = send(&mut call, 2, &mut tally);
        for bytes in [&sent[0], &[0; FRAME], &sent[1]] {
            call.received(&audio(bytes), 50 * MS, &mut tally, |_| {});
        }
        assert_eq!((tally.underruns, tally.frames.returned), (1, 2));
    }

    #[test]
    fn what_asterisk_would_die_of_is_forbidden() {
        let (mut call, mut tally) = (Echoed::new(line(5)), tally());
        for message in [Message::Dtmf('1'), audio(&[])] {
            call.received(&message, MS, &mut tally, |_| {});
        }
        assert_eq!(tally.frames.forbidden, 2);
    }

    fn listen(frames: &[&[u8]]) -> (Tally, Vec<u32>) {
        let (mut heard, mut tally, mut places) = (Heard::new(), tally(), vec![]);
        for (n, frame) in frames.iter().enumerate() {
            let now = n as u64 * 20 * MS;
            heard.received(&audio(frame), now, &mut tally, |arrival| {
                places.push(arrival.place);
            });
        }
        (tally, places)
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
        let (tally, places) = listen(&frames);
        assert_eq!(places, [1, 2, 4, 5, 6, 8]);
        assert_eq!((tally.frames.lost, tally.frames.duplicate), (2, 1));
        assert_eq!((tally.frames.returned, tally.verified), (6, 6));
    }

    #[test]
    fn a_clips_damaged_frame_is_corrupt_and_the_next_one_stays_in_its_place() {
        let clip = clip_frames(3);
        let mut damaged = clip[1].clone();
        damaged[0] ^= 1;
        let (tally, places) = listen(&[&clip[0], &damaged, &clip[2]]);
        assert_eq!(places, [1, 3]);
        assert_eq!(tally.frames.corrupt, 1);
    }

    #[test]
    fn silence_within_a_clip_is_an_underrun_and_before_it_is_not() {
        let (clip, silence) = (clip_frames(2), [0; FRAME]);
        let (tally, places) = listen(&[&silence, &clip[0], &silence, &clip[1]]);
        assert_eq!((tally.underruns, tally.frames.silence), (1, 2));
        assert_eq!(places, [1, 2]);
    }

    #[test]
    fn any_other_sound_is_timed_but_not_verified() {
        let silence = [0; FRAME];
        let (tally, places) = listen(&[&silence, &[1; FRAME], &[2; FRAME], &silence, &[1; FRAME]]);
        assert_eq!(places, [0, 1, 3]);
        assert_eq!((tally.frames.unverified, tally.verified), (3, 0));
        assert_eq!((tally.frames.silence, tally.frames.corrupt), (2, 0));
    }
}
