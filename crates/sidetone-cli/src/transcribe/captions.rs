//! The line of a call on a terminal, which grows as the words come.

use super::line::{Line, Side};

/// So much of what a side said is kept, in bytes: more than an hour of talking. The rest is in the files.
const KEPT: usize = 128 * 1024;
/// Stands for what is not.
const CUT: &str = "… ";

/// What was said on a call so far, for each side that said something.
#[derive(Debug, Default)]
pub(crate) struct Captions(Vec<Caption>);

#[derive(Debug)]
struct Caption {
    side: Side,
    text: String,
    interim: String,
}

impl Captions {
    pub(crate) fn show(&mut self, line: &Line) {
        let place = self.0.iter().position(|it| it.side == line.side);
        let place = place.unwrap_or_else(|| {
            self.0.push(Caption {
                side: line.side,
                text: String::new(),
                interim: String::new(),
            });
            self.0.len() - 1
        });
        let caption = &mut self.0[place];
        match line.is_final {
            true => {
                caption.interim.clear();
                if !caption.text.is_empty() {
                    caption.text.push(' ');
                }
                caption.text.push_str(&line.text);
                caption.forget();
            }
            false => caption.interim.clone_from(&line.text),
        }
    }

    /// What is sure, of each side that said something.
    pub(crate) fn texts(&self) -> Vec<(Side, String)> {
        let said = self.0.iter().filter(|it| !it.text.is_empty());
        said.map(|it| (it.side, it.text.clone())).collect()
    }

    /// The ends of what was said in so many columns: for each side a label, what is sure and what is not.
    pub(crate) fn lines(&self, columns: usize) -> Vec<Drawn> {
        let lines = self.0.iter().map(|it| it.line(columns));
        lines.collect()
    }
}

/// A line that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drawn {
    pub(crate) sure: String,
    pub(crate) interim: String,
}

impl Caption {
    /// Half of it at a time, so that this is seldom.
    fn forget(&mut self) {
        if self.text.len() <= KEPT {
            return;
        }
        let from = self.text.floor_char_boundary(self.text.len() - KEPT / 2);
        let from = from + self.text[from..].find(' ').map_or(0, |it| it + 1);
        self.text.replace_range(..from, CUT);
    }

    fn line(&self, columns: usize) -> Drawn {
        let label = format!("  {}: ", self.side.name());
        let room = columns.saturating_sub(label.len());
        let interim = tail(&self.interim, room);
        let mut sure = match interim {
            "" => tail(&self.text, room),
            interim => tail(&self.text, room.saturating_sub(width(interim) + 1)),
        }
        .to_owned();
        if !sure.is_empty() && !interim.is_empty() {
            sure.push(' ');
        }
        Drawn {
            sure: label + &sure,
            interim: interim.to_owned(),
        }
    }
}

/// The end of a text, as much as there is room for.
fn tail(text: &str, columns: usize) -> &str {
    let mut left = columns;
    let mut start = text.len();
    for (place, letter) in text.char_indices().rev() {
        let Some(rest) = left.checked_sub(columns_of(letter)) else {
            break;
        };
        (left, start) = (rest, place);
    }
    text[start..].trim_start()
}

fn width(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// From Hangul on, where the scripts with square letters are, two are always enough.
fn columns_of(letter: char) -> usize {
    if letter >= '\u{1100}' { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sidetone_speech::Transcript;
    use uuid::Uuid;

    use super::*;

    fn line(side: Side, text: &str, is_final: bool) -> Line {
        let transcript = Transcript::new(text, is_final, Duration::ZERO, Duration::ZERO);
        Line::new(Uuid::nil(), side, transcript)
    }

    fn drawn(captions: &Captions, columns: usize) -> Vec<(String, String)> {
        let lines = captions.lines(columns).into_iter();
        lines.map(|it| (it.sure, it.interim)).collect()
    }

    fn pair(sure: &str, interim: &str) -> (String, String) {
        (sure.into(), interim.into())
    }

    #[test]
    fn of_a_side_that_never_ends_the_latest_is_kept() {
        let mut captions = Captions::default();
        for number in 0..100_000 {
            captions.show(&line(Side::Caller, &format!("wörd{number}"), true));
            let text = &captions.0[0].text;
            assert!(text.len() <= KEPT && text.ends_with(&number.to_string()));
        }
        let texts = captions.texts();
        assert!(texts[0].1.starts_with("… wörd"), "{}", &texts[0].1[..20]);
        assert!(texts[0].1.len() >= KEPT / 2);
    }

    #[test]
    fn a_line_grows_and_its_interim_words_are_replaced() {
        let mut captions = Captions::default();
        captions.show(&line(Side::Caller, "hell", false));
        assert_eq!(drawn(&captions, 40), [pair("  caller: ", "hell")]);
        captions.show(&line(Side::Caller, "hello", true));
        captions.show(&line(Side::Caller, "wor", false));
        assert_eq!(drawn(&captions, 40), [pair("  caller: hello ", "wor")]);
        captions.show(&line(Side::Heard, "yes", true));
        assert_eq!(drawn(&captions, 40)[1], pair("  heard: yes", ""));
        captions.show(&line(Side::Caller, "world", true));
        assert_eq!(captions.texts()[0], (Side::Caller, "hello world".into()));
    }

    #[test]
    fn no_line_is_longer_than_there_is_room_and_its_end_is_what_is_seen() {
        let mut captions = Captions::default();
        captions.show(&line(Side::Caller, "one two three 四五", true));
        captions.show(&line(Side::Caller, "six seven", false));
        for columns in 10..60 {
            let lines = drawn(&captions, columns);
            let (sure, interim) = &lines[0];
            assert!(
                width(sure) + width(interim) <= columns.max(11),
                "{columns}: {sure}{interim}"
            );
            assert!("six seven".ends_with(interim.as_str()));
        }
        assert_eq!(
            drawn(&captions, 25)[0],
            pair("  caller: 四五 ", "six seven")
        );
    }
}
