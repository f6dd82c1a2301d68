//! Installs Python packages into the cache, with the machine's own Python and its pip, as that is set up.

use std::path::PathBuf;
use std::process::Command;

use super::{FetchError, apt, at};
use crate::fetch::cache::Cache;

/// How much of what pip prints is told.
const TOLD: usize = 2_000;

/// Fetches what `recognizer/server.py` imports, or finds it in the cache, and answers the folder for `PYTHONPATH`.
///
/// Blocks, caches and locks like [`asterisk`](super::asterisk).
pub(crate) fn recognizer() -> Result<PathBuf, FetchError> {
    apt::need("python3", "python3")?;
    let version = python(&["-c", "import sys; print('%d.%d' % sys.version_info[:2])"])?;
    // Compiled modules serve one version of Python only.
    let name = format!("recognizer-python-{}", version.trim());
    let recipe = include_str!("../../recognizer/requirements.txt");
    Cache::open()?.entry(&name, recipe, |target| {
        if python(&["-m", "pip", "--version"]).is_err() {
            return Err(FetchError::MissingTool {
                tool: "pip",
                package: "python3-pip",
            });
        }
        let requirements = concat!(env!("CARGO_MANIFEST_DIR"), "/recognizer/requirements.txt");
        let target = target.display().to_string();
        // Nothing is compiled here: that would need more of the machine than its Python.
        let install = ["-m", "pip", "install", "--quiet", "--only-binary=:all:"];
        let what = ["--target", target.as_str(), "--requirement", requirements];
        python(&[&install[..], &what[..]].concat()).map(drop)
    })
}

fn python(arguments: &[&str]) -> Result<String, FetchError> {
    let output = Command::new("python3")
        .args(arguments)
        .output()
        .map_err(at("python3"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let from = said.floor_char_boundary(said.len().saturating_sub(TOLD));
    Err(FetchError::Pip {
        command: format!("python3 {}", arguments.join(" ")),
        output: said[from..].to_owned(),
    })
}
