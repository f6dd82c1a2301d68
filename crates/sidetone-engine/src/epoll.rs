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

use crate::{Arrival, Bell, Engine, Kernel, Key, Pace, Place, Report, SEND_FLAGS, Sent};

/// How many descriptors one wait reports at most; the others follow in the next turn.
const EVENTS: usize = 1024;

/// Bytes of one read: the longest message, so that no peer makes a thread read it in many turns.
const READ: usize = 64 * 1024;

const BELL: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;

/// Readiness of many descriptors, level-triggered: what is not dealt with in one turn shows up in the next.
pub struct Epoll {
    epoll: OwnedFd,
    bell: Arc<Bell>,
    events: Vec<Event>,
    /// Of the events, how many have been reported.
    reported: usize,
    /// A connection that is both readable and writable is reported twice.
    writable: Option<Key>,
    room: Vec<u8>,
}

impl Epoll {
    /// Without connections.
    ///
    /// # Errors
    /// When the system has no descriptor or memory for it.
    pub fn new(bell: Arc<Bell>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &*bell, EventData::new_u64(BELL), EventFlags::IN)?;
        Ok(Self {
            epoll,
            bell,
            events: Vec::with_capacity(EVENTS),
            reported: 0,
            writable: None,
            room: vec![0; READ],
        })
    }
}

impl Kernel for Epoll {
    fn engine(&self) -> Engine {
        Engine::Epoll
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

    fn watch(&mut self, key: Key, stream: &TcpStream) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, stream, data(key), EventFlags::IN)?)
    }

    fn dismiss(&mut self, _: Key, stream: TcpStream) {
        let _ = epoll::delete(&self.epoll, &stream);
    }

    fn send(&mut self, _: Key, stream: &TcpStream, wire: &[u8]) -> Sent {
        match rustix::net::send(stream, wire, SEND_FLAGS) {
            Ok(sent) => Sent::Now(sent),
            Err(Errno::AGAIN | Errno::INTR) => Sent::Now(0),
            Err(error) => Sent::Failed(error),
        }
    }

    fn wait_for_room(&mut self, key: Key, stream: &TcpStream, wanted: bool) {
        let room = if wanted {
            EventFlags::OUT
        } else {
            EventFlags::empty()
        };
        // Were it to fail, the next slot would try to write all the same.
        let _ = epoll::modify(&self.epoll, stream, data(key), EventFlags::IN | room);
    }

    fn wait(&mut self, timeout: Option<Duration>, pace: Pace) -> io::Result<()> {
        self.events.clear();
        self.reported = 0;
        let mut timeout = timeout.map(timespec);
        if let (Pace::Batched, Some(time)) = (pace, &mut timeout) {
            // A signal that cuts it short makes this a turn with less in it.
            let _ = rustix::thread::nanosleep(time);
            *time = timespec(Duration::ZERO);
        }
        let room = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, room, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn next(&mut self) -> Option<Report> {
        if let Some(key) = self.writable.take() {
            return Some(Report::Writable(key));
        }
        let event = self.events.get(self.reported)?;
        self.reported += 1;
        let (token, flags) = (event.data.u64(), event.flags);
        Some(match token {
            BELL => {
                self.bell.silence();
                Report::Bell
            }
            LISTENER => Report::Incoming,
            token => {
                let key = KeyData::from_ffi(token).into();
                let is_writable = flags.contains(EventFlags::OUT);
                if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    return Some(Report::Writable(key));
                }
                self.writable = is_writable.then_some(key);
                Report::Readable(key, Arrival(Place::InSocket))
            }
        })
    }

    fn read(&mut self, _: Arrival, stream: &TcpStream) -> Result<&[u8], Errno> {
        let (_, length) = rustix::net::recv(stream, self.room.as_mut_slice(), RecvFlags::DONTWAIT)?;
        Ok(&self.room[..length])
    }
}

fn data(key: Key) -> EventData {
    EventData::new_u64(key.data().as_ffi())
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: time.subsec_nanos().into(),
    }
}
