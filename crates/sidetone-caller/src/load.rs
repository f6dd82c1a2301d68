//! Thousands of callers from one thread, to measure a server.
//!
//! A [`Load`] says what is asked of the server; [`Load::run`] does it and returns a [`Report`]. These callers
//! are leaner than a [`Caller`](crate::Caller): they keep no record of a call and judge no rule of Asterisk's,
//! so that they cost less than the servers they measure. What they do judge is every byte: each frame says
//! in each of its parts which call it belongs to, which of its frames it is and when it left, so a frame that is
//! lost, doubled, cut, mixed with another or sent to another call is told from one that is only late.
//!
//! ```no_run
//! use {sidetone_caller::load::{Load, Mode}, std::time::Duration};
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
//! Each call sends 20 ms of 8 kHz audio every 20 ms, on a grid of its own ([`Phases`]). Over io_uring where a trial
//! of it works, all that is sent at a time is one system call; elsewhere, or where the environment variable
//! `SIDETONE_ENGINE` says `epoll`, each frame is one. The report says which it was.
//!
//! With fewer than 200 calls, a frame leaves when it is due and is read when it comes; most of what such a load costs is
//! waking up. From there on, it wakes up every 500 µs only, sends what has become due and reads what has come. So a frame
//! can have come up to 500 µs before it counts as returned, and round trips and lateness are exact to that
//! (`resolution_us` in the report). A load that has a processor of its own can look without a pause instead
//! ([`Load::busy_poll`]): then a frame is read as soon as it comes, with any number of calls. `send_lateness_us` says how
//! late the load itself was, and thereby whether its figures can be believed.
//!
//! # How a server's time is read
//!
//! From the run times that the scheduler keeps for each of its threads, in nanoseconds, at the beginning and
//! the end of the measured time; over loopback, that includes the kernel's work of delivering what it sends.

mod error;
mod exchange;
mod frame;
mod grid;
mod limits;
mod mouth;
mod paced;
mod phases;
mod process;
mod report;
mod setup;
mod socket;
mod verify;

use std::{net::SocketAddr, time::Duration};

pub use {
    error::LoadError,
    frame::clip,
    phases::Phases,
    report::{Frames, Pace, Percentiles, Progress, Report, ServerCost, SetUp},
    sidetone_engine::Engine,
};

/// What the callers ask of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// Every caller talks and expects its own frames back.
    Echo,
    /// Every caller is silent and listens to what the server plays, at the server's pace. Of a [`clip`] every
    /// byte is verified; of any other sound only the times of its frames are judged.
    Playout,
    /// As many calls at a time as said: connect, UUID, one frame, wait for the first frame that comes back,
    /// hang up; then the next one.
    Setup,
    /// Every caller says its UUID and nothing more; for memory.
    Idle,
    /// Nobody says anything at all; for memory.
    Nameless,
}

/// A load: how many calls, of which kind, for how long.
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
    io_backend: Engine,
}

impl Load {
    /// So many calls at a time to the server at `address`, measured for 10 s after 2 s of warming up.
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
            io_backend: Engine::Auto,
        }
    }

    /// For how long figures are taken; at most 600 s.
    #[must_use]
    pub fn measure_for(mut self, time: Duration) -> Self {
        self.seconds = time;
        self
    }

    /// How long the calls run before that.
    #[must_use]
    pub fn warm_up_for(mut self, time: Duration) -> Self {
        self.warm_up = time;
        self
    }

    /// How the calls' grids lie to each other; spread evenly unless set.
    #[must_use]
    pub fn phases(mut self, phases: Phases) -> Self {
        self.phases = phases;
        self
    }

    /// Each frame leaves up to so much before or after its place in its call's rhythm, at random, all times alike; at
    /// most 10 ms, and not at all unless set. A real Asterisk's frames are within 2.75 ms: measured on 22.10, they are
    /// 14.5 to 25.5 ms apart.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter.min(Duration::from_millis(10));
        self
    }

    /// Looks for what has come without a pause, instead of sleeping until it comes or until the next time on the grid.
    /// It takes a whole processor, which the server must not need.
    #[must_use]
    pub fn busy_poll(mut self) -> Self {
        self.busy_poll = true;
        self
    }

    /// Which I/O back end the load runs over; [`Engine::Auto`] unless set.
    #[must_use]
    pub fn io_backend(mut self, io_backend: Engine) -> Self {
        self.io_backend = io_backend;
        self
    }

    /// The server's process, to read its CPU time and memory.
    #[must_use]
    pub fn watch_process(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }

    /// In [`Mode::Setup`], places so many calls a second; as many as the server takes unless set.
    #[must_use]
    pub fn calls_per_second(mut self, rate: u32) -> Self {
        self.rate = Some(rate.max(1));
        self
    }

    /// Places the calls, measures and hangs up. Blocks. `progress` is called a few times a second, on this
    /// thread, and must be quick.
    ///
    /// Raises this process's soft limit of descriptors to what the calls need.
    ///
    /// # Errors
    /// When not all calls can be placed at the beginning, when descriptors don't suffice, or when the process to
    /// watch can't be read. What goes wrong with calls later is in the report.
    pub fn run(&self, mut progress: impl FnMut(&Progress)) -> Result<Report, LoadError> {
        self.check()?;
        limits::raise_descriptors(self.calls, self.descriptors_a_call())?;
        match self.mode {
            Mode::Setup => setup::run(self, &mut progress),
            _ => paced::run(self, &mut progress),
        }
    }

    fn descriptors_a_call(&self) -> u64 {
        match self.mode {
            // The one before it may not be closed yet.
            Mode::Setup => 2,
            _ => 1,
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        if !(1..=frame::MOST_CALLS).contains(&self.calls) {
            return Err(LoadError::Calls(self.calls));
        }
        let longest = Duration::from_secs(600);
        if self.seconds.is_zero() || self.seconds > longest || self.warm_up > longest {
            return Err(LoadError::Time);
        }
        Ok(())
    }
}
