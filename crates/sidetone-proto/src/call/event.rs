use std::time::Duration;

use uuid::Uuid;

use super::EndReason;
use crate::{Heard, ItemId, Kind, PeerErrors, Rate, Time};

/// Where a call is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Connected; the UUID has not come.
    Opening,
    /// Audio flows.
    Running,
    /// The call will be hung up when all queued audio is written.
    Finishing(EndReason),
    /// The hang-up message is on its way out.
    HangingUp {
        /// Why.
        reason: EndReason,
        /// When to give up on it.
        until: Time,
        /// The message has been given to the caller of [`poll_transmit`](crate::CallMachine::poll_transmit), or none is
        /// needed.
        is_encoded: bool,
    },
    /// Our side is shut down. What still comes in is discarded, since closing a socket with unread data would reset the
    /// connection.
    Lingering {
        /// Why.
        reason: EndReason,
        /// When to stop waiting for the other side's end of stream.
        until: Time,
    },
    /// Over.
    Closed(EndReason),
}

/// What came in.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Received<'a> {
    /// The UUID of the call came; its schedule begins.
    Identified(Uuid),
    /// Audio, never empty.
    Audio {
        /// The rate that its kind names.
        rate: Rate,
        /// The payload as it came, companded or not.
        bytes: &'a [u8],
        /// The place of its first sample on the call's clock, which begins with the UUID. Audio that was lost is counted
        /// in as soon as [`ClockRecovery`](crate::ClockRecovery) can tell it from late audio, so the first frames after
        /// a pause may still stand at its beginning. It never goes back.
        offset: Duration,
    },
    /// A digit, with its place on the call's clock.
    Dtmf {
        /// One of `0-9 * # A-D`.
        digit: char,
        /// When it came.
        offset: Duration,
    },
    /// The other side reports errors. If the hang-up bit is set, the call ends.
    PeerErrors(PeerErrors),
    /// A message that is impossible for its kind; it was skipped.
    Malformed {
        /// The kind.
        kind: Kind,
        /// Bytes of payload.
        length: u16,
    },
}

/// What happened to outbound audio, and where inbound audio is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// A slot leaves.
    Slot {
        /// Its rate.
        rate: Rate,
        /// Its samples.
        samples: &'a [i16],
        /// How late it is against the schedule, as [`Counters::worst_lateness`](crate::Counters::worst_lateness) counts it.
        late: Duration,
    },
    /// An item of the playout queue is over.
    Ended {
        /// Which one.
        item: ItemId,
        /// It was heard to its end, rather than stopped or cleared.
        is_whole: bool,
        /// What was heard of it.
        heard: Heard,
    },
    /// The queue was cleared; this much was heard of what was cut off.
    Cleared(Heard),
    /// Everything queued has been heard to its end.
    Drained,
    /// A live source had nothing in time.
    Underrun,
    /// No audio has come for this span of the call's clock: the caller is muted, on hold, or its phone suppresses
    /// silence. It is reported while it lasts, in steps of 100 ms for a second and then in steps of a second. If audio
    /// comes late after all, it is reported with its own place, which may lie in a span that was reported.
    NoAudio {
        /// Where it begins.
        offset: Duration,
        /// How long it is.
        duration: Duration,
    },
}

/// What to do to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketAction {
    /// Nothing.
    Nothing,
    /// Shut down the writing side. Returned once.
    ShutdownWrite,
    /// Close the socket: the call is over.
    Close,
}
