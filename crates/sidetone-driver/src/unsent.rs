//! The bytes in a socket's send queue that have not been sent.
#![allow(unsafe_code)]

use std::{ffi::c_int, os::fd::AsFd};

use rustix::{
    io::Errno,
    ioctl::{Getter, Opcode, ioctl},
};

/// Linux's `SIOCOUTQNSD`: bytes in a socket's send queue that have not been sent. `SIOCOUTQ` also counts those that the
/// other side has not acknowledged.
const SIOCOUTQNSD: Opcode = 0x894B;

/// The number of bytes in a TCP socket's send queue that have not been sent, because the other side's window is full.
/// It takes a system call.
///
/// # Errors
///
/// When the kernel doesn't support it, as in a sandbox whose kernel is not Linux.
pub fn unsent_bytes(socket: impl AsFd) -> Result<usize, Errno> {
    // SAFETY: `SIOCOUTQNSD` takes a pointer to an `int`, writes to it and changes nothing else, and the getter provides
    // an `int`. The descriptor is open while it is borrowed. A descriptor that is not a socket refuses the request, since
    // Linux reserves its number (0x89..) for sockets.
    let unsent = unsafe { ioctl(socket, Getter::<SIOCOUTQNSD, c_int>::new())? };
    Ok(usize::try_from(unsent).unwrap_or(0))
}
