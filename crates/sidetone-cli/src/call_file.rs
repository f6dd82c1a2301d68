//! A WAV file with both sides of a call, at the times at which its caller sent and received them.

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

use sidetone::{Rate, Side, record::StereoFile};
use sidetone_caller::{CallRecord, Event as CallerEvent};

use crate::failure::Failure;

/// How often audio is written to the disk.
const WRITE_INTERVAL: Duration = Duration::from_millis(200);

/// The most samples that may wait for the disk: 8 MB. Those beyond are lost, and counted.
const MAX_QUEUED: usize = 4_000_000;

/// The size of a chunk without its samples, in samples.
const OVERHEAD: usize = 32;

/// A WAV file that is opened before the call, so that an error is found first. The old content stays until the call
/// connects.
#[derive(Debug)]
pub(crate) struct CallFile {
    file: File,
    path: PathBuf,
    /// The file did not exist. It is removed again if nothing is written.
    is_new: bool,
}

impl CallFile {
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

    /// Writes a call that has ended.
    pub(crate) fn write(mut self, record: &CallRecord) -> Result<(), Failure> {
        let written = self.write_record(record);
        written.map_err(|error| failed(&self.path, &error))
    }

    fn write_record(&mut self, record: &CallRecord) -> io::Result<()> {
        let rate = record.codec.rate();
        let mut stereo = self.begin(rate)?;
        let mut rest = record.sent_samples();
        for sent in &record.sent {
            let (samples, remaining) = rest.split_at(sent.samples);
            rest = remaining;
            stereo.put(Side::Caller, rate, sent.at, samples);
        }
        for (heard, samples) in record.frames() {
            stereo.put(Side::Server, heard.rate, heard.at, samples);
        }
        stereo.finish().map(drop)
    }

    /// Starts a thread that writes a call while it runs. `rate` is the caller's.
    pub(crate) fn start_writer(self, rate: Rate) -> Result<(FileSender, FileWriter), Failure> {
        let (commands, receiver) = mpsc::channel();
        let (queued, lost) = (Arc::default(), Arc::default());
        let sender = FileSender {
            commands,
            rate,
            queued: Arc::clone(&queued),
            lost: Arc::clone(&lost),
        };
        let path = self.path.clone();
        let thread = thread::Builder::new().name("sidetone-file".into());
        let thread = thread
            .spawn(move || self.write_all(rate, &receiver, &queued))
            .map_err(Failure::cant_start)?;
        let writer = FileWriter { path, lost, thread };
        Ok((sender, writer))
    }

    fn write_all(
        mut self,
        rate: Rate,
        commands: &Receiver<Command>,
        queued: &AtomicUsize,
    ) -> io::Result<Written> {
        let Ok(Command::Start) = commands.recv() else {
            return Ok(Written::default());
        };
        let began = Instant::now();
        let mut stereo = self.begin(rate)?;
        let mut due = began + WRITE_INTERVAL;
        loop {
            let wait = due.saturating_duration_since(Instant::now());
            match commands.recv_timeout(wait) {
                Ok(Command::Write(chunk)) => {
                    queued.fetch_sub(chunk.size(), Ordering::AcqRel);
                    stereo.put(chunk.side, chunk.rate, chunk.at, &chunk.samples);
                }
                Ok(Command::Start) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= due {
                stereo.advance(began.elapsed())?;
                due = Instant::now() + WRITE_INTERVAL;
            }
        }
        let surplus = stereo.discarded();
        let (duration, _) = stereo.finish()?;
        Ok(Written { duration, surplus })
    }

    fn begin(&mut self, rate: Rate) -> io::Result<StereoFile<&File>> {
        self.file.set_len(0)?;
        let stereo = StereoFile::new(&self.file, rate);
        self.is_new &= stereo.is_err();
        stereo
    }
}

impl Drop for CallFile {
    fn drop(&mut self) {
        if self.is_new {
            // If this fails, an empty file stays.
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

enum Command {
    /// The call is connected.
    Start,
    Write(Chunk),
}

/// Audio of one side.
struct Chunk {
    side: Side,
    rate: Rate,
    at: Duration,
    samples: Vec<i16>,
}

impl Chunk {
    fn size(&self) -> usize {
        self.samples.len() + OVERHEAD
    }
}

/// Sends a call's audio to its file. It never waits.
pub(crate) struct FileSender {
    commands: Sender<Command>,
    /// The rate of the caller's audio.
    rate: Rate,
    /// The size of the queued chunks, in samples.
    queued: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

impl FileSender {
    /// Queues a frame that the caller sent for the left channel, or one that it received for the right one. The frame's
    /// place is the time at which it was sent or received.
    pub(crate) fn handle_event(&self, event: &CallerEvent<'_>) {
        let chunk = match *event {
            CallerEvent::Connected { .. } => {
                // It fails when writing has failed, which is reported at the end.
                let _ = self.commands.send(Command::Start);
                return;
            }
            CallerEvent::Sent { at, samples, .. } => (Side::Caller, self.rate, at, samples),
            CallerEvent::Heard { at, rate, samples } => (Side::Server, rate, at, samples),
            _ => return,
        };
        let (side, rate, at, samples) = chunk;
        let size = samples.len() + OVERHEAD;
        if self.queued.fetch_add(size, Ordering::AcqRel) + size > MAX_QUEUED {
            self.queued.fetch_sub(size, Ordering::AcqRel);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let samples = samples.to_vec();
        let _ = self.commands.send(Command::Write(Chunk {
            side,
            rate,
            at,
            samples,
        }));
    }
}

/// The thread that writes a call while it runs.
pub(crate) struct FileWriter {
    pub(crate) path: PathBuf,
    lost: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<Written>>,
}

/// What was written to a file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) duration: Duration,
    /// Audio that was left out because it came faster than real time.
    pub(crate) surplus: Duration,
}

impl FileWriter {
    /// Waits until the file is complete, which needs its [`FileSender`] to be dropped. Returns the number of lost frames,
    /// too. Blocks.
    pub(crate) fn finish(self) -> Result<(Written, u64), Failure> {
        let lost = self.lost.load(Ordering::Relaxed);
        match self.thread.join() {
            Ok(written) => {
                let written = written.map_err(|error| failed(&self.path, &error))?;
                Ok((written, lost))
            }
            // The panic has been reported.
            Err(_) => Err(failed(&self.path, &ErrorKind::Other.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_existing_file_stays_until_a_call_connects_and_a_new_one_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (
            directory.path().join("old.wav"),
            directory.path().join("new.wav"),
        );
        std::fs::write(&old, "old content").unwrap();
        for path in [&old, &new] {
            let file = CallFile::create(path).unwrap();
            let (sender, writer) = file.start_writer(Rate::Slin).unwrap();
            drop(sender);
            writer.finish().unwrap();
        }
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "old content");
        assert!(!new.exists());
    }

    #[test]
    fn frames_that_the_disk_is_too_slow_for_are_counted() {
        let sender = {
            let (commands, _) = mpsc::channel();
            let (queued, lost) = (Arc::default(), Arc::default());
            FileSender {
                commands,
                rate: Rate::Slin,
                queued,
                lost,
            }
        };
        let samples = [0; 32_000];
        let chunks = MAX_QUEUED / (samples.len() + OVERHEAD);
        for _ in 0..chunks + 7 {
            sender.handle_event(&CallerEvent::Heard {
                at: Duration::ZERO,
                rate: Rate::Slin,
                samples: &samples,
            });
        }
        assert_eq!(sender.lost.load(Ordering::Relaxed), 7);
    }
}
