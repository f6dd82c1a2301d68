//! `--dtmf`: the keys to press, and when.

use std::{str::FromStr, time::Duration};

/// When keys without a time are pressed, from the start of the call.
const DEFAULT_TIME: Duration = Duration::from_secs(1);
/// The time between keys that are pressed one after the other: [`sidetone_caller::Caller::dtmf`].
const SPACING: Duration = Duration::from_millis(250);
/// The latest time of a key, in seconds: a day.
const MAX_SECONDS: f64 = 86_400.0;

/// The value of `--dtmf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys(Vec<TimedKeys>);

/// Keys that are pressed one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TimedKeys {
    pub(super) keys: String,
    /// When the first of them is pressed, from the start of the call.
    pub(super) at: Duration,
    has_own_time: bool,
}

impl Keys {
    pub(super) fn groups(&self) -> &[TimedKeys] {
        &self.0
    }

    /// When the last key has been pressed, from the start of the call. Zero without keys.
    pub(super) fn duration(&self) -> Duration {
        self.0.iter().map(TimedKeys::end).max().unwrap_or_default()
    }

    /// The first key with a time of its own that a call of this length never comes to.
    pub(super) fn first_after(&self, length: Duration) -> Option<String> {
        let timed = self.0.iter().filter(|group| group.has_own_time);
        let mut late = timed.filter(|group| group.last() >= length);
        late.next()
            .map(|group| format!("{}@{}", group.keys, group.at.as_secs_f64()))
    }
}

impl TimedKeys {
    /// When the last of them is pressed.
    fn last(&self) -> Duration {
        self.end().saturating_sub(SPACING)
    }

    fn end(&self) -> Duration {
        self.at + SPACING * self.keys.len() as u32
    }
}

impl FromStr for Keys {
    type Err = String;

    /// Parses `12#`, `1@0.5,#@6.1`, or a mix of both. Keys without a time are pressed at [`DEFAULT_TIME`], one after the
    /// other.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut untimed = String::new();
        let mut groups = Vec::new();
        if text.is_empty() {
            return Ok(Self::default());
        }
        for part in text.split(',') {
            let (keys, time) = match part.split_once('@') {
                Some((keys, time)) => (keys, Some(time)),
                None => (part, None),
            };
            check_keys(keys)?;
            match time {
                None => untimed.push_str(keys),
                Some(time) => groups.push(TimedKeys {
                    keys: keys.into(),
                    at: parse_time(time)?,
                    has_own_time: true,
                }),
            }
        }
        if !untimed.is_empty() {
            groups.push(TimedKeys {
                keys: untimed,
                at: DEFAULT_TIME,
                has_own_time: false,
            });
        }
        Ok(Self(groups))
    }
}

fn check_keys(keys: &str) -> Result<(), String> {
    if keys.is_empty() {
        return Err("a key is missing: give keys and times like 1@0.5,#@6.1".into());
    }
    let is_key = |key: &char| matches!(key, '0'..='9' | '*' | '#' | 'A'..='D');
    match keys.chars().find(|key| !is_key(key)) {
        Some(wrong) => Err(format!(
            "{wrong:?} is not a DTMF key: use 0-9, *, # and A-D, each with a time in seconds if needed, like 1@0.5,#@6.1"
        )),
        None => Ok(()),
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=MAX_SECONDS).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(format!(
            "{text:?} is not a time: give seconds from the start of the call, from 0 to {MAX_SECONDS}, like 1@0.5,#@6.1"
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(text: &str) -> Vec<(String, u64)> {
        let keys: Keys = text.parse().unwrap();
        let groups = keys.0.into_iter();
        groups
            .map(|group| (group.keys, group.at.as_millis() as u64))
            .collect()
    }

    #[test]
    fn keys_have_the_times_that_are_given() {
        assert_eq!(parsed("12#"), [("12#".into(), 1000)]);
        assert_eq!(
            parsed("1@0.5,#@6.1"),
            [("1".into(), 500), ("#".into(), 6100)]
        );
        assert_eq!(
            parsed("4,12@3,2"),
            [("12".into(), 3000), ("42".into(), 1000)]
        );
        assert_eq!(parsed(""), []);
    }

    #[test]
    fn the_duration_lasts_until_the_last_key_whatever_the_order() {
        let duration = |text: &str| text.parse::<Keys>().unwrap().duration();
        assert_eq!(duration(""), Duration::ZERO);
        assert_eq!(duration("12"), Duration::from_millis(1500));
        assert_eq!(duration("#@6.1,1@0.5"), Duration::from_millis(6350));
    }

    #[test]
    fn a_key_with_a_time_after_the_end_is_found() {
        let late = |text: &str| {
            let keys: Keys = text.parse().unwrap();
            keys.first_after(Duration::from_secs(5))
        };
        assert_eq!(late("1@0.5,#@6.1").as_deref(), Some("#@6.1"));
        assert_eq!(late("1@4.9"), None);
        assert_eq!(late("1111111111111111111111111111"), None);
    }

    #[test]
    fn errors_say_what_to_give() {
        for (text, part) in [
            ("12x", "0-9"),
            ("1@", "1@0.5"),
            ("1@soon", "seconds"),
            ("1@-1", "from 0"),
            ("1@NaN", "from 0"),
            ("1@1e300", "from 0"),
            ("@3", "missing"),
            ("1,,2", "missing"),
            ("1@0.5,", "missing"),
            ("1@2@3", "not a time"),
        ] {
            let error = text.parse::<Keys>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
