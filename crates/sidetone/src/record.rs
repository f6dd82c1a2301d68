//! Recording calls: both sides of each in a stereo WAV file.
//!
//! The caller is left, what left the server's socket is right. Both stand on one monotonic clock: a sample
//! lies where the moment is at which it passed the socket, so what sounds at once in the file was at the
//! socket at once.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use sidetone::{Call, Server, record::Recorder};
//!
//! let recorder = Arc::new(Recorder::new("/var/spool/sidetone")?);
//! let handler = move |call: Call| {
//!     let recorder = Arc::clone(&recorder);
//!     async move {
//!         let recording = recorder.record(&call.handle())?;
//!         println!("{:?}", call.closed().await);
//!         println!("{:?}", recording.ended().await.files);
//!         Ok::<(), sidetone::record::RecordError>(())
//!     }
//! };
//! Server::builder().bind("127.0.0.1:9092").await?.serve(handler).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Files
//!
//! A file is called after the time (UTC) of the first audio in it and the call's UUID:
//! `20261122T075406Z-UUID.wav`, unless the program [names it](Recorder::record_as). Nothing is ever overwritten:
//! where a name is taken, `-2`, `-3` and so on is added to it. While it is being written it is called `….wav.part`;
//! it is whole when that goes. Only its owner can read it (mode 0600). Before 4 GiB, after 37 hours of 8 kHz, the
//! next file begins.
//!
//! A process that is killed, by SIGKILL too, leaves `.part` files that open and lack at most the last
//! second (by design at most 550 ms; the header is brought up to date every 200 ms).
//!
//! The file's rate is that of the first audio from the caller, or of what went out if the caller sends
//! nothing for 200 ms. What comes at another rate, such as the server's side before a call turns out to be
//! wideband, is resampled (2.25 ms later than it should be).
//!
//! # Time
//!
//! - Jitter of less than 30 ms changes nothing: samples stand in the file as they passed, bit by bit.
//! - Where nothing came, silence is filled in and counted. Audio that was only late, such as the backlog
//!   after a freeze, takes the place of up to 5 s of that silence.
//! - A clock that runs faster or slower than this machine's is corrected when it is 12 ms off, in silence if
//!   there is some, otherwise by a sample every 20 ms: at 200 ppm 96 samples of 8 kHz a minute.
//!
//! # Pauses
//!
//! [`Recording::pause`] keeps out of the file what it must not hold, and puts silence in its place on both sides. It
//! concerns this recording only: events, monitors and transcripts have what is said meanwhile. [`Recording::stop`] ends a
//! recording while its call goes on.
//!
//! # A slow or full disk
//!
//! One thread writes the recordings of all calls, those that are open first. A slow disk keeps it from its work and nothing
//! else: up to five seconds of each side wait in memory, what comes after that is lost and counted. An error, such as a
//! full disk or a limit on the size of files, ends the recording of that call with what is there; its file stays a
//! `.part`, or goes if there is no sound in it. Either is logged once per call as a warning (target `sidetone::record`),
//! and in the [`Report`]. A directory that went away is made again for the next file.

mod control;
mod file;
mod stereo;
mod timeline;
mod track;
mod writer;

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, SyncSender, TrySendError},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use crate::call::CallHandle;
use control::Control;
use file::Storage;
pub use stereo::StereoFile;
use writer::{Command, Job};

/// Recordings that may wait to be begun. The thread takes each within milliseconds, unless the disk stands still.
const MAX_QUEUED: usize = 4096;

/// Records calls into a directory, on one thread of its own.
///
/// Dropped, it ends all recordings as [`finish`](Self::finish) does.
#[derive(Debug)]
pub struct Recorder {
    commands: SyncSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The recording of one call. Dropping it changes nothing: the recording ends with the call. Clones control the same
/// recording.
///
/// ```no_run
/// use sidetone::{CallHandle, record::{RecordError, Recorder}};
///
/// /// Records a call, but for the number of the card.
/// async fn record(recorder: &Recorder, call: CallHandle) -> Result<(), RecordError> {
///     let recording = recorder.record(&call)?; // from now on, whenever that is
///     // The caller is asked for the number.
///     recording.pause();
///     // It has been given.
///     recording.resume();
///     // Nothing more is worth recording, and the call goes on.
///     recording.stop();
///     let report = recording.ended().await;
///     println!("{:?}, of which {:?} are silence", report.files, report.paused);
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Recording {
    call: Uuid,
    control: Arc<Control>,
    report: watch::Receiver<Report>,
}

/// What a recording holds and what it lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Its files, in order; more than one only beyond 4 GiB. Empty until the rate is known.
    pub files: Vec<PathBuf>,
    /// How long it is.
    pub duration: Duration,
    /// How long it was [paused](Recording::pause), in all. Silence stands for that time.
    pub paused: Duration,
    /// The left channel.
    pub caller: SideReport,
    /// The right channel.
    pub server: SideReport,
    /// Frames of either side that were lost because the disk was too slow. Silence stands for them.
    pub lost_frames: u64,
    /// Why it ended before its call did, if that is so.
    pub failure: Option<String>,
    /// Nothing more is written.
    pub ended: bool,
}

/// What was done to one side of a recording to keep it on the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SideReport {
    /// Silence where nothing came.
    pub missing: Duration,
    /// Samples inserted because the sender's clock was slow, or a short stretch of audio was missing.
    pub added: Duration,
    /// Samples left out because the sender's clock was fast.
    pub removed: Duration,
    /// Audio that came so much faster than real time that there was no place for it within 5 s.
    pub discarded: Duration,
}

/// Why a call can't be recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The directory can't be made or written to.
    #[error("can't record into {}; {}", directory.display(), advice(source))]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file can't have this name.
    #[error(
        "can't call a recording {name:?}; give it a name without a slash, of 1 to {} bytes",
        file::MAX_STEM
    )]
    Name {
        /// What was asked for.
        name: String,
    },
    /// The system has no thread left.
    #[error("can't start the thread that writes recordings")]
    Thread(#[source] io::Error),
    /// The call is over.
    #[error("the call is over, so there is nothing to record")]
    CallOver,
    /// The disk stands still, and thousands of recordings wait for it.
    #[error(
        "the disk stands still and thousands of recordings wait for it, so there is none of this call: look whether the directory can be written to"
    )]
    DiskStalled,
    /// The recorder has been told to finish.
    #[error("the recorder has finished; make a new one")]
    Finished,
}

impl Recorder {
    /// Records into `directory`, which is made if it isn't there, and tried out.
    ///
    /// # Errors
    ///
    /// A directory that can't be made or written to.
    pub fn new(directory: impl Into<PathBuf>) -> Result<Self, RecordError> {
        let directory = directory.into();
        if let Err(source) = check_directory(&directory) {
            return Err(RecordError::Directory { directory, source });
        }
        Self::with_disk(Storage {
            directory,
            limit: u32::MAX,
            open: file::open_new,
        })
    }

    fn with_disk(disk: Storage) -> Result<Self, RecordError> {
        let (commands, receiver) = mpsc::sync_channel(MAX_QUEUED);
        let thread = std::thread::Builder::new()
            .name("sidetone-record".into())
            .spawn(move || writer::run(disk, &receiver))
            .map_err(RecordError::Thread)?;
        Ok(Self {
            commands,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Records this call to its end. It never waits for the disk.
    ///
    /// A handler that records before it reads anything of its call, and within a second, has it from the UUID on, even if the
    /// call is over by then: what passed before is kept for it, up to five seconds of each side. Later it is recorded from now
    /// on.
    ///
    /// A call has one recording at a time: a second one ends the first.
    ///
    /// # Errors
    ///
    /// A call that is over and of which the handler has read something, a recorder that has finished, or a disk that stands
    /// still while too many recordings wait for it. What the disk says later is in the [`Report`].
    pub fn record(&self, call: &CallHandle) -> Result<Recording, RecordError> {
        self.begin(call, None)
    }

    /// Records this call as [`record`](Self::record) does, into a file that you name: `name.wav` in the recorder's directory,
    /// or `name-2.wav` and so on if that is taken. The name is 1 to 200 bytes, without a slash.
    ///
    /// ```no_run
    /// # use sidetone::{CallHandle, record::{RecordError, Recorder}};
    /// # fn example(recorder: &Recorder, call: &CallHandle, ticket: u32) -> Result<(), RecordError> {
    /// recorder.record_as(call, &format!("ticket-{ticket}"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`record`](Self::record), and [`RecordError::Name`].
    pub fn record_as(&self, call: &CallHandle, name: &str) -> Result<Recording, RecordError> {
        if !file::can_be_stem(name) {
            let name = name.into();
            return Err(RecordError::Name { name });
        }
        self.begin(call, Some(name.into()))
    }

    fn begin(&self, call: &CallHandle, name: Option<String>) -> Result<Recording, RecordError> {
        let tap = call.recording_tap().map_err(|_| RecordError::CallOver)?;
        let (report, receiver) = watch::channel(Report::default());
        let control = Arc::<Control>::default();
        let job = Job::new(call.clone(), name, tap, Arc::clone(&control), report);
        self.commands
            .try_send(Command::Record(Box::new(job)))
            .map_err(|error| match error {
                TrySendError::Full(_) => RecordError::DiskStalled,
                TrySendError::Disconnected(_) => RecordError::Finished,
            })?;
        Ok(Recording {
            call: call.id(),
            control,
            report: receiver,
        })
    }

    /// Ends all recordings and waits until their files are whole, also those of calls that go on.
    ///
    /// It blocks for as long as the disk takes: from async code, call it in `spawn_blocking`.
    pub fn finish(&self) {
        let mut thread = self.thread.lock();
        // It fails only if the thread is gone, and then there is nothing left to end.
        let _ = self.commands.send(Command::Finish);
        if let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes recordings panicked: its files stay .part");
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Recording {
    /// The call's UUID.
    pub fn call(&self) -> Uuid {
        self.call
    }

    /// Keeps what is said from now on out of the file, on both sides: what no recording may hold, such as the number of a
    /// credit card. Silence stands in its place, so that every other time in the file stays right.
    ///
    /// The file is silent from this moment on, to the sample, whatever of it waits to be written; what passed the socket before
    /// is in it. Where it is paused already, or over, nothing happens. [`Report::paused`] counts the time.
    pub fn pause(&self) {
        self.control.pause();
    }

    /// Records on after a [pause](Self::pause), with what is said from now on: a frame that the caller began to say before,
    /// or that was said before and comes late, stays silent. Where it isn't paused, or is over, nothing happens.
    pub fn resume(&self) {
        self.control.resume();
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.control.is_paused()
    }

    /// Ends it now, while the call goes on. What passes the socket from this moment on is not in the file, which is whole
    /// 100 ms later, or as soon as the disk allows: [`ended`](Self::ended) waits for that. Where it is over, nothing happens.
    ///
    /// The call can be [recorded](Recorder::record) again, into another file. That may be begun at once: it takes nothing
    /// from this one.
    pub fn stop(&self) {
        self.control.stop();
    }

    /// How it stands, at most half a second ago.
    pub fn report(&self) -> Report {
        Report {
            paused: self.control.paused(),
            ..self.report.borrow().clone()
        }
    }

    /// Waits until its last file is whole, or can't be.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and called again.
    pub async fn ended(&self) -> Report {
        let mut report = self.report.clone();
        // It fails when the recorder went away without a word; what there is then is the last report.
        let _ = report.wait_for(|report| report.ended).await;
        report.borrow().clone()
    }
}

impl Report {
    /// Audio of either side that came much faster than real time and was left out.
    fn discarded(&self) -> Duration {
        self.caller.discarded + self.server.discarded
    }
}

/// Tries whether files can be written into `directory`, by writing one and removing it again. The directory is made if
/// it isn't there.
///
/// # Errors
///
/// What the system says to that: a place like `/proc`, a directory that has been deleted, a full disk, a user who may
/// not.
pub fn check_directory(directory: &Path) -> io::Result<()> {
    file::check_writable(directory)
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room there, or choose another directory"
        }
        ErrorKind::FileTooLarge => {
            "raise the limit on the size of files (ulimit -f, or LimitFSIZE= in systemd)"
        }
        _ => "choose a directory that this user may write to",
    }
}

#[cfg(test)]
mod tests;
