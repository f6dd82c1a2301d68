use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Readiness of many descriptors, level-triggered: what is not dealt with in one turn shows up in the next.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

/// Room for what one wait reports.
pub(crate) struct Events(Vec<Event>);

/// How many descriptors one wait reports at most; the others follow in the next turn.
const EVENTS: usize = 1024;

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
        })
    }

    pub(crate) fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            source,
            EventData::new_u64(token),
            EventFlags::IN,
        )?)
    }

    pub(crate) fn set_writable(
        &self,
        source: impl AsFd,
        token: u64,
        writable: bool,
    ) -> io::Result<()> {
        let flags = if writable {
            EventFlags::IN | EventFlags::OUT
        } else {
            EventFlags::IN
        };
        Ok(epoll::modify(
            &self.epoll,
            source,
            EventData::new_u64(token),
            flags,
        )?)
    }

    pub(crate) fn remove(&self, source: impl AsFd) {
        // It fails only for what is not in the set, which is what was wanted.
        let _ = epoll::delete(&self.epoll, source);
    }

    /// Waits for readiness, at most `timeout`, and lists what is ready in `events`.
    pub(crate) fn wait(
        &self,
        timeout: Option<Duration>,
        Events(events): &mut Events,
    ) -> io::Result<()> {
        events.clear();
        let timeout = timeout.map(|timeout| rustix::event::Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Events {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(EVENTS))
    }

    /// The tokens of what is ready, and for what.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, EventFlags)> {
        self.0.iter().map(|event| (event.data.u64(), event.flags))
    }
}
