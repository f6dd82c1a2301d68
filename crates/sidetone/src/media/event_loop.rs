use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sidetone_driver::{Driver, IoEvent};
use sidetone_proto::{EndReason, Time};
use slotmap::SlotMap;

use super::{
    Entry, MediaHandle, MediaShared, NewConnection, ThreadCommand, Token,
    acceptor::{Accepted, Acceptor, send_hangup},
    clock,
    connection::{Connection, Context, Scratch},
    limits::Limits,
    wheel::TimingWheel,
};

/// Connections accepted in one iteration. With an iteration each millisecond these are 8000 a second, and a burst of
/// connections does not make calls late.
const MAX_ACCEPTS_PER_ITERATION: usize = 8;

/// How soon a connection that found a lock taken is polled again.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// How long a thread that was stopped waits for the peers to close.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// One media thread. An iteration of its event loop waits, reads what has arrived, applies what handlers asked for,
/// sends what is due, and wakes every handler that has news once.
pub(super) struct MediaThread {
    handle: MediaHandle,
    /// All threads of the server, for the one that accepts.
    siblings: Vec<MediaHandle>,
    shared: Arc<MediaShared>,
    driver: Box<dyn Driver>,
    acceptor: Option<Acceptor>,
    connections: SlotMap<Token, Box<Connection>>,
    /// Of the connections that this thread accepts.
    limits: Limits,
    wheel: TimingWheel<Token>,
    iteration_began: Time,
    scratch: Scratch,
    /// Swapped with the list of retries in `scratch`, so that neither allocates.
    retries: Vec<Token>,
    /// The wheel entries that are due, while they are handled.
    due: Vec<(Token, u64)>,
    /// When a stopped thread ends even if connections are open.
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
        let acceptor = match listener {
            Some(listener) => Some(Acceptor::new(listener, driver.as_mut())?),
            None => None,
        };
        let now = clock::now();
        Ok(Self {
            limits: Limits::new(&shared.config),
            handle,
            siblings,
            shared,
            driver,
            acceptor,
            connections: SlotMap::with_key(),
            wheel: TimingWheel::new(now),
            iteration_began: now,
            scratch: Scratch::new(),
            retries: Vec::new(),
            due: Vec::new(),
            stop_at: None,
        })
    }

    pub(super) fn run(mut self) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.iterate()));
        let failure = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it panicked".into(),
        };
        // Without this the handlers of these calls would wait for ever.
        self.stop(clock::now());
        self.wake_all();
        tracing::error!(%failure, "a media thread failed; its calls are hung up");
    }

    fn iterate(&mut self) -> io::Result<()> {
        while !self.is_done() {
            self.wait()?;
            self.resume_accepting();
            self.handle_events();
            self.handle_commands();
            self.poll_due();
            self.wake_all();
        }
        Ok(())
    }

    fn wake_all(&mut self) {
        self.shared.arrivals.wake(&mut self.scratch.wakes);
    }

    /// A stopped thread goes on for a moment. A connection that is closed with audio unread is reset, and its peer
    /// might not see the hang-up.
    fn is_done(&self) -> bool {
        self.stop_at
            .is_some_and(|latest| self.connections.is_empty() || clock::now() >= latest)
    }

    /// Waits for events. Iterations begin some time apart, so that the events in between share the cost of
    /// one. A thread that is busy for longer than that does not wait.
    fn wait(&mut self) -> io::Result<()> {
        let now = clock::now();
        let next = self.wheel.next().map(|next| next - now);
        let retry = (!self.scratch.retries.is_empty()).then_some(RETRY_AFTER);
        let stop = self.stop_at.map(|latest| latest - now);
        let paused_until = self.acceptor.as_ref().and_then(Acceptor::paused_until);
        let resume = paused_until.map(|until| until - now);
        let timeouts = next.into_iter().chain(retry).chain(stop).chain(resume);
        let timeout = timeouts.min();
        let coalescing = self.iteration_began + self.shared.config.tuning.coalescing() - now;
        self.driver.wait(timeout, coalescing)?;
        self.iteration_began = clock::now();
        Ok(())
    }

    fn handle_events(&mut self) {
        let now = clock::now();
        while let Some(event) = self.driver.next_event() {
            match event {
                // Every iteration handles the commands anyway.
                IoEvent::Woken => {}
                IoEvent::Incoming => self.accept(now),
                event => self.handle_event(event, now),
            }
        }
    }

    /// Handles an event of one connection, and polls the connection if that moved its deadline up.
    fn handle_event(&mut self, event: IoEvent, now: Time) {
        let (IoEvent::Readable(token, _)
        | IoEvent::Writable(token)
        | IoEvent::Sent(token)
        | IoEvent::PartiallySent(token, _)
        | IoEvent::Failed(token, _)) = event
        else {
            return;
        };
        let Some((connection, driver, mut context)) = self.connection(token) else {
            return;
        };
        match event {
            IoEvent::Readable(_, arrival) => {
                let read = driver.read(arrival, &connection.stream);
                connection.handle_received(now, read, &mut context);
            }
            IoEvent::Writable(_) => {
                connection.poll_unsent(&mut context);
                send(connection, driver, &mut context);
            }
            IoEvent::Sent(_) => connection.handle_send_completion(Ok(&[]), &mut context),
            IoEvent::PartiallySent(_, rest) => {
                connection.handle_send_completion(Ok(&rest), &mut context);
            }
            IoEvent::Failed(_, error) => {
                connection.handle_send_completion(Err(error), &mut context);
            }
            IoEvent::Woken | IoEvent::Incoming => {}
        }
        update_write_interest(connection, driver, token);
        if connection.deadline() <= now {
            self.poll_connection(token, now);
        }
    }

    fn handle_commands(&mut self) {
        let now = clock::now();
        // Only those that are queued now: endless commands must not delay the slots.
        for _ in 0..self.handle.0.commands.len() {
            let Some(command) = self.handle.0.commands.pop() else {
                break;
            };
            match command {
                ThreadCommand::AddConnection(new) => self.add_connection(new, now),
                ThreadCommand::CrowdOut(entry) => self.crowd_out(&entry),
                ThreadCommand::Poll(token) => self.poll_connection(token, now),
                ThreadCommand::StopListening => self.stop_listening(),
                ThreadCommand::Stop => self.stop(now),
            }
        }
        let empty = std::mem::take(&mut self.retries);
        let mut retries = std::mem::replace(&mut self.scratch.retries, empty);
        for token in retries.drain(..) {
            self.poll_connection(token, now);
        }
        self.retries = retries;
    }

    fn poll_due(&mut self) {
        let now = clock::now();
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(now, &mut due);
        for (token, tick) in due.drain(..) {
            if let Some(connection) = self.connections.get_mut(token)
                && connection.tick == Some(tick)
            {
                connection.tick = None;
                self.poll_connection(token, now);
            }
        }
        self.due = due;
    }

    fn poll_connection(&mut self, token: Token, now: Time) {
        let Some((connection, driver, mut context)) = self.connection(token) else {
            return;
        };
        connection.poll_transmit(now, &mut context);
        send(connection, driver, &mut context);
        if !connection.poll_close(now, &mut context) {
            return self.remove(token);
        }
        update_write_interest(connection, driver, token);
        let deadline = connection.deadline();
        let tick = self.wheel.tick(deadline);
        let connection = &mut self.connections[token];
        // However often it is polled between two slots, it has one entry for the next.
        if connection.tick != Some(tick) {
            self.wheel.schedule(token, tick);
            connection.tick = Some(tick);
        }
    }

    /// A connection, with the driver and what else it works with.
    fn connection(
        &mut self,
        token: Token,
    ) -> Option<(&mut Connection, &mut dyn Driver, Context<'_>)> {
        let connection = self.connections.get_mut(token)?;
        let context = Context {
            token,
            handle: &self.handle,
            shared: &self.shared,
            scratch: &mut self.scratch,
        };
        Some((connection, self.driver.as_mut(), context))
    }

    fn accept(&mut self, now: Time) {
        for _ in 0..MAX_ACCEPTS_PER_ITERATION {
            let Some(acceptor) = &mut self.acceptor else {
                return;
            };
            match acceptor.accept(&self.shared.counters) {
                Accepted::Connection(stream, peer) => self.assign(stream, peer, now),
                Accepted::Aborted => {}
                Accepted::NoMore => return,
                Accepted::Impossible => return acceptor.pause(now, self.driver.as_mut()),
            }
        }
    }

    fn resume_accepting(&mut self) {
        if let Some(acceptor) = &mut self.acceptor {
            acceptor.resume(self.iteration_began, self.driver.as_mut());
        }
    }

    /// Assigns a new connection to the least loaded thread; it stays there. The load counts from here on, so that
    /// a burst of connections is spread.
    fn assign(&mut self, stream: TcpStream, peer: SocketAddr, now: Time) {
        let threads = self.siblings.iter().enumerate();
        let least = threads.min_by_key(|(_, thread)| thread.0.load.load(Ordering::Relaxed));
        let Some((thread, chosen)) = least else {
            return;
        };
        let verdict = self.limits.add(now, peer.ip(), thread);
        if verdict.excess.is_some() {
            let excess = &self.shared.counters.excess_connects;
            excess.fetch_add(1, Ordering::Relaxed);
        }
        let new = NewConnection {
            stream,
            peer,
            excess: verdict.excess,
            waiting: verdict.waiting,
        };
        chosen.0.load.fetch_add(1, Ordering::AcqRel);
        if self.is_own(chosen) {
            self.add_connection(new, now);
        } else {
            chosen.command(ThreadCommand::AddConnection(new));
        }
        for entry in verdict.crowded_out {
            let thread = &self.siblings[entry.thread];
            if self.is_own(thread) {
                self.crowd_out(&entry);
            } else {
                thread.command(ThreadCommand::CrowdOut(entry));
            }
        }
    }

    fn is_own(&self, thread: &MediaHandle) -> bool {
        Arc::ptr_eq(&thread.0, &self.handle.0)
    }

    fn add_connection(&mut self, new: NewConnection, now: Time) {
        let connection = Connection::new(new, now, &self.shared);
        let token = self.connections.insert(Box::new(connection));
        self.reserve_capacity();
        let connection = &self.connections[token];
        connection.set_token(token);
        match self.driver.register(token, &connection.stream) {
            Ok(()) => self.poll_connection(token, now),
            // The peer closed before the setup was complete. Nothing is logged here, since a log subscriber may
            // block.
            Err(_) => {
                self.connections.remove(token);
                self.handle.0.load.fetch_sub(1, Ordering::AcqRel);
                let lost = &self.shared.counters.without_identity;
                lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Reserves for the case that the thread is late and all connections have events in one iteration.
    fn reserve_capacity(&mut self) {
        let count = self.connections.len();
        self.scratch.wakes.reserve(count);
        self.scratch.retries.reserve(count);
        self.retries.reserve(count);
        // A deadline that moved up between two slots leaves a stale entry.
        self.wheel.reserve(2 * count);
        self.due.reserve(2 * count);
    }

    /// Hangs up a connection for which there are too many without a UUID, unless its UUID has come meanwhile.
    fn crowd_out(&mut self, entry: &Entry) {
        let Some(token) = entry.token.get().copied() else {
            return;
        };
        let connection = self.connections.get(token);
        if let Some(connection) = connection.filter(|connection| !connection.is_identified()) {
            let crowded_out = &self.shared.counters.crowded_out;
            crowded_out.fetch_add(1, Ordering::Relaxed);
            send_hangup(&connection.stream);
            self.remove(token);
        }
    }

    fn remove(&mut self, token: Token) {
        if let Some(connection) = self.connections.remove(token) {
            if connection.is_identified() {
                self.shared.identified.fetch_sub(1, Ordering::AcqRel);
            }
            self.driver.deregister(token, connection.stream);
            self.handle.0.load.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn stop_listening(&mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.stop(self.driver.as_mut());
            self.shared.listening.store(false, Ordering::Release);
        }
    }

    /// Hangs up all connections. The thread ends when they are closed, or after [`SHUTDOWN_GRACE`].
    fn stop(&mut self, now: Time) {
        self.stop_listening();
        self.stop_at = Some(now + SHUTDOWN_GRACE);
        let tokens: Vec<Token> = self.connections.keys().collect();
        for token in tokens {
            if let Some(connection) = self.connections.get_mut(token) {
                connection.hang_up(now, EndReason::Shutdown);
            }
            self.poll_connection(token, now);
        }
    }
}

/// Sends the transmit buffer, unless it is empty.
fn send(connection: &mut Connection, driver: &mut dyn Driver, context: &mut Context<'_>) {
    let transmit = &context.scratch.transmit;
    if transmit.is_empty() {
        return;
    }
    let sent = driver.send(context.token, &connection.stream, transmit);
    connection.handle_send_result(sent, context);
}

/// Has the driver report when the socket takes more, while something is left over.
fn update_write_interest(connection: &mut Connection, driver: &mut dyn Driver, token: Token) {
    let wanted = connection.wants_writable();
    if wanted != connection.has_write_interest {
        driver.set_write_interest(token, &connection.stream, wanted);
        connection.has_write_interest = wanted;
    }
}
