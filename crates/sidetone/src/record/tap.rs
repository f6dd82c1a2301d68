use std::sync::Arc;

use parking_lot::Mutex;
use sidetone_proto::{Rate, Time};

/// How many samples wait for a reader at most: five seconds of both sides at 8 kHz. What comes beyond that
/// is lost and counted, never waited for.
const LIMIT: usize = 80_000;

/// Which way a piece of audio went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// From the caller.
    Caller,
    /// What left the socket.
    Server,
}

/// Both sides of a call as a media thread sees them, for somebody who listens in.
#[derive(Debug, Default)]
pub(crate) struct Tap(Mutex<TapBuffer>);

/// Audio of both sides in the order in which it passed.
#[derive(Debug, Default)]
pub(crate) struct TapBuffer {
    pub(crate) samples: Vec<i16>,
    pub(crate) pieces: Vec<Piece>,
    /// Pieces that found no room.
    pub(crate) lost: u64,
    /// The call is over: nothing more comes.
    pub(crate) ended: bool,
}

/// One frame or slot; its samples are the next `length` of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) side: Side,
    pub(crate) rate: Rate,
    /// When it passed the socket.
    pub(crate) at: Time,
    pub(crate) length: usize,
}

impl Tap {
    /// Swaps what has come in with the emptied `buffer`.
    pub(crate) fn take(&self, buffer: &mut TapBuffer) {
        buffer.samples.clear();
        buffer.pieces.clear();
        buffer.lost = 0;
        buffer.ended = false;
        std::mem::swap(&mut *self.0.lock(), buffer);
    }
}

/// The media thread's end of a tap. It never waits for the reader.
#[derive(Debug)]
pub(crate) struct TapWriter {
    tap: Arc<Tap>,
    /// What came while the reader was just taking the rest.
    backlog: TapBuffer,
}

impl TapWriter {
    pub(crate) fn new(tap: Arc<Tap>) -> Self {
        Self {
            tap,
            backlog: TapBuffer::default(),
        }
    }

    pub(crate) fn put(&mut self, side: Side, rate: Rate, at: Time, samples: &[i16]) {
        let piece = Piece {
            side,
            rate,
            at,
            length: samples.len(),
        };
        match self.tap.0.try_lock() {
            Some(mut shared) => {
                shared.append(&mut self.backlog);
                shared.put(piece, samples);
            }
            None => self.backlog.put(piece, samples),
        }
    }

    /// Says that nothing more comes; false if that has to be said again.
    pub(crate) fn try_end(&mut self) -> bool {
        match self.tap.0.try_lock() {
            Some(mut shared) => {
                shared.append(&mut self.backlog);
                shared.ended = true;
                true
            }
            None => false,
        }
    }
}

impl TapBuffer {
    fn put(&mut self, piece: Piece, samples: &[i16]) {
        if self.samples.len() + samples.len() > LIMIT {
            self.lost += 1;
            return;
        }
        self.samples.extend_from_slice(samples);
        self.pieces.push(piece);
    }

    fn append(&mut self, other: &mut Self) {
        let mut begin = 0;
        for piece in other.pieces.drain(..) {
            self.put(piece, &other.samples[begin..begin + piece.length]);
            begin += piece.length;
        }
        other.samples.clear();
        self.lost += std::mem::take(&mut other.lost);
    }
}
