//! Installs Python packages into the cache, with the machine's own Python and its pip, as that is set up.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{FetchError, apt, at};
use crate::fetch::cache::Cache;

/// How much of what pip prints is told.
const TOLD: usize = 2_000;

/// Packages that are installed together into one folder, for `PYTHONPATH`.
///
/// A folder and no virtual environment: `venv` is not on every machine that has Python and pip, and a folder can be moved into the
/// cache once it is whole.
struct Requirements {
    /// How the folder is called.
    name: &'static str,
    /// The file that lists the packages,
    file: &'static str,
    /// and what is in there.
    text: &'static str,
    /// Whether pip adds what the listed packages depend on.
    with_dependencies: bool,
}

const RECOGNIZER: Requirements = Requirements {
    name: "recognizer",
    file: concat!(env!("CARGO_MANIFEST_DIR"), "/recognizer/requirements.txt"),
    text: include_str!("../../recognizer/requirements.txt"),
    with_dependencies: true,
};

const BOTS: Requirements = Requirements {
    name: "bots",
    file: concat!(env!("CARGO_MANIFEST_DIR"), "/bots/requirements.txt"),
    text: include_str!("../../bots/requirements.txt"),
    with_dependencies: false,
};

/// Fetches what `recognizer/server.py` imports, or finds it in the cache, and answers the folder for `PYTHONPATH`.
///
/// Blocks, caches and locks like [`asterisk`](super::asterisk).
pub(crate) fn recognizer() -> Result<PathBuf, FetchError> {
    RECOGNIZER.fetch()
}

/// Fetches what the programs in `bots/` import, or finds it in the cache, and answers the folder for `PYTHONPATH`. The first time
/// takes half a minute, and 270 MB of disk.
///
/// Blocks, caches and locks like [`asterisk`](super::asterisk).
pub(crate) fn bots() -> Result<PathBuf, FetchError> {
    BOTS.fetch()
}

impl Requirements {
    fn fetch(&self) -> Result<PathBuf, FetchError> {
        apt::need("python3", "python3")?;
        let version = python(&["-c", "import sys; print('%d.%d' % sys.version_info[:2])"])?;
        // Compiled modules serve one version of Python only.
        let name = format!("{}-python-{}", self.name, version.trim());
        Cache::open()?.entry(&name, self.text, |target| {
            if python(&["-m", "pip", "--version"]).is_err() {
                return Err(FetchError::MissingTool {
                    tool: "pip",
                    package: "python3-pip",
                });
            }
            self.install(target)
        })
    }

    fn install(&self, target: &Path) -> Result<(), FetchError> {
        let target = target.display().to_string();
        // Nothing is compiled here: that would need more of the machine than its Python.
        let mut arguments = vec!["-m", "pip", "install", "--quiet", "--only-binary=:all:"];
        if !self.with_dependencies {
            arguments.push("--no-deps");
        }
        arguments.extend(["--target", &target, "--requirement", self.file]);
        python(&arguments).map(drop)
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_bots_have_the_same_versions_everywhere() {
        let packages = BOTS
            .text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        let loose: Vec<&str> = packages.filter(|line| !line.contains("==")).collect();
        assert!(loose.is_empty(), "{loose:?}");
    }

    #[test]
    fn what_pip_can_t_install_is_reported_with_what_it_printed() {
        if python(&["-m", "pip", "--version"]).is_err() {
            // The tests of bots say so, with a message.
            assert!(std::env::var_os("CI").is_none(), "pip is not installed");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let wrong = Requirements {
            file: "/nonexistent/requirements.txt",
            ..BOTS
        };
        let error = wrong.install(folder.path()).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/requirements.txt"), "{error}");
        assert!(error.contains("package index"), "{error}");
    }
}
