use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::{IntoRawFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use pyo3::{intern, prelude::*, types::IntoPyDict};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// A duplicate of a Python socket that listens.
///
/// Python sends it as one process would to another, since the number of a descriptor proves nothing.
pub(crate) fn duplicate(socket: &Bound<'_, PyAny>) -> PyResult<TcpListener> {
    let py = socket.py();
    let (ours, theirs) = UnixStream::pair()?;
    let module = py.import(intern!(py, "socket"))?;
    let settings = [("fileno", theirs.into_raw_fd())].into_py_dict(py)?;
    let sender = module.getattr("socket")?.call((), Some(&settings))?;
    let descriptor = socket.call_method0(intern!(py, "fileno"))?;
    let sent = module.call_method1("send_fds", (&sender, [c"l".to_bytes()], [descriptor]));
    sender.call_method0("close")?;
    sent?;
    Ok(receive(&ours)?.into())
}

fn receive(from: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    recvmsg(from, &mut bytes, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
