//! Parses replies. Only the text is sure to be in them, and servers write it in different forms.

use serde_json::Value;

use super::{
    NAME,
    request::{Response, unavailable},
};
use sidetone_websocket::service_message;

use crate::SpeechError;

/// Above this and below that, Whisper's own programs take a segment for silence.
const MIN_NO_SPEECH: f32 = 0.6;
const MAX_UNLIKELY_LOGPROB: f32 = -1.0;

/// The transcript of one utterance.
#[derive(Debug, Default)]
pub(super) struct Reply {
    text: String,
    language: Option<String>,
    segments: Vec<Segment>,
    /// Every word with its time, or none.
    pub(super) words: Vec<TimedWord>,
}

#[derive(Debug)]
struct Segment {
    avg_logprob: Option<f32>,
    no_speech_prob: Option<f32>,
}

/// A word. Times are seconds from the start of the utterance.
#[derive(Debug)]
pub(super) struct TimedWord {
    pub(super) word: String,
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) confidence: Option<f32>,
}

/// Why a successful reply has no transcript.
#[derive(Debug, PartialEq)]
pub(super) enum ReplyError {
    /// The service reports an error.
    Service(String),
    /// The reply is something else.
    NotATranscript(String),
}

impl ReplyError {
    pub(super) fn into_error(self, secrets: &[&str]) -> SpeechError {
        match self {
            Self::Service(text) => unavailable(service_message::one_line(&text, secrets)),
            ReplyError::NotATranscript(text) => SpeechError::Broken {
                service: NAME,
                reason: match service_message::from_body(text.as_bytes(), secrets) {
                    text if text.is_empty() => "its reply is empty".into(),
                    text => format!("its reply is not a transcript: {text}"),
                },
            },
        }
    }
}

/// Parses a reply with the status of a success.
pub(super) fn parse(response: &Response) -> Result<Reply, ReplyError> {
    let text = String::from_utf8_lossy(&response.body);
    let text = text.trim_start_matches('\u{feff}').trim();
    let not_a_transcript = || ReplyError::NotATranscript(text.into());
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => parse_object(&Value::Object(object)),
        Ok(Value::String(text)) => Ok(plain_text(&text)),
        _ if !is_plain_text(text, &response.content_type) => Err(not_a_transcript()),
        _ => Ok(plain_text(text)),
    }
}

/// Some servers send nothing but the text.
fn is_plain_text(text: &str, content_type: &str) -> bool {
    let plain_type = content_type.starts_with("text/plain");
    let other_type = content_type.contains("json") || content_type.contains("html");
    let other_form = text.starts_with(['{', '<']) || text.contains("-->");
    !other_type && !other_form && (plain_type || !text.is_empty())
}

fn plain_text(text: &str) -> Reply {
    Reply {
        text: text.split_whitespace().collect::<Vec<_>>().join(" "),
        ..Reply::default()
    }
}

fn parse_object(object: &Value) -> Result<Reply, ReplyError> {
    let segments = list(object, "segments");
    let text = match object["text"].as_str() {
        Some(text) => Some(text.to_owned()),
        // Each begins with a space.
        None => segments.iter().map(|it| it["text"].as_str()).collect(),
    };
    let has_error = !object["error"].is_null() && object["error"] != false;
    let text = match text.filter(|it| object["text"].is_string() || !it.is_empty()) {
        Some(text) if !(has_error && text.trim().is_empty()) => text,
        _ => {
            return Err(match service_message::find(object) {
                Some(message) => ReplyError::Service(message.into()),
                None => ReplyError::NotATranscript(object.to_string()),
            });
        }
    };
    // The words of the whole, else those of the segments.
    let words = match list(object, "words") {
        [] => segments.iter().flat_map(|it| list(it, "words")).collect(),
        words => words.iter().collect::<Vec<_>>(),
    };
    // If one word has no time, the others alone would look complete.
    let words: Option<Vec<TimedWord>> = words.into_iter().map(timed_word).collect();
    Ok(Reply {
        text,
        language: object["language"].as_str().map(Into::into),
        segments: segments.iter().map(segment).collect(),
        words: words.unwrap_or_default(),
    })
}

fn segment(segment: &Value) -> Segment {
    Segment {
        avg_logprob: number(&segment["avg_logprob"]),
        no_speech_prob: number(&segment["no_speech_prob"]),
    }
}

fn timed_word(word: &Value) -> Option<TimedWord> {
    let text = word["word"].as_str().or(word["text"].as_str())?;
    let confidence = ["probability", "confidence", "score"];
    Some(TimedWord {
        word: text.trim().into(),
        start: word["start"].as_f64()?,
        end: word["end"].as_f64()?,
        confidence: confidence.iter().find_map(|it| number(&word[*it])),
    })
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> Option<f32> {
    value.as_f64().map(|it| it as f32)
}

impl Reply {
    /// The text, or an empty one if the service itself takes the utterance for silence.
    pub(super) fn transcript(&self) -> &str {
        let no_speech = |segment: &Segment| {
            segment.no_speech_prob.is_some_and(|it| it > MIN_NO_SPEECH)
                && segment
                    .avg_logprob
                    .is_some_and(|it| it < MAX_UNLIKELY_LOGPROB)
        };
        match !self.segments.is_empty() && self.segments.iter().all(no_speech) {
            true => "",
            false => self.text.trim(),
        }
    }

    pub(super) fn confidence(&self) -> Option<f32> {
        let logs: Option<Vec<f32>> = self.segments.iter().map(|it| it.avg_logprob).collect();
        let logs = logs.filter(|logs| !logs.is_empty())?;
        let mean = logs.iter().sum::<f32>() / logs.len() as f32;
        Some(mean.exp().clamp(0.0, 1.0))
    }

    /// The language, if the service sends a tag and not an English word.
    pub(super) fn language_tag(&self) -> Option<String> {
        let language = self.language.as_ref()?;
        let primary = language.split('-').next()?;
        matches!(primary.len(), 2 | 3).then(|| language.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::StatusCode;

    use super::*;

    fn parsed(content_type: &str, body: &str) -> Result<Reply, ReplyError> {
        parse(&Response::new(StatusCode::OK, content_type, body))
    }

    #[test]
    fn what_the_service_takes_for_silence_has_no_transcript() {
        let reply = |no_speech: f32| {
            let body = serde_json::json!({
                "text": " Thank you. ",
                "segments": [{ "avg_logprob": -1.2, "no_speech_prob": no_speech }],
            });
            parsed("application/json", &body.to_string()).unwrap()
        };
        assert_eq!(reply(0.9).transcript(), "");
        assert_eq!(reply(0.1).transcript(), "Thank you.");
    }

    #[test]
    fn every_form_of_a_reply_is_parsed() {
        for (content_type, body, text) in [
            (
                "application/json",
                r#"{"text":"good morning"}"#,
                "good morning",
            ),
            (
                "application/json",
                r#"{"text":"good morning","error":null}"#,
                "good morning",
            ),
            ("application/json", "\"good morning\"", "good morning"),
            ("application/json", r#"{"text":""}"#, ""),
            (
                "application/json",
                r#"{"segments":[{"text":" good"},{"text":" morning"}]}"#,
                "good morning",
            ),
            (
                "text/plain; charset=utf-8",
                " good\n morning\n",
                "good morning",
            ),
            ("text/plain", "\u{feff}good morning", "good morning"),
            ("text/plain", "", ""),
            ("", "good morning", "good morning"),
            ("text/plain", "[BLANK_AUDIO]", "[BLANK_AUDIO]"),
            ("text/plain", "42", "42"),
        ] {
            let reply = parsed(content_type, body).unwrap();
            assert_eq!(reply.transcript(), text, "{content_type}: {body}");
        }
    }

    #[test]
    fn an_error_quotes_the_service() {
        for (content_type, body, message) in [
            (
                "application/json",
                r#"{"error":{"message":"out of memory"}}"#,
                "unavailable: out of memory",
            ),
            (
                "application/json",
                r#"{"error":"out of memory","text":""}"#,
                "unavailable: out of memory",
            ),
            (
                "text/plain",
                r#"{"detail":"out of memory"}"#,
                "unavailable: out of memory",
            ),
            (
                "application/json",
                r#"{"task":"x"}"#,
                r#"not a transcript: {"task":"x"}"#,
            ),
            (
                "application/json",
                r#"{"text":"cut"#,
                r#"not a transcript: {"text":"cut"#,
            ),
            ("application/json", "null", "not a transcript: null"),
            ("application/json", "", "empty"),
            ("", "", "empty"),
            ("text/html", "Welcome", "not a transcript: Welcome"),
            (
                "",
                "<!DOCTYPE html><title>Sign in</title>",
                "not a transcript: a web page, \"Sign in\"",
            ),
            (
                "text/vtt",
                "WEBVTT\n\n0:01 --> 0:02\nhello",
                "not a transcript: WEBVTT",
            ),
        ] {
            let error = parsed(content_type, body).unwrap_err().into_error(&[]);
            assert!(error.to_string().contains(message), "{body}: {error}");
            assert!(!error.is_final(), "{body}");
        }
    }

    #[test]
    fn words_come_from_the_segments_all_or_none() {
        let words = |words: &str| {
            let body = format!(r#"{{"text":"a b","words":[],"segments":[{words}]}}"#);
            let words = parsed("application/json", &body).unwrap().words;
            let words = words.into_iter();
            words
                .map(|it| (it.word, it.start, it.end, it.confidence))
                .collect::<Vec<_>>()
        };
        let first = r#"{"words":[{"word":" a","start":0.1,"end":0.2,"probability":0.5}]}"#;
        let second = r#"{"words":[{"text":"b","start":0.3,"end":0.4}]}"#;
        assert_eq!(
            words(&format!("{first},{second}")),
            [
                ("a".into(), 0.1, 0.2, Some(0.5)),
                ("b".into(), 0.3, 0.4, None)
            ]
        );
        let timeless = r#"{"words":[{"word":"b","start":null}]}"#;
        assert_eq!(words(&format!("{first},{timeless}")), []);
    }
}
