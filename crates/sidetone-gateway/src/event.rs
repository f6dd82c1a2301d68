//! What happens on the gateway: one form for the log, the hooks and the page.

use std::{borrow::Cow, net::SocketAddr, sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::{Map, Value, json};
use sidetone::{CallSummary, record::Report};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::call::CallContext;

/// The kinds of events that a hook can ask for, and that the page is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// A call was let in.
    CallStarted,
    /// A call that was let in is over.
    CallEnded,
    /// A connection or call was not let in.
    CallRejected,
    /// The caller pressed a key.
    Dtmf,
    /// Somebody said something, and it is final.
    Transcript,
    /// The recording of a call is complete, or failed.
    RecordingEnded,
    /// Something needs an operator, or no longer does.
    Alarm,
}

impl EventKind {
    pub(crate) const ALL: [Self; 7] = [
        Self::CallStarted,
        Self::CallEnded,
        Self::CallRejected,
        Self::Dtmf,
        Self::Transcript,
        Self::RecordingEnded,
        Self::Alarm,
    ];

    /// Its name, as in the file and in every event's `type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CallStarted => "call.started",
            Self::CallEnded => "call.ended",
            Self::CallRejected => "call.rejected",
            Self::Dtmf => "dtmf",
            Self::Transcript => "transcript",
            Self::RecordingEnded => "recording.ended",
            Self::Alarm => "alarm",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// How much an operator needs to know of it. The numbers are syslog's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Somebody should look.
    Error = 3,
    /// Something is not as it should be.
    Warning = 4,
    /// It concerns the gateway as a whole.
    Notice = 5,
    /// It is in the course of things.
    Info = 6,
}

/// What an alarm is about.
pub(crate) type AlarmName = Cow<'static, str>;

/// Something that happened.
#[derive(Debug)]
pub(crate) enum GatewayEvent {
    Started(Arc<CallContext>),
    Ended {
        call: Arc<CallContext>,
        summary: Box<CallSummary>,
        result: String,
    },
    Rejected {
        id: Uuid,
        peer: SocketAddr,
        reason: &'static str,
        text: String,
    },
    /// Rejected calls that are not reported one by one.
    Suppressed {
        rejected: u64,
    },
    Dtmf {
        call: Arc<CallContext>,
        digit: char,
        at: Duration,
    },
    Transcript {
        call: Arc<CallContext>,
        speaker: &'static str,
        text: String,
        start: Duration,
        end: Duration,
    },
    /// The state of the recognizer of a call changed, or its audio was dropped, or its codec is not as configured.
    CallNotice {
        call: Arc<CallContext>,
        text: String,
    },
    RecordingEnded {
        call: Arc<CallContext>,
        report: Box<Report>,
    },
    /// A state that needs an operator begins or ends.
    Alarm {
        name: AlarmName,
        is_active: bool,
        text: String,
    },
    /// A token did something to a call or to the gateway.
    Control {
        token: String,
        action: &'static str,
        call: Option<Uuid>,
        detail: String,
    },
    /// Something about the gateway as a whole.
    Notice {
        name: &'static str,
        text: String,
    },
}

/// An event in the form in which it goes out.
#[derive(Clone, Debug)]
pub struct Published {
    /// `None` for what is only logged.
    pub kind: Option<EventKind>,
    /// The call that it is about.
    pub call: Option<Uuid>,
    /// For the log.
    pub level: Level,
    /// `{"type", "timestamp", "data"}`, without what must not be read by chance: digits are `*`, and transcripts are
    /// missing.
    pub log: Arc<str>,
    /// The same with all that it says, for those who asked for it.
    pub full: Arc<str>,
}

impl GatewayEvent {
    /// The event as it happens at `now`. Digits are in the log only `with_digits`.
    pub(crate) fn publish(self, now: OffsetDateTime, with_digits: bool) -> Published {
        let (name, kind, level) = self.class();
        let call = self.call();
        let hidden = match &self {
            Self::Dtmf { .. } if !with_digits => Some(("digit", json!("*"))),
            Self::Transcript { text, .. } => Some((
                "text",
                json!(format!("({} characters)", text.chars().count())),
            )),
            _ => None,
        };
        let mut data = self.data();
        let full: Arc<str> = envelope(name, now, &data).into();
        let log = match hidden {
            None => Arc::clone(&full),
            Some((key, value)) => {
                data.insert(key.into(), value);
                envelope(name, now, &data).into()
            }
        };
        Published {
            kind,
            call,
            level,
            log,
            full,
        }
    }

    fn class(&self) -> (&'static str, Option<EventKind>, Level) {
        let of = |kind: EventKind, level| (kind.name(), Some(kind), level);
        match self {
            Self::Started(_) => of(EventKind::CallStarted, Level::Info),
            Self::Ended { .. } => of(EventKind::CallEnded, Level::Info),
            Self::Rejected { .. } => of(EventKind::CallRejected, Level::Warning),
            Self::Suppressed { .. } => ("call.rejected.suppressed", None, Level::Warning),
            Self::Dtmf { .. } => of(EventKind::Dtmf, Level::Info),
            Self::Transcript { .. } => of(EventKind::Transcript, Level::Info),
            Self::CallNotice { .. } => ("call.notice", None, Level::Warning),
            Self::RecordingEnded { report, .. } => of(
                EventKind::RecordingEnded,
                match report.failure {
                    Some(_) => Level::Error,
                    None => Level::Info,
                },
            ),
            Self::Alarm { is_active, .. } => of(
                EventKind::Alarm,
                if *is_active {
                    Level::Error
                } else {
                    Level::Notice
                },
            ),
            Self::Control { .. } => ("control", None, Level::Notice),
            Self::Notice { name, .. } => (name, None, Level::Notice),
        }
    }

    fn call(&self) -> Option<Uuid> {
        match self {
            Self::Started(call)
            | Self::Ended { call, .. }
            | Self::Dtmf { call, .. }
            | Self::Transcript { call, .. }
            | Self::CallNotice { call, .. }
            | Self::RecordingEnded { call, .. } => Some(call.id),
            Self::Rejected { id, .. } => Some(*id),
            Self::Control { call, .. } => *call,
            Self::Suppressed { .. } | Self::Alarm { .. } | Self::Notice { .. } => None,
        }
    }

    fn data(self) -> Map<String, Value> {
        match self {
            Self::Started(call) => call.to_json(),
            Self::Ended {
                call,
                summary,
                result,
            } => {
                let mut data = call.to_json();
                data.extend(object(ended(&summary)));
                data.insert("result".into(), result.into());
                data
            }
            Self::Rejected {
                id,
                peer,
                reason,
                text,
            } => object(json!({"call": id, "peer": peer, "reason": reason, "text": text})),
            Self::Suppressed { rejected } => object(json!({"count": rejected})),
            Self::Dtmf { call, digit, at } => {
                let mut data = call.to_json();
                data.insert("digit".into(), digit.to_string().into());
                data.insert("at_ms".into(), milliseconds(at).into());
                data
            }
            Self::Transcript {
                call,
                speaker,
                text,
                start,
                end,
            } => {
                let mut data = call.to_json();
                data.insert("speaker".into(), speaker.into());
                data.insert("text".into(), text.into());
                data.insert("start_ms".into(), milliseconds(start).into());
                data.insert("end_ms".into(), milliseconds(end).into());
                data
            }
            Self::CallNotice { call, text } => {
                object(json!({"call": call.id, "route": call.route, "text": text}))
            }
            Self::RecordingEnded { call, report } => {
                let mut data = call.to_json();
                data.extend(object(recorded(&report)));
                data
            }
            Self::Alarm {
                name,
                is_active,
                text,
            } => object(json!({"name": name, "active": is_active, "text": text})),
            Self::Control {
                token,
                action,
                call,
                detail,
            } => object(json!({"token": token, "action": action, "call": call, "detail": detail})),
            Self::Notice { text, .. } => object(json!({"text": text})),
        }
    }
}

/// What an ended call was like.
pub(crate) fn ended(summary: &CallSummary) -> Value {
    let counters = summary.counters;
    json!({
        "duration_ms": milliseconds(summary.duration),
        "ended_by": summary.reason.by().to_string(),
        "reason": summary.reason.name(),
        "frames_in": counters.frames_in,
        "frames_out": counters.frames_out,
        "gaps": counters.gaps,
        "underruns": counters.underruns,
        "slips": counters.slips,
        "lagged": summary.lagged,
        "digits": counters.digits,
        "worst_lateness_ms": fractional_milliseconds(counters.worst_lateness),
    })
}

/// What a recording holds.
pub(crate) fn recorded(report: &Report) -> Value {
    let files = report.files.iter();
    let files: Vec<_> = files.filter_map(|path| path.file_name()).collect();
    let files: Vec<_> = files.iter().map(|name| name.to_string_lossy()).collect();
    json!({
        "files": files,
        "recorded_ms": milliseconds(report.duration),
        "lost_frames": report.lost_frames,
        "failure": report.failure,
    })
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

pub(crate) fn fractional_milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The form of every event: what it is, when it happened, and what there is to say.
pub fn envelope(name: &str, now: OffsetDateTime, data: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Envelope<'a, T> {
        #[serde(rename = "type")]
        name: &'a str,
        timestamp: String,
        data: &'a T,
    }
    let timestamp = timestamp(now);
    // Serialization fails only for maps without string keys and for writers that fail. Neither is used here.
    serde_json::to_string(&Envelope {
        name,
        timestamp,
        data,
    })
    .unwrap_or_default()
}

/// In RFC 3339, to the millisecond.
pub(crate) fn timestamp(time: OffsetDateTime) -> String {
    let nanosecond = time.nanosecond() / 1_000_000 * 1_000_000;
    let time = time.replace_nanosecond(nanosecond).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_default()
}
