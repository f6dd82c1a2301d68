//! The Python module `audiosocket` as others get it: its wheel in a virtual environment, and the examples that run there.
//!
//! The wheel is built by maturin, of the sources as they are, and kept in `target/wheels`. Nothing of it is built twice, and an
//! environment is made anew only when the wheel or its other packages have changed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::asterisk::StartError;
use crate::fetch::{self, BOTS, GOOGLE, Requirements, TESTS};
use crate::process::{Kept, with_environment};

pub use crate::fetch::Interpreter;

/// How long a program may take to print what is waited for.
const SOON: Duration = Duration::from_secs(10);

/// How often what it has printed is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What a program runs with, besides the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packages {
    /// What the module's own tests are made with, and the checkers of its types.
    Tests,
    /// Google's client for speech recognition.
    Google,
    /// pipecat, and what else the lab's bots are made with.
    Bots,
}

/// A virtual environment with the module.
#[derive(Clone, Debug)]
pub struct Environment {
    python: PathBuf,
}

impl Environment {
    /// Builds the module and makes the environment, with the machine's own Python. Where nothing has changed, that takes a second.
    ///
    /// # Errors
    ///
    /// [`StartError::Fetch`] if Python, pip or a package is not available on this machine, else why the module was not built.
    pub async fn new(packages: &[Packages]) -> Result<Self, StartError> {
        Self::make(None, packages).await
    }

    /// The same with another Python.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub async fn of(python: &Interpreter, packages: &[Packages]) -> Result<Self, StartError> {
        Self::make(Some(python.clone()), packages).await
    }

    async fn make(python: Option<Interpreter>, packages: &[Packages]) -> Result<Self, StartError> {
        let packages: Vec<_> = packages.iter().map(|it| it.requirements()).collect();
        let made = tokio::task::spawn_blocking(move || {
            let python = python.map_or_else(Interpreter::of_this_machine, Ok)?;
            fetch::environment(&python, &packages)
        });
        Ok(Self {
            python: made.await.map_err(std::io::Error::other)??,
        })
    }

    /// The command that runs its Python, in the folder of the module's sources, with nothing of the machine's own.
    #[must_use]
    pub fn python(&self) -> Command {
        let mut command = Command::new("env");
        command
            .args(["-u", "PYTHONPATH", "-u", "PYTHONHOME", "-u", "VIRTUAL_ENV"])
            .args(["PYTHONDONTWRITEBYTECODE=1", "PYTHONNOUSERSITE=1"])
            .arg(&self.python)
            .current_dir(sources());
        command
    }

    /// Where its Python is.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.python
    }

    /// Starts an example of the module on a free port of loopback, with further options.
    ///
    /// # Errors
    ///
    /// Why it did not start.
    pub async fn start(
        &self,
        example: &'static str,
        options: &[&str],
    ) -> Result<Example, StartError> {
        let folder = tempfile::Builder::new()
            .prefix("example-run-")
            .tempdir_in(fetch::folder())?;
        let variables = [("PYTHONDONTWRITEBYTECODE", "1".as_ref())];
        let mut command = with_environment(variables, &self.python);
        command
            .arg(sources().join("examples").join(example))
            .args(["--port", "0"])
            .args(options);
        let printed = folder.path().join("printed");
        let address = |printed: &str| {
            let (_, rest) = printed.split_once("listening on ")?;
            rest.split_once('\n')?.0.parse().ok()
        };
        let (process, address) = Kept::start_until(example, command, &printed, address).await?;
        Ok(Example {
            process,
            address,
            name: example,
            folder,
        })
    }
}

impl Packages {
    fn requirements(self) -> &'static Requirements {
        match self {
            Self::Tests => &TESTS,
            Self::Google => &GOOGLE,
            Self::Bots => &BOTS,
        }
    }
}

/// An example at work. Dropping it ends the process and its calls.
#[derive(Debug)]
pub struct Example {
    // First the process goes, then its folder.
    process: Kept,
    address: SocketAddr,
    name: &'static str,
    folder: TempDir,
}

impl Example {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// All that it has printed so far, errors among it.
    #[must_use]
    pub fn printed(&self) -> String {
        let printed = std::fs::read(self.folder.path().join("printed"));
        String::from_utf8_lossy(&printed.unwrap_or_default()).into_owned()
    }

    /// Waits until it has printed a line that is looked for, and answers the first such line.
    ///
    /// # Errors
    ///
    /// [`NotPrinted`] after 10 s, or once the process has ended.
    pub async fn line(&self, wanted: impl Fn(&str) -> bool) -> Result<String, NotPrinted> {
        let deadline = Instant::now() + SOON;
        loop {
            // Asked for first: what it printed before it ended counts.
            let over = !self.process.is_running() || Instant::now() > deadline;
            let printed = self.printed();
            let whole = printed.rfind('\n').map_or("", |end| &printed[..end]);
            if let Some(line) = whole.lines().find(|line| wanted(line)) {
                return Ok(line.to_owned());
            }
            if over {
                return Err(NotPrinted {
                    name: self.name,
                    printed,
                });
            }
            sleep(LOOK).await;
        }
    }
}

/// An example has not printed what was waited for.
#[derive(Debug, thiserror::Error)]
#[error("{name} did not print what was waited for; it printed:\n{printed}")]
pub struct NotPrinted {
    name: &'static str,
    printed: String,
}

/// The folder of the module's sources.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sidetone-python")
}
