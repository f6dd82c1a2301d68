use std::net::SocketAddr;

use pyo3::{prelude::*, types::PyTuple};

/// An address as Python's `socket.getpeername` gives it.
pub(crate) fn peer_name(py: Python<'_>, peer: SocketAddr) -> PyResult<Bound<'_, PyTuple>> {
    let host = peer.ip().to_string();
    match peer {
        SocketAddr::V4(_) => (host, peer.port()).into_pyobject(py),
        SocketAddr::V6(v6) => (host, v6.port(), v6.flowinfo(), v6.scope_id()).into_pyobject(py),
    }
}
