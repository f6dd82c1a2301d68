//! How calls, durations and files look in text for people.

use std::{path::PathBuf, time::Duration};

use uuid::Uuid;

/// The first part of a UUID: enough to tell calls apart.
pub(crate) fn short_id(id: Uuid) -> String {
    let mut text = id.to_string();
    text.truncate(8);
    text
}

/// `0:05`, `12:34`, `1:02:03`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// [`duration`] of milliseconds.
pub(crate) fn duration_ms(milliseconds: u64) -> String {
    duration(Duration::from_millis(milliseconds))
}

/// The files' names without their directory, which the user gave.
pub(crate) fn file_names(files: &[PathBuf]) -> String {
    let names = files.iter().filter_map(|file| file.file_name());
    let names: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
    names.join(", ")
}

/// `1 word`, `2 words`.
pub(crate) fn count(count: u64, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {many}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_hours_only_when_there_are_some() {
        assert_eq!(duration(Duration::from_millis(5_900)), "0:05");
        assert_eq!(duration(Duration::from_secs(754)), "12:34");
        assert_eq!(duration(Duration::from_secs(3723)), "1:02:03");
    }
}
