use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rustix::event::epoll::EventFlags;
use sidetone_proto::{HANGUP, Time};
use slotmap::{Key as _, KeyData, SlotMap};

use super::{
    Key, MediaHandle, MediaShared, Order, clock,
    connection::{Connection, Desk, Tools},
    poller::{Events, Poller},
    wheel::Wheel,
};

const BELL: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;

/// Connections accepted in one turn at most, so that a rush of new calls does not make the others late.
const ACCEPTS_A_TURN: usize = 64;

/// How soon a lock that was taken is tried again.
const AGAIN: Duration = Duration::from_millis(1);

/// One media thread: waits, reads everything, does what handlers asked, writes what is due, and wakes every
/// handler that has news once.
pub(super) struct MediaThread {
    handle: MediaHandle,
    /// All threads of the server, for the one that accepts.
    siblings: Vec<MediaHandle>,
    shared: Arc<MediaShared>,
    poller: Poller,
    listener: Option<TcpListener>,
    /// Given up to accept and dismiss one more connection when there are no descriptors left.
    reserve: Option<std::fs::File>,
    connections: SlotMap<Key, Box<Connection>>,
    wheel: Wheel<Key>,
    tools: Tools,
    stopping: bool,
}

impl MediaThread {
    pub(super) fn new(
        handle: MediaHandle,
        siblings: &[MediaHandle],
        listener: Option<TcpListener>,
        shared: Arc<MediaShared>,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&handle.0.bell, BELL)?;
        if let Some(listener) = &listener {
            listener.set_nonblocking(true)?;
            poller.add(listener, LISTENER)?;
        }
        Ok(Self {
            reserve: listener.is_some().then(reserve).transpose()?,
            handle,
            siblings: siblings.to_vec(),
            shared,
            poller,
            listener,
            connections: SlotMap::with_key(),
            wheel: Wheel::new(clock::now()),
            tools: Tools::default(),
            stopping: false,
        })
    }

    pub(super) fn run(mut self) {
        let (mut events, mut due) = (Events::new(), Vec::new());
        while !self.stopping {
            if let Err(error) = self.wait(&mut events) {
                tracing::error!(%error, "a media thread can't wait for its sockets; its calls end");
                break;
            }
            self.read_all(&events);
            self.take_orders();
            self.serve_due(&mut due);
            for waker in self.tools.wakes.drain(..) {
                waker.wake();
            }
        }
        self.abandon_all();
    }

    fn wait(&self, events: &mut Events) -> io::Result<()> {
        let now = clock::now();
        let next = self.wheel.next().map(|next| next - now);
        let again = (!self.tools.again.is_empty()).then_some(AGAIN);
        let timeout = next.into_iter().chain(again).min();
        self.poller.wait(timeout, events)
    }

    fn read_all(&mut self, events: &Events) {
        let now = clock::now();
        for (token, flags) in events.iter() {
            match token {
                BELL => self.handle.0.bell.silence(),
                LISTENER => self.accept(now),
                token => self.attend_socket(KeyData::from_ffi(token).into(), flags, now),
            }
        }
    }

    fn attend_socket(&mut self, key: Key, flags: EventFlags, now: Time) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let mut desk = Desk {
            key,
            handle: &self.handle,
            shared: &self.shared,
            tools: &mut self.tools,
        };
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            connection.read(now, &mut desk);
        }
        if flags.contains(EventFlags::OUT) {
            connection.write_unsent(&mut desk);
        }
        let moved_up = connection.deadline() <= now;
        self.follow_room(key);
        if moved_up {
            self.serve(key, now);
        }
    }

    fn take_orders(&mut self) {
        let now = clock::now();
        while let Some(order) = self.handle.0.orders.pop() {
            match order {
                Order::Adopt(stream, peer) => self.adopt(stream, peer, now),
                Order::Attend(key) => self.serve(key, now),
                Order::StopListening => {
                    if let Some(listener) = self.listener.take() {
                        self.poller.remove(&listener);
                    }
                }
                Order::Stop => self.stopping = true,
            }
        }
        for key in std::mem::take(&mut self.tools.again) {
            self.serve(key, now);
        }
    }

    fn serve_due(&mut self, due: &mut Vec<(Key, u64)>) {
        let now = clock::now();
        self.wheel.turn(now, due);
        for (key, tick) in due.drain(..) {
            if self
                .connections
                .get(key)
                .is_some_and(|connection| connection.tick == tick)
            {
                self.serve(key, now);
            }
        }
    }

    fn serve(&mut self, key: Key, now: Time) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let mut desk = Desk {
            key,
            handle: &self.handle,
            shared: &self.shared,
            tools: &mut self.tools,
        };
        if connection.serve(now, &mut desk) {
            connection.tick = self.wheel.schedule(key, connection.deadline());
            self.follow_room(key);
        } else {
            self.remove(key);
        }
    }

    /// Asks the kernel to tell when the socket takes more, as long as something is left over.
    fn follow_room(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let wanted = connection.wants_writable();
        if wanted != connection.waits_for_room
            && self
                .poller
                .set_writable(&connection.stream, key.data().as_ffi(), wanted)
                .is_ok()
        {
            connection.waits_for_room = wanted;
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(connection) = self.connections.remove(key) {
            self.poller.remove(&connection.stream);
            self.handle.0.load.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn accept(&mut self, now: Time) {
        for _ in 0..ACCEPTS_A_TURN {
            let Some(listener) = &self.listener else {
                return;
            };
            match listener.accept() {
                Ok((stream, peer)) => {
                    self.shared
                        .tally
                        .connections
                        .fetch_add(1, Ordering::Relaxed);
                    self.assign(stream, peer, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_out_of_descriptors(&error) => {
                    if !self.dismiss_one() {
                        return;
                    }
                }
                // This connection is gone already; the next one may be well.
                Err(_) => {}
            }
        }
    }

    /// New calls go to the least loaded thread; running ones never move.
    fn assign(&mut self, stream: TcpStream, peer: SocketAddr, now: Time) {
        let least = self
            .siblings
            .iter()
            .min_by_key(|sibling| sibling.0.load.load(Ordering::Relaxed));
        match least {
            Some(other) if !Arc::ptr_eq(&other.0, &self.handle.0) => {
                other.order(Order::Adopt(stream, peer))
            }
            _ => self.adopt(stream, peer, now),
        }
    }

    fn adopt(&mut self, stream: TcpStream, peer: SocketAddr, now: Time) {
        let connection = match Connection::new(stream, peer, now, &self.shared) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%peer, %error, "a connection was gone before it could be set up");
                return;
            }
        };
        self.handle.0.load.fetch_add(1, Ordering::Relaxed);
        let key = self.connections.insert(Box::new(connection));
        let connection = &mut self.connections[key];
        match self.poller.add(&connection.stream, key.data().as_ffi()) {
            Ok(()) => connection.tick = self.wheel.schedule(key, connection.deadline()),
            Err(error) => {
                tracing::warn!(%peer, %error, "a connection can't be watched and is closed");
                self.remove(key);
            }
        }
    }

    /// Accepts one connection with the reserve descriptor, and ends it cleanly. Left in the queue it would
    /// time out after 2 s, and what Asterisk then does can end innocent calls.
    fn dismiss_one(&mut self) -> bool {
        self.shared
            .tally
            .out_of_descriptors
            .fetch_add(1, Ordering::Relaxed);
        drop(self.reserve.take());
        let dismissed = match self.listener.as_ref().map(TcpListener::accept) {
            Some(Ok((stream, _))) => {
                // It is closed right after; whether the caller heard it makes no difference to us.
                let _ = rustix::net::send(&stream, &HANGUP, rustix::net::SendFlags::DONTWAIT);
                true
            }
            _ => false,
        };
        self.reserve = reserve().ok();
        dismissed && self.reserve.is_some()
    }

    fn abandon_all(&mut self) {
        let now = clock::now();
        for (key, connection) in &mut self.connections {
            let mut desk = Desk {
                key,
                handle: &self.handle,
                shared: &self.shared,
                tools: &mut self.tools,
            };
            connection.abandon(now, &mut desk);
        }
        for waker in self.tools.wakes.drain(..) {
            waker.wake();
        }
    }
}

fn reserve() -> io::Result<std::fs::File> {
    std::fs::File::open("/dev/null")
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(rustix::io::Errno::MFILE.raw_os_error())
        || code == Some(rustix::io::Errno::NFILE.raw_os_error())
}
