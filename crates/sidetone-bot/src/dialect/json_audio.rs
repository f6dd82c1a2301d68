//! The caller's audio in messages of JSON, in base64, as Twilio and Plivo have it.

use std::fmt::{self, Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Action, Message};

/// How such messages begin.
const MEDIA: &str = r#"{"event":"media""#;

/// Sends 20 ms. `fields` is everything between the event's name and the payload, which is in an object of its own.
///
/// The text is built by hand, since there are fifty a second.
pub(super) fn send(actions: &mut Vec<Action>, fields: fmt::Arguments<'_>, payload: &[u8]) {
    let mut text = String::with_capacity(200 + payload.len() * 4 / 3);
    text.push_str(MEDIA);
    // Writing to a string can't fail.
    let _ = text.write_fmt(fields);
    STANDARD.encode_string(payload, &mut text);
    text.push_str("\"}}");
    actions.push(Action::Send(Message::Text(text)));
}

/// Whether a message is one of these.
pub(super) fn is_audio(message: &Message) -> bool {
    matches!(message, Message::Text(text) if text.starts_with(MEDIA))
}
