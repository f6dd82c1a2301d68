//! One word for one thing: words that were replaced don't come back, neither in identifiers nor in documents nor in messages.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each replaced word with the one that is used instead. Words are whole, in any case; identifiers are taken apart at
/// underscores and humps.
const REPLACED: &[(&str, &str)] = &[
    ("bell", "waker"),
    ("board", "dashboard"),
    ("cadence", "clock recovery, arrival times"),
    ("conclude", "poll_close"),
    ("cushion", "prebuffer"),
    ("deed", "what it is"),
    ("desk", "context"),
    ("door", "listener"),
    ("ear", "receiver"),
    ("farewell", "write_hangup"),
    ("grid", "schedule"),
    ("hole", "gap"),
    ("holes", "gaps"),
    ("house", "project"),
    ("mouth", "frame writer"),
    ("obey", "apply_commands"),
    ("outbox", "command queue"),
    ("recogniser", "recognizer"),
    ("recognisers", "recognizers"),
    ("rush", "burst"),
    ("scribe", "transcriber"),
    ("seat", "registration"),
    ("straggler", "late frame"),
    ("stragglers", "late frames"),
    ("whoever", "who it is, by name"),
    ("tally", "counts"),
    ("tape", "replay buffer"),
    ("teller", "reporter"),
    ("trouble", "error"),
    ("untold", "unreported"),
];

/// The same for words in a row, in prose and in identifiers.
const REPLACED_PHRASES: &[(&str, &str)] = &[
    ("turned away", "rejected"),
    ("turns away", "rejects"),
    ("turn away", "reject"),
    ("a turn", "an iteration"),
    ("each turn", "each iteration"),
    ("one turn", "one iteration"),
    ("take orders", "handle_commands"),
    ("take turns", "iterate"),
    ("end loose", "what it does"),
    ("ring the bell", "wake"),
    ("first project", "nothing: the project speaks of itself"),
];

/// What the field itself calls so.
const OF_THE_FIELD: &[&str] = &["turn detection", "end of turn"];

#[test]
fn replaced_words_do_not_come_back() {
    let mut found = Vec::new();
    for path in texts(&root()) {
        if path.ends_with(file!().rsplit('/').next().unwrap()) {
            continue;
        }
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let line = words(line);
            let line = OF_THE_FIELD.iter().fold(format!(" {line} "), |line, kept| {
                line.replace(&format!(" {kept} "), "  ")
            });
            for (old, new) in REPLACED.iter().chain(REPLACED_PHRASES) {
                if line.contains(&format!(" {old} ")) {
                    let path = path.strip_prefix(root()).unwrap().display();
                    found.push(format!("{path}:{}: not {old:?} but {new:?}", number + 1));
                }
            }
        }
    }
    assert!(
        found.is_empty(),
        "{} places:\n{}",
        found.len(),
        found.join("\n")
    );
}

/// The words of a line in lower case with one space between: `TapeReader::is_late` is `tape reader is late`.
fn words(line: &str) -> String {
    let mut words = String::with_capacity(line.len() + 16);
    let mut before = ' ';
    for letter in line.chars() {
        if letter.is_uppercase() && before.is_lowercase() {
            words.push(' ');
        }
        if letter.is_alphabetic() {
            words.extend(letter.to_lowercase());
        } else if !words.ends_with(' ') {
            words.push(' ');
        }
        before = letter;
    }
    words
}

/// Every text of the project that people write.
fn texts(directory: &Path) -> Vec<PathBuf> {
    let mut written = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_str().unwrap();
        if name == "target" || name == "results" || name == "node_modules" || name == ".git" {
            continue;
        }
        if path.is_dir() {
            written.extend(texts(&path));
        } else if is_written(name) {
            written.push(path);
        }
    }
    written
}

fn is_written(name: &str) -> bool {
    let extensions = ["rs", "md", "toml", "py", "conf", "c", "h", "mjs", "go"];
    name.rsplit_once('.')
        .is_some_and(|(_, extension)| extensions.contains(&extension))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn identifiers_are_taken_apart() {
    assert_eq!(
        words("TapeReader::is_late(&self)"),
        "tape reader is late self "
    );
    assert_eq!(words("MOST_TURNS: a turn's end"), "most turns a turn s end");
}
