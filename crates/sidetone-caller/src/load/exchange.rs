use {
    super::LoadError,
    rustix::time::{ClockId, clock_gettime},
    sidetone_driver::{Driver, IoBackend, Token, Waker},
    std::{
        net::TcpStream,
        sync::Arc,
        time::{Duration, Instant},
    },
};

/// Between two calls of whoever shows progress.
const PROGRESS: u64 = 250_000_000;

/// Where all calls of a load come together: its clock, and its way to talk to the driver.
pub(super) struct Exchange {
    pub(super) driver: Box<dyn Driver>,
    origin: Instant,
    next_progress: u64,
}

impl Exchange {
    pub(super) fn new() -> Result<Self, LoadError> {
        let system = |source| LoadError::system("wait for sockets", source);
        // Nobody rings it: a load ends by the clock.
        let waker = Arc::new(Waker::new().map_err(system)?);
        Ok(Self {
            driver: IoBackend::Auto.open(waker).map_err(system)?,
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
    pub(super) fn register(&mut self, token: Token, stream: &TcpStream) -> Result<(), LoadError> {
        let watched = self.driver.register(token, stream);
        watched.map_err(|source| LoadError::system("watch a connection", source))?;
        self.driver.set_write_interest(token, stream, true);
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
        let waited = self.driver.wait(Some(from_now(until)), from_now(gather));
        waited.map_err(|source| LoadError::system("wait for sockets", source))
    }
}

/// CPU time of this thread, in nanoseconds.
pub(super) fn own_cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
