//! The caller's audio as a bot gets it: whole frames on a clock without gaps.

use std::time::Duration;

use sidetone_audio::resample::Resampler;

use crate::dialect::AudioFormat;

/// The length of a frame.
pub(crate) const FRAME: Duration = Duration::from_millis(20);
/// More silence than this is not made up for a gap: the clock goes on behind it.
const MAX_SILENCE: Duration = Duration::from_secs(10);

/// Makes frames of 20 ms of what comes from a call, in the rate and encoding of a dialect.
///
/// What the caller did not send is silence, so that the frames' clock is the call's. Audio that comes after silence was sent in
/// its place is sent all the same: the next gap is shorter by as much.
///
/// The first audio after a gap has the place before it, since only the next shows whether it was late. So it waits for that.
#[derive(Debug)]
pub(crate) struct CallerAudio {
    format: AudioFormat,
    resampler: Option<(u32, Resampler)>,
    /// The place on the call's clock where the first frame begins.
    origin: Option<Duration>,
    /// Samples that make no whole frame yet.
    pending: Vec<i16>,
    /// The last that came was silence.
    is_silent: bool,
    /// The first audio after silence, in whose place silence was sent.
    held: Option<Held>,
    /// Frames that were taken.
    frames: u32,
}

#[derive(Debug)]
struct Held {
    hz: u32,
    samples: Vec<i16>,
}

impl Held {
    fn duration(&self) -> Duration {
        duration_of(self.samples.len(), self.hz)
    }
}

impl CallerAudio {
    pub(crate) fn new(format: AudioFormat) -> Self {
        Self {
            format,
            resampler: None,
            origin: None,
            pending: Vec::new(),
            is_silent: false,
            held: None,
            frames: 0,
        }
    }

    /// Audio that begins at `offset` on the call's clock.
    pub(crate) fn push(&mut self, offset: Duration, hz: u32, samples: &[i16]) {
        if let Some(held) = self.held.take() {
            // It was not late if the gap is behind it.
            self.fill_up_to(offset.saturating_sub(held.duration()));
            self.append(held.hz, &held.samples);
        } else if std::mem::take(&mut self.is_silent)
            && offset + duration_of(samples.len(), hz) <= self.end()
        {
            self.held = Some(Held {
                hz,
                samples: samples.to_vec(),
            });
            return;
        }
        self.fill_up_to(offset);
        self.append(hz, samples);
    }

    fn append(&mut self, hz: u32, samples: &[i16]) {
        if hz == self.format.hz {
            self.pending.extend_from_slice(samples);
            return;
        }
        if self.resampler.as_ref().is_none_or(|(from, _)| *from != hz) {
            let resampler = Resampler::new(hz, self.format.hz).ok();
            self.resampler = resampler.map(|resampler| (hz, resampler));
        }
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.process(samples, &mut self.pending);
        }
    }

    /// The caller sent nothing from `offset` on.
    pub(crate) fn push_silence(&mut self, offset: Duration, duration: Duration) {
        if let Some(held) = self.held.take() {
            self.append(held.hz, &held.samples);
        }
        self.is_silent = true;
        self.fill_up_to(offset);
        self.fill_up_to(offset + duration);
    }

    /// Appends the next frame to `payload`, encoded. Says where it begins, counted from the first frame.
    pub(crate) fn take_frame(&mut self, payload: &mut Vec<u8>) -> Option<Duration> {
        let length = self.frame_len();
        let frame = self.pending.get(..length)?;
        self.format.encode(frame, payload);
        self.pending.drain(..length);
        let timestamp = FRAME * self.frames;
        self.frames = self.frames.wrapping_add(1);
        Some(timestamp)
    }

    fn fill_up_to(&mut self, offset: Duration) {
        let origin = *self.origin.get_or_insert(offset);
        let is_at = self.length();
        let missing = offset.saturating_sub(origin).saturating_sub(is_at);
        if missing > MAX_SILENCE {
            self.origin = Some(origin + (missing - MAX_SILENCE));
        }
        // Whole frames only: with a part of one, each frame of the caller would wait for the next one to complete it.
        let frames = missing.min(MAX_SILENCE).as_nanos() / FRAME.as_nanos();
        let silence = frames as usize * self.frame_len();
        self.pending.resize(self.pending.len() + silence, 0);
    }

    fn frame_len(&self) -> usize {
        self.format.hz as usize / 50
    }

    /// How much there has been so far.
    fn length(&self) -> Duration {
        FRAME * self.frames + duration_of(self.pending.len(), self.format.hz)
    }

    /// Where that ends on the call's clock.
    fn end(&self) -> Duration {
        self.origin.unwrap_or_default() + self.length()
    }
}

fn duration_of(samples: usize, hz: u32) -> Duration {
    Duration::from_micros(samples as u64 * 1_000_000 / u64::from(hz.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// All whole frames, as samples, with their timestamps in milliseconds.
    fn frames(audio: &mut CallerAudio) -> Vec<(u64, Vec<i16>)> {
        let mut frames = Vec::new();
        let mut payload = Vec::new();
        while let Some(timestamp) = audio.take_frame(&mut payload) {
            let mut samples = Vec::new();
            audio.format.decode(&payload, &mut samples);
            frames.push((timestamp.as_millis() as u64, samples));
            payload.clear();
        }
        frames
    }

    #[test]
    fn frames_are_whole_however_audio_is_cut() {
        let mut audio = CallerAudio::new(AudioFormat::linear(8_000));
        let said: Vec<i16> = (0..800).collect();
        let mut heard = Vec::new();
        let mut at = 0;
        for length in [1, 159, 161, 300, 179] {
            audio.push(ms(5_000) + ms(at as u64) / 8, 8_000, &said[at..at + length]);
            at += length;
            heard.extend(frames(&mut audio));
        }
        let timestamps: Vec<_> = heard.iter().map(|(timestamp, _)| *timestamp).collect();
        assert_eq!(timestamps, [0, 20, 40, 60, 80]);
        let samples: Vec<_> = heard.into_iter().flat_map(|(_, samples)| samples).collect();
        assert_eq!(samples, said);
    }

    #[test]
    fn what_the_caller_did_not_send_is_silence() {
        let mut audio = CallerAudio::new(AudioFormat::linear(8_000));
        audio.push(ms(0), 8_000, &[1; 160]);
        audio.push_silence(ms(20), ms(120));
        audio.push_silence(ms(140), ms(100));
        audio.push(ms(300), 8_000, &[2; 160]);
        let frames = frames(&mut audio);
        assert_eq!(frames.len(), 16);
        for (index, (timestamp, samples)) in frames.iter().enumerate() {
            let sample = [1].into_iter().chain([0; 14]).chain([2]).nth(index);
            assert_eq!(*timestamp, 20 * index as u64);
            assert_eq!(Some(samples[0]), sample, "{index}");
        }
    }

    #[test]
    fn audio_that_comes_after_its_silence_is_sent_and_the_next_gap_is_shorter() {
        let mut audio = CallerAudio::new(AudioFormat::linear(8_000));
        audio.push(ms(0), 8_000, &[1; 160]);
        audio.push_silence(ms(20), ms(120));
        audio.push(ms(100), 8_000, &[2; 160]);
        audio.push(ms(120), 8_000, &[3; 160]);
        audio.push(ms(300), 8_000, &[4; 160]);
        let frames = frames(&mut audio);
        let order: Vec<_> = frames.iter().map(|(_, samples)| samples[0]).collect();
        assert_eq!(order, [1, 0, 0, 0, 0, 0, 0, 2, 3, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(frames.last().map(|(timestamp, _)| *timestamp), Some(300));
    }

    #[test]
    fn the_first_audio_after_a_gap_is_heard_with_what_follows_it() {
        // The gap is reported in steps of 100 ms, and of a second later.
        for (reported, gap) in [(100, 190), (1_000, 1_990), (100, 100)] {
            let mut audio = CallerAudio::new(AudioFormat::linear(8_000));
            audio.push(ms(0), 8_000, &[1; 160]);
            audio.push_silence(ms(20), ms(reported));
            // Its place is before the gap: it may be late, and then more comes there at once.
            audio.push(ms(20), 8_000, &[2; 160]);
            audio.push(ms(40 + gap), 8_000, &[3; 160]);
            audio.push(ms(60 + gap), 8_000, &[4; 160]);
            let frames = frames(&mut audio);
            let order: Vec<_> = frames.iter().map(|(_, samples)| samples[0]).collect();
            let silence = vec![0; gap as usize / 20];
            assert_eq!(order, [vec![1], silence, vec![2, 3, 4]].concat(), "{gap}");
        }
    }

    #[test]
    fn the_first_audio_after_a_gap_is_not_lost_where_nothing_follows() {
        let mut audio = CallerAudio::new(AudioFormat::linear(8_000));
        audio.push(ms(0), 8_000, &[1; 160]);
        audio.push_silence(ms(20), ms(100));
        audio.push(ms(20), 8_000, &[2; 160]);
        audio.push_silence(ms(40), ms(100));
        audio.push_silence(ms(140), ms(100));
        let order: Vec<_> = frames(&mut audio).iter().map(|(_, it)| it[0]).collect();
        assert_eq!(order, [1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_frame_behind_a_gap_of_any_length_leaves_at_once_and_whole() {
        let mut audio = CallerAudio::new(AudioFormat::linear(8_000));
        audio.push_silence(ms(3), ms(120));
        audio.push(ms(137), 8_000, &[2; 160]);
        audio.push(ms(157), 8_000, &[3; 160]);
        let frames = frames(&mut audio);
        let last: Vec<_> = frames.iter().rev().take(2).map(|(_, it)| it).collect();
        assert_eq!(last, [&vec![3; 160], &vec![2; 160]]);
        assert_eq!(frames.len(), 8);
    }

    #[test]
    fn a_gap_of_an_hour_costs_no_memory() {
        let mut audio = CallerAudio::new(AudioFormat::ULAW);
        audio.push(ms(0), 8_000, &[1; 160]);
        audio.push(Duration::from_secs(3600), 8_000, &[1; 160]);
        assert_eq!(frames(&mut audio).len(), 502);
        audio.push(Duration::from_secs(3600) + FRAME, 8_000, &[1; 160]);
        assert_eq!(frames(&mut audio).len(), 1);
    }

    #[test]
    fn other_rates_are_resampled_and_keep_the_clock() {
        let mut audio = CallerAudio::new(AudioFormat::linear(16_000));
        for frame in 0..50 {
            audio.push(FRAME * frame, 8_000, &[1000; 160]);
        }
        let frames = frames(&mut audio);
        assert!((48..=50).contains(&frames.len()), "{}", frames.len());
        assert!(frames.iter().all(|(_, samples)| samples.len() == 320));
        assert!((990..1010).contains(&frames[20].1[100]));
    }
}
