//! The words of a call below it on a terminal, which grow as they come.

/// The most text that is kept of each speaker, in bytes: more than an hour of speech. Files have all of it.
const MAX_TEXT: usize = 128 * 1024;
/// Stands for the text that was dropped.
const ELLIPSIS: &str = "… ";

/// What was said on a call so far, by each speaker.
#[derive(Debug, Default)]
pub(crate) struct Captions(Vec<Caption>);

#[derive(Debug)]
struct Caption {
    speaker: &'static str,
    text: String,
    interim: String,
}

impl Captions {
    /// Adds final text, or replaces the speaker's interim text.
    pub(crate) fn add(&mut self, speaker: &'static str, text: &str, is_final: bool) {
        let place = self.0.iter().position(|it| it.speaker == speaker);
        let place = place.unwrap_or_else(|| {
            self.0.push(Caption {
                speaker,
                text: String::new(),
                interim: String::new(),
            });
            self.0.len() - 1
        });
        let caption = &mut self.0[place];
        match is_final {
            true => {
                caption.interim.clear();
                if !caption.text.is_empty() {
                    caption.text.push(' ');
                }
                caption.text.push_str(text);
                caption.truncate();
            }
            false => text.clone_into(&mut caption.interim),
        }
    }

    /// The final text of each speaker who said something.
    pub(crate) fn texts(&self) -> Vec<(&'static str, String)> {
        let spoken = self.0.iter().filter(|it| !it.text.is_empty());
        spoken.map(|it| (it.speaker, it.text.clone())).collect()
    }

    /// For each speaker a line with a label and the end of the text, `columns` wide at most.
    pub(crate) fn lines(&self, columns: usize) -> Vec<CaptionLine> {
        self.0.iter().map(|it| it.line(columns)).collect()
    }
}

/// A line of text that fits the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CaptionLine {
    /// The label and the final words.
    pub(crate) text: String,
    /// Words that may still change.
    pub(crate) interim: String,
}

impl Caption {
    /// Drops the older half of a text that is too long, so that this happens seldom.
    fn truncate(&mut self) {
        if self.text.len() <= MAX_TEXT {
            return;
        }
        let start = self
            .text
            .floor_char_boundary(self.text.len() - MAX_TEXT / 2);
        let start = start + self.text[start..].find(' ').map_or(0, |it| it + 1);
        self.text.replace_range(..start, ELLIPSIS);
    }

    fn line(&self, columns: usize) -> CaptionLine {
        let label = format!("  {}: ", self.speaker);
        let columns = columns.saturating_sub(label.len());
        let interim = tail(&self.interim, columns);
        let mut text = match interim {
            "" => tail(&self.text, columns),
            interim => tail(&self.text, columns.saturating_sub(width(interim) + 1)),
        }
        .to_owned();
        if !text.is_empty() && !interim.is_empty() {
            text.push(' ');
        }
        CaptionLine {
            text: label + &text,
            interim: interim.to_owned(),
        }
    }
}

/// The end of a text, as much as fits.
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

/// Two from Hangul on, where the scripts with wide letters begin. That is never too few.
fn columns_of(letter: char) -> usize {
    if letter >= '\u{1100}' { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(captions: &Captions, columns: usize) -> Vec<(String, String)> {
        let lines = captions.lines(columns).into_iter();
        lines.map(|it| (it.text, it.interim)).collect()
    }

    fn pair(text: &str, interim: &str) -> (String, String) {
        (text.into(), interim.into())
    }

    #[test]
    fn the_end_of_a_very_long_text_is_kept() {
        let mut captions = Captions::default();
        for number in 0..100_000 {
            captions.add("caller", &format!("wörd{number}"), true);
            let text = &captions.0[0].text;
            assert!(text.len() <= MAX_TEXT && text.ends_with(&number.to_string()));
        }
        let texts = captions.texts();
        assert!(texts[0].1.starts_with("… wörd"), "{}", &texts[0].1[..20]);
        assert!(texts[0].1.len() >= MAX_TEXT / 2);
    }

    #[test]
    fn a_line_grows_and_its_interim_words_are_replaced() {
        let mut captions = Captions::default();
        captions.add("caller", "hell", false);
        assert_eq!(lines(&captions, 40), [pair("  caller: ", "hell")]);
        captions.add("caller", "hello", true);
        captions.add("caller", "wor", false);
        assert_eq!(lines(&captions, 40), [pair("  caller: hello ", "wor")]);
        captions.add("heard", "yes", true);
        assert_eq!(lines(&captions, 40)[1], pair("  heard: yes", ""));
        captions.add("caller", "world", true);
        assert_eq!(captions.texts()[0], ("caller", "hello world".into()));
    }

    #[test]
    fn a_line_fits_the_terminal_and_shows_the_end_of_the_text() {
        let mut captions = Captions::default();
        captions.add("caller", "one two three 四五", true);
        captions.add("caller", "six seven", false);
        for columns in 10..60 {
            let lines = lines(&captions, columns);
            let (text, interim) = &lines[0];
            assert!(
                width(text) + width(interim) <= columns.max(11),
                "{columns}: {text}{interim}"
            );
            assert!("six seven".ends_with(interim.as_str()));
        }
        assert_eq!(
            lines(&captions, 25)[0],
            pair("  caller: 四五 ", "six seven")
        );
    }
}
