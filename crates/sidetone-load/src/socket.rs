use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::LoadError;

/// How long Asterisk waits for a connection (`MAX_CONNECT_TIMEOUT_MSEC` in `res_audiosocket.c`).
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A source address has some 28 000 ports to any one server.
const CALLS_PER_SOURCE: usize = 25_000;

/// Opens a non-blocking socket that is connecting.
pub(crate) fn open(address: SocketAddr, call: usize) -> Result<TcpStream, LoadError> {
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
            Err(LoadError::connect(error, address))
        }
        _ => Ok(socket.into()),
    }
}

/// Whether connecting succeeded, once the socket is writable.
pub(crate) fn outcome(stream: &TcpStream, address: SocketAddr) -> Result<(), LoadError> {
    match stream.take_error() {
        Ok(None) => Ok(()),
        Ok(Some(error)) | Err(error) => Err(LoadError::connect(error, address)),
    }
}

/// A second loopback address for calls that have no port left on the first.
fn source(server: SocketAddr, call: usize) -> Option<SocketAddr> {
    let index = call / CALLS_PER_SOURCE;
    let IpAddr::V4(server) = server.ip() else {
        return None;
    };
    if index == 0 || !server.is_loopback() {
        return None;
    }
    let address = Ipv4Addr::new(127, 0, 1, u8::try_from(index).ok()?);
    Some(SocketAddr::new(address.into(), 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_calls_without_a_port_left_use_another_source_address() {
        let loopback = "127.0.0.1:9092".parse().unwrap();
        let elsewhere = "192.0.2.1:9092".parse().unwrap();
        assert_eq!(source(loopback, 24_999), None);
        assert_eq!(source(loopback, 25_000), "127.0.1.1:0".parse().ok());
        assert_eq!(source(loopback, 65_534), "127.0.1.2:0".parse().ok());
        assert_eq!(source(elsewhere, 65_534), None);
    }
}
