//! The events of a call that `sidetone call` places.

use std::net::SocketAddr;

use serde::Serialize;
use uuid::Uuid;

use crate::{
    event::{Event, json_line},
    format::duration_ms,
};

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum CallEvent {
    /// The connection is open and the UUID is sent.
    CallPlaced { id: Uuid, address: SocketAddr },
    /// The first sound that is not silence.
    AudioHeard { id: Uuid, after_ms: u64 },
    /// A key was pressed.
    DigitSent { id: Uuid, digit: char },
    /// The call has ended.
    CallFinished(CallFinished),
}

/// How the call went.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CallFinished {
    pub(super) id: Uuid,
    pub(super) address: SocketAddr,
    pub(super) codec: &'static str,
    pub(super) duration_ms: u64,
    pub(super) frames_sent: u64,
    pub(super) frames_received: u64,
    /// The RMS level of the loudest frame.
    pub(super) loudest_dbfs: f64,
    /// The longest time between two frames.
    pub(super) longest_gap_ms: f64,
    pub(super) digits: u64,
    pub(super) ended_by: String,
    /// In words.
    pub(super) reason: String,
    /// What Asterisk would log about the fault that ended the call.
    pub(super) asterisk_log: Option<&'static str>,
}

impl Event for CallEvent {
    fn to_json(&self) -> String {
        json_line(self)
    }

    fn call(&self) -> Option<Uuid> {
        match self {
            Self::CallPlaced { id, .. }
            | Self::AudioHeard { id, .. }
            | Self::DigitSent { id, .. } => Some(*id),
            Self::CallFinished(call) => Some(call.id),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::CallPlaced { id, address } => format!("calls {address}, UUID {id}"),
            Self::AudioHeard { after_ms, .. } => format!("hears audio after {after_ms} ms"),
            Self::DigitSent { digit, .. } => format!("presses {digit}"),
            Self::CallFinished(call) => format!(
                "ended after {}: {}; {} frames sent, {} received, at most {:.1} ms apart, the loudest at {} dBFS",
                duration_ms(call.duration_ms),
                call.reason,
                call.frames_sent,
                call.frames_received,
                call.longest_gap_ms,
                call.loudest_dbfs
            ),
        }
    }
}
