//! The threads that handlers run on.

use std::{env, ffi::OsStr};

use tokio::runtime::{Builder, Runtime};

use crate::failure::Failure;

/// The variable that sets how many there are. tokio itself panics if it is not a number.
const VARIABLE: &str = "TOKIO_WORKER_THREADS";
/// More threads would only take memory.
const MAX_THREADS: usize = 1024;

/// The runtime of all commands.
pub(crate) fn build() -> Result<Runtime, Failure> {
    let mut builder = Builder::new_multi_thread();
    if let Some(number) = threads(env::var_os(VARIABLE).as_deref())? {
        builder.worker_threads(number);
    }
    let runtime = builder.enable_all().build();
    runtime.map_err(Failure::cant_start)
}

/// The number of threads in the variable. Without one there is a thread for each processor.
fn threads(variable: Option<&OsStr>) -> Result<Option<usize>, Failure> {
    let Some(text) = variable else {
        return Ok(None);
    };
    let number = text.to_str().and_then(|it| it.trim().parse().ok());
    match number {
        Some(number) if (1..=MAX_THREADS).contains(&number) => Ok(Some(number)),
        _ => Err(Failure::new(format_args!(
            "{VARIABLE} is {text:?}: set it to a whole number from 1 to {MAX_THREADS}, or unset it for one thread per processor"
        ))),
    }
}
