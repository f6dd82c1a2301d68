//! Writing a WAV file that survives the death of its writer.
//!
//! # What a kill leaves behind
//!
//! The header of a WAV file says how much sound follows, and it stands in front of it. A writer that
//! fills it in at the end leaves, when killed, a file that claims to be empty. [`Writer`] keeps the
//! header true instead: [`Writer::checkpoint`] first writes all samples it still holds, and only
//! then the whole 44-byte header, sizes included, in one write. In this order the header never
//! promises more than the file holds, so that at every frame, also between the two writes, any
//! reader opens the file, and finds at least all that was written before the last checkpoint.
//! (The other order would for a frame promise sound that is not there.)
//!
//! This holds against the end of the process, SIGKILL included, because the kernel keeps what it
//! was given. It is no promise about a power cut; for that, sync the file.

use std::io::{self, ErrorKind, SeekFrom};
use std::io::{Seek, Write};

/// Samples side by side in one frame of the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// One sample per frame.
    Mono,
    /// Two samples per frame, left first.
    Stereo,
}

impl Channels {
    fn count(self) -> u16 {
        match self {
            Channels::Mono => 1,
            Channels::Stereo => 2,
        }
    }
}

/// Streams 16-bit samples into a WAV file.
///
/// Dropping it is like being killed: what came after the last [`checkpoint`](Self::checkpoint) is
/// lost. End with [`finish`](Self::finish).
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use sidetone_audio::wav::{Channels, Writer};
///
/// let file = std::io::Cursor::new(Vec::new()); // or a std::fs::File
/// let mut wav = Writer::new(file, 8000, Channels::Stereo)?;
/// wav.write(&[100, -100, 200, -200])?; // left, right, left, right
/// wav.checkpoint()?; // call it once a second
/// let file = wav.finish()?;
/// assert_eq!(file.into_inner().len(), 44 + 8);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Writer<W: Write + Seek> {
    out: W,
    rate: u32,
    channels: Channels,
    /// Bytes of sound in `out`; the next go right behind them.
    stored: u32,
    /// Bytes of sound not yet in `out`.
    pending: Vec<u8>,
}

const HEADER_LEN: u32 = 44;

/// The whole file stays below 4 GiB, in whole stereo frames.
const MAX_DATA: u32 = (u32::MAX - HEADER_LEN) / 4 * 4;

/// One system call for this much sound: half a second of two 8 kHz channels.
const PENDING_MAX: usize = 16 * 1024;

impl<W: Write + Seek> Writer<W> {
    /// Starts a file: writes the header of an empty recording at the beginning of `out`.
    ///
    /// `out` should be empty: what it holds behind the recording stays there.
    ///
    /// # Errors
    ///
    /// What `out` answers when it is written to.
    pub fn new(out: W, rate: u32, channels: Channels) -> io::Result<Self> {
        let mut writer = Self {
            out,
            rate,
            channels,
            stored: 0,
            pending: Vec::with_capacity(PENDING_MAX),
        };
        writer.write_header()?;
        Ok(writer)
    }

    /// Takes samples, for stereo interleaved: left, right, left, right.
    ///
    /// They are gathered and written every 16 KiB, so most calls touch no file. After an error the
    /// file is still sound, [`bytes_written`](Self::bytes_written) says how much was taken, and
    /// writing may be tried again.
    ///
    /// # Errors
    ///
    /// Those of the file, such as [`ErrorKind::StorageFull`]; [`ErrorKind::FileTooLarge`] and
    /// nothing taken if the samples don't fit into [`remaining`](Self::remaining);
    /// [`ErrorKind::InvalidInput`] and nothing taken for half a stereo frame.
    pub fn write(&mut self, samples: &[i16]) -> io::Result<()> {
        if !samples
            .len()
            .is_multiple_of(usize::from(self.channels.count()))
        {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "a stereo recording takes samples in pairs, left and right",
            ));
        }
        if samples.len() as u64 * 2 > u64::from(self.remaining()) {
            return Err(io::Error::new(
                ErrorKind::FileTooLarge,
                "a WAV file ends at 4 GiB; finish this one and start the next",
            ));
        }
        for part in samples.chunks(PENDING_MAX / 2) {
            if self.pending.len() + part.len() * 2 > PENDING_MAX {
                self.store_pending()?;
            }
            self.pending
                .extend(part.iter().flat_map(|sample| sample.to_le_bytes()));
        }
        Ok(())
    }

    /// Makes the file whole up to here: writes what is held back, then the sizes in the header.
    ///
    /// Called once a second, it bounds what a kill can cost to that second.
    ///
    /// # Errors
    ///
    /// Those of the file. It still opens, with what it held at the last checkpoint that succeeded.
    pub fn checkpoint(&mut self) -> io::Result<()> {
        self.store_pending()?;
        self.write_header()
    }

    /// Ends the recording and gives the file back.
    ///
    /// # Errors
    ///
    /// As for [`checkpoint`](Self::checkpoint).
    pub fn finish(mut self) -> io::Result<W> {
        self.checkpoint()?;
        Ok(self.out)
    }

    /// Forgets the last `bytes` of sound, so that the next samples replace them.
    ///
    /// Until they do, the file still holds what is replaced, and its header still counts it.
    ///
    /// # Errors
    ///
    /// Those of the file, and then nothing is forgotten.
    pub fn rewind(&mut self, bytes: u32) -> io::Result<()> {
        self.store_pending()?;
        self.stored = self.stored.saturating_sub(bytes);
        Ok(())
    }

    /// Bytes of sound taken so far, header not counted.
    pub fn bytes_written(&self) -> u32 {
        self.stored + self.pending.len() as u32
    }

    /// Bytes of sound that still fit: a WAV file ends at 4 GiB, 37 hours of 8 kHz stereo.
    pub fn remaining(&self) -> u32 {
        MAX_DATA - self.bytes_written()
    }

    fn store_pending(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // Always by position: the last write was the header's, or failed half-way.
        self.out
            .seek(SeekFrom::Start(u64::from(HEADER_LEN + self.stored)))?;
        self.out.write_all(&self.pending)?;
        self.out.flush()?;
        self.stored += self.pending.len() as u32;
        self.pending.clear();
        Ok(())
    }

    fn write_header(&mut self) -> io::Result<()> {
        let frame_len = self.channels.count() * 2;
        let mut header = [0; HEADER_LEN as usize];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            header[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(b"RIFF");
        put(&(HEADER_LEN - 8 + self.stored).to_le_bytes());
        put(b"WAVEfmt ");
        put(&16u32.to_le_bytes());
        put(&1u16.to_le_bytes()); // integer PCM
        put(&self.channels.count().to_le_bytes());
        put(&self.rate.to_le_bytes());
        put(&self.rate.saturating_mul(u32::from(frame_len)).to_le_bytes());
        put(&frame_len.to_le_bytes());
        put(&16u16.to_le_bytes());
        put(b"data");
        put(&self.stored.to_le_bytes());
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header)?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A file that remembers where it was sought to, and nothing else.
    struct Position(u64);

    impl Write for Position {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Position {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            let SeekFrom::Start(at) = to else {
                return Err(ErrorKind::Unsupported.into());
            };
            self.0 = at;
            Ok(at)
        }
    }

    #[test]
    fn a_file_takes_sound_up_to_four_gigabytes_and_no_more() {
        let mut wav = Writer::new(Position(0), 8000, Channels::Stereo).unwrap();
        wav.stored = MAX_DATA - 8;
        assert_eq!(wav.remaining(), 8);
        let error = wav.write(&[0; 6]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        wav.write(&[0; 4]).unwrap();
        assert_eq!(wav.remaining(), 0);
        wav.store_pending().unwrap();
        assert_eq!(wav.out.0, (1 << 32) - 4);
        wav.finish().unwrap();
    }
}
