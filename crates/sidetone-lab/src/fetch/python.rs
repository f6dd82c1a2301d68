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
pub(crate) struct Requirements {
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

pub(crate) const BOTS: Requirements = Requirements {
    name: "bots",
    file: concat!(env!("CARGO_MANIFEST_DIR"), "/bots/requirements.txt"),
    text: include_str!("../../bots/requirements.txt"),
    with_dependencies: false,
};

/// What builds the wheel.
pub(super) const MATURIN: Requirements = Requirements {
    name: "maturin",
    file: concat!(env!("CARGO_MANIFEST_DIR"), "/python/maturin.txt"),
    text: include_str!("../../python/maturin.txt"),
    with_dependencies: true,
};

/// What the module's tests import, and what checks its types.
pub(crate) const TESTS: Requirements = Requirements {
    name: "python-tests",
    file: concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../sidetone-python/tests/requirements.txt"
    ),
    text: include_str!("../../../sidetone-python/tests/requirements.txt"),
    with_dependencies: true,
};

/// What the example `transcribe.py` imports.
pub(crate) const GOOGLE: Requirements = Requirements {
    name: "google",
    file: concat!(env!("CARGO_MANIFEST_DIR"), "/python/google.txt"),
    text: include_str!("../../python/google.txt"),
    with_dependencies: false,
};

/// Fetches what `recognizer/server.py` imports, or finds it in the cache, and answers the folder for `PYTHONPATH`.
///
/// Blocks, caches and locks like [`asterisk`](super::asterisk).
pub(crate) fn recognizer() -> Result<PathBuf, FetchError> {
    RECOGNIZER.fetch(&Interpreter::of_this_machine()?)
}

/// Fetches what the programs in `bots/` import, or finds it in the cache, and answers the folder for `PYTHONPATH`. The first time
/// takes half a minute, and 270 MB of disk.
///
/// Blocks, caches and locks like [`asterisk`](super::asterisk).
pub(crate) fn bots() -> Result<PathBuf, FetchError> {
    BOTS.fetch(&Interpreter::of_this_machine()?)
}

impl Requirements {
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn fetch(&self, python: &Interpreter) -> Result<PathBuf, FetchError> {
        // Compiled modules serve one version of Python only.
        let name = format!("{}-python-{}", self.name, python.version);
        Cache::open()?.entry(&name, self.text, |target| {
            python.needs_pip()?;
            self.install(python, target)
        })
    }

    fn install(&self, python: &Interpreter, target: &Path) -> Result<(), FetchError> {
        let target = target.display().to_string();
        // Nothing is compiled here: that would need more of the machine than its Python.
        let mut arguments = vec!["-m", "pip", "install", "--quiet", "--only-binary=:all:"];
        if !self.with_dependencies {
            arguments.push("--no-deps");
        }
        arguments.extend(["--target", &target, "--requirement", self.file]);
        python.run(&arguments).map(drop)
    }
}

/// A Python that is installed on this machine.
#[derive(Clone, Debug)]
pub struct Interpreter {
    program: PathBuf,
    version: String,
}

impl Interpreter {
    /// The machine's own.
    pub(crate) fn of_this_machine() -> Result<Self, FetchError> {
        apt::need("python3", "python3")?;
        Self::of("python3")
    }

    /// One more, of another version that the module serves: the oldest that there is.
    #[must_use]
    pub fn another() -> Option<Self> {
        let own = Self::of_this_machine().ok()?;
        let mut others = (10..=20).filter_map(|minor| Self::find(&format!("python3.{minor}")));
        others.find(|other| other.version != own.version && other.needs_pip().is_ok())
    }

    /// Its version, as `3.11`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where it is.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    fn find(name: &str) -> Option<Self> {
        if let Ok(found) = Self::of(name) {
            return Some(found);
        }
        // One that pyenv has installed runs by this name only if it is chosen by its version.
        let said = |arguments: [&str; 2]| {
            let output = Command::new("pyenv").args(arguments).output().ok()?;
            let printed = String::from_utf8(output.stdout).ok()?;
            let line = printed.lines().next()?.trim().to_owned();
            (output.status.success() && !line.is_empty()).then_some(line)
        };
        let folder = said(["prefix", &said(["whence", name])?])?;
        Self::of(&format!("{folder}/bin/{name}")).ok()
    }

    fn of(name: &str) -> Result<Self, FetchError> {
        const ASK: &str =
            "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)";
        let said = run(name.as_ref(), &["-c", ASK])?;
        let mut lines = said.lines();
        let mut line = || lines.next().unwrap_or_default().trim().to_owned();
        Ok(Self {
            version: line(),
            program: line().into(),
        })
    }

    fn needs_pip(&self) -> Result<(), FetchError> {
        let found = self.run(&["-m", "pip", "--version"]);
        found.map(drop).map_err(|_| FetchError::MissingTool {
            tool: "pip",
            package: "python3-pip",
        })
    }

    /// Runs it to its end, and answers what it prints.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<String, FetchError> {
        run(&self.program, arguments)
    }
}

fn run(program: &Path, arguments: &[&str]) -> Result<String, FetchError> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(at(program))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let from = said.floor_char_boundary(said.len().saturating_sub(TOLD));
    Err(FetchError::Pip {
        command: format!("{} {}", program.display(), arguments.join(" ")),
        output: said[from..].to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_programs_are_made_with_has_the_same_versions_everywhere() {
        for list in [BOTS, MATURIN, TESTS, GOOGLE] {
            let packages = list
                .text
                .lines()
                .filter(|line| !line.starts_with('#') && !line.is_empty());
            let loose: Vec<&str> = packages.filter(|line| !line.contains("==")).collect();
            assert!(loose.is_empty(), "{}: {loose:?}", list.name);
        }
    }

    #[test]
    fn what_pip_can_t_install_is_reported_with_what_it_printed() {
        let python = Interpreter::of_this_machine();
        let Ok(python) = python.and_then(|it| it.needs_pip().map(|()| it)) else {
            // The tests of bots say so, with a message.
            assert!(std::env::var_os("CI").is_none(), "pip is not installed");
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let wrong = Requirements {
            file: "/nonexistent/requirements.txt",
            ..BOTS
        };
        let error = wrong
            .install(&python, folder.path())
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/requirements.txt"), "{error}");
        assert!(error.contains("package index"), "{error}");
    }
}
