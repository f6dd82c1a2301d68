//! The formats of transcript files.

use std::time::Duration;

use uuid::Uuid;

use super::{
    events::TranscribeEvent,
    options::Format,
    transcript::{CallTranscript, Side},
};
use crate::{
    event::json_line,
    format::{duration, duration_ms},
};

/// Formats the transcripts of one file.
#[derive(Debug)]
pub(crate) struct Formatter {
    format: Format,
    /// Whether each line names the side.
    labelled: bool,
    /// The number of cues so far.
    cues: u64,
}

impl Formatter {
    pub(crate) fn new(format: Format, labelled: bool) -> Self {
        Self {
            format,
            labelled,
            cues: 0,
        }
    }

    pub(crate) fn extension(&self) -> &'static str {
        match self.format {
            Format::Json => "jsonl",
            Format::Text => "txt",
            Format::Vtt => "vtt",
            Format::Srt => "srt",
        }
    }

    /// The start of a file.
    pub(crate) fn head(&self) -> &'static str {
        match self.format {
            Format::Vtt => "WEBVTT\n\n",
            Format::Json | Format::Text | Format::Srt => "",
        }
    }

    /// A final transcript.
    pub(crate) fn transcript(&mut self, transcript: &CallTranscript) -> String {
        self.cues += 1;
        let (start, text) = (transcript.start(), &transcript.text);
        let label = self.label(transcript.side);
        // Players skip a cue without length.
        let end = transcript.end().max(start + Duration::from_millis(1));
        match self.format {
            Format::Json => json_line(&TranscribeEvent::Transcript(transcript.clone())) + "\n",
            Format::Text => format!("[{}] {label}{text}\n", duration(start)),
            Format::Vtt => {
                let text = escaped(text);
                let voice = match self.labelled {
                    true => format!("<v {}>{text}", transcript.side.name()),
                    false => text,
                };
                format!("{} --> {}\n{voice}\n\n", stamp(start, '.'), stamp(end, '.'))
            }
            Format::Srt => format!(
                "{}\n{} --> {}\n{label}{}\n\n",
                self.cues,
                stamp(start, ','),
                stamp(end, ','),
                without_markup(text)
            ),
        }
    }

    /// A part of the call that is not transcribed. SubRip has no comments, so there it is left out.
    pub(crate) fn not_transcribed(&self, id: Uuid, side: Side, from_ms: u64, to_ms: u64) -> String {
        let (label, from, to) = (self.label(side), duration_ms(from_ms), duration_ms(to_ms));
        match self.format {
            Format::Json => {
                let event = TranscribeEvent::NotTranscribed {
                    id,
                    side,
                    from_ms,
                    to_ms,
                };
                json_line(&event) + "\n"
            }
            Format::Text => format!("[{from}] {label}(not transcribed up to {to})\n"),
            Format::Vtt => format!("NOTE {label}not transcribed from {from} to {to}\n\n"),
            Format::Srt => String::new(),
        }
    }

    fn label(&self, side: Side) -> String {
        match self.labelled {
            true => format!("{}: ", side.name()),
            false => String::new(),
        }
    }
}

/// `00:01:02.345`
fn stamp(time: Duration, point: char) -> String {
    let (seconds, milliseconds) = (time.as_secs(), time.subsec_millis());
    format!(
        "{:02}:{:02}:{:02}{point}{milliseconds:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// In WebVTT `<` starts markup, and `-->` the next cue.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// SubRip has no escapes. Players read `<` and `{` as markup, and a line with times and `-->` as the next cue.
fn without_markup(text: &str) -> String {
    text.replace('<', "‹")
        .replace('>', "›")
        .replace('{', "(")
        .replace('}', ")")
}

#[cfg(test)]
mod tests {
    use sidetone_speech::Transcript;
    use uuid::Uuid;

    use super::*;

    fn transcript(side: Side, text: &str) -> CallTranscript {
        let (start, end) = (
            Duration::from_millis(61_005),
            Duration::from_millis(3_723_456),
        );
        CallTranscript::new(Uuid::nil(), side, Transcript::new(text, true, start, end))
    }

    fn written(format: Format, labelled: bool, text: &str) -> String {
        let mut formatter = Formatter::new(format, labelled);
        let mut all = formatter.head().to_owned();
        all += &formatter.transcript(&transcript(Side::Caller, text));
        all + &formatter.transcript(&transcript(Side::Heard, "yes"))
    }

    #[test]
    fn text_has_a_line_for_each_transcript() {
        assert_eq!(
            written(Format::Text, false, "hello"),
            "[1:01] hello\n[1:01] yes\n"
        );
        assert_eq!(
            written(Format::Text, true, "hello"),
            "[1:01] caller: hello\n[1:01] heard: yes\n"
        );
    }

    #[test]
    fn subtitles_have_cues() {
        let cue = "01:02:03";
        assert_eq!(
            written(Format::Srt, true, "hello"),
            format!(
                "1\n00:01:01,005 --> {cue},456\ncaller: hello\n\n2\n00:01:01,005 --> {cue},456\nheard: yes\n\n"
            )
        );
        assert_eq!(
            written(Format::Vtt, true, "a <b> --> c"),
            format!(
                "WEBVTT\n\n00:01:01.005 --> {cue}.456\n<v caller>a &lt;b&gt; --&gt; c\n\n00:01:01.005 --> {cue}.456\n<v heard>yes\n\n"
            )
        );
    }

    #[test]
    fn every_cue_has_a_length() {
        let at = Duration::from_secs(1);
        let transcript = CallTranscript::new(
            Uuid::nil(),
            Side::Caller,
            Transcript::new("I", true, at, at),
        );
        let cue = Formatter::new(Format::Vtt, false).transcript(&transcript);
        assert_eq!(cue, "00:00:01.000 --> 00:00:01.001\nI\n\n");
    }

    #[test]
    fn text_that_looks_like_a_cue_stays_one_line() {
        let transcript = transcript(
            Side::Caller,
            "one\n\n2\n00:00:00,000 --> \x1b[31m two\u{2028}",
        );
        assert_eq!(transcript.text, "one 2 00:00:00,000 --> \u{fffd}[31m two");
        let cue = Formatter::new(Format::Srt, false).transcript(&transcript);
        assert_eq!(cue.matches("-->").count(), 1, "{cue}");
    }

    #[test]
    fn text_that_is_a_cue_makes_no_cue_in_any_format() {
        let text = "00:00:09,000 --> 00:00:10,000 <i>{\\an8}forged";
        for labelled in [false, true] {
            let srt = written(Format::Srt, labelled, text);
            assert_eq!(srt.matches("-->").count(), 2, "{srt}");
            assert!(!srt.contains(['<', '{']), "{srt}");
            let vtt = written(Format::Vtt, false, text);
            assert_eq!(vtt.matches("-->").count(), 2, "{vtt}");
            assert!(!vtt.contains("<i"), "{vtt}");
        }
    }

    #[test]
    fn missing_parts_are_noted_where_the_format_has_comments() {
        let missing = |format| {
            let formatter = Formatter::new(format, true);
            formatter.not_transcribed(Uuid::nil(), Side::Caller, 5_000, 70_000)
        };
        assert_eq!(
            missing(Format::Text),
            "[0:05] caller: (not transcribed up to 1:10)\n"
        );
        assert_eq!(
            missing(Format::Vtt),
            "NOTE caller: not transcribed from 0:05 to 1:10\n\n"
        );
        assert_eq!(missing(Format::Srt), "");
        assert!(missing(Format::Json).ends_with("}\n"));
    }
}
