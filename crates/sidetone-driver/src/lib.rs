//! The two ways to talk to the kernel about many connections, readiness ([`Epoll`]) and completions ([`Uring`]),
//! behind one trait.
//!
//! A thread does the same with either: wait, hear what happened, read what came, send what is due. What
//! [`IoBackend::open`] returns belongs to the thread that opened it; only its [`Waker`] is woken from elsewhere.

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
    /// A connection, as its owner names it. No token is given to a second one, so what is late for one that is gone
    /// reaches nobody.
    pub struct Token;
}

/// The end of record keeps the kernel from adding a message to one that it still holds, so that the limit on
/// what it holds acts, message by message.
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT
    .union(SendFlags::NOSIGNAL)
    .union(SendFlags::EOR);

/// One way to talk to the kernel, for one thread.
pub trait Driver {
    /// Which one it is.
    fn backend(&self) -> IoBackend;

    /// Reports from now on when there are connections to accept.
    fn listen(&mut self, listener: &TcpListener) -> io::Result<()>;

    /// Reports no more of these.
    fn stop_listening(&mut self, listener: &TcpListener);

    /// Reports from now on what happens on a connection, which may still be in the making.
    fn register(&mut self, token: Token, stream: &TcpStream) -> io::Result<()>;

    /// Reports no more of a connection, and closes it when what was taken over to be sent has been.
    fn deregister(&mut self, token: Token, stream: TcpStream);

    /// Sends whole messages, or takes them over to be sent. Until that is reported, nothing else may be sent
    /// on this connection.
    fn send(&mut self, token: Token, stream: &TcpStream, wire: &[u8]) -> Sent;

    /// Reports, from now on or no longer, when the socket takes more.
    fn set_write_interest(&mut self, token: Token, stream: &TcpStream, wanted: bool);

    /// Waits for `gather` in any case, so that all that happens meanwhile is dealt with together; and then until
    /// something has happened, or `timeout` has passed in all.
    fn wait(&mut self, timeout: Option<Duration>, gather: Duration) -> io::Result<()>;

    /// The next thing that happened.
    fn next(&mut self) -> Option<IoEvent>;

    /// The bytes that came; none at the end of the stream.
    fn read(&mut self, arrival: Arrival, stream: &TcpStream) -> Result<&[u8], Errno>;
}

/// What happened.
#[derive(Debug)]
pub enum IoEvent {
    /// The [`Waker`] was woken.
    Woken,
    /// There are connections to accept.
    Incoming,
    /// Something is to be read.
    Readable(Token, Arrival),
    /// The socket takes more.
    Writable(Token),
    /// What [`Driver::send`] took over has been sent.
    Sent(Token),
    /// Of what it took over, these bytes have not been sent.
    PartiallySent(Token, Vec<u8>),
    /// It could not be sent: the connection is broken.
    Failed(Token, Errno),
}

/// Something that came, to be read before the next report is asked for: it may not be reported again. There may turn
/// out to be nothing, which a read says with [`Errno::AGAIN`].
#[derive(Debug)]
pub struct Arrival(Place);

/// Where the bytes that came are.
#[derive(Debug)]
enum Place {
    /// Still in the socket; behind it comes the end of the stream, if that is known.
    InSocket { token: Token, ends: bool },
    /// In a buffer of the backend's, until the next report is asked for.
    InBuffer { buffer: u16, length: usize },
    /// Nowhere: the stream is at its end, or broken.
    End(Option<Errno>),
}

/// What became of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// So many bytes are on their way.
    Now(usize),
    /// That will be reported.
    Later,
    /// The connection is broken.
    Failed(Errno),
}
