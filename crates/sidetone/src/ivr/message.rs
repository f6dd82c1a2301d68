use std::{
    fs::File,
    future::{Future, IntoFuture},
    io,
    path::Path,
    pin::Pin,
    time::Duration,
};

use sidetone_audio::{
    resample::Resampler,
    wav::{Channels, Writer},
};
use sidetone_proto::Rate;

use super::{Ivr, speech::Speech};
use crate::{Event, Frame};

/// Why a message came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageEnd {
    /// The caller pressed the key.
    Key,
    /// The caller was silent for long enough.
    Silence,
    /// It is as long as it may be.
    Longest,
    /// The call ended.
    CallEnded,
}

/// What the caller said: mono, with silence where nothing came.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// The samples.
    pub samples: Vec<i16>,
    /// Samples per second: the rate of the first frame.
    pub rate: Rate,
    /// Why it ended.
    pub ended_by: MessageEnd,
}

impl Message {
    /// How long it is.
    pub fn duration(&self) -> Duration {
        self.rate.duration(self.samples.len() as u64)
    }

    /// Writes it as a WAV file. This blocks while the disk is busy.
    ///
    /// # Errors
    ///
    /// When the file exists already, or can't be written.
    pub fn write_wav(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let file = File::create_new(path)?;
        let mut writer = Writer::new(file, self.rate.hz(), Channels::Mono)?;
        writer.write(&self.samples)?;
        writer.finish()?;
        Ok(())
    }
}

/// A message that is recorded while it is awaited. Made by [`Ivr::message`].
///
/// It starts with the first audio that comes after it was awaited. Keys typed ahead are dropped then, and so are keys that
/// don't end it.
///
/// # Cancel safety
///
/// This future is not cancellation safe: dropped, it loses what it has recorded.
#[must_use = "a message is recorded only while it is awaited"]
#[derive(Debug)]
pub struct RecordMessage<'a> {
    ivr: &'a mut Ivr,
    key: Option<char>,
    silence: Option<Duration>,
    longest: Duration,
}

impl<'a> RecordMessage<'a> {
    pub(super) fn new(ivr: &'a mut Ivr) -> Self {
        Self {
            ivr,
            key: None,
            silence: None,
            longest: Duration::from_secs(180),
        }
    }

    /// Ends it when the caller presses this key. None unless set.
    pub fn until_key(mut self, key: char) -> Self {
        self.key = Some(key);
        self
    }

    /// Ends it when the caller has said nothing for so long, from the start on. Never unless set. The message includes that
    /// silence.
    pub fn until_silence(mut self, silence: Duration) -> Self {
        self.silence = Some(silence);
        self
    }

    /// Ends it when it is so long; 3 minutes unless set. A minute takes about 1 MB of memory at 8 kHz.
    pub fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    async fn record(self) -> Message {
        self.ivr.forget_keys();
        let mut track = Track::new(self.longest);
        let mut speech = Speech::default();
        let mut spoke_until = Duration::ZERO;
        let ended_by = loop {
            match self.ivr.next().await {
                Ok(Event::Audio(frame)) => {
                    track.put(&frame);
                    if self.silence.is_some() {
                        speech.push(&frame);
                    }
                }
                Ok(Event::NoAudio { offset, duration }) => {
                    track.extend_to(offset, duration);
                    speech.push_silence(duration);
                }
                Ok(Event::Dtmf(key)) if Some(key) == self.key => break MessageEnd::Key,
                Ok(_) => {}
                Err(_) => break MessageEnd::CallEnded,
            }
            if speech.is_speaking() {
                spoke_until = track.duration();
            }
            if track.is_full() {
                break MessageEnd::Longest;
            }
            if let Some(silence) = self.silence
                && track.duration() >= spoke_until + silence
            {
                break MessageEnd::Silence;
            }
        };
        Message {
            samples: track.samples,
            rate: track.rate.unwrap_or_default(),
            ended_by,
        }
    }
}

impl<'a> IntoFuture for RecordMessage<'a> {
    type Output = Message;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.record())
    }
}

/// Samples at the places that they have on the call's clock.
struct Track {
    samples: Vec<i16>,
    /// That of the first frame.
    rate: Option<Rate>,
    /// The place of the first sample on the call's clock.
    origin: Option<Duration>,
    longest: Duration,
    resampler: Option<(Rate, Resampler)>,
}

impl Track {
    fn new(longest: Duration) -> Self {
        Self {
            samples: Vec::new(),
            rate: None,
            origin: None,
            longest,
            resampler: None,
        }
    }

    fn put(&mut self, frame: &Frame<'_>) {
        let rate = *self.rate.get_or_insert(frame.rate());
        let at = self.place(rate, frame.offset());
        if frame.rate() == rate {
            self.resampler = None;
            return self.write(at, frame.samples());
        }
        if self
            .resampler
            .as_ref()
            .is_none_or(|(from, _)| *from != frame.rate())
        {
            // Rates of calls can be resampled.
            self.resampler = Resampler::new(frame.rate().hz(), rate.hz())
                .ok()
                .map(|made| (frame.rate(), made));
        }
        let mut resampled = Vec::new();
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.process(frame.samples(), &mut resampled);
        }
        self.write(at, &resampled);
    }

    /// Nothing came for so long.
    fn extend_to(&mut self, offset: Duration, duration: Duration) {
        let Some(rate) = self.rate else { return };
        let end = self.place(rate, offset + duration).min(self.most(rate));
        if end > self.samples.len() {
            self.samples.resize(end, 0);
        }
    }

    fn write(&mut self, at: usize, samples: &[i16]) {
        let Some(rate) = self.rate else { return };
        let end = (at + samples.len()).min(self.most(rate));
        let Some(length) = end.checked_sub(at) else {
            return self.samples.resize(end.max(self.samples.len()), 0);
        };
        if end > self.samples.len() {
            self.samples.resize(end, 0);
        }
        self.samples[at..end].copy_from_slice(&samples[..length]);
    }

    fn place(&mut self, rate: Rate, offset: Duration) -> usize {
        let origin = *self.origin.get_or_insert(offset);
        rate.samples_in(offset.saturating_sub(origin)) as usize
    }

    fn most(&self, rate: Rate) -> usize {
        rate.samples_in(self.longest) as usize
    }

    fn duration(&self) -> Duration {
        let rate = self.rate.unwrap_or_default();
        rate.duration(self.samples.len() as u64)
    }

    fn is_full(&self) -> bool {
        self.rate
            .is_some_and(|rate| self.samples.len() >= self.most(rate))
    }
}
