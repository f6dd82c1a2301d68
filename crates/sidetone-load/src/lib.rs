//! A load generator for AudioSocket servers: thousands of calls from one thread, every byte verified.
//!
//! A [`Load`] describes the calls; [`Load::run`] places them and returns a [`Report`]. These calls are leaner than those
//! of `sidetone-caller`: they keep no record and check none of Asterisk's rules, so that they cost less than the servers
//! they measure. But they verify every byte. Each part of a frame says which call it belongs to, which of the call's
//! frames it is and when it was sent. So a frame that is lost, doubled, cut, mixed with another or sent to another call
//! is distinguished from one that is only late.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use sidetone_load::{Load, Mode};
//!
//! let load = Load::new("127.0.0.1:9092".parse()?, 1000, Mode::Echo)
//!     .measure_for(Duration::from_secs(10))
//!     .watch_process(4711);
//! let report = load.run(|_| {})?;
//! assert_eq!(report.frames.lost, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it sends
//!
//! Each call sends 20 ms of 8 kHz audio every 20 ms, on a schedule of its own ([`Phases`]). Over io_uring, everything that
//! is sent at a time takes one system call. Over epoll, each frame takes one. io_uring is used where a trial of it works;
//! [`Load::io_backend`] names one, and so does `SIDETONE_IO_BACKEND=epoll` in the environment. The report names the one used.
//!
//! With fewer than 200 calls, a frame is sent when it is due and read when it comes. Most of the load's cost is then waking
//! up. With 200 calls or more, the load wakes up every 500 µs only, sends what is due and reads what has come. A frame can
//! then have come up to 500 µs before it is read, which is the resolution of round trips and lateness (`resolution_us` in
//! the report). A load with a processor of its own can poll without a pause instead ([`Load::busy_poll`]): it reads a frame
//! as soon as it comes, with any number of calls. `send_lateness_us` says how late the load itself was, and so whether its
//! figures can be trusted.
//!
//! # How the server's CPU time is read
//!
//! From the run times in nanoseconds that the scheduler keeps for each of its threads, at the beginning and the end of the
//! measured time. Over loopback, these include the kernel's work of delivering what the server sends.
#![forbid(unsafe_code)]

mod error;
mod event_loop;
mod frame;
mod frame_writer;
mod limits;
mod noise;
mod paced;
mod pacing;
mod process;
mod report;
mod schedule;
mod setup;
mod socket;
mod verify;

use std::{net::SocketAddr, time::Duration};

pub use error::LoadError;
pub use frame::clip;
pub use report::{Frames, Pace, Percentiles, Progress, Report, ServerCost, Setup};
pub use schedule::Phases;
pub use sidetone_driver::IoBackend;

/// What the calls of a load do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// Every call sends audio and expects its own frames back.
    Echo,
    /// Every call sends no audio and receives what the server plays, at the server's pace. Every byte of a [`clip`] is
    /// verified. Of any other audio, only the times of its frames are judged.
    Playout,
    /// Every call connects, sends its UUID and one frame, waits for the first frame that comes back and hangs up. Then the
    /// next one begins.
    Setup,
    /// Every call sends its UUID and nothing more, to measure memory.
    Idle,
    /// Every call connects and sends nothing at all, to measure memory.
    Nameless,
}

/// A load: how many calls of which mode, for how long.
#[derive(Clone, Debug)]
pub struct Load {
    address: SocketAddr,
    calls: usize,
    mode: Mode,
    warm_up: Duration,
    seconds: Duration,
    phases: Phases,
    jitter: Duration,
    busy_poll: bool,
    pid: Option<u32>,
    rate: Option<u32>,
    io_backend: IoBackend,
}

impl Load {
    /// A load of `calls` calls at a time to the server at `address`, measured for 10 s after a warm-up of 2 s.
    pub fn new(address: SocketAddr, calls: usize, mode: Mode) -> Self {
        Self {
            address,
            calls,
            mode,
            warm_up: Duration::from_secs(2),
            seconds: Duration::from_secs(10),
            phases: Phases::Spread,
            jitter: Duration::ZERO,
            busy_poll: false,
            pid: None,
            rate: None,
            io_backend: IoBackend::Auto,
        }
    }

    /// How long the measurement takes; at most 600 s.
    #[must_use]
    pub fn measure_for(mut self, time: Duration) -> Self {
        self.seconds = time;
        self
    }

    /// How long the calls run before the measurement; at most 600 s.
    #[must_use]
    pub fn warm_up_for(mut self, time: Duration) -> Self {
        self.warm_up = time;
        self
    }

    /// How the calls' frames are offset against each other. The default is [`Phases::Spread`].
    #[must_use]
    pub fn phases(mut self, phases: Phases) -> Self {
        self.phases = phases;
        self
    }

    /// Sends each frame up to this long before or after its slot, uniformly at random; at most 10 ms. The default is none.
    /// Asterisk's frames stay within 2.75 ms: those of 22.10 were measured to be 14.5 to 25.5 ms apart.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter.min(Duration::from_millis(10));
        self
    }

    /// Polls for I/O without a pause instead of sleeping. This takes a whole processor, which the server must not need.
    #[must_use]
    pub fn busy_poll(mut self) -> Self {
        self.busy_poll = true;
        self
    }

    /// Reads the CPU time and memory of the server's process.
    #[must_use]
    pub fn watch_process(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }

    /// Places `rate` calls per second, at least 1, in [`Mode::Setup`]. The default is as many as the server takes.
    #[must_use]
    pub fn calls_per_second(mut self, rate: u32) -> Self {
        self.rate = Some(rate.max(1));
        self
    }

    /// Which I/O back end the load runs over; [`IoBackend::Auto`] unless set.
    #[must_use]
    pub fn io_backend(mut self, io_backend: IoBackend) -> Self {
        self.io_backend = io_backend;
        self
    }

    /// Places the calls, measures and hangs up. Blocks until then. `progress` is called four times per second, on this
    /// thread, and must return quickly.
    ///
    /// Raises this process's soft limit on descriptors to what the calls need.
    ///
    /// # Errors
    /// When a setting is out of range, when the calls can't be placed at the beginning, when there are not enough
    /// descriptors, or when the process to watch can't be read. The report counts the calls that fail later.
    pub fn run(&self, mut progress: impl FnMut(&Progress)) -> Result<Report, LoadError> {
        self.check()?;
        limits::raise_descriptors(self.calls, self.descriptors_per_call())?;
        match self.mode {
            Mode::Setup => setup::run(self, &mut progress),
            _ => paced::run(self, &mut progress),
        }
    }

    fn descriptors_per_call(&self) -> u64 {
        match self.mode {
            // The previous one may not be closed yet.
            Mode::Setup => 2,
            _ => 1,
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        if !(1..=frame::MAX_CALLS).contains(&self.calls) {
            return Err(LoadError::Calls(self.calls));
        }
        let longest = Duration::from_secs(600);
        if self.seconds.is_zero() || self.seconds > longest || self.warm_up > longest {
            return Err(LoadError::Time);
        }
        Ok(())
    }
}

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
