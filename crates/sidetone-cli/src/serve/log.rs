//! The gateway's events in the log: JSON lines for a program, sentences for a person, with levels for the journal.

use std::sync::{Arc, LazyLock};

use serde::Serialize;
use serde_json::Value;
use sidetone_gateway::{Gateway, Level, Published, envelope};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{dialplan, event::Event, sanitize::sanitize_json};

/// Whether standard output is the journal, which reads a level at the start of each line.
static IS_JOURNAL: LazyLock<bool> = LazyLock::new(|| std::env::var_os("JOURNAL_STREAM").is_some());

/// The line with its level in front, if it goes to the journal.
fn in_journal(level: u8, line: String) -> String {
    match *IS_JOURNAL {
        true => format!("<{level}>{line}"),
        false => line,
    }
}

/// One event of the gateway.
#[derive(Debug)]
pub(super) struct LogLine {
    level: u8,
    call: Option<Uuid>,
    json: Arc<str>,
}

impl LogLine {
    /// One that concerns no call.
    pub(super) fn new(level: Level, json: String) -> Self {
        Self {
            level: level as u8,
            call: None,
            json: json.into(),
        }
    }
}

impl From<&Published> for LogLine {
    fn from(event: &Published) -> Self {
        Self {
            level: event.level as u8,
            call: event.call,
            json: Arc::clone(&event.log),
        }
    }
}

impl Event for LogLine {
    fn to_json(&self) -> String {
        in_journal(self.level, sanitize_json(self.json.to_string()))
    }

    fn text(&self) -> String {
        let Ok(event) = serde_json::from_str::<Value>(&self.json) else {
            return String::new();
        };
        let name = event["type"].as_str().unwrap_or_default();
        let fields = event["data"].as_object().into_iter().flatten();
        let fields = fields
            .filter(|(key, value)| *key != "call" && !value.is_null())
            .map(|(key, value)| match value {
                Value::String(text) => format!("  {key}: {text}"),
                other => format!("  {key}: {other}"),
            });
        std::iter::once(name.to_owned()).chain(fields).collect()
    }

    fn call(&self) -> Option<Uuid> {
        self.call
    }

    fn external_text_len(&self) -> usize {
        self.json.len()
    }
}

/// The gateway listens.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Started {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    /// Only while the file has no token.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip)]
    dialplan: Vec<String>,
}

impl Started {
    pub(super) fn new(gateway: &Gateway) -> Self {
        Self {
            address: gateway.address().to_string(),
            http: gateway.http_address().map(|it| format!("http://{it}/")),
            token: gateway.generated_token().map(Into::into),
            dialplan: dialplan::lines(gateway.address()),
        }
    }
}

impl Event for Started {
    fn to_json(&self) -> String {
        let json = envelope("listening", OffsetDateTime::now_utc(), self);
        in_journal(Level::Notice as u8, sanitize_json(json))
    }

    fn text(&self) -> String {
        format!("listening for calls on {}", self.address)
    }

    fn details(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(http) = &self.http {
            lines.push(match &self.token {
                Some(token) => format!("the page is at {http} ; log in with the token {token}"),
                None => format!("the page is at {http} ; log in with a token of the file"),
            });
        }
        lines.push("for the dialplan (extensions.conf):".into());
        lines.push(String::new());
        lines.extend(self.dialplan.iter().map(|line| format!("    {line}")));
        lines.push(String::new());
        lines
    }

    fn call(&self) -> Option<Uuid> {
        None
    }
}
