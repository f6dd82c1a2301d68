//! What the dialplan does when a call has ended: its result.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::config::Route;

/// A result, in the words that the dialplan gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Action {
    /// `continue`: the next priority.
    Continue,
    /// `hangup`.
    Hangup,
    /// `dial,EXTENSION`.
    Dial(Word),
    /// `set,WORD`: the dialplan decides by the word.
    Set(Word),
}

/// Letters, digits, `+*#_-`, 1 to 64 of them: nothing that means something to a dialplan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word(String);

const LONGEST_WORD: usize = 64;

impl Action {
    /// Whether calls of this route may end with it.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(crate) fn check(&self, route: &Route) -> Result<(), String> {
        match self {
            Self::Dial(extension) if !route.dial.iter().any(|it| it.matches(&extension.0)) => {
                Err(format!(
                    "the route {} does not allow to dial {}: name it in the route's `dial`",
                    route.name, extension.0
                ))
            }
            _ => Ok(()),
        }
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(',') {
            None if text == "continue" => Ok(Self::Continue),
            None if text == "hangup" => Ok(Self::Hangup),
            Some(("dial", extension)) => extension.parse().map(Self::Dial),
            Some(("set", word)) => word.parse().map(Self::Set),
            _ => Err(format!(
                "{text:?} is no result: write continue, hangup, dial,EXTENSION or set,WORD"
            )),
        }
    }
}

impl TryFrom<String> for Action {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Action> for String {
    fn from(action: Action) -> Self {
        action.to_string()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Continue => f.write_str("continue"),
            Self::Hangup => f.write_str("hangup"),
            Self::Dial(extension) => write!(f, "dial,{}", extension.0),
            Self::Set(word) => write!(f, "set,{}", word.0),
        }
    }
}

impl FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_allowed = |it: u8| it.is_ascii_alphanumeric() || b"+*#_-".contains(&it);
        match (1..=LONGEST_WORD).contains(&text.len()) && text.bytes().all(is_allowed) {
            true => Ok(Self(text.into())),
            false => Err(format!(
                "{text:?} can't go to a dialplan: use 1 to {LONGEST_WORD} letters, digits and +*#_-"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_result_is_read_as_it_is_written() {
        for text in ["continue", "hangup", "dial,+49*1#", "set,SOLD_out-2"] {
            assert_eq!(text.parse::<Action>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nothing_with_a_meaning_to_a_dialplan_is_a_result() {
        let long = format!("set,{}", "a".repeat(65));
        for text in [
            "", "Continue", "dial", "dial,", "set,", "dial,1,2", "set,${X}", "set,a b", "set,a\n",
            "set,é", "dial,1&2", "hangup,1", &long,
        ] {
            assert!(text.parse::<Action>().is_err(), "{text:?}");
        }
    }
}
