use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    time::Duration,
};

use rustix::net::SocketFlags;
use sidetone_proto::Rate;
use socket2::SockRef;

/// How much audio the kernel may hold that it has not sent: nothing stale hides there when the other side
/// stops reading. With default buffers it takes 238 s to fill and then cuts a message short (measured).
const MAX_UNSENT: Duration = Duration::from_millis(100);

/// We write every 20 ms, so a peer that acknowledges nothing for so long is gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(15);

/// Makes a listener ready. What every connection needs of its socket is set here once: Linux hands it down,
/// and each call is accepted with a system call less for each of them.
pub(super) fn prepare(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(PEER_TIMEOUT))?;
    limit_unsent(listener, Rate::default());
    Ok(())
}

pub(super) fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    // Gone before it could be asked who it is.
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((socket.into(), canonical(peer.try_into()?)))
}

/// An IPv4 address as such, also when it comes through an IPv6 socket.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// Limits what the kernel holds back of a call that sends at this rate.
pub(super) fn limit_unsent(socket: &impl AsFd, rate: Rate) {
    let bytes = rate.samples_in(MAX_UNSENT) * 2;
    // Without it only a peer that stops reading hears older audio than it should.
    let _ = SockRef::from(socket).set_tcp_notsent_lowat(bytes as u32);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_peer_on_an_ipv6_socket_has_its_own_address() {
        let Ok(listener) = TcpListener::bind("[::]:0") else {
            assert!(TcpListener::bind("[::1]:0").is_err(), "no IPv6 here");
            return;
        };
        prepare(&listener).unwrap();
        let port = listener.local_addr().unwrap().port();
        let caller = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(accept(&listener).unwrap().1, caller.local_addr().unwrap());
        let mapped = "[::ffff:10.0.0.1]:7".parse().unwrap();
        assert_eq!(canonical(mapped), "10.0.0.1:7".parse().unwrap());
        let scoped = "[fe80::1%3]:7".parse().unwrap();
        assert_eq!(canonical(scoped), scoped);
    }

    #[test]
    fn a_connection_has_what_its_listener_was_given() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        prepare(&listener).unwrap();
        assert_eq!(
            accept(&listener).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = accept(&listener).unwrap();
        assert_eq!(peer, caller.local_addr().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.nonblocking().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(PEER_TIMEOUT));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 1600);
    }
}
