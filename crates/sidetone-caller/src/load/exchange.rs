use {
    super::LoadError,
    rustix::time::{ClockId, clock_gettime},
    sidetone_engine::{Bell, Engine, Kernel, Key},
    std::{
        net::TcpStream,
        sync::Arc,
        time::{Duration, Instant},
    },
};

/// Between two calls of whoever shows progress.
const PROGRESS: u64 = 250_000_000;

/// Where all calls of a load come together: its clock, and its way to talk to the kernel.
pub(super) struct Exchange {
    pub(super) kernel: Box<dyn Kernel>,
    origin: Instant,
    next_progress: u64,
}

impl Exchange {
    pub(super) fn new(io_backend: Engine) -> Result<Self, LoadError> {
        let system = |source| LoadError::system("wait for sockets", source);
        // Nobody rings it: a load ends by the clock.
        let bell = Arc::new(Bell::new().map_err(system)?);
        Ok(Self {
            kernel: io_backend.open(bell).map_err(system)?,
            origin: Instant::now(),
            next_progress: 0,
        })
    }

    /// Nanoseconds since the beginning of the load.
    pub(super) fn now(&self) -> u64 {
        self.elapsed().as_nanos() as u64
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Whether it is time again to show progress.
    pub(super) fn progress_is_due(&mut self, now: u64) -> bool {
        let due = now >= self.next_progress;
        if due {
            self.next_progress = now + PROGRESS;
        }
        due
    }

    /// Reports what happens on a connection that is being made: first, that there is room to send. If it can't be
    /// made, reading says why.
    pub(super) fn watch(&mut self, key: Key, stream: &TcpStream) -> Result<(), LoadError> {
        let watched = self.kernel.watch(key, stream);
        watched.map_err(|source| LoadError::system("watch a connection", source))?;
        self.kernel.wait_for_room(key, stream, true);
        Ok(())
    }

    /// Waits until something happens, at most until `until`.
    pub(super) fn wait(&mut self, until: u64) -> Result<(), LoadError> {
        self.wait_and_gather(until, 0)
    }

    /// Waits until `until`, or as soon as something has happened from `gather` on.
    pub(super) fn wait_and_gather(&mut self, until: u64, gather: u64) -> Result<(), LoadError> {
        let now = self.now();
        let from_now = |at: u64| Duration::from_nanos(at.saturating_sub(now));
        let waited = self.kernel.wait(Some(from_now(until)), from_now(gather));
        waited.map_err(|source| LoadError::system("wait for sockets", source))
    }
}

/// CPU time of this thread, in nanoseconds.
pub(super) fn own_cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
