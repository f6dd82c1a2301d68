//! What a command reports: one JSON line for programs, or lines of text for people.
//!
//! When standard output is not a terminal, each event is one line: an object with `time` (UTC, RFC 3339), `event` (its
//! name) and the event's own fields. Fields are added over time, and none is removed. Each module that reports something
//! defines its own events.

use std::fmt::Debug;

use serde::Serialize;
use uuid::Uuid;

use crate::{clock, format::short_id, sanitize::sanitize_json};

pub(crate) trait Event: Debug + Send {
    /// The event as one JSON line, with the time: [`json_line`].
    fn to_json(&self) -> String;

    /// The event as a sentence for people, without the time and the call. Empty if there is nothing to say.
    fn text(&self) -> String;

    /// The call that the event is about.
    fn call(&self) -> Option<Uuid>;

    /// Further lines below the sentence.
    fn details(&self) -> Vec<String> {
        Vec::new()
    }

    /// All lines for people, without the time.
    fn lines(&self) -> Vec<String> {
        let text = self.text();
        let sentence = match self.call() {
            _ if text.is_empty() => return Vec::new(),
            Some(id) => format!("{}  {text}", short_id(id)),
            None => text,
        };
        std::iter::once(sentence).chain(self.details()).collect()
    }

    /// The length in bytes of the text in it that comes from callers and services.
    fn external_text_len(&self) -> usize {
        0
    }

    /// Whether the text is shown even if the call's other events are not.
    fn is_always_shown(&self) -> bool {
        false
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
    // Serialization fails only for maps without string keys and for writers that fail. Neither is used here.
    sanitize_json(serde_json::to_string(&Stamped { time, event }).unwrap_or_default())
}
