//! How much the kernel holds of a connection that it has not sent.
#![allow(unsafe_code)]

use std::{ffi::c_int, os::fd::AsFd};

use rustix::{
    io::Errno,
    ioctl::{Getter, Opcode, ioctl},
};

/// Linux's `SIOCOUTQNSD`: bytes in a socket's send queue that have not been sent, as against those that the other
/// side has not acknowledged.
const SIOCOUTQNSD: Opcode = 0x894B;

/// Bytes that were given to a TCP socket and still wait in its queue, because the other side has no room for them. A
/// system call, for when somebody asks.
///
/// # Errors
///
/// When the kernel can't tell, as in a sandbox whose kernel is not Linux.
pub fn unsent_bytes(socket: impl AsFd) -> Result<usize, Errno> {
    // SAFETY: `SIOCOUTQNSD` takes a pointer to an `int`, writes that and changes nothing, and an `int` is what the
    // getter has room for. The descriptor is open while it is borrowed. What is no socket refuses the number, which is
    // of those that Linux keeps for sockets (0x89..).
    let unsent = unsafe { ioctl(socket, Getter::<SIOCOUTQNSD, c_int>::new())? };
    Ok(usize::try_from(unsent).unwrap_or(0))
}
