use {
    super::LoadError,
    crate::socket::failure,
    rustix::io::Errno,
    socket2::{Domain, Protocol, Socket, Type},
    std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
};

/// A source address has some 28 000 ports to any one server.
const PER_SOURCE: usize = 25_000;

/// A socket that is connecting, without blocking.
pub(super) fn open(address: SocketAddr, call: usize) -> Result<TcpStream, LoadError> {
    let system = |source| LoadError::system("open a connection", source);
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )
    .map_err(system)?;
    socket.set_nonblocking(true).map_err(system)?;
    // As Asterisk does.
    socket.set_tcp_nodelay(true).map_err(system)?;
    if let Some(source) = source(address, call) {
        socket.bind(&source.into()).map_err(system)?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
            Err(failure(error, address).into())
        }
        _ => Ok(socket.into()),
    }
}

/// Another loopback address for those calls that have no port left on the usual one.
fn source(server: SocketAddr, call: usize) -> Option<SocketAddr> {
    let more = call / PER_SOURCE;
    let IpAddr::V4(server) = server.ip() else {
        return None;
    };
    if more == 0 || !server.is_loopback() {
        return None;
    }
    let address = Ipv4Addr::new(127, 0, 1, u8::try_from(more).ok()?);
    Some(SocketAddr::new(address.into(), 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_calls_without_a_port_left_come_from_elsewhere() {
        let loopback = "127.0.0.1:9092".parse().unwrap();
        let elsewhere = "192.0.2.1:9092".parse().unwrap();
        assert_eq!(source(loopback, 24_999), None);
        assert_eq!(source(loopback, 25_000), "127.0.1.1:0".parse().ok());
        assert_eq!(source(loopback, 65_534), "127.0.1.2:0".parse().ok());
        assert_eq!(source(elsewhere, 65_534), None);
    }
}
