//! What a transcript looks like in each of the files.

use std::time::Duration;

use super::{
    line::{Line, Side},
    options::Format,
};
use crate::{
    events::{Event, json_line},
    prose::clock,
};

/// Writes the lines of one file.
#[derive(Debug)]
pub(crate) struct Writer {
    format: Format,
    /// Whether a line says who it was.
    labelled: bool,
    /// Cues so far.
    cues: u64,
}

impl Writer {
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

    /// What a file begins with.
    pub(crate) fn head(&self) -> &'static str {
        match self.format {
            Format::Vtt => "WEBVTT\n\n",
            Format::Json | Format::Text | Format::Srt => "",
        }
    }

    /// What is added for a final transcript.
    pub(crate) fn transcript(&mut self, line: &Line) -> String {
        self.cues += 1;
        let (start, text) = (line.start(), &line.text);
        // A cue without length is none.
        let end = line.end().max(start + Duration::from_millis(1));
        match self.format {
            Format::Json => json_line(&Event::Transcript(line.clone())) + "\n",
            Format::Text => format!("[{}] {}{text}\n", clock(start), self.label(line.side)),
            Format::Vtt => {
                let text = escaped(text);
                let voice = match self.labelled {
                    true => format!("<v {}>{text}", line.side.name()),
                    false => text,
                };
                format!("{} --> {}\n{voice}\n\n", stamp(start, '.'), stamp(end, '.'))
            }
            Format::Srt => format!(
                "{}\n{} --> {}\n{}{}\n\n",
                self.cues,
                stamp(start, ','),
                stamp(end, ','),
                self.label(line.side),
                without_markup(text)
            ),
        }
    }

    /// What is added for a part of the call that is missing; SubRip has nothing for that.
    pub(crate) fn lost(&self, event: &Event, side: Side, from: Duration, to: Duration) -> String {
        let (label, from, to) = (self.label(side), clock(from), clock(to));
        match self.format {
            Format::Json => json_line(event) + "\n",
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

/// WebVTT takes `<` for markup, and `-->` for the next cue.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// SubRip has no escapes. Players take `<` and `{` for markup, and a line with times and `-->` for the next cue.
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

    fn line(side: Side, text: &str) -> Line {
        let (start, end) = (
            Duration::from_millis(61_005),
            Duration::from_millis(3_723_456),
        );
        Line::new(Uuid::nil(), side, Transcript::new(text, true, start, end))
    }

    fn written(format: Format, labelled: bool, text: &str) -> String {
        let mut writer = Writer::new(format, labelled);
        let mut all = writer.head().to_owned();
        all += &writer.transcript(&line(Side::Caller, text));
        all + &writer.transcript(&line(Side::Heard, "yes"))
    }

    #[test]
    fn text_has_a_line_for_each() {
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
        let line = Line::new(
            Uuid::nil(),
            Side::Caller,
            Transcript::new("I", true, at, at),
        );
        let cue = Writer::new(Format::Vtt, false).transcript(&line);
        assert_eq!(cue, "00:00:01.000 --> 00:00:01.001\nI\n\n");
    }

    #[test]
    fn text_that_is_made_to_look_like_something_else_stays_one_line() {
        let line = line(
            Side::Caller,
            "one\n\n2\n00:00:00,000 --> \x1b[31m two\u{2028}",
        );
        assert_eq!(line.text, "one 2 00:00:00,000 --> \u{fffd}[31m two");
        let cue = Writer::new(Format::Srt, false).transcript(&line);
        assert_eq!(cue.matches("-->").count(), 1, "{cue}");
    }

    #[test]
    fn a_text_of_nothing_but_a_cue_is_no_cue_in_any_format() {
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
    fn what_is_missing_is_said_where_that_can_be_said() {
        let (from, to) = (Duration::from_secs(5), Duration::from_secs(70));
        let event = Event::Stopped;
        let lost = |format| Writer::new(format, true).lost(&event, Side::Caller, from, to);
        assert_eq!(
            lost(Format::Text),
            "[0:05] caller: (not transcribed up to 1:10)\n"
        );
        assert_eq!(
            lost(Format::Vtt),
            "NOTE caller: not transcribed from 0:05 to 1:10\n\n"
        );
        assert_eq!(lost(Format::Srt), "");
        assert!(lost(Format::Json).ends_with("}\n"));
    }
}
