use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rustix::{
    net::{RecvFlags, SendFlags},
    process::{Resource, getrlimit},
};
use sidetone_driver::{Driver, IoEvent};
use sidetone_proto::{EndReason, HANGUP, Time};
use slotmap::SlotMap;

use super::{
    Command, MediaHandle, MediaShared, Token, clock,
    connection::{Connection, Context, Scratch},
    listener,
    wheel::Wheel,
};

/// Connections accepted in one turn at most, 8000 a second, so that a rush of them does not make calls late.
const ACCEPTS_A_TURN: usize = 8;

/// Descriptors kept to accept and dismiss connections when there are no others left. The more, the longer a connection
/// that was dismissed stays open, for what it sent to come and be read.
const RESERVES: usize = 8;

/// Connections without a UUID may hold this part of the process's descriptors, and no more than so many.
const OPENING: (u64, u64) = (4, 4096);

/// How soon a lock that was taken is tried again.
const AGAIN: Duration = Duration::from_millis(1);

/// How long a thread that was told to stop waits for the other sides to close.
const FAREWELL: Duration = Duration::from_millis(500);

/// One media thread: waits, reads everything, does what handlers asked, writes what is due, and wakes every
/// handler that has news once.
pub(super) struct MediaThread {
    handle: MediaHandle,
    /// All threads of the server, for the one that accepts.
    siblings: Vec<MediaHandle>,
    shared: Arc<MediaShared>,
    driver: Box<dyn Driver>,
    listener: Option<TcpListener>,
    /// Given up, the oldest first, to accept and dismiss one more connection when there are no descriptors left.
    reserves: VecDeque<OwnedFd>,
    connections: SlotMap<Token, Box<Connection>>,
    /// Those that had said no UUID when it was last looked, and all newer ones.
    opening: VecDeque<Token>,
    most_opening: usize,
    wheel: Wheel<Token>,
    /// When the turn began that was last.
    begun: Time,
    tools: Scratch,
    /// The emptied other half of the list of connections to look at again.
    again: Vec<Token>,
    /// What the wheel says is due, while it is served.
    due: Vec<(Token, u64)>,
    /// When to end whatever the other sides do.
    stop_at: Option<Time>,
}

impl MediaThread {
    pub(super) fn new(
        handle: MediaHandle,
        siblings: Vec<MediaHandle>,
        mut driver: Box<dyn Driver>,
        listener: Option<TcpListener>,
        shared: Arc<MediaShared>,
    ) -> io::Result<Self> {
        if let Some(listener) = &listener {
            listener::prepare(listener)?;
            driver.listen(listener)?;
        }
        let now = clock::now();
        let reserves = if listener.is_some() { RESERVES } else { 0 };
        Ok(Self {
            reserves: (0..reserves)
                .map(|_| reserve())
                .collect::<io::Result<_>>()?,
            opening: VecDeque::new(),
            most_opening: most_opening(siblings.len()),
            handle,
            siblings,
            shared,
            driver,
            listener,
            connections: SlotMap::with_key(),
            wheel: Wheel::new(now),
            begun: now,
            tools: Scratch::new(),
            again: Vec::new(),
            due: Vec::new(),
            stop_at: None,
        })
    }

    pub(super) fn run(mut self) {
        let turns = catch_unwind(AssertUnwindSafe(|| self.iterate()));
        let failure = match turns {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it panicked".into(),
        };
        // Nobody would ever be told anything about these calls again.
        self.stop(clock::now());
        self.wake_all();
        tracing::error!(%failure, "a media thread failed; its calls are hung up");
    }

    fn iterate(&mut self) -> io::Result<()> {
        while !self.is_done() {
            self.wait()?;
            self.handle_events();
            self.handle_commands();
            self.serve_due();
            self.wake_all();
        }
        Ok(())
    }

    fn wake_all(&mut self) {
        self.shared.arrivals.wake(&mut self.tools.wakes);
    }

    /// Stopped, it goes on for a moment: closed with audio unread, a connection would be reset, and the
    /// other side might not come to see the hang-up.
    fn is_done(&self) -> bool {
        self.stop_at
            .is_some_and(|latest| self.connections.is_empty() || clock::now() >= latest)
    }

    /// Turns begin some time apart, so that what happens meanwhile shares what a turn costs. A thread that is busy for
    /// longer than that doesn't wait at all: what came while it worked is one turn's anyway.
    fn wait(&mut self) -> io::Result<()> {
        let now = clock::now();
        let next = self.wheel.next().map(|next| next - now);
        let again = (!self.tools.again.is_empty()).then_some(AGAIN);
        let stop = self.stop_at.map(|latest| latest - now);
        let timeout = next.into_iter().chain(again).chain(stop).min();
        let gather = self.begun + self.shared.config.tuning.coalescing() - now;
        self.driver.wait(timeout, gather)?;
        self.begun = clock::now();
        Ok(())
    }

    fn handle_events(&mut self) {
        let now = clock::now();
        while let Some(event) = self.driver.next_event() {
            match event {
                // What it was rung for is looked at in every turn.
                IoEvent::Woken => {}
                IoEvent::Incoming => self.accept(now),
                event => self.handle_event(event, now),
            }
        }
    }

    /// Takes note of what happened on one connection, and serves it if that moved its deadline up.
    fn handle_event(&mut self, event: IoEvent, now: Time) {
        let (IoEvent::Readable(token, _)
        | IoEvent::Writable(token)
        | IoEvent::Sent(token)
        | IoEvent::PartiallySent(token, _)
        | IoEvent::Failed(token, _)) = event
        else {
            return;
        };
        let Some(connection) = self.connections.get_mut(token) else {
            return;
        };
        let mut context = Context {
            token,
            handle: &self.handle,
            shared: &self.shared,
            tools: &mut self.tools,
        };
        match event {
            IoEvent::Readable(_, arrival) => {
                let read = self.driver.read(arrival, &connection.stream);
                connection.take_in(now, read, &mut context);
            }
            IoEvent::Writable(_) => {
                connection.prepare_unsent(&mut context);
                self.send(token);
            }
            IoEvent::Sent(_) => connection.note_sent_later(Ok(&[]), &mut context),
            IoEvent::PartiallySent(_, rest) => connection.note_sent_later(Ok(&rest), &mut context),
            IoEvent::Failed(_, error) => connection.note_sent_later(Err(error), &mut context),
            IoEvent::Woken | IoEvent::Incoming => {}
        }
        self.follow_room(token);
        if self.connections[token].deadline() <= now {
            self.serve(token, now);
        }
    }

    /// Sends what is on the wire, if anything is.
    fn send(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else {
            return;
        };
        if self.tools.wire.is_empty() {
            return;
        }
        let sent = self
            .driver
            .send(token, &connection.stream, &self.tools.wire);
        let mut context = Context {
            token,
            handle: &self.handle,
            shared: &self.shared,
            tools: &mut self.tools,
        };
        connection.note_sent(sent, &mut context);
    }

    fn handle_commands(&mut self) {
        let now = clock::now();
        // Only what is there now: whoever gives commands without end does not keep the slots waiting.
        for _ in 0..self.handle.0.commands.len() {
            let Some(command) = self.handle.0.commands.pop() else {
                break;
            };
            match command {
                Command::Adopt(stream, peer) => self.adopt(stream, peer, now),
                Command::Attend(token) => self.serve(token, now),
                Command::StopListening => self.stop_listening(),
                Command::Stop => self.stop(now),
            }
        }
        let mut again = std::mem::replace(&mut self.tools.again, std::mem::take(&mut self.again));
        for token in again.drain(..) {
            self.serve(token, now);
        }
        self.again = again;
    }

    fn serve_due(&mut self) {
        let now = clock::now();
        let mut due = std::mem::take(&mut self.due);
        self.wheel.turn(now, &mut due);
        for (token, tick) in due.drain(..) {
            if let Some(connection) = self.connections.get_mut(token)
                && connection.tick == Some(tick)
            {
                connection.tick = None;
                self.serve(token, now);
            }
        }
        self.due = due;
    }

    fn serve(&mut self, token: Token, now: Time) {
        let Some((connection, mut context)) = self.context(token) else {
            return;
        };
        connection.prepare(now, &mut context);
        self.send(token);
        let Some((connection, mut context)) = self.context(token) else {
            return;
        };
        if !connection.conclude(now, &mut context) {
            return self.remove(token);
        }
        let tick = self.wheel.tick(self.connections[token].deadline());
        let connection = &mut self.connections[token];
        // However often it is looked at between two slots, it has one entry for the next.
        if connection.tick != Some(tick) {
            self.wheel.schedule(token, tick);
            connection.tick = Some(tick);
        }
        self.follow_room(token);
    }

    /// A connection, with what it needs to work.
    fn context(&mut self, token: Token) -> Option<(&mut Connection, Context<'_>)> {
        let connection = self.connections.get_mut(token)?;
        let context = Context {
            token,
            handle: &self.handle,
            shared: &self.shared,
            tools: &mut self.tools,
        };
        Some((connection, context))
    }

    /// Asks to be told when the socket takes more, as long as something is left over.
    fn follow_room(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else {
            return;
        };
        let wanted = connection.wants_writable();
        if wanted != connection.waits_for_room {
            self.driver
                .set_write_interest(token, &connection.stream, wanted);
            connection.waits_for_room = wanted;
        }
    }

    fn remove(&mut self, token: Token) {
        if let Some(connection) = self.connections.remove(token) {
            if connection.is_answered() {
                self.shared.answered.fetch_sub(1, Ordering::AcqRel);
            }
            self.driver.deregister(token, connection.stream);
            self.handle.0.load.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn accept(&mut self, now: Time) {
        for _ in 0..ACCEPTS_A_TURN {
            let Some(listener) = &self.listener else {
                return;
            };
            match listener::accept(listener) {
                Ok((stream, peer)) => {
                    self.shared
                        .tally
                        .connections
                        .fetch_add(1, Ordering::Relaxed);
                    self.assign(stream, peer, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_out_of_descriptors(&error) => {
                    return self.dismiss_those_who_wait();
                }
                // This connection is gone already; the next one may be well.
                Err(_) => {}
            }
        }
    }

    /// New calls go to the least loaded thread; running ones never move. The load counts from here on, so
    /// that a rush of calls does not all go to the same thread.
    fn assign(&mut self, stream: TcpStream, peer: SocketAddr, now: Time) {
        let least = self
            .siblings
            .iter()
            .min_by_key(|sibling| sibling.0.load.load(Ordering::Relaxed));
        let chosen = least.unwrap_or(&self.handle);
        chosen.0.load.fetch_add(1, Ordering::AcqRel);
        if Arc::ptr_eq(&chosen.0, &self.handle.0) {
            self.adopt(stream, peer, now);
        } else {
            chosen.command(Command::Adopt(stream, peer));
        }
    }

    fn adopt(&mut self, stream: TcpStream, peer: SocketAddr, now: Time) {
        let connection = Connection::new(stream, peer, now, &self.shared);
        let token = self.connections.insert(Box::new(connection));
        self.make_room();
        let connection = &mut self.connections[token];
        match self.driver.register(token, &connection.stream) {
            Ok(()) => {
                self.serve(token, now);
                self.opening.push_back(token);
                self.limit_opening();
            }
            // It was gone before it could be set up. Nothing is logged here: whoever takes log lines may block.
            Err(_) => {
                self.connections.remove(token);
                self.handle.0.load.fetch_sub(1, Ordering::AcqRel);
                let lost = &self.shared.tally.without_identity;
                lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// All of them may have something to say in one turn, when the thread was late.
    fn make_room(&mut self) {
        let count = self.connections.len();
        self.tools.wakes.reserve(count);
        self.tools.again.reserve(count);
        self.again.reserve(count);
        // A deadline that moved up between two slots leaves an entry behind.
        self.wheel.make_room(2 * count);
        self.due.reserve(2 * count);
    }

    /// Whoever connects and says nothing must not keep calls out: where too many do, the oldest goes.
    fn limit_opening(&mut self) {
        if self.opening.len() <= self.most_opening {
            return;
        }
        let connections = &self.connections;
        let is_opening =
            |token: &Token| connections.get(*token).is_some_and(|it| !it.is_answered());
        self.opening.retain(is_opening);
        if self.opening.len() <= self.most_opening {
            return;
        }
        // Some more than one, so that the list is not gone through for each that comes.
        for oldest in self
            .opening
            .drain(..=self.most_opening / 16)
            .collect::<Vec<_>>()
        {
            let crowded_out = &self.shared.tally.crowded_out;
            crowded_out.fetch_add(1, Ordering::Relaxed);
            let stream = &self.connections[oldest].stream;
            // Nothing has been sent to it, so there is room; and no release of Asterisk overlooks a hang-up.
            let _ = rustix::net::send(stream, &HANGUP, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            self.remove(oldest);
        }
    }

    /// Accepts connections with the reserve descriptors, and ends them cleanly. Left in the queue they would
    /// time out after 2 s, and what Asterisk then does can end innocent calls.
    fn dismiss_those_who_wait(&mut self) {
        for _ in 0..RESERVES {
            drop(self.reserves.pop_front());
            // The kernel says that descriptors are gone even when nobody waits.
            let Some(Ok((stream, _))) = self.listener.as_ref().map(TcpListener::accept) else {
                break;
            };
            let dismissed = &self.shared.tally.out_of_descriptors;
            dismissed.fetch_add(1, Ordering::Relaxed);
            // Read what is there and don't close yet: with bytes unread, or coming, the connection would be
            // reset. It is a reserve from here on, and closes when a later one needs its descriptor.
            let _ = rustix::net::send(&stream, &HANGUP, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = rustix::net::recv(&stream, &mut [0u8; 1024], RecvFlags::DONTWAIT);
            self.reserves.push_back(stream.into());
        }
        while self.reserves.len() < RESERVES
            && let Ok(reserve) = reserve()
        {
            self.reserves.push_back(reserve);
        }
    }

    fn stop_listening(&mut self) {
        if let Some(listener) = self.listener.take() {
            self.driver.stop_listening(&listener);
            self.shared.listening.store(false, Ordering::Release);
        }
    }

    /// Hangs up every connection.
    fn stop(&mut self, now: Time) {
        self.stop_listening();
        self.stop_at = Some(now + FAREWELL);
        let tokens: Vec<Token> = self.connections.keys().collect();
        for token in tokens {
            if let Some(connection) = self.connections.get_mut(token) {
                connection.hang_up(now, EndReason::Shutdown);
            }
            self.serve(token, now);
        }
    }
}

fn reserve() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/dev/null")?.into())
}

/// What one of so many threads may have.
fn most_opening(threads: usize) -> usize {
    let (part, most) = OPENING;
    // Where there is no limit, or one that no memory can reach, the second figure counts.
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    ((descriptors / part).min(most) as usize / threads.max(1)).max(1)
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(rustix::io::Errno::MFILE.raw_os_error())
        || code == Some(rustix::io::Errno::NFILE.raw_os_error())
}
