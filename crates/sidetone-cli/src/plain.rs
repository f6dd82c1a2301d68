//! Text from outside as it may be printed and written: transcripts, names of files, what services and peers say.

use std::{borrow::Cow, path::PathBuf};

use serde::{Serialize, Serializer};

/// What stands for a letter that is more than that.
const INSTEAD: char = '\u{fffd}';

/// The text without anything that would move a cursor, begin another line or turn the order of the letters round.
/// Whatever prints or writes text from outside gets it from here.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_more) {
        return text.into();
    }
    let letters = text.chars().map(|it| match it {
        it if !is_more(it) => it,
        it if it.is_whitespace() => ' ',
        _ => INSTEAD,
    });
    letters.collect::<String>().into()
}

/// JSON as programs read it back unchanged, in which none of that is left but as an escape.
pub(crate) fn plain_json(json: String) -> String {
    if !json.contains(is_more) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 64);
    for letter in json.chars() {
        match is_more(letter) {
            // Such letters are only in strings. Above 0xFFFF it takes two escapes.
            true => escaped.extend(
                letter
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .map(|it| format!("\\u{it:04x}")),
            ),
            false => escaped.push(letter),
        }
    }
    escaped
}

/// Paths in JSON. The name of a file may be no text, which is shown as far as it goes.
pub(crate) fn paths<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    let paths: Vec<Cow<'_, str>> = paths.iter().map(|it| it.to_string_lossy()).collect();
    paths.serialize(serializer)
}

/// Controls, those of the C1 set and DEL included; separators of lines; what changes the direction of writing;
/// and what no letter is to be seen of at all. Marks that scripts and emoji need stay.
fn is_more(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_more_than_a_letter_is_replaced() {
        for (text, shown) in [
            ("two words", "two words"),
            ("a\x1b[31mb", "a\u{fffd}[31mb"),
            ("a\x7fb\u{9b}c", "a\u{fffd}b\u{fffd}c"),
            ("a\r\nb\tc\u{85}d\u{2028}e", "a  b c d e"),
            ("a\u{202e}b\u{2067}c", "a\u{fffd}b\u{fffd}c"),
            ("\u{feff}a\u{e0041}", "\u{fffd}a\u{fffd}"),
            // Persian and emoji have joiners.
            (
                "می\u{200c}خواهم 👩\u{200d}🚀",
                "می\u{200c}خواهم 👩\u{200d}🚀",
            ),
        ] {
            assert_eq!(plain(text), shown);
        }
    }

    #[test]
    fn json_is_escaped_and_says_the_same() {
        let text = "é\x1b\x7f\u{9b}\u{2028}\u{202e}\u{e0041}\"\\";
        let json = plain_json(serde_json::json!([text]).to_string());
        assert!(!json.contains(is_more), "{json}");
        let back: Result<[String; 1], _> = serde_json::from_str(&json);
        assert_eq!(back.ok(), Some([text.to_owned()]));
    }
}
