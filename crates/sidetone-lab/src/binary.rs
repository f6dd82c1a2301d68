//! The command `sidetone`, which is another crate's.

use std::env;
use std::io::{Error, Result};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Builds the command `sidetone` if it is not there yet, and says where it is.
///
/// It is built with a test, so that it has the features and the dependencies that it has when all tests are built: then it is
/// there already. Blocks.
///
/// # Errors
///
/// Cargo can't be run, or does not succeed; it has said why on standard error.
pub fn sidetone() -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut building = Command::new(cargo);
    as_from_outside(&mut building);
    let built = building
        .args(["build", "-q", "--workspace", "--bin", "sidetone"])
        .args(["--test", "cli"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()?;
    if !built.status.success() {
        return Err(Error::other(format!("cargo build: {}", built.status)));
    }
    let messages = String::from_utf8_lossy(&built.stdout);
    let executable = messages.lines().find_map(|message| {
        let message: Value = serde_json::from_str(message).ok()?;
        let executable = PathBuf::from(message["executable"].as_str()?);
        (message["target"]["kind"][0] == "bin").then_some(executable)
    });
    executable.ok_or_else(|| Error::other("cargo names no executable"))
}

/// Has Cargo's child run without what Cargo says of this crate. A build script that looks at it would run anew, and with it all
/// that builds on it.
pub(crate) fn as_from_outside(building: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            building.env_remove(&name);
        }
    }
}
