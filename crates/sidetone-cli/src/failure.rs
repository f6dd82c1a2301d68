//! How the command ends: exit code 0 for success, 1 for a call that failed, 2 for a command that could not start, 101
//! for a panic.

use std::{
    fmt::{self, Display},
    process::ExitCode,
};

use crate::{sanitize::sanitize, stderr};

pub(crate) use sidetone_gateway::with_sources;

/// The result of a command that started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Exit code 0.
    Passed,
    /// Exit code 1: the command placed a call and found a fault, which it has reported.
    Failed,
    /// Exit code 101, as for any program that panics. The panic has been reported.
    Panicked,
}

impl Outcome {
    pub(crate) fn of(is_good: bool) -> Self {
        match is_good {
            true => Self::Passed,
            false => Self::Failed,
        }
    }
}

/// Why a command could not start and what to do about it, in one line. Exit code 2.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(line: impl Display) -> Self {
        let text = line.to_string();
        // Only whole lines are joined: spaces within a line may belong to the name of a file.
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Self(lines.collect::<Vec<_>>().join(" "))
    }

    /// The system gives the process no further thread.
    pub(crate) fn cant_start(error: impl Display) -> Self {
        Self::new(format_args!(
            "can't start a thread ({error}): raise the limit on processes and threads (ulimit -u, or TasksMax= in systemd)"
        ))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) fn exit_code(result: Result<Outcome, Failure>) -> ExitCode {
    match result {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(1),
        Ok(Outcome::Panicked) => ExitCode::from(101),
        Err(Failure(line)) => {
            print_error(&line);
            ExitCode::from(2)
        }
    }
}

/// Writes one line to standard error, after the program's name.
pub(crate) fn print_error(line: &str) {
    stderr::write(format!("sidetone: {}\n", sanitize(line)));
}
