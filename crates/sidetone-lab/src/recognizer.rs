//! One running speech recognizer.

use std::net::{Ipv4Addr, SocketAddr};

use tempfile::TempDir;

use crate::asterisk::StartError;
use crate::fetch;
use crate::process::{Kept, with_environment};

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
        let variables = [
            ("PYTHONPATH", packages.as_os_str()),
            ("PYTHONDONTWRITEBYTECODE", "1".as_ref()),
        ];
        let mut command = with_environment(variables, "python3");
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/recognizer/server.py"))
            .arg(calls.to_string());
        // The whole line: half a number is one, too.
        let port = |printed: &str| printed.strip_suffix('\n')?.parse().ok();
        let (process, port) = Kept::start_until("the recognizer", command, &printed, port).await?;
        Ok(Self {
            process,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            _folder: folder,
        })
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
