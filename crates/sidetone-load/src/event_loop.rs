use std::{
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use sidetone_driver::{Driver, IoBackend, IoEvent, PendingRead, Token, Waker};
use sidetone_proto::{Decoder, Message};
use slotmap::SlotMap;

use crate::{Load, LoadError, Progress, frame_writer::FrameWriter, socket};

/// Nanoseconds between two reports of progress.
const PROGRESS_INTERVAL: u64 = 250_000_000;

/// What a load does with its calls. The [`EventLoop`] does the I/O and calls these methods.
pub(crate) trait Handler {
    /// What the handler keeps with each connection.
    type Call;

    /// Does what is due at `now`, and returns how long to wait for I/O; `None` when this part of the load is over.
    ///
    /// # Errors
    /// When the load can't go on.
    fn handle_timeout(
        &mut self,
        connections: &mut Connections<Self::Call>,
        now: u64,
    ) -> Result<Option<Wait>, LoadError>;

    /// Sends what a caller sends first. On an error the connection counts as ended by the server.
    fn handle_connected(
        &mut self,
        connections: &mut Connections<Self::Call>,
        token: Token,
    ) -> Result<(), Errno>;

    /// A connection could not be made.
    ///
    /// # Errors
    /// When the load can't go on without it.
    fn handle_connect_error(&mut self, call: Self::Call, error: LoadError)
    -> Result<(), LoadError>;

    /// Verifies a message that was read at `now`. Returns how the call ended, if it did.
    fn handle_message(
        &mut self,
        call: &mut Self::Call,
        message: &Message<'_>,
        now: u64,
    ) -> Option<CallEnd>;

    /// A call ended. Its connection is closed.
    fn handle_end(&mut self, call: Self::Call, end: CallEnd, now: u64);

    /// The time of what is read: `woken_at`, when the wait returned, or a later one.
    fn read_at(&self, woken_at: u64, connections: &Connections<Self::Call>) -> u64;

    /// How far the load is at `now`.
    fn progress(&self, connections: &Connections<Self::Call>, now: u64) -> Progress;
}

/// How long to wait for I/O, in nanoseconds since the load began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// When to wake up at the latest.
    pub(crate) until: u64,
    /// When to wake up at the earliest, so that everything up to then is handled together.
    pub(crate) gather_until: u64,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallEnd {
    /// The load got the frame it waited for and hung up.
    Answered,
    /// The load waited in vain for a frame and hung up.
    Unanswered,
    /// The server hung up or closed the connection, or the connection failed.
    ByServer,
}

/// The one loop of a load: does what is due, waits, reads and sends.
pub(crate) struct EventLoop<'a, C> {
    pub(crate) connections: Connections<C>,
    address: SocketAddr,
    progress: &'a mut dyn FnMut(&Progress),
    next_progress: u64,
}

/// The connections of a load, its clock and its I/O driver.
pub(crate) struct Connections<C> {
    driver: Box<dyn Driver>,
    origin: Instant,
    connections: SlotMap<Token, Connection<C>>,
}

struct Connection<C> {
    stream: TcpStream,
    is_connected: bool,
    decoder: Decoder,
    writer: FrameWriter,
    call: C,
}

impl Wait {
    /// Until something happens, at most until `until`.
    pub(crate) fn until(until: u64) -> Self {
        let gather_until = 0;
        Self {
            until,
            gather_until,
        }
    }
}

impl<'a, C> EventLoop<'a, C> {
    /// A loop for the connections of this load.
    pub(crate) fn new(
        load: &Load,
        progress: &'a mut dyn FnMut(&Progress),
    ) -> Result<Self, LoadError> {
        Ok(Self {
            connections: Connections::new(load)?,
            address: load.address,
            progress,
            next_progress: 0,
        })
    }

    /// Runs until the handler's [`handle_timeout`](Handler::handle_timeout) returns `None`. Can be called again.
    pub(crate) fn run(&mut self, handler: &mut impl Handler<Call = C>) -> Result<(), LoadError> {
        loop {
            let now = self.connections.now();
            let Some(wait) = handler.handle_timeout(&mut self.connections, now)? else {
                return Ok(());
            };
            if now >= self.next_progress {
                self.next_progress = now + PROGRESS_INTERVAL;
                (self.progress)(&handler.progress(&self.connections, now));
            }
            self.connections.wait(wait)?;
            let woken_at = self.connections.now();
            while let Some(event) = self.connections.driver.next_event() {
                self.handle_event(handler, event, woken_at)?;
            }
        }
    }

    fn handle_event(
        &mut self,
        handler: &mut impl Handler<Call = C>,
        event: IoEvent,
        woken_at: u64,
    ) -> Result<(), LoadError> {
        let (IoEvent::Readable(token, _)
        | IoEvent::Writable(token)
        | IoEvent::Sent(token)
        | IoEvent::PartiallySent(token, _)
        | IoEvent::Failed(token, _)) = event
        else {
            return Ok(());
        };
        let now = handler.read_at(woken_at, &self.connections);
        let Some((connection, driver)) = self.connections.get(token) else {
            return Ok(());
        };
        let Connection { writer, stream, .. } = connection;
        let sent = match event {
            IoEvent::Readable(_, arrival) => return self.read(handler, token, arrival, now),
            IoEvent::Writable(_) if !connection.is_connected => {
                return self.check_connected(handler, token, now);
            }
            IoEvent::Writable(_) => writer.flush(driver, token, stream),
            IoEvent::Sent(_) => writer.handle_sent(driver, token, stream, &[]),
            IoEvent::PartiallySent(_, unsent) => writer.handle_sent(driver, token, stream, &unsent),
            IoEvent::Failed(_, error) => Err(error),
            IoEvent::Woken | IoEvent::Incoming => Ok(()),
        };
        if sent.is_err() {
            self.end(handler, token, CallEnd::ByServer, now);
        }
        Ok(())
    }

    fn check_connected(
        &mut self,
        handler: &mut impl Handler<Call = C>,
        token: Token,
        now: u64,
    ) -> Result<(), LoadError> {
        let address = self.address;
        let Some((connection, _)) = self.connections.get(token) else {
            return Ok(());
        };
        if let Err(error) = socket::outcome(&connection.stream, address) {
            return self.fail_to_connect(handler, token, error);
        }
        // Without a peer address connecting failed, and a read returns the error.
        if connection.stream.peer_addr().is_ok() {
            self.set_connected(handler, token, now);
        }
        Ok(())
    }

    fn set_connected(&mut self, handler: &mut impl Handler<Call = C>, token: Token, now: u64) {
        if let Some((connection, _)) = self.connections.get(token) {
            connection.is_connected = true;
            if handler
                .handle_connected(&mut self.connections, token)
                .is_err()
            {
                self.end(handler, token, CallEnd::ByServer, now);
            }
        }
    }

    fn fail_to_connect(
        &mut self,
        handler: &mut impl Handler<Call = C>,
        token: Token,
        error: LoadError,
    ) -> Result<(), LoadError> {
        match self.connections.close(token) {
            Some(call) => handler.handle_connect_error(call, error),
            None => Ok(()),
        }
    }

    fn read(
        &mut self,
        handler: &mut impl Handler<Call = C>,
        token: Token,
        read: PendingRead,
        now: u64,
    ) -> Result<(), LoadError> {
        let Some((connection, driver)) = self.connections.get(token) else {
            return Ok(());
        };
        let was_connected = connection.is_connected;
        let end = match driver.read(read, &connection.stream) {
            Ok([]) => Some(CallEnd::ByServer),
            Ok(bytes) => connection.handle_received(handler, bytes, now),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) if !was_connected => {
                let error = LoadError::connect(error.into(), self.address);
                return self.fail_to_connect(handler, token, error);
            }
            Err(_) => Some(CallEnd::ByServer),
        };
        if !was_connected {
            self.set_connected(handler, token, now);
        }
        if let Some(end) = end {
            self.end(handler, token, end, now);
        }
        Ok(())
    }

    fn end(&mut self, handler: &mut impl Handler<Call = C>, token: Token, end: CallEnd, now: u64) {
        if let Some(call) = self.connections.close(token) {
            handler.handle_end(call, end, now);
        }
    }
}

impl<C> Connections<C> {
    fn new(load: &Load) -> Result<Self, LoadError> {
        let system = |source| LoadError::system("wait for sockets", source);
        // Nothing wakes it from another thread: a load ends by the clock.
        let waker = Arc::new(Waker::new().map_err(system)?);
        Ok(Self {
            driver: load.io_backend.open(waker).map_err(system)?,
            origin: Instant::now(),
            connections: SlotMap::with_capacity_and_key(load.calls),
        })
    }

    /// Nanoseconds since the load began.
    pub(crate) fn now(&self) -> u64 {
        self.elapsed().as_nanos() as u64
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    /// How the load talks to the kernel.
    pub(crate) fn backend(&self) -> IoBackend {
        self.driver.backend()
    }

    /// How many connections are open or being made.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(crate) fn contains(&self, token: Token) -> bool {
        self.connections.contains_key(token)
    }

    pub(crate) fn call_mut(&mut self, token: Token) -> Option<&mut C> {
        let connection = self.connections.get_mut(token)?;
        Some(&mut connection.call)
    }

    /// Takes over a connection that is being made.
    pub(crate) fn register(&mut self, stream: TcpStream, call: C) -> Result<Token, LoadError> {
        let token = self.connections.insert(Connection {
            stream,
            is_connected: false,
            decoder: Decoder::new(),
            writer: FrameWriter::new(),
            call,
        });
        let stream = &self.connections[token].stream;
        self.driver
            .register(token, stream)
            .map_err(|source| LoadError::system("watch a connection", source))?;
        // The socket is writable once the connection is made.
        self.driver.set_write_interest(token, stream, true);
        Ok(token)
    }

    /// Whether all messages have been sent, so that another one leaves at once.
    pub(crate) fn is_idle(&self, token: Token) -> bool {
        let connection = self.connections.get(token);
        connection.is_some_and(|connection| connection.writer.is_idle())
    }

    /// Sends a message, after those that wait to be sent.
    pub(crate) fn send(&mut self, token: Token, message: &[u8]) -> Result<(), Errno> {
        let Some((Connection { writer, stream, .. }, driver)) = self.get(token) else {
            return Err(Errno::NOTCONN);
        };
        writer.write(driver, token, stream, message)
    }

    /// Sends what waits to be sent. With nothing waiting, the driver no longer reports that the socket is writable.
    pub(crate) fn flush(&mut self, token: Token) -> Result<(), Errno> {
        let Some((Connection { writer, stream, .. }, driver)) = self.get(token) else {
            return Err(Errno::NOTCONN);
        };
        writer.flush(driver, token, stream)
    }

    /// Closes the connection, which hangs up, and returns its call.
    pub(crate) fn close(&mut self, token: Token) -> Option<C> {
        let Connection { stream, call, .. } = self.connections.remove(token)?;
        self.driver.deregister(token, stream);
        Some(call)
    }

    fn get(&mut self, token: Token) -> Option<(&mut Connection<C>, &mut dyn Driver)> {
        let connection = self.connections.get_mut(token)?;
        Some((connection, &mut *self.driver))
    }

    fn wait(&mut self, wait: Wait) -> Result<(), LoadError> {
        let now = self.now();
        let from_now = |at: u64| Duration::from_nanos(at.saturating_sub(now));
        let (timeout, gather) = (from_now(wait.until), from_now(wait.gather_until));
        self.driver
            .wait(Some(timeout), gather)
            .map_err(|source| LoadError::system("wait for sockets", source))
    }
}

impl<C> Connection<C> {
    /// Passes on each message in these bytes. Returns how the call ended, if it did.
    fn handle_received(
        &mut self,
        handler: &mut impl Handler<Call = C>,
        bytes: &[u8],
        now: u64,
    ) -> Option<CallEnd> {
        let (mut rest, mut end) = (bytes, None);
        loop {
            let decoded = self.decoder.decode(rest);
            rest = &rest[decoded.consumed..];
            let Some(message) = decoded.message else {
                return end;
            };
            let ended = handler.handle_message(&mut self.call, &message, now);
            end = end.or(ended);
        }
    }
}
