use std::{
    alloc::{self, Layout},
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, types::BufRingEntry};

/// How many receive buffers a ring has: a frame from each of 1000 calls fits in one turn, and what does not
/// waits in its socket. A power of two.
const COUNT: u16 = 2048;

/// How many of them the kernel has at first. It fills all that it has in turn, so the fewer it has, the more of
/// them are still in the processor's cache.
pub(super) const FIRST: u16 = 256;

/// The size of one, so that any frame up to 48 kHz lies whole in it.
pub(super) const SIZE: usize = 2048;

const PAGE: usize = 4096;

/// Memory that the kernel fills, and the ring through which it is told which of it is free.
pub(super) struct ReceiveBuffers {
    memory: NonNull<u8>,
    ring: NonNull<BufRingEntry>,
    tail: u16,
    /// How many of the buffers the kernel was ever given.
    given: u16,
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
            given: 0,
        };
        // SAFETY: the ring's memory is page-aligned, holds COUNT entries, and outlives the registration: it
        // is freed or leaked by `Uring` after the io_uring is closed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.ring.as_ptr() as u64,
                COUNT,
                group,
                0,
            )?;
        }
        buffers.give_until(FIRST);
        Ok(buffers)
    }

    /// Lets the kernel have twice as many as before, while there are more.
    pub(super) fn give_more(&mut self) {
        self.give_until((2 * self.given).min(COUNT));
    }

    fn give_until(&mut self, count: u16) {
        for buffer in self.given..count {
            self.give_back(buffer);
        }
        self.given = count;
    }

    /// What the kernel has put into a buffer.
    pub(super) fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        let begin = usize::from(buffer % COUNT) * SIZE;
        // SAFETY: `begin` and the length lie within the allocation, which is initialised. The kernel writes
        // to a buffer only while it has it, and it has given this one to us with its completion.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(begin), length.min(SIZE)) }
    }

    /// Lets the kernel fill a buffer again.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let buffer = buffer % COUNT;
        let place = usize::from(self.tail % COUNT);
        // SAFETY: the place lies within the ring. The kernel reads entries up to the tail that it sees, so
        // it doesn't look at this one before the store below. All bit patterns are valid entries.
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

/// Whole pages, aligned as the kernel wants a ring to be.
const fn layout(size: usize) -> Layout {
    match Layout::from_size_align(size, PAGE) {
        Ok(layout) => layout,
        Err(_) => panic!("a constant size that is no layout"),
    }
}

fn allocate(layout: Layout) -> io::Result<NonNull<u8>> {
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc::alloc_zeroed(layout) };
    NonNull::new(memory).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Messages on their way out, each at an address of its own until its send completes.
///
/// There is a slot for each connection that sends, though all of them are used only when a thread was late;
/// else it would take memory for them just then.
#[derive(Default)]
pub(super) struct SendBuffers {
    slots: Vec<Vec<u8>>,
    /// Used last, used first: its memory is still in the processor's cache.
    free: Vec<u32>,
    senders: usize,
}

impl SendBuffers {
    /// A connection begins to send, with a message of this length.
    pub(super) fn add_sender(&mut self, length: usize) {
        self.senders += 1;
        if self.slots.len() < self.senders {
            let slot = self.new_slot(length);
            self.free.push(slot);
        }
    }

    /// A connection that sent is gone.
    pub(super) fn remove_sender(&mut self) {
        self.senders -= 1;
    }

    /// Copies `wire` to a slot and says where it is.
    pub(super) fn fill(&mut self, wire: &[u8]) -> (u32, &[u8]) {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.new_slot(wire.len()),
        };
        let slot = &mut self.slots[index as usize];
        slot.clear();
        slot.extend_from_slice(wire);
        (index, slot)
    }

    /// What is in a slot.
    pub(super) fn bytes(&self, slot: u32) -> &[u8] {
        &self.slots[slot as usize]
    }

    /// A slot whose send has completed may be filled again.
    pub(super) fn release(&mut self, slot: u32) {
        self.free.push(slot);
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.slots.len()
    }

    /// A slot for a message of this length and one more: a frame that is late goes with the next.
    fn new_slot(&mut self, length: usize) -> u32 {
        self.slots.push(Vec::with_capacity(2 * length));
        self.free.reserve(self.slots.len() - self.free.len());
        (self.slots.len() - 1) as u32
    }
}
