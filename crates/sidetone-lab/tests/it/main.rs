//! What is tested with Asterisk's prompts, the programs of bots by themselves, and the repository as a whole. What needs an Asterisk
//! that runs is in `end_to_end`.

mod bots;
mod detection;
mod docs;
mod layers;
mod openai;
mod package;
mod published;
mod vocabulary;

/// Reports why a test is skipped, on the terminal itself, where the test runner does not hold it back. In CI that is a failure.
#[allow(clippy::unwrap_used)]
fn skip(reason: &str) {
    use std::io::Write as _;

    assert!(std::env::var_os("CI").is_none(), "{reason}");
    let notice = format!("\n*** SKIPPED: {reason} ***\n");
    std::io::stderr().write_all(notice.as_bytes()).unwrap();
}
