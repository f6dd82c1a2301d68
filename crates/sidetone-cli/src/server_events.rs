//! The events that all serving commands report. The fields of `call_ended` are fixed:
//!
//! | field | meaning |
//! |---|---|
//! | `id` | the call's UUID |
//! | `peer` | the address that it came from, as `address:port` |
//! | `codec` | `slin`, `ulaw` or `alaw` at 8 kHz (`auto` if that was set and no codec was detected), else `slin12` … `slin192` |
//! | `duration_ms` | from the UUID to the end |
//! | `frames_in` | audio messages received |
//! | `frames_out` | audio messages sent, silence included |
//! | `gaps` | times that the caller's audio was missing |
//! | `worst_lateness_ms` | the most that a frame was sent late, to the microsecond |
//! | `slips` | times that a stall of more than 60 ms moved the 20 ms schedule |
//! | `underruns` | times that live audio had nothing when its slot was due |
//! | `lagged` | frames dropped because they were not handled in time |
//! | `digits` | DTMF digits received: how many, not which |
//! | `ended_by` | `caller`, `server` or `connection` |
//! | `reason` | why, as a name: `caller_hung_up`, `finished`, `shutdown`, `connection_reset` … |
//! | `reset` | the caller's hang-up came as a reset of the connection, as `Dial` sometimes does |

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use sidetone::{CallSummary, Rate};
use uuid::Uuid;

use crate::{
    event::{Event, json_line},
    format::{count, duration_ms},
};

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum ServerEvent {
    /// The server listens. The lines are for the dialplan.
    Listening {
        address: SocketAddr,
        dialplan: Vec<String>,
    },
    /// A name from `--allow`, and the addresses that it had when the server started.
    Allowed {
        name: String,
        addresses: Vec<IpAddr>,
    },
    CallStarted {
        id: Uuid,
        peer: SocketAddr,
    },
    /// The caller pressed a key, shown as `*` unless `--log-digits` was given.
    Dtmf {
        id: Uuid,
        digit: char,
    },
    /// What was detected about the caller's codec.
    Codec {
        id: Uuid,
        text: String,
    },
    /// An error that does not end the call.
    Error {
        id: Uuid,
        text: String,
    },
    /// Audio was dropped because it was not handled in time.
    Lagged {
        id: Uuid,
        frames: u64,
    },
    /// More events of a kind than are reported one by one, of one call or, for `rejected`, of all calls.
    Suppressed {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<Uuid>,
        /// The name of the event that reports each of them.
        of: &'static str,
        count: u64,
    },
    CallEnded(CallEnded),
    /// A call that never had a handler.
    Rejected {
        id: Uuid,
        peer: SocketAddr,
        reason: &'static str,
        text: String,
    },
    /// Something that concerns the server and no single call.
    Notice {
        text: &'static str,
    },
    /// New calls are rejected. Running calls may continue for the grace period.
    ShuttingDown {
        running: usize,
        grace_ms: u64,
    },
    Stopped,
}

/// A call that has ended. The table above explains the fields.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CallEnded {
    id: Uuid,
    peer: SocketAddr,
    codec: String,
    duration_ms: u64,
    frames_in: u64,
    frames_out: u64,
    gaps: u64,
    worst_lateness_ms: f64,
    slips: u64,
    underruns: u64,
    lagged: u64,
    digits: u64,
    ended_by: String,
    reason: &'static str,
    reset: bool,
    /// The reason in words, for people.
    #[serde(skip)]
    reason_text: String,
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
            reason_text: match counters.reset {
                true => format!("{} (with a reset)", call.reason),
                false => call.reason.to_string(),
            },
        }
    }
}

impl CallEnded {
    fn text(&self) -> String {
        let mut text = format!(
            "ended after {}, {}; {} frames in, {} out, at most {:.1} ms late",
            duration_ms(self.duration_ms),
            self.reason_text,
            self.frames_in,
            self.frames_out,
            self.worst_lateness_ms
        );
        for (number, one, many) in [
            (self.gaps, "gap", "gaps"),
            (self.slips, "slip", "slips"),
            (self.underruns, "underrun", "underruns"),
            (self.lagged, "frame dropped", "frames dropped"),
        ] {
            if number > 0 {
                text.push_str(&format!(", {}", count(number, one, many)));
            }
        }
        text
    }
}

impl ServerEvent {
    pub(crate) fn rejected(call: CallSummary) -> Self {
        Self::Rejected {
            id: call.id,
            peer: call.peer,
            reason: call.reason.name(),
            text: call.reason.to_string(),
        }
    }
}

impl Event for ServerEvent {
    fn to_json(&self) -> String {
        json_line(self)
    }

    fn call(&self) -> Option<Uuid> {
        match self {
            Self::Listening { .. }
            | Self::Allowed { .. }
            | Self::Notice { .. }
            | Self::ShuttingDown { .. }
            | Self::Stopped => None,
            Self::Suppressed { id, .. } => *id,
            Self::CallEnded(call) => Some(call.id),
            Self::CallStarted { id, .. }
            | Self::Dtmf { id, .. }
            | Self::Codec { id, .. }
            | Self::Error { id, .. }
            | Self::Lagged { id, .. }
            | Self::Rejected { id, .. } => Some(*id),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Listening { address, .. } => {
                format!("listening on {address}; for the dialplan (extensions.conf):")
            }
            Self::Allowed { name, addresses } => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                format!(
                    "{name} may connect from {}; restart the server if its address changes",
                    addresses.join(" and ")
                )
            }
            Self::CallStarted { peer, .. } => format!("call from {peer}"),
            Self::Dtmf { digit, .. } => format!("pressed {digit}"),
            Self::Codec { text, .. } | Self::Error { text, .. } => text.clone(),
            Self::Lagged { frames, .. } => format!(
                "{} because they were not handled in time",
                count(*frames, "frame was dropped", "frames were dropped")
            ),
            Self::Suppressed {
                of, count: number, ..
            } => match *of {
                "dtmf" => format!("pressed {}", count(*number, "more key", "more keys")),
                "rejected" => count(
                    *number,
                    "more call was rejected",
                    "more calls were rejected",
                ),
                _ => format!("{}: {of}", count(*number, "more event", "more events")),
            },
            Self::CallEnded(call) => call.text(),
            Self::Rejected { peer, text, .. } => format!("call from {peer} {text}"),
            Self::Notice { text } => (*text).into(),
            Self::ShuttingDown { running: 0, .. } => "shutting down".into(),
            Self::ShuttingDown { running, grace_ms } => format!(
                "shutting down: {} up to {} s more; press Ctrl-C again to end at once",
                count(*running as u64, "call has", "calls have"),
                grace_ms / 1000
            ),
            // The shell's prompt shows it.
            Self::Stopped => String::new(),
        }
    }

    fn details(&self) -> Vec<String> {
        let Self::Listening { dialplan, .. } = self else {
            return Vec::new();
        };
        let mut lines = vec![String::new()];
        lines.extend(dialplan.iter().map(|line| format!("    {line}")));
        lines.push(String::new());
        lines
    }

    fn external_text_len(&self) -> usize {
        match self {
            Self::Codec { text, .. } | Self::Error { text, .. } => text.len(),
            _ => 0,
        }
    }
}
