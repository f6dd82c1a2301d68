use {
    super::LoadError,
    rustix::{
        event::{Timespec, epoll},
        io::Errno,
        time::{
            ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, clock_gettime,
            timerfd_create, timerfd_settime,
        },
    },
    std::{net::TcpStream, os::fd::OwnedFd, time::Duration},
};

/// Connections that are looked at in one turn.
const EVENTS: usize = 1024;
/// Bytes that are read from a connection in one turn. What is left comes in the next.
pub(super) const SCRATCH: usize = 64 * 1024;
/// Between two calls of whoever shows progress.
const PROGRESS: u64 = 250_000_000;
/// The timer's token; no connection has it.
const TIMER: u64 = u64::MAX;

/// The clock and the waiting of a load.
pub(super) struct Engine {
    epoll: OwnedFd,
    /// Set once for each moment that is waited for, and not again for each time that something else wakes the
    /// load before: on a virtual machine, setting a timer can cost more than sending a frame.
    timer: OwnedFd,
    armed: Option<u64>,
    /// On the system's monotonic clock.
    origin: u64,
    events: Vec<epoll::Event>,
    next_progress: u64,
}

impl Engine {
    pub(super) fn new() -> Result<Self, LoadError> {
        let system = |source| LoadError::system("wait for sockets", source);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(system)?;
        let data = epoll::EventData::new_u64(TIMER);
        epoll::add(&epoll, &timer, data, epoll::EventFlags::IN).map_err(system)?;
        Ok(Self {
            epoll,
            timer,
            armed: None,
            origin: nanos(clock_gettime(ClockId::Monotonic)),
            events: Vec::with_capacity(EVENTS),
            next_progress: 0,
        })
    }

    /// Nanoseconds since the beginning of the load.
    pub(super) fn now(&self) -> u64 {
        nanos(clock_gettime(ClockId::Monotonic)) - self.origin
    }

    pub(super) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now())
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

    /// Waits until something happens, at most until `until`. How many things may have happened; see
    /// [`ready`](Self::ready).
    pub(super) fn wait(&mut self, until: u64) -> Result<usize, LoadError> {
        let system = |source| LoadError::system("wait for sockets", source);
        let passed = until <= self.now();
        if !passed && self.armed != Some(until) {
            self.arm(until).map_err(system)?;
        }
        let at_once = timespec(0);
        self.events.clear();
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, buffer, passed.then_some(&at_once)) {
            Ok(_) | Err(Errno::INTR) => Ok(self.events.len()),
            Err(source) => Err(system(source)),
        }
    }

    /// Setting it also takes back that it has gone off.
    fn arm(&mut self, until: u64) -> Result<(), Errno> {
        let at = Itimerspec {
            it_interval: timespec(0),
            it_value: timespec(self.origin + until),
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &at)?;
        self.armed = Some(until);
        Ok(())
    }

    /// The token of the connection that the `index`-th thing happened on; none for the timer.
    pub(super) fn ready(&self, index: usize) -> Option<u64> {
        let token = self.events[index].data.u64();
        (token != TIMER).then_some(token)
    }
}

/// CPU time of this thread, in nanoseconds.
pub(super) fn own_cpu() -> u64 {
    nanos(clock_gettime(ClockId::ThreadCPUTime))
}

fn nanos(time: Timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn timespec(nanos: u64) -> Timespec {
    Timespec {
        tv_sec: (nanos / 1_000_000_000) as i64,
        tv_nsec: (nanos % 1_000_000_000) as i64,
    }
}
