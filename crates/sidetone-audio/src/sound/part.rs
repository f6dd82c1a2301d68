//! A range of the bytes of a sound, in a file or in memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A range of a file or of memory. It is read on demand. Clones read independently.
#[derive(Debug, Clone)]
pub(super) struct Part {
    store: Store,
    range: Range<u64>,
    /// The position of the next read in the range.
    at: u64,
}

#[derive(Debug, Clone)]
enum Store {
    File(Arc<File>),
    Memory(Arc<Vec<u8>>),
    /// The bytes of both, in this order.
    #[cfg(feature = "compressed")]
    Both(Box<Part>, Arc<Vec<u8>>),
}

impl Part {
    pub(super) fn of_file(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self {
            store: Store::File(Arc::new(file)),
            range: 0..len,
            at: 0,
        })
    }

    pub(super) fn of_memory(bytes: Vec<u8>) -> Self {
        Self {
            range: 0..bytes.len() as u64,
            store: Store::Memory(Arc::new(bytes)),
            at: 0,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The bytes between two positions of this part, as far as they exist.
    pub(super) fn slice(&self, from: u64, to: u64) -> Self {
        let place = |at: u64| self.range.start + at.min(self.len());
        Self {
            store: self.store.clone(),
            range: place(from)..place(to).max(place(from)),
            at: 0,
        }
    }

    /// The bytes from this position on.
    pub(super) fn from(&self, at: u64) -> Self {
        self.slice(at, self.len())
    }

    #[cfg(feature = "compressed")]
    /// The bytes before a position, then `tail`.
    pub(super) fn with_tail(&self, from: u64, tail: Vec<u8>) -> Self {
        let head = self.slice(0, from);
        Self {
            range: 0..head.len() + tail.len() as u64,
            store: Store::Both(Box::new(head), Arc::new(tail)),
            at: 0,
        }
    }

    /// Up to `len` bytes from this position on: fewer at the end.
    pub(super) fn peek(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let slice = self.slice(at, at.saturating_add(len as u64));
        let mut bytes = Vec::with_capacity(slice.len() as usize);
        slice.take(len as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Exactly `N` bytes, or `None` if there are fewer.
    pub(super) fn array<const N: usize>(&self, at: u64) -> io::Result<Option<[u8; N]>> {
        Ok(self.peek(at, N)?.try_into().ok())
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.len() - self.at;
        let len = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let (buffer, place) = (&mut buffer[..len], self.range.start + self.at);
        let read = match &self.store {
            Store::File(file) => file.read_at(buffer, place)?,
            Store::Memory(bytes) => (&bytes[place as usize..]).read(buffer)?,
            #[cfg(feature = "compressed")]
            Store::Both(head, _) if place < head.len() => head.from(place).read(buffer)?,
            #[cfg(feature = "compressed")]
            Store::Both(head, tail) => (&tail[(place - head.len()) as usize..]).read(buffer)?,
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Part {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.len().checked_add_signed(by),
        };
        // A position beyond the end reads nothing, as the end does.
        self.at = place.ok_or(io::ErrorKind::InvalidInput)?.min(self.len());
        Ok(self.at)
    }
}
