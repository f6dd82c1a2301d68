use std::time::Duration;

/// What a call has counted since its connection was accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Counters {
    /// Audio messages that came in.
    pub frames_in: u64,
    /// Audio messages that went out, silence included.
    pub frames_out: u64,
    /// Slots among those sent in which there was nothing to play.
    pub silent_slots: u64,
    /// Digits that came in.
    pub digits: u64,
    /// Times that inbound audio was missing: a muted caller, silence suppression, lost packets. Audio that
    /// was only late doesn't count, nor does what came before the first.
    pub gaps: u64,
    /// How much was missing in all.
    pub gap_time: Duration,
    /// The most that a slot was late against the grid. One that waited for its live audio, which may take 10 ms,
    /// counts as late, too.
    pub worst_lateness: Duration,
    /// Times that a stall of more than 60 ms re-based the grid.
    pub slips: u64,
    /// Slots that those stalls cost.
    pub slots_missed: u64,
    /// Slots that passed unused because the socket was full.
    pub slots_skipped: u64,
    /// Writes of which the kernel took only a part.
    pub short_writes: u64,
    /// Times that a live source had nothing for its slot.
    pub underruns: u64,
    /// JitterBuffer frames dropped because too much was buffered.
    pub live_dropped: u64,
    /// Messages of kinds that nobody has given a meaning.
    pub unknown: u64,
    /// Messages that can't be what their kind says.
    pub malformed: u64,
    /// Audio messages of length 0.
    pub empty_audio: u64,
    /// Audio messages that ended in half a sample, which was dropped.
    pub odd_lengths: u64,
    /// UUIDs after the first.
    pub second_uuids: u64,
    /// Audio and digits that came before the UUID.
    pub before_uuid: u64,
    /// Bytes that came after the call was over.
    pub bytes_after_end: u64,
    /// Error messages.
    pub peer_errors: u64,
    /// The caller's hang-up came as a reset of the connection, as in `Dial` now and then.
    pub reset: bool,
}

impl Counters {
    pub(super) fn note_lateness(&mut self, late: Duration) {
        self.worst_lateness = self.worst_lateness.max(late);
    }
}
