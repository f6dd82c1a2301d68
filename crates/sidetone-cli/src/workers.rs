//! The threads that handlers run on.

use std::{env, ffi::OsStr};

use tokio::runtime::{Builder, Runtime};

use crate::failure::Failure;

/// The variable that sets how many there are. tokio itself would panic where it is no number.
const VARIABLE: &str = "TOKIO_WORKER_THREADS";
/// More would only take memory.
const MOST: usize = 1024;

/// What all commands run in.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    let mut builder = Builder::new_multi_thread();
    if let Some(number) = number(env::var_os(VARIABLE).as_deref())? {
        builder.worker_threads(number);
    }
    let runtime = builder.enable_all().build();
    runtime.map_err(|error| Failure::new(format_args!("can't start: {error}")))
}

/// As many as the machine has processors unless the variable says something.
fn number(variable: Option<&OsStr>) -> Result<Option<usize>, Failure> {
    let Some(text) = variable else {
        return Ok(None);
    };
    let number = text.to_str().and_then(|it| it.trim().parse().ok());
    match number {
        Some(number) if (1..=MOST).contains(&number) => Ok(Some(number)),
        _ => Err(Failure::new(format_args!(
            "{VARIABLE} is {text:?}: set it to a whole number from 1 to {MOST}, or unset it to have one for each processor"
        ))),
    }
}
