//! One running Asterisk.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::fetch::{self, FetchError, Tree};
use crate::ports::Ports;
use crate::process::Kept;

/// How long booting may take; 0.3 s is usual.
const BOOT: Duration = Duration::from_secs(30);

/// How often a booting Asterisk is asked.
const ASK: Duration = Duration::from_millis(50);

/// A running Asterisk with the lab's dialplan, on loopback and ports of its own; any number of them run side by side.
///
/// Ends with TERM, by its pid, when dropped, or with KILL when that takes more than 10 s; dropping waits for the end. It doesn't
/// outlive this process either, not even a killed one, where `setpriv` is installed.
///
/// ```no_run
/// # async fn example() -> Result<(), sidetone_lab::StartError> {
/// let asterisk = sidetone_lab::Asterisk::start(sidetone_lab::Options::default()).await?;
/// println!("{}", asterisk.cli("core show version").await?);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Asterisk {
    // First the process goes, then its folder.
    process: Kept,
    ports: Ports,
    tree: Tree,
    folder: TempDir,
}

/// How an [`Asterisk`] is set up.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the recipes of the dialplan find the AudioSocket server. Without it they take the variable `D`, which each call can
    /// have its own of ([`Originate::variable`](crate::ami::Originate::variable)), or all of them one
    /// ([`Ami::set_global`](crate::ami::Ami::set_global)). The recipe of the gateway takes the address of its HTTP API from `H`
    /// likewise.
    pub server: Option<SocketAddr>,
}

impl Asterisk {
    /// Fetches Asterisk if that has not been done yet, boots it, and answers when it takes calls.
    ///
    /// # Errors
    ///
    /// [`StartError::Fetch`] if it is not available on this machine, else why it did not start.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let fetched = tokio::task::spawn_blocking(fetch::asterisk).await;
        let tree = fetched.map_err(std::io::Error::other)??;
        let folder = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(fetch::folder())?;
        let ports = Ports::free()?;
        for part in ["run", "log", "spool/tmp", "lib", "db"] {
            std::fs::create_dir_all(folder.path().join(part))?;
        }
        crate::conf::write(folder.path(), &tree, &ports, options.server)?;
        let mut command = command(&tree, folder.path());
        let output = File::create(folder.path().join("log/stdout"))?;
        command.arg("-f");
        let asterisk = Self {
            process: Kept::start(command, output)?,
            ports,
            tree,
            folder,
        };
        asterisk.booted().await?;
        Ok(asterisk)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether the process is still there.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Where its manager interface listens; user and secret are `lab`.
    #[must_use]
    pub fn ami(&self) -> SocketAddr {
        loopback(self.ports.ami)
    }

    /// Where its HTTP server, and ARI with it, listens; user and password are `lab`.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        loopback(self.ports.http)
    }

    /// Where it takes SIP over UDP.
    #[must_use]
    pub fn sip(&self) -> SocketAddr {
        loopback(self.ports.sip)
    }

    /// A folder of this instance alone, gone with it: the place for what a call records.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its log file: notices, warnings, errors, and what the dialplan does.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.folder.path().join("log/full")
    }

    /// All it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// Runs a command on its console and answers what it prints.
    ///
    /// # Errors
    ///
    /// If the console can't be reached.
    pub async fn cli(&self, command: &str) -> std::io::Result<String> {
        let output = tokio::process::Command::from(self.console())
            .arg("-rx")
            .arg(command)
            .output()
            .await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(std::io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }

    /// The command that reaches its console, without the `-r` or `-rx COMMAND` that comes next.
    #[must_use]
    pub fn console(&self) -> Command {
        command(&self.tree, self.folder.path())
    }

    async fn booted(&self) -> Result<(), StartError> {
        let deadline = Instant::now() + BOOT;
        let socket = self.folder.path().join("run/asterisk.ctl");
        while Instant::now() < deadline && self.process.is_running() {
            if socket.exists()
                && let Ok(answer) = self.cli("core waitfullybooted").await
                && answer.contains("fully booted")
            {
                return Ok(());
            }
            sleep(ASK).await;
        }
        let printed = std::fs::read(self.folder.path().join("log/stdout")).unwrap_or_default();
        let all = format!("{}{}", String::from_utf8_lossy(&printed), self.log());
        let mut last: Vec<&str> = all.lines().rev().take(20).collect();
        last.reverse();
        Err(StartError::Boot {
            log: last.join("\n"),
        })
    }
}

/// Why Asterisk, or another of the lab's programs, didn't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It is not available on this machine.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It was started and died, or didn't come up within 30 s.
    #[error("Asterisk did not boot; the end of its log:\n{log}")]
    Boot {
        /// The last 20 lines it printed or logged.
        log: String,
    },
    /// Another program was started and died, or wasn't ready within 60 s.
    #[error("{program} did not start; it printed:\n{printed}")]
    Program {
        /// Which one.
        program: &'static str,
        /// All that it printed.
        printed: String,
    },
    /// Its folder could not be made, or its process not be started.
    #[error("could not start it: {0}")]
    Io(#[from] std::io::Error),
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The binary, run through the loader and with the libraries it was built for: this machine's may be too old.
fn command(tree: &Tree, folder: &Path) -> Command {
    let mut command = Command::new(tree.loader());
    command
        .arg("--library-path")
        .arg(tree.libraries())
        .arg(tree.root().join("usr/sbin/asterisk"));
    command.arg("-C").arg(folder.join("etc/asterisk.conf"));
    command
}
