use std::{
    io,
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
    net::RecvFlags,
};
use slotmap::{Key as _, KeyData};

use crate::{Driver, IoBackend, IoEvent, PendingRead, ReadSource, SEND_FLAGS, Sent, Token, Waker};

/// The most events of one wait; the others follow in the next iteration.
const EVENTS: usize = 1024;

/// The most bytes that are read from one connection in an iteration: a frame at 192 kHz. That is thousands of the
/// shortest messages, each of which is work, so a connection that sends more waits for the next iteration.
const MAX_READ: usize = 8 * 1024;

const WAKER: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;

/// The events of every connection: something to read, edge-triggered, and the end of the stream. Level-triggered, the
/// kernel would look at each connection a second time in the next iteration, only to find it read.
const READ_EVENTS: EventFlags = EventFlags::IN
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// Readiness of many descriptors. What is not handled in one iteration shows up in the next.
pub struct Epoll {
    epoll: OwnedFd,
    waker: Arc<Waker>,
    events: Vec<Event>,
    /// How many of the events have been reported.
    reported: usize,
    /// A connection that is both readable and writable is reported as readable first, and then from here.
    writable: Option<Token>,
    /// Connections that may have more to read, which the kernel does not report again.
    unread: Vec<Token>,
    /// Those of the iteration before, while they are reported.
    unread_before: Vec<Token>,
    buffer: Vec<u8>,
}

impl Epoll {
    /// A driver without connections.
    ///
    /// # Errors
    ///
    /// When the system has no descriptor or memory for it.
    pub fn new(waker: Arc<Waker>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &*waker, EventData::new_u64(WAKER), EventFlags::IN)?;
        Ok(Self {
            epoll,
            waker,
            events: Vec::with_capacity(EVENTS),
            reported: 0,
            writable: None,
            unread: Vec::new(),
            unread_before: Vec::new(),
            buffer: vec![0; MAX_READ],
        })
    }
}

impl Driver for Epoll {
    fn backend(&self) -> IoBackend {
        IoBackend::Epoll
    }

    fn listen(&mut self, listener: &TcpListener) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            listener,
            EventData::new_u64(LISTENER),
            EventFlags::IN,
        )?)
    }

    fn stop_listening(&mut self, listener: &TcpListener) {
        // It fails only for a listener that is not registered.
        let _ = epoll::delete(&self.epoll, listener);
    }

    fn register(&mut self, token: Token, stream: &TcpStream) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, stream, data(token), READ_EVENTS)?)
    }

    fn deregister(&mut self, token: Token, stream: TcpStream) {
        self.unread.retain(|unread| *unread != token);
        self.unread_before.retain(|unread| *unread != token);
        let _ = epoll::delete(&self.epoll, &stream);
    }

    fn send(&mut self, _: Token, stream: &TcpStream, wire: &[u8]) -> Sent {
        match rustix::net::send(stream, wire, SEND_FLAGS) {
            Ok(sent) => Sent::Accepted(sent),
            Err(Errno::AGAIN | Errno::INTR) => Sent::Accepted(0),
            Err(error) => Sent::Failed(error),
        }
    }

    fn set_write_interest(&mut self, token: Token, stream: &TcpStream, wanted: bool) {
        let writable = if wanted {
            EventFlags::OUT
        } else {
            EventFlags::empty()
        };
        // If it fails, the next slot tries to send anyway.
        let _ = epoll::modify(&self.epoll, stream, data(token), READ_EVENTS | writable);
    }

    fn wait(&mut self, timeout: Option<Duration>, min_wait: Duration) -> io::Result<()> {
        self.events.clear();
        self.reported = 0;
        self.unread_before.append(&mut self.unread);
        if !min_wait.is_zero() {
            // A signal ends it early. Then the batch is smaller.
            let _ = rustix::thread::nanosleep(&timespec(min_wait));
        }
        let rest = timeout.map(|timeout| timeout.saturating_sub(min_wait));
        let timeout = match self.unread_before.is_empty() {
            true => rest.map(timespec),
            false => Some(timespec(Duration::ZERO)),
        };
        let events = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, events, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn next_event(&mut self) -> Option<IoEvent> {
        if let Some(token) = self.writable.take() {
            return Some(IoEvent::Writable(token));
        }
        let Some(event) = self.events.get(self.reported) else {
            let token = self.unread_before.pop()?;
            return Some(IoEvent::Readable(token, in_socket(token, true)));
        };
        self.reported += 1;
        let (token, flags) = (event.data.u64(), event.flags);
        Some(match token {
            WAKER => {
                self.waker.reset();
                IoEvent::Woken
            }
            LISTENER => IoEvent::Incoming,
            token => {
                let token = KeyData::from_ffi(token).into();
                let is_writable = flags.contains(EventFlags::OUT);
                let ends = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
                if !ends && !flags.contains(EventFlags::IN) {
                    return Some(IoEvent::Writable(token));
                }
                self.writable = is_writable.then_some(token);
                // A connection is read once in an iteration.
                self.unread_before.retain(|unread| *unread != token);
                IoEvent::Readable(token, in_socket(token, ends))
            }
        })
    }

    fn read(&mut self, pending: PendingRead, stream: &TcpStream) -> Result<&[u8], Errno> {
        let (_, length) =
            rustix::net::recv(stream, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT)?;
        // A buffer that is not full shows that all bytes were read, but not that the stream has not ended.
        if let ReadSource::Socket { token, ends } = pending.0
            && (length == MAX_READ || (ends && length > 0))
        {
            self.unread.push(token);
        }
        Ok(&self.buffer[..length])
    }
}

fn in_socket(token: Token, ends: bool) -> PendingRead {
    PendingRead(ReadSource::Socket { token, ends })
}

fn data(token: Token) -> EventData {
    EventData::new_u64(token.data().as_ffi())
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: time.subsec_nanos().into(),
    }
}
