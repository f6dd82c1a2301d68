use std::{
    io::{self, Seek, Write},
    time::Duration,
};

use sidetone_audio::wav::{Channels, Writer};
use sidetone_proto::{Rate, Time};

use super::timeline::Timeline;
use crate::media::Side;

/// Bytes of a stereo frame.
const FRAME: u64 = 4;

/// Both sides of one call in a stereo WAV file, for who has them from elsewhere than a [`Server`](crate::Server): a
/// client, say. It is written while the call goes on and keeps some seconds of it in memory, however much comes.
///
/// What comes is placed as [in recordings](super#time). The file is whole after each [`advance`](Self::advance).
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::{io::Cursor, time::Duration};
/// use sidetone::{Rate, Side, record::StereoFile};
///
/// let mut file = StereoFile::new(Cursor::new(Vec::new()), Rate::Slin)?;
/// for place in 0..50 {
///     let at = Duration::from_millis(20) * place;
///     file.put(Side::Caller, Rate::Slin, at, &[100; 160]);
///     file.advance(at)?;
/// }
/// let (duration, wav) = file.finish()?;
/// assert_eq!(duration, Duration::from_secs(1));
/// assert_eq!(wav.into_inner().len(), 44 + 32_000);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct StereoFile<W: Write + Seek> {
    rate: Rate,
    timeline: Timeline,
    wav: Writer<W>,
    /// Room for frames on their way to the file.
    frames: Vec<i16>,
}

impl<W: Write + Seek> StereoFile<W> {
    /// Begins a file of this rate, which should be empty.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn new(out: W, rate: Rate) -> io::Result<Self> {
        Ok(Self {
            rate,
            timeline: Timeline::new(rate.hz(), Time::ZERO),
            wav: Writer::new(out, rate.hz(), Channels::Stereo)?,
            frames: Vec::new(),
        })
    }

    /// Takes a piece that passed the socket at `at` on the call's clock, later than all others of its side. What
    /// comes more than 5 s faster than real time is left out; [`discarded`](Self::discarded) says how much.
    pub fn put(&mut self, side: Side, rate: Rate, at: Duration, samples: &[i16]) {
        self.timeline.put(side, rate, Time::ZERO + at, samples);
    }

    /// Writes what is due at `now` on the call's clock, and makes the file whole up to there.
    ///
    /// # Errors
    ///
    /// Those of the file; [`FileTooLarge`](io::ErrorKind::FileTooLarge) at 4 GiB. What was written stays.
    pub fn advance(&mut self, now: Duration) -> io::Result<()> {
        self.frames.clear();
        let first = self.timeline.take(Time::ZERO + now, &mut self.frames);
        self.write(first)
    }

    /// Writes what is left. How long the file is, and what it was written to.
    ///
    /// # Errors
    ///
    /// As of [`advance`](Self::advance).
    pub fn finish(mut self) -> io::Result<(Duration, W)> {
        self.frames.clear();
        let first = self.timeline.finish(&mut self.frames);
        self.write(first)?;
        let frames = u64::from(self.wav.bytes_written()) / FRAME;
        Ok((self.rate.duration(frames), self.wav.finish()?))
    }

    /// Audio of both sides for which there was no place.
    pub fn discarded(&self) -> Duration {
        let discarded = |side| self.timeline.counts(side).discarded;
        self.rate
            .duration(discarded(Side::Caller) + discarded(Side::Server))
    }

    fn write(&mut self, first: u64) -> io::Result<()> {
        let written = u64::from(self.wav.bytes_written()) / FRAME;
        let back = written.saturating_sub(first) * FRAME;
        if back > 0 {
            self.wav.rewind(u32::try_from(back).unwrap_or(u32::MAX))?;
        }
        self.wav.write(&self.frames)?;
        self.wav.checkpoint()
    }
}
