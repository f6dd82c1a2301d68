//! What is told about calls, and how it looks as JSON.
//!
//! When standard output is no terminal, each event is one line: an object with `time` (UTC, RFC 3339),
//! `event` (its name) and the fields of the variant below. Fields are only ever added; those of
//! `call_ended` are fixed:
//!
//! | field | what it is |
//! |---|---|
//! | `id` | the call's UUID |
//! | `peer` | where it came from, as `address:port` |
//! | `codec` | `slin`, `ulaw` or `alaw` at 8 kHz (`auto` if that was set and nothing found out), else `slin12` … `slin192` |
//! | `duration_ms` | from the UUID to the end |
//! | `frames_in` | audio messages that came |
//! | `frames_out` | audio messages that went, silence included |
//! | `gaps` | times that the caller's audio was missing |
//! | `worst_lateness_ms` | the most that a frame left late, to the microsecond |
//! | `slips` | times that a stall of more than 60 ms re-based the 20 ms grid |
//! | `underruns` | times that a live source had nothing when its slot was due |
//! | `lagged` | frames that were dropped because they were not handled in time |
//! | `digits` | DTMF digits that came: how many, not which |
//! | `ended_by` | `caller`, `server` or `connection` |
//! | `reason` | why, as a name: `caller_hung_up`, `finished`, `shutdown`, `connection_reset` … |
//! | `reset` | the caller's hang-up came as a reset of the connection, as in `Dial` now and then |

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::Serialize;
use sidetone::{CallSummary, Rate};
use uuid::Uuid;

use crate::{
    clock,
    plain::{paths, plain_json},
    transcribe::{
        line::{Line, Side},
        tally::Transcribed,
    },
};

/// Something that is told.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The server listens. The lines are for the dialplan.
    Listening {
        address: SocketAddr,
        dialplan: Vec<String>,
    },
    /// A name that was given with `--allow`, and what it stood for at the start.
    Allowed {
        name: String,
        addresses: Vec<IpAddr>,
    },
    /// `sidetone transcribe`: where the callers' voices go.
    Destination {
        engine: &'static str,
        destination: String,
    },
    CallStarted {
        id: Uuid,
        peer: SocketAddr,
    },
    /// A caller pressed a key; `*` stands for each unless `--log-digits` was given.
    Dtmf {
        id: Uuid,
        digit: char,
    },
    /// What was found out about a caller's codec.
    Codec {
        id: Uuid,
        text: String,
    },
    /// Trouble that does not end the call.
    Trouble {
        id: Uuid,
        text: String,
    },
    /// Audio was dropped because it was not handled in time.
    Lagged {
        id: Uuid,
        frames: u64,
    },
    /// More of a kind came than is told one by one: of one call, or `rejected` of all.
    Counted {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<Uuid>,
        /// The name of the event that would have told of each.
        of: &'static str,
        count: u64,
    },
    /// Events were lost here, since what they are written to did not take them in time.
    EventsDropped {
        events: u64,
    },
    /// The recording of a call is over, usually just after the call is.
    Recorded {
        id: Uuid,
        /// Whole, unless `failure` says why not.
        #[serde(serialize_with = "paths")]
        files: Vec<PathBuf>,
        duration_ms: u64,
        /// Frames that the disk was too slow for; silence stands for them.
        lost_frames: u64,
        /// Audio that came so much faster than real time that there was no place for it.
        surplus_ms: u64,
        failure: Option<String>,
    },
    /// `sidetone transcribe --json`: what somebody said.
    Transcript(Line),
    /// The recognizer can't be had; it is tried again until it can.
    RecognizerAway {
        id: Uuid,
        side: Side,
        text: String,
    },
    RecognizerBack {
        id: Uuid,
        side: Side,
    },
    /// The recognizer says no for good: of this call comes no more text.
    RecognizerRefused {
        id: Uuid,
        side: Side,
        text: String,
    },
    /// A part of the call, on its own clock, that no recognizer got.
    NotTranscribed {
        id: Uuid,
        side: Side,
        from_ms: u64,
        to_ms: u64,
    },
    /// The call is ended from here: `stop_word` or `time_limit`.
    HangingUp {
        id: Uuid,
        reason: &'static str,
        #[serde(skip)]
        text: &'static str,
    },
    /// All that comes of a call has come, usually just before its end is told.
    Transcribed(Transcribed),
    CallEnded(CallEnded),
    /// A call that no handler ever saw.
    Rejected {
        id: Uuid,
        peer: SocketAddr,
        reason: &'static str,
        text: String,
    },
    /// Something that concerns no single call.
    Notice {
        text: &'static str,
    },
    /// `sidetone call`: the connection stands and the UUID is sent.
    CallPlaced {
        id: Uuid,
        address: SocketAddr,
    },
    /// `sidetone call`: the first sound that is not silence.
    AudioHeard {
        id: Uuid,
        after_ms: u64,
    },
    /// `sidetone call`: a key was pressed.
    DigitSent {
        id: Uuid,
        digit: char,
    },
    /// `sidetone call`: how it went.
    CallFinished(Placed),
    /// New calls are rejected, running ones may go on for the grace time.
    ShuttingDown {
        running: usize,
        grace_ms: u64,
    },
    Stopped,
}

/// A call that is over. See the table above.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CallEnded {
    pub(crate) id: Uuid,
    pub(crate) peer: SocketAddr,
    pub(crate) codec: String,
    pub(crate) duration_ms: u64,
    pub(crate) frames_in: u64,
    pub(crate) frames_out: u64,
    pub(crate) gaps: u64,
    pub(crate) worst_lateness_ms: f64,
    pub(crate) slips: u64,
    pub(crate) underruns: u64,
    pub(crate) lagged: u64,
    pub(crate) digits: u64,
    pub(crate) ended_by: String,
    pub(crate) reason: &'static str,
    pub(crate) reset: bool,
    /// The reason in words, for people.
    #[serde(skip)]
    pub(crate) text: String,
}

/// How a call went that was placed from here.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Placed {
    pub(crate) id: Uuid,
    pub(crate) address: SocketAddr,
    pub(crate) codec: &'static str,
    pub(crate) duration_ms: u64,
    pub(crate) frames_sent: u64,
    pub(crate) frames_heard: u64,
    /// The RMS of the loudest frame.
    pub(crate) loudest_dbfs: f64,
    /// The longest time between two frames.
    pub(crate) longest_gap_ms: f64,
    pub(crate) digits: u64,
    pub(crate) ended_by: String,
    /// In words.
    pub(crate) reason: String,
    /// What Asterisk would have logged about a fault.
    pub(crate) asterisk_log: Option<&'static str>,
}

impl From<CallSummary> for CallEnded {
    fn from(call: CallSummary) -> Self {
        let counters = call.counters;
        Self {
            id: call.id,
            peer: call.peer,
            codec: match call.inbound_rate {
                Rate::Slin => call.codec.to_string(),
                wideband => wideband.name().into(),
            },
            duration_ms: call.duration.as_millis() as u64,
            frames_in: counters.frames_in,
            frames_out: counters.frames_out,
            gaps: counters.gaps,
            worst_lateness_ms: counters.worst_lateness.as_micros() as f64 / 1000.0,
            slips: counters.slips,
            underruns: counters.underruns,
            lagged: call.lagged,
            digits: counters.digits,
            ended_by: call.reason.by().to_string(),
            reason: call.reason.name(),
            reset: counters.reset,
            text: match counters.reset {
                true => format!("{} (with a reset)", call.reason),
                false => call.reason.to_string(),
            },
        }
    }
}

impl Event {
    pub(crate) fn rejected(call: CallSummary) -> Self {
        Self::Rejected {
            id: call.id,
            peer: call.peer,
            reason: call.reason.name(),
            text: call.reason.to_string(),
        }
    }

    /// The text in it whose length others choose, in bytes.
    pub(crate) fn text_len(&self) -> usize {
        match self {
            Self::Transcript(line) => line.weight(),
            Self::Codec { text, .. }
            | Self::Trouble { text, .. }
            | Self::RecognizerAway { text, .. }
            | Self::RecognizerRefused { text, .. } => text.len(),
            _ => 0,
        }
    }

    /// The call that it is about.
    pub(crate) fn call(&self) -> Option<Uuid> {
        match self {
            Self::Listening { .. }
            | Self::Allowed { .. }
            | Self::Destination { .. }
            | Self::Notice { .. }
            | Self::EventsDropped { .. }
            | Self::ShuttingDown { .. }
            | Self::Stopped => None,
            Self::Counted { id, .. } => *id,
            Self::CallEnded(call) => Some(call.id),
            Self::CallFinished(call) => Some(call.id),
            Self::Transcript(line) => Some(line.id),
            Self::Transcribed(call) => Some(call.id),
            Self::CallStarted { id, .. }
            | Self::Dtmf { id, .. }
            | Self::Codec { id, .. }
            | Self::Trouble { id, .. }
            | Self::Lagged { id, .. }
            | Self::Recorded { id, .. }
            | Self::RecognizerAway { id, .. }
            | Self::RecognizerBack { id, .. }
            | Self::RecognizerRefused { id, .. }
            | Self::NotTranscribed { id, .. }
            | Self::HangingUp { id, .. }
            | Self::CallPlaced { id, .. }
            | Self::AudioHeard { id, .. }
            | Self::DigitSent { id, .. }
            | Self::Rejected { id, .. } => Some(*id),
        }
    }
}

/// One line of JSON with the time.
pub(crate) fn json_line(event: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Stamped<'a, T> {
        time: String,
        #[serde(flatten)]
        event: &'a T,
    }
    let time = clock::utc();
    // Only maps with odd keys and failing writers can't be written, and here are neither.
    plain_json(serde_json::to_string(&Stamped { time, event }).unwrap_or_default())
}
