//! Both sides of a call as its caller lived through it, side by side in one WAV file.

use std::{
    fs::File,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sidetone::{
    Rate,
    record::{Side, StereoFile},
};
use sidetone_caller::{CallRecord, Event as CallerEvent};

use crate::failure::Failure;

/// How often what has come is written.
const TURN: Duration = Duration::from_millis(200);

/// Samples that may wait for the disk, 8 MB; what comes while so many do is lost, and counted.
const UNWRITTEN: usize = 4_000_000;

/// What a piece takes besides its samples, in samples.
const OVERHEAD: usize = 32;

/// A WAV file that was opened before the call, so that nobody calls in vain. What is in it stays until there is
/// something better.
#[derive(Debug)]
pub(crate) struct TrackFile {
    file: File,
    path: PathBuf,
    /// It was not there, and goes again if nothing comes to be in it.
    is_new: bool,
}

impl TrackFile {
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let mut options = File::options();
        options.write(true);
        let opened = match options.create_new(true).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => options
                .create_new(false)
                .open(path)
                .map(|file| (file, false)),
            opened => opened.map(|file| (file, true)),
        };
        let (file, is_new) = opened.map_err(|error| {
            Failure::new(format_args!(
                "can't write {} ({error}): choose another place",
                path.display()
            ))
        })?;
        Ok(Self {
            file,
            path: path.to_owned(),
            is_new,
        })
    }

    /// Writes a call that is over.
    pub(crate) fn write(mut self, record: &CallRecord) -> Result<(), Failure> {
        let written = self.write_record(record);
        written.map_err(|error| failed(&self.path, &error))
    }

    fn write_record(&mut self, record: &CallRecord) -> io::Result<()> {
        let rate = record.codec.rate();
        let mut stereo = self.begin(rate)?;
        let mut rest = record.sent_samples();
        for sent in &record.sent {
            let (samples, behind) = rest.split_at(sent.samples);
            rest = behind;
            stereo.put(Side::Caller, rate, sent.at, samples);
        }
        for (heard, samples) in record.frames() {
            stereo.put(Side::Server, heard.rate, heard.at, samples);
        }
        stereo.finish().map(drop)
    }

    /// Writes a call that is about to begin while it goes on, on a thread of its own.
    pub(crate) fn follow(self, rate: Rate) -> Result<(Tracks, Following), Failure> {
        let (sender, receiver) = mpsc::channel();
        let (waiting, lost) = (Arc::default(), Arc::default());
        let tracks = Tracks {
            sender,
            rate,
            waiting: Arc::clone(&waiting),
            lost: Arc::clone(&lost),
        };
        let path = self.path.clone();
        let writing = thread::Builder::new().name("sidetone-tracks".into());
        let thread = writing
            .spawn(move || self.write_all(rate, &receiver, &waiting))
            .map_err(|error| Failure::new(format_args!("can't start: {error}")))?;
        let following = Following { path, lost, thread };
        Ok((tracks, following))
    }

    fn write_all(
        mut self,
        rate: Rate,
        orders: &Receiver<Order>,
        waiting: &AtomicUsize,
    ) -> io::Result<Written> {
        let Ok(Order::Begin) = orders.recv() else {
            return Ok(Written::default());
        };
        let began = Instant::now();
        let mut stereo = self.begin(rate)?;
        let mut due = began + TURN;
        loop {
            let wait = due.saturating_duration_since(Instant::now());
            match orders.recv_timeout(wait) {
                Ok(Order::Put(piece)) => {
                    waiting.fetch_sub(piece.weight(), Ordering::AcqRel);
                    stereo.put(piece.side, piece.rate, piece.at, &piece.samples);
                }
                Ok(Order::Begin) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= due {
                stereo.advance(began.elapsed())?;
                due = Instant::now() + TURN;
            }
        }
        let surplus = stereo.discarded();
        let (duration, _) = stereo.finish()?;
        Ok(Written { duration, surplus })
    }

    fn begin(&mut self, rate: Rate) -> io::Result<StereoFile<&File>> {
        self.file.set_len(0)?;
        let begun = StereoFile::new(&self.file, rate);
        self.is_new &= begun.is_err();
        begun
    }
}

impl Drop for TrackFile {
    fn drop(&mut self) {
        if self.is_new {
            // It stays where it is as empty as it was.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format_args!(
        "can't write {} ({error}): is the disk full?",
        path.display()
    ))
}

enum Order {
    /// The call stands.
    Begin,
    Put(Piece),
}

/// Audio of one side.
struct Piece {
    side: Side,
    rate: Rate,
    at: Duration,
    samples: Vec<i16>,
}

impl Piece {
    fn weight(&self) -> usize {
        self.samples.len() + OVERHEAD
    }
}

/// Where a call's events go that is written while it goes on. Never waits.
pub(crate) struct Tracks {
    sender: Sender<Order>,
    /// Of what the caller says.
    rate: Rate,
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

impl Tracks {
    /// Takes what was said left and what was heard right, both on the caller's clock: a frame lies where it was sent
    /// or came.
    pub(crate) fn observe(&self, event: &CallerEvent<'_>) {
        let piece = match *event {
            CallerEvent::Connected { .. } => {
                // It fails when the disk did, which is told at the end.
                let _ = self.sender.send(Order::Begin);
                return;
            }
            CallerEvent::Sent { at, samples, .. } => (Side::Caller, self.rate, at, samples),
            CallerEvent::Heard { at, rate, samples } => (Side::Server, rate, at, samples),
            _ => return,
        };
        let (side, rate, at, samples) = piece;
        let weight = samples.len() + OVERHEAD;
        if self.waiting.fetch_add(weight, Ordering::AcqRel) + weight > UNWRITTEN {
            self.waiting.fetch_sub(weight, Ordering::AcqRel);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let samples = samples.to_vec();
        let _ = self.sender.send(Order::Put(Piece {
            side,
            rate,
            at,
            samples,
        }));
    }
}

/// A file that is written while its call goes on.
pub(crate) struct Following {
    pub(crate) path: PathBuf,
    lost: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<Written>>,
}

/// What came to be in a file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) duration: Duration,
    /// Audio that came so much faster than real time that there was no place for it.
    pub(crate) surplus: Duration,
}

impl Following {
    /// Waits until the file is whole, once its [`Tracks`] are gone. Blocks.
    pub(crate) fn finish(self) -> Result<(Written, u64), Failure> {
        let lost = self.lost.load(Ordering::Relaxed);
        match self.thread.join() {
            Ok(written) => {
                let written = written.map_err(|error| failed(&self.path, &error))?;
                Ok((written, lost))
            }
            // The panic has been told.
            Err(_) => Err(failed(&self.path, &ErrorKind::Other.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_that_was_there_stays_until_a_call_stands_and_a_new_one_goes() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (
            directory.path().join("old.wav"),
            directory.path().join("new.wav"),
        );
        std::fs::write(&old, "what was there").unwrap();
        for path in [&old, &new] {
            let file = TrackFile::create(path).unwrap();
            let (tracks, following) = file.follow(Rate::Slin).unwrap();
            drop(tracks);
            following.finish().unwrap();
        }
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "what was there");
        assert!(!new.exists());
    }

    #[test]
    fn what_the_disk_is_too_slow_for_is_counted() {
        let tracks = {
            let (sender, _) = mpsc::channel();
            let (waiting, lost) = (Arc::default(), Arc::default());
            Tracks {
                sender,
                rate: Rate::Slin,
                waiting,
                lost,
            }
        };
        let samples = [0; 32_000];
        let pieces = UNWRITTEN / (samples.len() + OVERHEAD);
        for _ in 0..pieces + 7 {
            tracks.observe(&CallerEvent::Heard {
                at: Duration::ZERO,
                rate: Rate::Slin,
                samples: &samples,
            });
        }
        assert_eq!(tracks.lost.load(Ordering::Relaxed), 7);
    }
}
