use {
    super::LoadError,
    rustix::{
        event::{Timespec, epoll},
        io::Errno,
        time::{ClockId, clock_gettime},
    },
    std::{
        net::TcpStream,
        os::fd::OwnedFd,
        time::{Duration, Instant},
    },
};

/// Connections that are looked at in one turn.
const EVENTS: usize = 1024;
/// Bytes that are read from a connection in one turn. What is left comes in the next.
pub(super) const SCRATCH: usize = 64 * 1024;
/// Between two calls of whoever shows progress.
const PROGRESS: u64 = 250_000_000;

/// The clock and the waiting of a load.
pub(super) struct Engine {
    epoll: OwnedFd,
    origin: Instant,
    events: Vec<epoll::Event>,
    next_progress: u64,
}

impl Engine {
    pub(super) fn new() -> Result<Self, LoadError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|source| LoadError::system("wait for sockets", source))?;
        Ok(Self {
            epoll,
            origin: Instant::now(),
            events: Vec::with_capacity(EVENTS),
            next_progress: 0,
        })
    }

    /// Nanoseconds since the beginning of the load.
    pub(super) fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
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

    /// Reports the token when the connection is made.
    pub(super) fn watch_connecting(&self, stream: &TcpStream, token: u64) -> Result<(), LoadError> {
        let data = epoll::EventData::new_u64(token);
        epoll::add(&self.epoll, stream, data, epoll::EventFlags::OUT)
            .map_err(|source| LoadError::system("watch a connection", source))
    }

    /// Reports the token when there is something to read.
    pub(super) fn watch_reading(&self, stream: &TcpStream, token: u64) -> Result<(), LoadError> {
        let data = epoll::EventData::new_u64(token);
        epoll::modify(&self.epoll, stream, data, epoll::EventFlags::IN)
            .map_err(|source| LoadError::system("watch a connection", source))
    }

    /// Waits until something happens, at most until `until`. How many things did; see [`ready`](Self::ready).
    pub(super) fn wait(&mut self, until: u64) -> Result<usize, LoadError> {
        let wait = until.saturating_sub(self.now());
        let timeout = Timespec {
            tv_sec: (wait / 1_000_000_000) as i64,
            tv_nsec: (wait % 1_000_000_000) as i64,
        };
        self.events.clear();
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, buffer, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(self.events.len()),
            Err(source) => Err(LoadError::system("wait for sockets", source)),
        }
    }

    /// The token of the `index`-th connection on which something happened.
    pub(super) fn ready(&self, index: usize) -> u64 {
        self.events[index].data.u64()
    }
}

/// CPU time of this thread, in nanoseconds.
pub(super) fn own_cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
