//! One running speech recognizer.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::asterisk::StartError;
use crate::fetch;
use crate::process::Kept;

/// How long it may take to load its model; 1 s is usual.
const LOAD: Duration = Duration::from_secs(60);

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// A running recognizer of English with the protocol of a Vosk server, on loopback: `recognizer/server.py` over pocketsphinx.
///
/// It is a weak recognizer, but a real one. Given a `phrase_list` it expects their words in an order like theirs, which helps a
/// lot. Dropping it ends the process and its connections.
#[derive(Debug)]
pub struct Recognizer {
    // First the process goes, then its folder.
    process: Kept,
    address: SocketAddr,
    _folder: TempDir,
}

impl Recognizer {
    /// Fetches it if that has not been done yet, which takes some 15 s, and starts it to hear as many as `calls` at once; further
    /// ones wait.
    ///
    /// # Errors
    ///
    /// [`StartError::Fetch`] if it is not available on this machine, else why it did not start.
    pub async fn start(calls: usize) -> Result<Self, StartError> {
        let fetched = tokio::task::spawn_blocking(fetch::recognizer).await;
        let packages = fetched.map_err(std::io::Error::other)??;
        let folder = tempfile::Builder::new()
            .prefix("recognizer-run-")
            .tempdir_in(fetch::folder())?;
        let printed = folder.path().join("printed");
        let mut command = Command::new("env");
        command
            .arg(format!("PYTHONPATH={}", packages.display()))
            .args(["PYTHONDONTWRITEBYTECODE=1", "python3"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/recognizer/server.py"))
            .arg(calls.to_string());
        let process = Kept::start(command, File::create(&printed)?)?;
        let deadline = Instant::now() + LOAD;
        let told = || std::fs::read_to_string(&printed).unwrap_or_default();
        while Instant::now() < deadline && process.is_running() {
            // The whole line: half a number is one, too.
            if let Some(port) = told().strip_suffix('\n').and_then(|line| line.parse().ok()) {
                return Ok(Self {
                    process,
                    address: (Ipv4Addr::LOCALHOST, port).into(),
                    _folder: folder,
                });
            }
            sleep(LOOK).await;
        }
        Err(StartError::Recognizer { printed: told() })
    }

    /// Where it listens, for a WebSocket without a path.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process id of the server; its decoders are its children.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}
