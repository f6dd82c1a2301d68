use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    time::Duration,
};

use rustix::net::SocketFlags;
use sidetone_proto::Rate;
use socket2::SockRef;

/// Audio that the kernel holds unsent at most, so that a peer that stops reading for a while doesn't hear stale audio.
/// The default buffers take 238 s to fill, and then cut a message short (measured).
const MAX_UNSENT: Duration = Duration::from_millis(100);

/// Every call sends every 20 ms, so a peer that acknowledges nothing for so long is gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(15);

/// Sets the socket options of a listener. Linux passes these on to accepted connections, which saves each connection
/// a system call for each of them.
pub(super) fn prepare(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(PEER_TIMEOUT))?;
    limit_unsent(listener, Rate::default());
    Ok(())
}

/// Accepts a connection, and returns it with the [`canonical`] address of its peer.
///
/// # Errors
///
/// [`WouldBlock`](io::ErrorKind::WouldBlock) if none waits.
pub(super) fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    // The peer has closed already.
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((socket.into(), canonical(peer.try_into()?)))
}

/// The IPv4 address of an IPv4 peer, also if it connects to an IPv6 socket. Other addresses as they are.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// Limits what the kernel holds unsent of a call that sends at this rate.
pub(super) fn limit_unsent(socket: &impl AsFd, rate: Rate) {
    let bytes = rate.samples_in(MAX_UNSENT) * 2;
    // Without the limit only a peer that stops reading hears older audio than it should.
    let _ = SockRef::from(socket).set_tcp_notsent_lowat(bytes as u32);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_ipv4_peer_of_an_ipv6_socket_has_its_ipv4_address() {
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
    fn a_connection_has_the_socket_options_of_its_listener() {
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
