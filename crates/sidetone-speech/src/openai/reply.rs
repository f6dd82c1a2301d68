//! What an answer says. Only the text is sure to be there, and not every server writes it in the same form.

use serde_json::Value;

use super::{
    NAME,
    request::{Answer, unavailable},
};
use crate::{SpeechError, words};

/// Above this and below that, Whisper's own programs take a segment for no speech at all.
const NO_SPEECH: f32 = 0.6;
const UNLIKELY: f32 = -1.0;

/// What was said in one utterance.
#[derive(Debug, Default)]
pub(super) struct Reply {
    text: String,
    language: Option<String>,
    segments: Vec<Segment>,
    /// All of them, with their times, or none.
    pub(super) words: Vec<TimedWord>,
}

#[derive(Debug)]
struct Segment {
    avg_logprob: Option<f32>,
    no_speech_prob: Option<f32>,
}

/// A word with its time in seconds from the beginning of the utterance.
#[derive(Debug)]
pub(super) struct TimedWord {
    pub(super) word: String,
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) confidence: Option<f32>,
}

/// Why an answer that claims to be one says nothing.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// The service says what is wrong.
    Said(String),
    /// It is no transcript.
    Other(String),
}

impl Fault {
    pub(super) fn told(self, secrets: &[&str]) -> SpeechError {
        match self {
            Self::Said(text) => unavailable(words::line(&text, secrets)),
            Self::Other(text) => SpeechError::Broken {
                service: NAME,
                reason: match words::of(text.as_bytes(), secrets) {
                    said if said.is_empty() => "its answer is empty".into(),
                    said => format!("its answer is no transcript: {said}"),
                },
            },
        }
    }
}

/// Reads the answer to a request that went well.
pub(super) fn read(answer: &Answer) -> Result<Reply, Fault> {
    let text = String::from_utf8_lossy(&answer.body);
    let text = text.trim_start_matches('\u{feff}').trim();
    let other = || Fault::Other(text.into());
    match serde_json::from_str(text) {
        Ok(Value::Object(answer)) => of_object(&Value::Object(answer)),
        Ok(Value::String(text)) => Ok(plain(&text)),
        _ if !is_plain(text, &answer.content_type) => Err(other()),
        _ => Ok(plain(text)),
    }
}

/// Some servers have no other form than the text itself.
fn is_plain(text: &str, content_type: &str) -> bool {
    let plain_type = content_type.starts_with("text/plain");
    let other_type = content_type.contains("json") || content_type.contains("html");
    let other_form = text.starts_with(['{', '<']) || text.contains("-->");
    !other_type && !other_form && (plain_type || !text.is_empty())
}

fn plain(text: &str) -> Reply {
    Reply {
        text: text.split_whitespace().collect::<Vec<_>>().join(" "),
        ..Reply::default()
    }
}

fn of_object(answer: &Value) -> Result<Reply, Fault> {
    let segments = list(answer, "segments");
    let text = match answer["text"].as_str() {
        Some(text) => Some(text.to_owned()),
        // Each begins with the space before it.
        None => segments.iter().map(|it| it["text"].as_str()).collect(),
    };
    let says_trouble = !answer["error"].is_null() && answer["error"] != false;
    let text = match text.filter(|it| answer["text"].is_string() || !it.is_empty()) {
        Some(text) if !(says_trouble && text.trim().is_empty()) => text,
        _ => {
            return Err(match words::message(answer) {
                Some(message) => Fault::Said(message.into()),
                None => Fault::Other(answer.to_string()),
            });
        }
    };
    // The words of the whole, or of its parts.
    let words = match list(answer, "words") {
        [] => segments.iter().flat_map(|it| list(it, "words")).collect(),
        words => words.iter().collect::<Vec<_>>(),
    };
    // Where one lacks its times, those of the others would look like all.
    let words: Option<Vec<TimedWord>> = words.into_iter().map(timed_word).collect();
    Ok(Reply {
        text,
        language: answer["language"].as_str().map(Into::into),
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
    /// What was said, which is nothing if the service itself does not believe it.
    pub(super) fn said(&self) -> &str {
        let no_speech = |segment: &Segment| {
            segment.no_speech_prob.is_some_and(|it| it > NO_SPEECH)
                && segment.avg_logprob.is_some_and(|it| it < UNLIKELY)
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

    /// The language, from services that tell it as a tag and not as an English word.
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

    fn answer(content_type: &str, body: &str) -> Result<Reply, Fault> {
        read(&Answer::new(StatusCode::OK, content_type, body))
    }

    #[test]
    fn what_the_service_does_not_believe_was_not_said() {
        let reply = |no_speech: f32| {
            let body = serde_json::json!({
                "text": " Thank you. ",
                "segments": [{ "avg_logprob": -1.2, "no_speech_prob": no_speech }],
            });
            answer("application/json", &body.to_string()).unwrap()
        };
        assert_eq!(reply(0.9).said(), "");
        assert_eq!(reply(0.1).said(), "Thank you.");
    }

    #[test]
    fn every_form_of_a_transcript_is_read() {
        for (content_type, body, said) in [
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
            let reply = answer(content_type, body).unwrap();
            assert_eq!(reply.said(), said, "{content_type}: {body}");
        }
    }

    #[test]
    fn what_is_no_transcript_is_told_in_the_words_of_the_service() {
        for (content_type, body, told) in [
            (
                "application/json",
                r#"{"error":{"message":"out of memory"}}"#,
                "had: out of memory",
            ),
            (
                "application/json",
                r#"{"error":"out of memory","text":""}"#,
                "had: out of memory",
            ),
            (
                "text/plain",
                r#"{"detail":"out of memory"}"#,
                "had: out of memory",
            ),
            (
                "application/json",
                r#"{"task":"x"}"#,
                r#"no transcript: {"task":"x"}"#,
            ),
            (
                "application/json",
                r#"{"text":"cut"#,
                r#"no transcript: {"text":"cut"#,
            ),
            ("application/json", "null", "no transcript: null"),
            ("application/json", "", "empty"),
            ("", "", "empty"),
            ("text/html", "Welcome", "no transcript: Welcome"),
            (
                "",
                "<!DOCTYPE html><title>Sign in</title>",
                "no transcript: a web page, \"Sign in\"",
            ),
            (
                "text/vtt",
                "WEBVTT\n\n0:01 --> 0:02\nhello",
                "no transcript: WEBVTT",
            ),
        ] {
            let error = answer(content_type, body).unwrap_err().told(&[]);
            assert!(error.to_string().contains(told), "{body}: {error}");
            assert!(!error.is_final(), "{body}");
        }
    }

    #[test]
    fn words_are_found_in_the_segments_and_are_all_or_none() {
        let words = |words: &str| {
            let body = format!(r#"{{"text":"a b","words":[],"segments":[{words}]}}"#);
            let words = answer("application/json", &body).unwrap().words;
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
