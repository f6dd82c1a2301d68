//! An open connection, read and written by one task.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use thiserror::Error;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_websockets::{CloseCode, Error as SocketError, MaybeTlsStream, WebSocketStream};

use crate::peer_stream::PeerStream;

/// How many bytes of pongs may wait to be sent. With more nothing is read, since each ping asks for
/// another one.
const MAX_UNSENT_PONGS: usize = 64 * 1024;
/// A ping without data is answered with this many bytes.
const PONG_OVERHEAD: usize = 6;
/// A service that sends pings and takes no pongs for this long is broken.
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what the service sent is read for after nothing can be sent any more.
const REST_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a close may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

type Socket = WebSocketStream<PeerStream<MaybeTlsStream<TcpStream>>>;

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

/// What the other side sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A text.
    Text(String),
    /// Bytes.
    Binary(Bytes),
    /// The answer to a [`ping`](Connection::ping).
    Pong,
    /// It closed the connection. This is the last thing received.
    Closed {
        /// The code (RFC 6455, 7.4); 1005 if there was none.
        code: u16,
        /// The reason, often empty.
        reason: String,
    },
}

/// Why a connection does not go on.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The other side closed it, which [`Received::Closed`] has told before.
    #[error("it is closed")]
    Closed,
    /// It ended without a close.
    #[error("it was cut off")]
    CutOff,
    /// The other side sent a longer message than accepted.
    #[error("a message exceeds the limit of {limit} bytes")]
    MessageTooLong {
        /// The longest message accepted, in bytes.
        limit: usize,
    },
    /// The other side sends pings without end and takes no pongs.
    #[error("it sends pings and takes no pongs")]
    PongsNotTaken,
    /// The other side sent what is not of the WebSocket protocol.
    #[error("what it sends is not WebSocket: {0}")]
    Protocol(String),
    /// The network failed.
    #[error("{0}")]
    Network(String),
}

/// An open WebSocket connection.
///
/// One task reads and writes it: queued messages leave while [`next`](Self::next) or
/// [`flush`](Self::flush) is polled, and at no other time. A message is never fragmented. Pings are
/// answered. Dropping a connection closes its socket without a word, so that what is queued is lost.
pub struct Connection {
    socket: Socket,
    queue: VecDeque<Message>,
    /// Whether a queued message was given to the socket, which has not taken all of it.
    in_flight: bool,
    ping_due: bool,
    /// The code of a close to send after all messages.
    close_due: Option<CloseCode>,
    /// The bytes of unsent pongs, which the socket's queue does not limit.
    unsent_pongs: usize,
    /// Since when there are too many of them.
    pongs_blocked: Option<Instant>,
    /// Why nothing can be sent any more, and since when.
    write_failed: Option<(Instant, ConnectionError)>,
    /// Why nothing can be received any more.
    end: Option<ConnectionError>,
}

impl Connection {
    pub(crate) fn new(mut socket: Socket) -> Self {
        socket.get_mut().established();
        Self {
            socket,
            queue: VecDeque::new(),
            in_flight: false,
            ping_due: false,
            close_due: None,
            unsent_pongs: 0,
            pongs_blocked: None,
            write_failed: None,
            end: None,
        }
    }

    /// Queues a message, behind those queued before. It never waits, and the queue has no limit:
    /// look at [`queued`](Self::queued).
    pub fn queue(&mut self, message: Message) {
        self.queue.push_back(message);
    }

    /// How many messages the socket has not taken, or not all of.
    pub fn queued(&self) -> usize {
        self.queue.len() + usize::from(self.in_flight)
    }

    /// Drops the oldest queued message for which `may_drop` is true, and returns whether there was
    /// one. A message that the socket has taken a part of is not asked about.
    pub fn drop_oldest(&mut self, may_drop: impl FnMut(&Message) -> bool) -> bool {
        let oldest = self.queue.iter().position(may_drop);
        oldest.and_then(|it| self.queue.remove(it)).is_some()
    }

    /// Queues a ping, which leaves before the queued messages. A second one before the first has
    /// left changes nothing.
    pub fn ping(&mut self) {
        self.ping_due = true;
    }

    /// Waits for the next message. Meanwhile queued messages leave.
    ///
    /// A message in several fragments is returned when it is complete. If nothing can be sent any
    /// more, what the other side sent before is returned first: often a close with the reason.
    ///
    /// Cancel safe: no message is lost, in either direction.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`] if the connection is closed or broken. From then on every call returns
    /// the same error.
    pub async fn next(&mut self) -> Result<Received, ConnectionError> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        let received = self.receive().await;
        match &received {
            Ok(Received::Closed { .. }) => self.end = Some(ConnectionError::Closed),
            Err(error) => self.end = Some(error.clone()),
            Ok(_) => {}
        }
        received
    }

    /// Waits until the socket has taken all queued messages. It reads nothing meanwhile, so give it
    /// a time limit: a service may take nothing until its own messages are read.
    ///
    /// Cancel safe: what has not left stays queued.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`] if the connection is closed or broken.
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        poll_fn(|context| self.poll_write(context)).await;
        match &self.write_failed {
            Some((_, error)) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Closes the connection with a code (RFC 6455, 7.4), after all that is queued has left, and waits
    /// for the other side to close. All together takes a second at most. What is received meanwhile
    /// is discarded. A code that must not be sent becomes 1000.
    ///
    /// If the future is dropped, so is the connection.
    pub async fn close(mut self, code: u16) {
        let code = CloseCode::try_from(code).ok();
        let code = code.filter(|it| !it.is_reserved());
        self.close_due = Some(code.unwrap_or(CloseCode::NORMAL_CLOSURE));
        let closed = async {
            while self.next().await.is_ok() {}
            // The reply to a close of the other side.
            poll_fn(|context| self.poll_write(context)).await;
            // Nobody is left to be told of a failure.
            let _ = self.socket.get_mut().shutdown().await;
        };
        let _ = timeout(CLOSE_TIMEOUT, closed).await;
    }

    async fn receive(&mut self) -> Result<Received, ConnectionError> {
        loop {
            let deadline = self.deadline();
            let step = poll_fn(|context| self.poll_step(context));
            let received = match deadline {
                Some((at, error)) => timeout_at(at, step).await.unwrap_or(Err(error))?,
                None => step.await?,
            };
            if let Some(received) = received {
                return Ok(received);
            }
        }
    }

    /// When to give up, and with which error, unless something changes.
    fn deadline(&self) -> Option<(Instant, ConnectionError)> {
        if let Some((since, error)) = &self.write_failed {
            return Some((*since + REST_TIMEOUT, error.clone()));
        }
        let since = self.pongs_blocked?;
        Some((since + PONG_TIMEOUT, ConnectionError::PongsNotTaken))
    }

    /// Writes and reads what can be. `None` if another step is due.
    fn poll_step(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Received>, ConnectionError>> {
        let had_deadline = self.deadline().is_some();
        let _ = self.poll_write(context);
        if self.pongs_blocked.is_none()
            && let Poll::Ready(read) = Pin::new(&mut self.socket).poll_next(context)
        {
            return Poll::Ready(self.handle_read(read, context));
        }
        match self.deadline().is_some() == had_deadline {
            true => Poll::Pending,
            false => Poll::Ready(Ok(None)),
        }
    }

    /// Gives the socket the queued messages one by one, so that only one of them can't be dropped.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let flushed = ready!(Pin::new(&mut self.socket).poll_flush(context));
            let failure = match self.socket.get_ref().write_error() {
                Some(error) => Some(network_error(error)),
                None => flushed.err().map(|it| self.error(it)),
            };
            if let Some(error) = failure {
                self.write_failed
                    .get_or_insert_with(|| (Instant::now(), error));
            }
            self.unsent_pongs = 0;
            self.pongs_blocked = None;
            if self.write_failed.is_some() || self.end.is_some() {
                return Poll::Ready(());
            }
            self.in_flight = false;
            let Some(message) = self.next_to_send() else {
                return Poll::Ready(());
            };
            if let Err(error) = Pin::new(&mut self.socket).start_send(message) {
                self.write_failed = Some((Instant::now(), self.error(error)));
                return Poll::Ready(());
            }
        }
    }

    fn next_to_send(&mut self) -> Option<tokio_websockets::Message> {
        use tokio_websockets::Message as Sent;
        if mem::take(&mut self.ping_due) {
            return Some(Sent::ping(""));
        }
        if let Some(message) = self.queue.pop_front() {
            self.in_flight = true;
            return Some(match message {
                Message::Text(text) => Sent::text(text),
                Message::Binary(bytes) => Sent::binary(bytes),
            });
        }
        let code = self.close_due.take()?;
        Some(Sent::close(Some(code), ""))
    }

    fn handle_read(
        &mut self,
        read: Option<Result<tokio_websockets::Message, SocketError>>,
        context: &mut Context<'_>,
    ) -> Result<Option<Received>, ConnectionError> {
        let message = match read {
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                if let SocketError::PayloadTooLong { .. } = error {
                    // Fails if the close was queued already.
                    let close =
                        tokio_websockets::Message::close(Some(CloseCode::MESSAGE_TOO_BIG), "");
                    let _ = Pin::new(&mut self.socket).start_send(close);
                }
                // The close that says why, as far as it can be sent.
                let _ = Pin::new(&mut self.socket).poll_flush(context);
                return Err(self.error(error));
            }
            None => return Err(ConnectionError::CutOff),
        };
        if message.is_ping() {
            self.unsent_pongs += message.as_payload().len() + PONG_OVERHEAD;
            if self.unsent_pongs > MAX_UNSENT_PONGS {
                self.pongs_blocked.get_or_insert_with(Instant::now);
            }
            return Ok(None);
        }
        if let Some((code, reason)) = message.as_close() {
            let (code, reason) = (code.into(), reason.to_owned());
            // The reply to it.
            let _ = Pin::new(&mut self.socket).poll_flush(context);
            return Ok(Some(Received::Closed { code, reason }));
        }
        Ok(match message.as_text() {
            Some(text) => Some(Received::Text(text.to_owned())),
            None if message.is_pong() => Some(Received::Pong),
            None => Some(Received::Binary(message.into_payload().into())),
        })
    }

    fn error(&self, error: SocketError) -> ConnectionError {
        match error {
            SocketError::Io(_) if self.socket.get_ref().has_ended() => ConnectionError::CutOff,
            SocketError::Io(error) => network_error(&error),
            SocketError::PayloadTooLong { max_len, .. } => {
                ConnectionError::MessageTooLong { limit: max_len }
            }
            SocketError::AlreadyClosed => ConnectionError::Closed,
            error => ConnectionError::Protocol(error.to_string()),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("queued", &self.queued())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

fn network_error(error: &io::Error) -> ConnectionError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ConnectionError::CutOff,
        _ => ConnectionError::Network(error.to_string()),
    }
}
