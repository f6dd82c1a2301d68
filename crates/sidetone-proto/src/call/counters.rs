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
    /// Gaps in the inbound audio: a muted caller, silence suppression, lost packets. Audio that is only late doesn't
    /// count, nor does the time before the first audio.
    pub gaps: u64,
    /// The length of all gaps together.
    pub gap_time: Duration,
    /// The most that a slot was late against its schedule. A slot that waited for live audio, up to 10 ms, counts as
    /// late, too.
    pub worst_lateness: Duration,
    /// Stalls of more than 60 ms, after which the schedule started anew.
    pub slips: u64,
    /// Slots that those stalls cost.
    pub slots_missed: u64,
    /// Slots that passed unused because the socket was full.
    pub slots_skipped: u64,
    /// Sends that the kernel accepted only in part.
    pub short_writes: u64,
    /// Slots for which a live source had nothing in time.
    pub underruns: u64,
    /// Frames that the jitter buffer dropped.
    pub live_dropped: u64,
    /// Messages of kinds that the protocol does not define.
    pub unknown: u64,
    /// Messages that are impossible for their kind.
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
    /// The caller's hang-up came as a reset of the connection, as it may in `Dial`.
    pub reset: bool,
}

impl Counters {
    pub(super) fn record_lateness(&mut self, late: Duration) {
        self.worst_lateness = self.worst_lateness.max(late);
    }
}
