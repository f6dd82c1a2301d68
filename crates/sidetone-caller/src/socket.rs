use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{Caller, CallerError};

/// How long Asterisk waits for a connection (`MAX_CONNECT_TIMEOUT_MSEC` in `res_audiosocket.c`).
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens a non-blocking socket that is connecting.
pub(crate) fn open(caller: &Caller) -> Result<TcpStream, CallerError> {
    let system = |source| CallerError::system("open a connection", source);
    let domain = Domain::for_address(caller.address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(system)?;
    socket.set_nonblocking(true).map_err(system)?;
    socket
        .set_tcp_nodelay(caller.rules.nodelay)
        .map_err(system)?;
    // Before connecting, which negotiates the window.
    if let Some(bytes) = caller.receive_buffer {
        socket.set_recv_buffer_size(bytes).map_err(system)?;
    }
    if let Some(bytes) = caller.send_buffer {
        socket.set_send_buffer_size(bytes).map_err(system)?;
    }
    match socket.connect(&caller.address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
            Err(connect_error(error, caller.address))
        }
        _ => Ok(socket.into()),
    }
}

/// Whether connecting succeeded, once the socket is writable.
pub(crate) fn outcome(stream: &TcpStream, address: SocketAddr) -> Result<(), CallerError> {
    match stream.take_error() {
        Ok(None) => Ok(()),
        Ok(Some(error)) | Err(error) => Err(connect_error(error, address)),
    }
}

/// Makes closing reset the connection, as it does when bytes of the server are left unread.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    // A connection that has ended already needs no reset.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Why connecting failed.
fn connect_error(source: io::Error, address: SocketAddr) -> CallerError {
    match source.kind() {
        io::ErrorKind::ConnectionRefused => CallerError::Refused(address),
        io::ErrorKind::TimedOut => CallerError::NotAccepted(address),
        _ => CallerError::Unreachable {
            address,
            source: Arc::new(source),
        },
    }
}
