//! What a release gives to others: each crate's page and package, and the names that `sidetone` promises.
#![allow(clippy::unwrap_used)]

mod api;
mod packages;

use std::{env, path::PathBuf, process::Command};

/// Cargo, on the workspace.
fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

fn workspace() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", ".."].iter().collect()
}
