//! Voice bots in Python, made with the frameworks that callers' bots are made with, and a judge of OpenAI's messages.
//!
//! The programs are in `bots/`, and each says there what it can do. What they import is installed once, in the versions that
//! `bots/requirements.txt` fixes. A bot takes calls on loopback for as long as its [`Bot`] is there.

use std::fs::File;
use std::io::{Seek, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::asterisk::StartError;
use crate::fetch;
use crate::process::{Kept, with_environment};

/// How long a bot may take to report what is waited for.
const SOON: Duration = Duration::from_secs(10);

/// How often what it has printed is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A program in `bots/` that takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// pipecat, behind its own Twilio runner.
    PipecatTwilio,
    /// pipecat, with its serializer for Vonage at 16 kHz.
    PipecatVonage,
    /// galcymedia, which is made for Asterisk's chan_websocket.
    Galcymedia,
    /// Plivo's own SDK.
    Plivo,
    /// The example of this repository for pipecat.
    PipecatExample,
}

/// A running bot. Dropping it ends the process and its calls.
#[derive(Debug)]
pub struct Bot {
    // First the process goes, then its folder.
    process: Kept,
    program: Program,
    address: SocketAddr,
    folder: TempDir,
}

impl Bot {
    /// Fetches what the bots import if that has not been done yet, which takes half a minute, and starts one, with options that its
    /// file explains.
    ///
    /// # Errors
    ///
    /// [`StartError::Fetch`] if Python, pip or a package is not available on this machine, else why it did not start.
    pub async fn start(program: Program, options: &[&str]) -> Result<Self, StartError> {
        let packages = packages().await?;
        let folder = folder()?;
        let printed = printed_in(&folder);
        let mut command = python(&packages, program.file());
        command.args(program.arguments()).args(options);
        let port = |printed: &str| match program {
            // It reports nothing, as bots do.
            Program::PipecatExample => {
                let (_, rest) = printed.split_once("running on http://127.0.0.1:")?;
                rest.split(|it: char| !it.is_ascii_digit())
                    .next()?
                    .parse()
                    .ok()
            }
            _ => {
                let listening = reports(printed).find(|report| report["event"] == "listening")?;
                u16::try_from(listening["port"].as_u64()?).ok()
            }
        };
        let (process, port) = Kept::start_until(program.file(), command, &printed, port).await?;
        Ok(Self {
            process,
            program,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            folder,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where a call connects to.
    #[must_use]
    pub fn url(&self) -> String {
        let path = match self.program {
            Program::PipecatTwilio | Program::PipecatVonage | Program::PipecatExample => "ws",
            Program::Galcymedia | Program::Plivo => "",
        };
        format!("ws://{}/{path}", self.address)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// All that it has printed so far, its libraries' log among it.
    #[must_use]
    pub fn printed(&self) -> String {
        read(&printed_in(&self.folder))
    }

    /// What it has reported so far, of all its calls: each an object with the key `event`.
    #[must_use]
    pub fn reports(&self) -> Vec<Value> {
        reports(&self.printed()).collect()
    }

    /// What its library has warned of so far: nothing, if all that it got was as it should be.
    #[must_use]
    pub fn complaints(&self) -> Vec<Value> {
        let mut reports = self.reports();
        reports.retain(|report| report["event"] == "complaint");
        reports
    }

    /// Waits until it has reported what is looked for, and answers the first such report.
    ///
    /// # Errors
    ///
    /// [`NotReported`] after 10 s, or once the process has ended.
    pub async fn reported(&self, wanted: impl Fn(&Value) -> bool) -> Result<Value, NotReported> {
        let deadline = Instant::now() + SOON;
        loop {
            // Asked for first: what it printed before it ended counts.
            let over = !self.process.is_running() || Instant::now() > deadline;
            if let Some(found) = reports(&self.printed()).find(&wanted) {
                return Ok(found);
            }
            if over {
                return Err(NotReported {
                    program: self.program.file(),
                    printed: self.printed(),
                });
            }
            sleep(LOOK).await;
        }
    }

    /// Waits for the first report with this value of the key `event`.
    ///
    /// # Errors
    ///
    /// As [`reported`](Self::reported).
    pub async fn event(&self, event: &str) -> Result<Value, NotReported> {
        self.reported(|report| report["event"] == event).await
    }
}

/// A bot has not reported what was waited for.
#[derive(Debug, thiserror::Error)]
#[error("{program} did not report what was waited for; it printed:\n{printed}")]
pub struct NotReported {
    program: &'static str,
    printed: String,
}

impl Program {
    fn file(self) -> &'static str {
        match self {
            Self::PipecatTwilio | Self::PipecatVonage => "pipecat_bot.py",
            Self::Galcymedia => "galcymedia_bot.py",
            Self::Plivo => "plivo_bot.py",
            Self::PipecatExample => "../../../examples/pipecat/bot.py",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::PipecatTwilio => &["--port", "0", "--transport", "twilio"],
            Self::PipecatVonage => &["--port", "0", "--transport", "vonage"],
            Self::Galcymedia | Self::Plivo | Self::PipecatExample => &["--port", "0"],
        }
    }
}

/// Who sends a message of OpenAI's realtime API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The client: what Sidetone sends.
    Client,
    /// The service: what a stand-in for it sends.
    Server,
}

/// What the models of OpenAI's SDK find in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What is wrong, field by field: none for a sound message.
    pub errors: Vec<String>,
    /// The paths of fields that the models don't know, which they would let pass.
    pub unknown: Vec<String>,
}

/// Has messages judged by the models of OpenAI's SDK, each in the same place of the answer.
///
/// # Errors
///
/// [`StartError::Fetch`] if the SDK is not available on this machine, else why its program failed.
pub async fn judge_openai(messages: &[(Direction, Value)]) -> Result<Vec<Verdict>, StartError> {
    const PROGRAM: &str = "openai_models.py";
    let packages = packages().await?;
    let folder = folder()?;
    // A file: a pipe that nobody reads from would hold both sides up.
    let mut lines = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(folder.path().join("messages"))?;
    for (direction, message) in messages {
        let direction = match direction {
            Direction::Client => "client",
            Direction::Server => "server",
        };
        writeln!(
            lines,
            "{}",
            json!({"direction": direction, "message": message})
        )?;
    }
    lines.rewind()?;
    let mut command = python(&packages, PROGRAM);
    command.stdin(lines);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.map_err(std::io::Error::other)??;
    let printed = String::from_utf8_lossy(&output.stdout);
    let verdicts: Vec<Verdict> = reports(&printed).map(|report| verdict(&report)).collect();
    if output.status.success() && verdicts.len() == messages.len() {
        return Ok(verdicts);
    }
    Err(StartError::Program {
        program: PROGRAM,
        printed: format!("{printed}{}", String::from_utf8_lossy(&output.stderr)),
    })
}

fn verdict(report: &Value) -> Verdict {
    let texts = |key: &str| {
        let texts = report[key].as_array().into_iter().flatten();
        texts.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    Verdict {
        errors: texts("errors"),
        unknown: texts("unknown"),
    }
}

async fn packages() -> Result<PathBuf, StartError> {
    let fetched = tokio::task::spawn_blocking(fetch::bots).await;
    Ok(fetched.map_err(std::io::Error::other)??)
}

fn folder() -> std::io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("bot-run-").tempdir_in(fetch::folder())
}

fn printed_in(folder: &TempDir) -> PathBuf {
    folder.path().join("printed")
}

fn read(printed: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(printed).unwrap_or_default()).into_owned()
}

/// The command that runs a program in `bots/` with the packages in a folder and no others: `-S` leaves out those of the machine.
fn python(packages: &Path, file: &str) -> Command {
    let variables = [
        ("PYTHONPATH", packages.as_os_str()),
        ("PYTHONDONTWRITEBYTECODE", "1".as_ref()),
        ("PYTHONWARNINGS", "ignore".as_ref()),
    ];
    let mut command = with_environment(variables, "python3");
    let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "bots", file].iter().collect();
    command.arg("-S").arg(script);
    command
}

/// What is reported in what was printed: the whole lines of it that are objects of JSON.
fn reports(printed: &str) -> impl Iterator<Item = Value> {
    let whole = printed.rfind('\n').map_or("", |end| &printed[..end]);
    whole
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(Value::is_object)
}
