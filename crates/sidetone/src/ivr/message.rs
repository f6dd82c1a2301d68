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
                    track.extend(offset, duration);
                    speech.push_silence(duration);
                }
                Ok(Event::Dtmf(key)) if Some(key) == self.key => break MessageEnd::Key,
                Ok(_) => {}
                Err(_) => break MessageEnd::CallEnded,
            }
            if speech.is_speaking() {
                spoke_until = track.length;
            }
            if track.is_full() {
                break MessageEnd::Longest;
            }
            if let Some(silence) = self.silence
                && track.length >= spoke_until + silence
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
    /// How long it is, also while nothing has told the rate.
    length: Duration,
    longest: Duration,
    resampler: Option<(Rate, Resampler)>,
}

impl Track {
    fn new(longest: Duration) -> Self {
        Self {
            samples: Vec::new(),
            rate: None,
            origin: None,
            length: Duration::ZERO,
            longest,
            resampler: None,
        }
    }

    fn put(&mut self, frame: &Frame<'_>) {
        let rate = *self.rate.get_or_insert(frame.rate());
        self.extend(frame.offset(), frame.duration());
        if frame.rate() == rate {
            self.resampler = None;
            return self.write(rate, frame.offset(), frame.samples());
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
        self.write(rate, frame.offset(), &resampled);
    }

    /// Extends the message to the end of this part of the call's clock, with silence. It starts with the first part.
    fn extend(&mut self, offset: Duration, duration: Duration) {
        let origin = *self.origin.get_or_insert(offset);
        let end = (offset + duration).saturating_sub(origin);
        self.length = self.length.max(end).min(self.longest);
        if let Some(rate) = self.rate {
            self.resize(rate.samples_in(self.length) as usize);
        }
    }

    fn write(&mut self, rate: Rate, offset: Duration, samples: &[i16]) {
        let place = offset.saturating_sub(self.origin.unwrap_or_default());
        let at = rate.samples_in(place) as usize;
        let end = (at + samples.len()).min(rate.samples_in(self.longest) as usize);
        if let Some(length) = end.checked_sub(at) {
            self.resize(end);
            self.samples[at..end].copy_from_slice(&samples[..length]);
        }
    }

    fn resize(&mut self, length: usize) {
        self.samples.resize(length.max(self.samples.len()), 0);
    }

    fn is_full(&self) -> bool {
        self.length >= self.longest
    }
}
