//! Both sides of a call as its caller lived through it, side by side in one WAV file.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use sidetone_audio::{
    resample::resample_clip,
    wav::{Channels, Writer},
};
use sidetone_caller::CallRecord;

use crate::failure::Failure;

/// Up to this much a piece may come after the one before it is over and still join it: the receiver's
/// jitter buffer would have covered that.
const JITTER: Duration = Duration::from_millis(60);

/// A WAV file that was made before the call, so that nobody calls in vain.
#[derive(Debug)]
pub(crate) struct TrackFile {
    file: File,
    path: PathBuf,
}

impl TrackFile {
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        // What is there stays until there is something better.
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        let file = options.open(path).map_err(|error| {
            Failure::new(format_args!(
                "can't write {} ({error}): choose another place",
                path.display()
            ))
        })?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Writes what was said left and what was heard right, both on the caller's clock: a frame lies where it
    /// was sent or came.
    pub(crate) fn write(self, record: &CallRecord) -> Result<(), Failure> {
        let failed = |error: io::Error| {
            Failure::new(format_args!(
                "can't write {} ({error}): is the disk full?",
                self.path.display()
            ))
        };
        let rate = record.codec.rate().hz();
        let mut said = Track::new(rate);
        let mut rest = record.sent_samples();
        for sent in &record.sent {
            let (samples, behind) = rest.split_at(sent.samples);
            said.add(sent.at, rate, samples);
            rest = behind;
        }
        let mut heard = Track::new(rate);
        for (message, samples) in record.frames() {
            heard.add(message.at, message.rate.hz(), samples);
        }
        let (mut left, mut right) = (said.finish(), heard.finish());
        let length = left.len().max(right.len());
        left.resize(length, 0);
        right.resize(length, 0);
        let pairs: Vec<i16> = left
            .iter()
            .zip(&right)
            .flat_map(|(left, right)| [*left, *right])
            .collect();
        self.file.set_len(0).map_err(failed)?;
        let mut wav = Writer::new(self.file, rate, Channels::Stereo).map_err(failed)?;
        wav.write(&pairs).map_err(failed)?;
        wav.finish().map_err(failed)?;
        Ok(())
    }
}

/// One side, laid out in time.
struct Track {
    rate: u32,
    samples: Vec<i16>,
    /// Samples of one rate that follow each other, not yet laid down.
    run: Vec<i16>,
    run_rate: u32,
}

impl Track {
    fn new(rate: u32) -> Self {
        Self {
            rate,
            samples: Vec::new(),
            run: Vec::new(),
            run_rate: rate,
        }
    }

    fn add(&mut self, at: Duration, rate: u32, samples: &[i16]) {
        let joins = at <= self.end() + JITTER && !(self.samples.is_empty() && self.run.is_empty());
        if rate != self.run_rate || !joins {
            self.lay_down();
            self.run_rate = rate;
        }
        if !joins {
            let place = (at.as_secs_f64() * f64::from(self.rate)) as usize;
            self.samples.resize(place.max(self.samples.len()), 0);
        }
        self.run.extend_from_slice(samples);
    }

    fn end(&self) -> Duration {
        let seconds = |samples: usize, rate: u32| samples as f64 / f64::from(rate.max(1));
        Duration::from_secs_f64(
            seconds(self.samples.len(), self.rate) + seconds(self.run.len(), self.run_rate),
        )
    }

    fn lay_down(&mut self) {
        // The nine rates can all be resampled into each other.
        let laid = resample_clip(&self.run, self.run_rate, self.rate).unwrap_or_default();
        self.samples.extend(laid);
        self.run.clear();
    }

    fn finish(mut self) -> Vec<i16> {
        self.lay_down();
        self.samples
    }
}
