//! A WAV writer whose file survives the end of the process.
//!
//! # What a kill leaves behind
//!
//! The header of a WAV file holds the length of the sound that follows it. A writer that fills it
//! in at the end and is killed leaves a file that claims to be empty. [`Writer`] keeps the header
//! true: [`Writer::checkpoint`] first writes all samples it holds back, then the whole 44-byte
//! header, sizes included, in one write. In this order the header never promises more than the file
//! holds. So at every moment, also between the two writes, any reader can open the file and finds
//! at least what was written before the last checkpoint.
//!
//! This holds when the process ends, by SIGKILL too, because the kernel keeps what it was given. It
//! does not cover a power cut; for that, sync the file.

use std::io::{self, ErrorKind, SeekFrom};
use std::io::{Seek, Write};

/// How many channels a recording has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// One sample per moment.
    Mono,
    /// Two samples per moment, left first.
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
/// lost. Call [`finish`](Self::finish) at the end.
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
    /// Bytes of sound in `out`. The next follow them.
    stored: u32,
    /// Bytes of sound not in `out` yet.
    pending: Vec<u8>,
}

const HEADER_LEN: u32 = 44;

/// Keeps the whole file below 4 GiB, in whole stereo frames.
const MAX_DATA: u32 = (u32::MAX - HEADER_LEN) / 4 * 4;

/// The bytes of one system call: half a second of two 8 kHz channels.
const PENDING_MAX: usize = 16 * 1024;

/// The header of a stream of 16-bit samples whose end is not known, as of a call that goes on.
///
/// ```
/// use sidetone_audio::wav::{Channels, stream_header};
///
/// assert!(stream_header(8_000, Channels::Mono).starts_with(b"RIFF"));
/// ```
pub fn stream_header(rate: u32, channels: Channels) -> [u8; HEADER_LEN as usize] {
    header(rate, channels, u32::MAX, u32::MAX)
}

fn header(
    rate: u32,
    channels: Channels,
    file_len: u32,
    data_len: u32,
) -> [u8; HEADER_LEN as usize] {
    let frame_len = channels.count() * 2;
    let mut header = [0; HEADER_LEN as usize];
    let mut at = 0;
    let mut put = |field: &[u8]| {
        header[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    };
    put(b"RIFF");
    put(&file_len.to_le_bytes());
    put(b"WAVEfmt ");
    put(&16u32.to_le_bytes());
    put(&1u16.to_le_bytes()); // integer PCM
    put(&channels.count().to_le_bytes());
    put(&rate.to_le_bytes());
    put(&rate.saturating_mul(u32::from(frame_len)).to_le_bytes());
    put(&frame_len.to_le_bytes());
    put(&16u16.to_le_bytes());
    put(b"data");
    put(&data_len.to_le_bytes());
    header
}

impl<W: Write + Seek> Writer<W> {
    /// Starts a file: writes the header of an empty recording at the start of `out`.
    ///
    /// `out` should be empty: what it holds after the recording stays there.
    ///
    /// # Errors
    ///
    /// Those of writing to `out`.
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

    /// Takes samples. For stereo they are interleaved: left, right, left, right.
    ///
    /// They are buffered and written every 16 KiB, so most calls make no system call. After an
    /// error the file is still valid, [`bytes_written`](Self::bytes_written) says how much was
    /// taken, and writing may be tried again.
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

    /// Completes the file up to here: writes the samples held back, then the sizes in the header.
    ///
    /// Called once a second, it limits the loss on a kill to that second.
    ///
    /// # Errors
    ///
    /// Those of the file. It still opens, with the content of the last successful checkpoint.
    pub fn checkpoint(&mut self) -> io::Result<()> {
        self.store_pending()?;
        self.write_header()
    }

    /// Ends the recording and returns the file.
    ///
    /// # Errors
    ///
    /// As for [`checkpoint`](Self::checkpoint).
    pub fn finish(mut self) -> io::Result<W> {
        self.checkpoint()?;
        Ok(self.out)
    }

    /// Drops the last `bytes` of sound, so that the next samples replace them.
    ///
    /// Until they do, the file still holds the old samples and its header counts them.
    ///
    /// # Errors
    ///
    /// Those of the file; then nothing is dropped.
    pub fn rewind(&mut self, bytes: u32) -> io::Result<()> {
        self.store_pending()?;
        self.stored = self.stored.saturating_sub(bytes);
        Ok(())
    }

    /// Bytes of sound taken so far, without the header.
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
        // Always seeks: the last write was the header's, or failed half-way.
        self.out
            .seek(SeekFrom::Start(u64::from(HEADER_LEN + self.stored)))?;
        self.out.write_all(&self.pending)?;
        self.out.flush()?;
        self.stored += self.pending.len() as u32;
        self.pending.clear();
        Ok(())
    }

    fn write_header(&mut self) -> io::Result<()> {
        let header = header(
            self.rate,
            self.channels,
            HEADER_LEN - 8 + self.stored,
            self.stored,
        );
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header)?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A file that knows its position, and nothing else.
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
