//! Memory from which the kernel sends.

/// Messages of pending sends, each at an address of its own until its send completes.
///
/// There is a slot for each connection that sends. All of them are used only after the thread was late, and then there
/// is no time to allocate.
#[derive(Default)]
pub(super) struct SendBuffers {
    slots: Vec<Vec<u8>>,
    /// A stack: the memory of the slot that was used last is still in the processor's cache.
    free: Vec<u32>,
    senders: usize,
}

impl SendBuffers {
    /// Adds a connection that sends, the first time a message of this length.
    pub(super) fn add_sender(&mut self, length: usize) {
        self.senders += 1;
        if self.slots.len() < self.senders {
            let slot = self.new_slot(length);
            self.free.push(slot);
        }
    }

    /// Removes a connection that sends.
    pub(super) fn remove_sender(&mut self) {
        self.senders -= 1;
    }

    /// Copies `wire` to a free slot. Returns the slot and its bytes.
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

    /// The message in a slot.
    pub(super) fn bytes(&self, slot: u32) -> &[u8] {
        &self.slots[slot as usize]
    }

    /// Frees a slot whose send has completed.
    pub(super) fn release(&mut self, slot: u32) {
        self.free.push(slot);
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.slots.len()
    }

    /// Adds a slot for a message of this length and another: a late frame goes out with the next.
    fn new_slot(&mut self, length: usize) -> u32 {
        self.slots.push(Vec::with_capacity(2 * length));
        self.free.reserve(self.slots.len() - self.free.len());
        (self.slots.len() - 1) as u32
    }
}
