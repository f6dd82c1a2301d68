//! I/O on many connections, by readiness ([`Epoll`]) or by completions ([`Uring`]), behind one trait.
//!
//! An event loop does the same over either: [wait](Driver::wait), take [events](Driver::next_event), [read](Driver::read)
//! what arrived, [send](Driver::send) what is due. A [`Driver`] belongs to the thread that [opened](IoBackend::open) it.
//! Only its [`Waker`] is called from other threads.

mod backend;
mod epoll;
mod unsent;
mod uring;
mod waker;

use std::{
    io,
    net::{TcpListener, TcpStream},
    time::Duration,
};

use rustix::{io::Errno, net::SendFlags};

pub use backend::IoBackend;
pub use epoll::Epoll;
pub use unsent::unsent_bytes;
pub use uring::Uring;
pub use waker::Waker;

slotmap::new_key_type! {
    /// The name of a connection, chosen by its owner. Tokens are not reused, so a late event for a closed connection
    /// reaches no other.
    pub struct Token;
}

/// The end of record keeps the kernel from appending a message to one in the send queue, so that the limit on the queue
/// acts message by message.
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT
    .union(SendFlags::NOSIGNAL)
    .union(SendFlags::EOR);

/// I/O on the connections of one thread.
pub trait Driver {
    /// Which backend this is.
    fn backend(&self) -> IoBackend;

    /// Registers a listener: [`IoEvent::Incoming`] is reported while there are connections to accept.
    ///
    /// # Errors
    ///
    /// When the system refuses to register it.
    fn listen(&mut self, listener: &TcpListener) -> io::Result<()>;

    /// Deregisters the listener.
    fn stop_listening(&mut self, listener: &TcpListener);

    /// Registers a connection, which may still be connecting.
    ///
    /// # Errors
    ///
    /// When the system refuses to register it.
    fn register(&mut self, token: Token, stream: &TcpStream) -> io::Result<()>;

    /// Deregisters a connection, and closes it when its pending send has completed. Nothing more is reported of it.
    fn deregister(&mut self, token: Token, stream: TcpStream);

    /// Sends whole messages. After [`Sent::Pending`], nothing else may be sent on this connection until the result is
    /// reported, by [`IoEvent::Sent`], [`IoEvent::PartiallySent`] or [`IoEvent::Failed`].
    fn send(&mut self, token: Token, stream: &TcpStream, wire: &[u8]) -> Sent;

    /// Sets whether [`IoEvent::Writable`] is reported when the socket takes more.
    fn set_write_interest(&mut self, token: Token, stream: &TcpStream, wanted: bool);

    /// Waits until something has happened, or until `timeout` has passed; but for `min_wait` at the least, so that events
    /// are handled in batches.
    ///
    /// # Errors
    ///
    /// When the system call fails. A signal only ends the wait early.
    fn wait(&mut self, timeout: Option<Duration>, min_wait: Duration) -> io::Result<()>;

    /// The next event, until the next [`wait`](Self::wait) is due.
    fn next_event(&mut self) -> Option<IoEvent>;

    /// Reads the bytes that arrived; none at the end of the stream.
    ///
    /// # Errors
    ///
    /// When the connection failed; [`Errno::AGAIN`] when there is nothing to read.
    fn read(&mut self, pending: PendingRead, stream: &TcpStream) -> Result<&[u8], Errno>;
}

/// An event.
#[derive(Debug)]
pub enum IoEvent {
    /// The [`Waker`] was woken.
    Woken,
    /// There are connections to accept.
    Incoming,
    /// A connection has something to read.
    Readable(Token, PendingRead),
    /// The socket takes more.
    Writable(Token),
    /// A pending send has completed.
    Sent(Token),
    /// A pending send has completed in part: these bytes have not been sent.
    PartiallySent(Token, Vec<u8>),
    /// A pending send failed: the connection is lost.
    Failed(Token, Errno),
}

/// Something to [read](Driver::read), before the next event is taken: it may not be reported again. There may turn out to
/// be nothing, in which case the read fails with [`Errno::AGAIN`].
#[derive(Debug)]
pub struct PendingRead(ReadSource);

/// Where the bytes are.
#[derive(Debug)]
enum ReadSource {
    /// Still in the socket. `ends` if the end of the stream is known to follow.
    Socket { token: Token, ends: bool },
    /// In a buffer of the backend, until the next event is taken.
    Buffer { buffer: u16, length: usize },
    /// Nowhere: the stream has ended, or the connection is lost.
    End(Option<Errno>),
}

/// The result of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel accepted this many bytes.
    Accepted(usize),
    /// The backend has taken over all bytes. Their result will be reported.
    Pending,
    /// The connection is lost.
    Failed(Errno),
}
