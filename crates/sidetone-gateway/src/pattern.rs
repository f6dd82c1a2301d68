//! Which extensions a result may dial, in the patterns of Asterisk's dialplan.

use std::str::FromStr;

/// An extension, or a pattern of extensions that starts with `_`: `X` is 0 to 9, `Z` 1 to 9, `N` 2 to 9, `[13-5]` one of
/// these, `.` one or more of anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Element>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Element {
    One(Vec<char>),
    Rest,
}

impl Pattern {
    pub(crate) fn matches(&self, extension: &str) -> bool {
        let mut rest = extension.chars();
        for element in &self.0 {
            match (element, rest.next()) {
                (Element::Rest, next) => return next.is_some(),
                (Element::One(all), Some(next)) if all.contains(&next) => {}
                _ => return false,
            }
        }
        rest.next().is_none()
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{text:?} is no pattern of extensions: {what}");
        let Some(pattern) = text.strip_prefix('_') else {
            let elements: Vec<_> = text.chars().map(|it| Element::One(vec![it])).collect();
            if is_meant_as_pattern(text) {
                return Err(wrong(&format!("did you mean the pattern _{text}?")));
            }
            return match elements.is_empty() || !text.chars().all(is_dialable) {
                true => Err(wrong("write an extension like 200, or a pattern like _2XX")),
                false => Ok(Self(elements)),
            };
        };
        let (mut elements, mut rest) = (Vec::new(), pattern.chars());
        while let Some(next) = rest.next() {
            elements.push(match next {
                'X' | 'x' => Element::One(('0'..='9').collect()),
                'Z' | 'z' => Element::One(('1'..='9').collect()),
                'N' | 'n' => Element::One(('2'..='9').collect()),
                '[' => {
                    let set: String = rest.by_ref().take_while(|it| *it != ']').collect();
                    Element::One(members(&set).ok_or_else(|| wrong("write a set like [13-5]"))?)
                }
                '.' if rest.as_str().is_empty() => Element::Rest,
                '.' => return Err(wrong("a dot is its last character")),
                '-' => continue,
                other if is_dialable(other) => Element::One(vec![other]),
                _ => {
                    return Err(wrong(
                        "use digits, X, Z, N, sets like [13-5], and a dot at the end",
                    ));
                }
            });
        }
        match elements.first() {
            None | Some(Element::Rest) => Err(wrong(
                "it matches everything, which is how toll fraud begins: start it with a digit",
            )),
            Some(Element::One(_)) => Ok(Self(elements)),
        }
    }
}

/// Whether an extension would be literal, and looks as if it were not to be.
fn is_meant_as_pattern(text: &str) -> bool {
    let has_sign = text.contains(['X', 'Z', 'N', '[']);
    has_sign
        && text
            .chars()
            .all(|it| it.is_ascii_digit() || "XZN[-].+*#".contains(it))
}

fn is_dialable(it: char) -> bool {
    it.is_ascii_alphanumeric() || matches!(it, '+' | '*' | '#' | '_')
}

/// The characters of a set like `13-5`.
fn members(set: &str) -> Option<Vec<char>> {
    let mut members = Vec::new();
    let mut rest = set.chars().peekable();
    while let Some(first) = rest.next() {
        let is_range = rest.next_if_eq(&'-').is_some();
        let last = if is_range { rest.next()? } else { first };
        members.extend(first..=last);
    }
    (!members.is_empty() && members.iter().copied().all(is_dialable)).then_some(members)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn matches(pattern: &str, extension: &str) -> bool {
        pattern.parse::<Pattern>().unwrap().matches(extension)
    }

    #[test]
    fn a_pattern_matches_as_in_the_dialplan() {
        assert!(matches("200", "200") && !matches("200", "2001") && !matches("200", "20"));
        assert!(matches("_2XX", "299") && !matches("_2XX", "2999") && !matches("_2XX", "2a9"));
        assert!(matches("_NZ[13-5]", "214") && !matches("_NZ[13-5]", "114"));
        assert!(!matches("_NZ[13-5]", "204") && !matches("_NZ[13-5]", "212"));
        assert!(matches("_00.", "0049") && !matches("_00.", "00"));
    }

    #[test]
    fn what_would_let_everything_through_is_refused() {
        for wrong in [
            "", "_", "_.", "_.1", "_[", "_[]1", "2 0", "_2,0", "_[9-1]", "1XXX",
        ] {
            assert!(wrong.parse::<Pattern>().is_err(), "{wrong}");
        }
        assert!(matches("SALES", "SALES"));
    }
}
