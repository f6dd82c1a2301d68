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

use crate::{Arrival, Driver, IoBackend, IoEvent, Place, SEND_FLAGS, Sent, Token, Waker};

/// How many descriptors one wait reports at most; the others follow in the next turn.
const EVENTS: usize = 1024;

/// Bytes that are read of one connection in a turn: a frame at 192 kHz, and no more than that, for thousands of the
/// shortest messages fit in here, and each of them is work. Who sends more waits for the next turn.
const READ: usize = 8 * 1024;

const WAKER: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;

/// What is reported of a connection: that it has something to read, edge-triggered, and whether the other side has
/// ended it. Level-triggered, the kernel would look at each connection a second time in the next turn, only to
/// find it read.
const HEARING: EventFlags = EventFlags::IN
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// Readiness of many descriptors. What is not dealt with in one turn shows up in the next.
pub struct Epoll {
    epoll: OwnedFd,
    waker: Arc<Waker>,
    events: Vec<Event>,
    /// Of the events, how many have been reported.
    reported: usize,
    /// A connection that is both readable and writable is reported twice.
    writable: Option<Token>,
    /// Connections that may not have been read to the end, which the kernel does not report again.
    unread: Vec<Token>,
    /// Those of the turn before, while they are reported.
    again: Vec<Token>,
    room: Vec<u8>,
}

impl Epoll {
    /// Without connections.
    ///
    /// # Errors
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
            again: Vec::new(),
            room: vec![0; READ],
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
        // It fails only for what is not watched, which is what was wanted.
        let _ = epoll::delete(&self.epoll, listener);
    }

    fn register(&mut self, token: Token, stream: &TcpStream) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, stream, data(token), HEARING)?)
    }

    fn deregister(&mut self, token: Token, stream: TcpStream) {
        self.unread.retain(|unread| *unread != token);
        self.again.retain(|again| *again != token);
        let _ = epoll::delete(&self.epoll, &stream);
    }

    fn send(&mut self, _: Token, stream: &TcpStream, wire: &[u8]) -> Sent {
        match rustix::net::send(stream, wire, SEND_FLAGS) {
            Ok(sent) => Sent::Now(sent),
            Err(Errno::AGAIN | Errno::INTR) => Sent::Now(0),
            Err(error) => Sent::Failed(error),
        }
    }

    fn set_write_interest(&mut self, token: Token, stream: &TcpStream, wanted: bool) {
        let room = if wanted {
            EventFlags::OUT
        } else {
            EventFlags::empty()
        };
        // Were it to fail, the next slot would try to write all the same.
        let _ = epoll::modify(&self.epoll, stream, data(token), HEARING | room);
    }

    fn wait(&mut self, timeout: Option<Duration>, gather: Duration) -> io::Result<()> {
        self.events.clear();
        self.reported = 0;
        self.again.append(&mut self.unread);
        if !gather.is_zero() {
            // A signal that cuts it short makes this a turn with less in it.
            let _ = rustix::thread::nanosleep(&timespec(gather));
        }
        let rest = timeout.map(|timeout| timeout.saturating_sub(gather));
        let timeout = match self.again.is_empty() {
            true => rest.map(timespec),
            false => Some(timespec(Duration::ZERO)),
        };
        let room = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, room, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn next(&mut self) -> Option<IoEvent> {
        if let Some(token) = self.writable.take() {
            return Some(IoEvent::Writable(token));
        }
        let Some(event) = self.events.get(self.reported) else {
            let token = self.again.pop()?;
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
                // It is read once in a turn.
                self.again.retain(|again| *again != token);
                IoEvent::Readable(token, in_socket(token, ends))
            }
        })
    }

    fn read(&mut self, arrival: Arrival, stream: &TcpStream) -> Result<&[u8], Errno> {
        let (_, length) = rustix::net::recv(stream, self.room.as_mut_slice(), RecvFlags::DONTWAIT)?;
        // With less than there is room for, all was read that was there; but not the end of the stream.
        if let Place::InSocket { token, ends } = arrival.0
            && (length == READ || (ends && length > 0))
        {
            self.unread.push(token);
        }
        Ok(&self.room[..length])
    }
}

fn in_socket(token: Token, ends: bool) -> Arrival {
    Arrival(Place::InSocket { token, ends })
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
