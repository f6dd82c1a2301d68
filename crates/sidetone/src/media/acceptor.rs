use std::{
    collections::VecDeque,
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::atomic::Ordering,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags},
};
use sidetone_driver::Driver;
use sidetone_proto::{HANGUP, Time};

use super::{ServerCounters, listener};

/// Descriptors kept open to accept and reject connections when the process has no others left. The more there are,
/// the longer a rejected connection stays open, and the more likely its peer reads the hang-up before a reset.
const SPARE_DESCRIPTORS: usize = 8;

/// How long the listener rests when nothing can be accepted although connections wait: they are reported without end.
/// Asterisk waits 2 s for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections, also when the process is out of descriptors.
pub(super) struct Acceptor {
    listener: TcpListener,
    /// The oldest first. Each is closed to accept and reject one more connection.
    spare: VecDeque<OwnedFd>,
    /// The driver doesn't report connections until then.
    paused_until: Option<Time>,
}

pub(super) enum Accepted {
    Connection(TcpStream, SocketAddr),
    /// The connection was closed before it was accepted. There may be more.
    Aborted,
    NoMore,
    /// Nothing can be accepted now, and connections may wait: [`Acceptor::pause`] is to be called.
    Impossible,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener, driver: &mut dyn Driver) -> io::Result<Self> {
        listener::prepare(&listener)?;
        driver.listen(&listener)?;
        let spare = (0..SPARE_DESCRIPTORS).map(|_| spare_descriptor());
        Ok(Self {
            spare: spare.collect::<io::Result<_>>()?,
            listener,
            paused_until: None,
        })
    }

    /// Accepts one connection, or rejects those that wait if there are no descriptors.
    pub(super) fn accept(&mut self, counters: &ServerCounters) -> Accepted {
        match listener::accept(&self.listener) {
            Ok((stream, peer)) => {
                counters.connections.fetch_add(1, Ordering::Relaxed);
                self.refill_spare();
                Accepted::Connection(stream, peer)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Accepted::NoMore,
            Err(error) if is_out_of_descriptors(&error) => self.reject_waiting(counters),
            Err(error) if is_of_one_connection(&error) => Accepted::Aborted,
            Err(_) => Accepted::Impossible,
        }
    }

    /// Accepts connections with the spare descriptors, and hangs them up. Left in the backlog they would time out
    /// after 2 s, and what Asterisk then does can end other calls.
    fn reject_waiting(&mut self, counters: &ServerCounters) -> Accepted {
        let mut outcome = Accepted::NoMore;
        for _ in 0..SPARE_DESCRIPTORS {
            drop(self.spare.pop_front());
            // The kernel reports that it is out of descriptors even if no connection waits. With a free one it says
            // which it is, unless another thread was quicker to take that.
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(_) => {
                    outcome = Accepted::Impossible;
                    break;
                }
            };
            counters.out_of_descriptors.fetch_add(1, Ordering::Relaxed);
            // A connection that is closed with bytes unread, or on their way, is reset, and its peer may not
            // see the hang-up. So read what has come, and keep the connection as a spare until a later one needs
            // its descriptor.
            send_hangup(&stream);
            let _ = stream.shutdown(Shutdown::Write);
            let _ = rustix::net::recv(&stream, &mut [0u8; 1024], RecvFlags::DONTWAIT);
            self.spare.push_back(stream.into());
        }
        self.refill_spare();
        outcome
    }

    /// Opens the spare descriptors that other threads took, as far as there are any again: the next connection may find
    /// none.
    fn refill_spare(&mut self) {
        while self.spare.len() < SPARE_DESCRIPTORS
            && let Ok(spare) = spare_descriptor()
        {
            self.spare.push_back(spare);
        }
    }

    /// Lets connections wait for a moment, in which they do not wake the thread.
    pub(super) fn pause(&mut self, now: Time, driver: &mut dyn Driver) {
        if self.paused_until.is_none() {
            driver.stop_listening(&self.listener);
        }
        self.paused_until = Some(now + PAUSE);
    }

    /// When [`resume`](Self::resume) is to be called, at the latest.
    pub(super) fn paused_until(&self) -> Option<Time> {
        self.paused_until
    }

    /// Goes on accepting if a pause is over.
    pub(super) fn resume(&mut self, now: Time, driver: &mut dyn Driver) {
        if self.paused_until.is_none_or(|until| now < until) {
            return;
        }
        // Where the system refuses that, it may allow it later.
        self.paused_until = match driver.listen(&self.listener) {
            Ok(()) => None,
            Err(_) => Some(now + PAUSE),
        };
    }

    /// Stops accepting. The socket keeps listening if another process has it, too.
    pub(super) fn stop(self, driver: &mut dyn Driver) {
        driver.stop_listening(&self.listener);
    }
}

/// Sends a hang-up on a connection on which nothing has been sent, so that its send buffer has space. No release of
/// Asterisk overlooks a hang-up.
pub(super) fn send_hangup(stream: &impl AsFd) {
    // An error means that the peer is gone.
    let _ = rustix::net::send(stream, &HANGUP, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

fn spare_descriptor() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/dev/null")?.into())
}

/// Whether an accept failed for what happened to the connection, so that the next one may succeed. Linux passes errors of
/// the network on here.
fn is_of_one_connection(error: &io::Error) -> bool {
    let codes = [
        Errno::CONNABORTED,
        Errno::INTR,
        Errno::PERM,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::OPNOTSUPP,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NONET,
        Errno::TIMEDOUT,
    ];
    let code = error.raw_os_error();
    error.kind() == io::ErrorKind::ConnectionAborted
        || codes.iter().any(|known| code == Some(known.raw_os_error()))
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(Errno::MFILE.raw_os_error()) || code == Some(Errno::NFILE.raw_os_error())
}
