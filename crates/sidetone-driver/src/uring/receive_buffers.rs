//! Memory that the kernel fills with what connections receive.
//!
//! Invariant: a buffer belongs either to the kernel or to us. [`ReceiveBuffers::provide`] gives it to the kernel, and a
//! completion that names it gives it back.
#![allow(unsafe_code)]

use std::{
    alloc::{self, Layout},
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, types::BufRingEntry};

/// How many receive buffers a ring has: a frame from each of 1000 calls fits in one iteration, and what does not fit
/// waits in its socket. A power of two.
const COUNT: u16 = 2048;

/// How many of them the kernel has at first. It fills all that it has one after the other, so the fewer it has, the more
/// of them are still in the processor's cache.
pub(super) const FIRST: u16 = 256;

/// The size of a buffer in bytes, so that it holds any frame up to 48 kHz.
pub(super) const SIZE: usize = 2048;

/// The alignment that the kernel requires, in bytes.
const PAGE: usize = 4096;

/// Receive buffers, and the ring through which the kernel learns which of them are free.
pub(super) struct ReceiveBuffers {
    memory: NonNull<u8>,
    ring: NonNull<BufRingEntry>,
    tail: u16,
    /// How many of the buffers are in use, by the kernel or by us.
    in_use: u16,
}

// SAFETY: the pointers are owned, and used through `&mut self` only.
unsafe impl Send for ReceiveBuffers {}

impl ReceiveBuffers {
    /// Registers the buffers with `ring` as `group`.
    pub(super) fn new(ring: &IoUring, group: u16) -> io::Result<Self> {
        let mut buffers = Self {
            memory: allocate(memory_layout())?,
            ring: allocate(ring_layout())?.cast(),
            tail: 0,
            in_use: 0,
        };
        // SAFETY: the ring's memory is page-aligned and holds COUNT entries. The kernel uses it only for receives, and
        // `Uring` frees it only when none is outstanding.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.ring.as_ptr() as u64,
                COUNT,
                group,
                0,
            )?;
        }
        buffers.provide_up_to(FIRST);
        Ok(buffers)
    }

    /// Doubles the number of buffers in use, up to all of them.
    pub(super) fn provide_more(&mut self) {
        self.provide_up_to((2 * self.in_use).min(COUNT));
    }

    fn provide_up_to(&mut self, count: u16) {
        for buffer in self.in_use..count {
            self.provide(buffer);
        }
        self.in_use = count;
    }

    /// What the kernel has received into a buffer.
    pub(super) fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        let begin = usize::from(buffer % COUNT) * SIZE;
        // SAFETY: `begin` and the length lie within the allocation, which is initialised. The kernel writes to a buffer
        // only while it owns it, and it has given this one back with a completion.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(begin), length.min(SIZE)) }
    }

    /// Gives a buffer to the kernel.
    pub(super) fn provide(&mut self, buffer: u16) {
        let buffer = buffer % COUNT;
        let place = usize::from(self.tail % COUNT);
        // SAFETY: the place lies within the ring. The kernel reads entries up to the tail that it sees, so it doesn't
        // read this one before the store below. All bit patterns are valid entries.
        let entry = unsafe { &mut *self.ring.as_ptr().add(place) };
        // SAFETY: within the allocation, as above.
        let address = unsafe { self.memory.as_ptr().add(usize::from(buffer) * SIZE) };
        entry.set_addr(address as u64);
        entry.set_len(SIZE as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, aligned for a u16, and is only ever accessed atomically
        // on our side. The release makes the entry visible before it.
        unsafe {
            let tail = BufRingEntry::tail(self.ring.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for ReceiveBuffers {
    fn drop(&mut self) {
        // SAFETY: both were allocated with these layouts. `Uring` drops this only when no request is
        // outstanding that could fill it.
        unsafe {
            alloc::dealloc(self.memory.as_ptr(), memory_layout());
            alloc::dealloc(self.ring.as_ptr().cast(), ring_layout());
        }
    }
}

fn memory_layout() -> Layout {
    layout(usize::from(COUNT) * SIZE)
}

fn ring_layout() -> Layout {
    layout(usize::from(COUNT) * size_of::<BufRingEntry>())
}

/// A layout aligned to pages.
const fn layout(size: usize) -> Layout {
    match Layout::from_size_align(size, PAGE) {
        Ok(layout) => layout,
        Err(_) => panic!("a constant size that is not a valid layout"),
    }
}

fn allocate(layout: Layout) -> io::Result<NonNull<u8>> {
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc::alloc_zeroed(layout) };
    NonNull::new(memory).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}
