//! How the command ends: 0 for good, 1 for a call that was not, 2 for what can't even begin, 101 for a fault of ours.

use std::{
    error::Error,
    fmt::{self, Display},
    process::ExitCode,
};

use crate::{plain::plain, stderr};

/// What became of a command that could begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Exit code 0.
    Good,
    /// Exit code 1: a call was placed and was not as it should be. It has been said why.
    Bad,
    /// Exit code 101, as any program that panicked. What happened has been said.
    Panicked,
}

/// Why a command could not begin, and what to do about it, in one line. Exit code 2.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(line: impl Display) -> Self {
        let text = line.to_string();
        // Spaces within a line may be those of a file's name.
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Self(lines.collect::<Vec<_>>().join(" "))
    }
}

/// An error with its sources, on one line.
pub(crate) fn with_sources(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line += &format!(": {error}");
        source = error.source();
    }
    line
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) fn exit_code(result: Result<Verdict, Failure>) -> ExitCode {
    match result {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(1),
        Ok(Verdict::Panicked) => ExitCode::from(101),
        Err(Failure(line)) => {
            complain(&line);
            ExitCode::from(2)
        }
    }
}

/// One line on standard error.
pub(crate) fn complain(line: &str) {
    stderr::write(format!(
        "sidetone: {}
",
        plain(line)
    ));
}
