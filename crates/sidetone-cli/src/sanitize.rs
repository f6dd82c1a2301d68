//! Text from outside, made safe to print and to write: transcripts, names of files, messages of services and peers.

use std::{borrow::Cow, path::PathBuf};

use serde::{Serialize, Serializer};

/// Replaces a character that is removed.
const REPLACEMENT: char = '\u{fffd}';

/// The text without characters that move the cursor, start another line or change the direction of writing.
///
/// All text from outside passes through it before it is printed or written.
pub(crate) fn sanitize(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return text.into();
    }
    let letters = text.chars().map(|it| match it {
        it if !is_unsafe(it) => it,
        it if it.is_whitespace() => ' ',
        _ => REPLACEMENT,
    });
    letters.collect::<String>().into()
}

/// The same JSON with such characters as escapes. Programs read it back unchanged.
pub(crate) fn sanitize_json(json: String) -> String {
    if !json.contains(is_unsafe) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 64);
    for letter in json.chars() {
        match is_unsafe(letter) {
            // In JSON they can only be in strings. Those above 0xFFFF take two escapes.
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

/// Serializes paths as strings. Parts of a name that are not valid text are replaced.
pub(crate) fn serialize_paths<S: Serializer>(
    paths: &[PathBuf],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let paths: Vec<Cow<'_, str>> = paths.iter().map(|it| it.to_string_lossy()).collect();
    paths.serialize(serializer)
}

/// Control characters with DEL and the C1 set, separators of lines, changes of direction, and invisible characters.
/// Joiners that scripts and emoji need are safe.
fn is_unsafe(letter: char) -> bool {
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
    fn unsafe_characters_are_replaced() {
        for (text, shown) in [
            ("two words", "two words"),
            ("a\x1b[31mb", "a\u{fffd}[31mb"),
            ("a\x7fb\u{9b}c", "a\u{fffd}b\u{fffd}c"),
            ("a\r\nb\tc\u{85}d\u{2028}e", "a  b c d e"),
            ("a\u{202e}b\u{2067}c", "a\u{fffd}b\u{fffd}c"),
            ("\u{feff}a\u{e0041}", "\u{fffd}a\u{fffd}"),
            // Persian and emoji need joiners.
            (
                "می\u{200c}خواهم 👩\u{200d}🚀",
                "می\u{200c}خواهم 👩\u{200d}🚀",
            ),
        ] {
            assert_eq!(sanitize(text), shown);
        }
    }

    #[test]
    fn escaped_json_reads_back_unchanged() {
        let text = "é\x1b\x7f\u{9b}\u{2028}\u{202e}\u{e0041}\"\\";
        let json = sanitize_json(serde_json::json!([text]).to_string());
        assert!(!json.contains(is_unsafe), "{json}");
        let back: Result<[String; 1], _> = serde_json::from_str(&json);
        assert_eq!(back.ok(), Some([text.to_owned()]));
    }
}
