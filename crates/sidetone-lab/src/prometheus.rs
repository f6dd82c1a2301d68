//! One running Prometheus, and `promtool`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};
use ureq::http::Request;

use crate::asterisk::StartError;
use crate::fetch::{self, Packages};
use crate::process::Kept;
use crate::{http, ports};

/// Of the oldest Debian that is still common, so that its C library is no newer than this machine's: Prometheus needs no other.
const PROMETHEUS: Packages<'_> = Packages {
    name: "prometheus",
    suite: "bookworm",
    whole: &[],
    without: &[],
    alone: &["prometheus"],
    left_out: &["./etc*", "./lib*", "./usr/share*", "./var*"],
};

/// How often the targets are scraped: a test doesn't want to wait.
const SCRAPED_EVERY: &str = "200ms";

/// How long it may take to answer, or until the targets have been scraped.
const ANSWER: Duration = Duration::from_secs(10);

/// Prometheus moves the time of a scrape by up to 2 ms, so that all of them are equally far apart.
const MOVED: Duration = Duration::from_millis(2);

/// How often it is asked whether they have been.
const LOOK: Duration = Duration::from_millis(50);

/// A running Prometheus on loopback, which scrapes a test's targets five times a second.
///
/// It looks for its targets for the first time 5 s after its start: start it before whatever else takes time. Dropping it ends the
/// process, by its pid.
#[derive(Debug)]
pub struct Prometheus {
    // First the process goes, then its folder.
    process: Kept,
    address: SocketAddr,
    http: ureq::Agent,
    _folder: TempDir,
}

/// What is scraped: `/metrics` at an address.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it is served.
    pub address: SocketAddr,
    /// What `Authorization: Bearer` says, if anything.
    pub token: Option<String>,
}

/// One time series in the answer to a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its labels, with the metric's name as `__name__`.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// What `promtool` made of its input.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Whether it has nothing to say against it.
    pub passed: bool,
    /// All that it printed.
    pub printed: String,
}

impl Prometheus {
    /// Fetches Prometheus if that has not been done yet, which takes 19 MB, and starts it.
    ///
    /// # Errors
    ///
    /// [`StartError::Fetch`] if it is not available on this machine, else why it did not start.
    pub async fn start(targets: &[Target]) -> Result<Self, StartError> {
        let program = program("prometheus").await?;
        let folder = tempfile::Builder::new()
            .prefix("prometheus-run-")
            .tempdir_in(fetch::folder())?;
        let configuration = folder.path().join("prometheus.yml");
        // All JSON is YAML.
        std::fs::write(&configuration, configured(targets).to_string())?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_tcp()?));
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"));
        let printed = folder.path().join("printed");
        let ready = |printed: &str| printed.contains("Server is ready to receive").then_some(());
        let (process, ()) = Kept::start_until("Prometheus", command, &printed, ready).await?;
        Ok(Self {
            process,
            address,
            http: http::agent(ANSWER),
            _folder: folder,
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where its HTTP API and its pages are.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until each target has been scraped anew, so that queries tell of what is so now.
    ///
    /// # Errors
    ///
    /// [`QueryError::NotScraped`] after 10 s, with Prometheus' reason; else as [`query`](Self::query).
    pub async fn scraped(&self) -> Result<(), QueryError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = (now.unwrap_or_default() + MOVED).as_secs_f64();
        let deadline = Instant::now() + ANSWER;
        while Instant::now() < deadline {
            // Of anything but a bare metric, the time stamp is that of the query.
            let oldest = self.query("min(timestamp(up)) and min(up) == 1").await?;
            if oldest.first().is_some_and(|sample| sample.value > now) {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        let targets = self.get("targets?state=active").await?;
        let reason = targets["activeTargets"].to_string();
        Err(QueryError::NotScraped { reason })
    }

    /// The instant vector that an expression has now; a scalar is one sample without labels.
    ///
    /// # Errors
    ///
    /// [`QueryError::Refused`] with Prometheus' reason if the expression is wrong or is of another type.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>, QueryError> {
        let expression =
            percent_encoding::utf8_percent_encode(expression, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("query?query={expression}");
        let answer = self.get(&path).await?;
        let value = |point: &Value| point[1].as_str().and_then(|value| value.parse().ok());
        let sample = |series: &Value| {
            let labels = serde_json::from_value(series["metric"].clone()).ok()?;
            let value = value(&series["value"])?;
            Some(Sample { labels, value })
        };
        let result = &answer["result"];
        let samples = match answer["resultType"].as_str() {
            Some("vector") => result
                .as_array()
                .and_then(|all| all.iter().map(sample).collect()),
            Some("scalar") => value(result).map(|value| {
                let labels = BTreeMap::new();
                vec![Sample { labels, value }]
            }),
            _ => None,
        };
        samples.ok_or_else(|| QueryError::Refused {
            request: path,
            reason: format!("neither a vector nor a number: {answer}"),
        })
    }

    /// What `promtool` says to what it reads: `promtool(&["check", "metrics"], exposition)`, say.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn promtool(arguments: &[&str], stdin: &str) -> Result<Verdict, StartError> {
        let mut promtool = tokio::process::Command::new(program("promtool").await?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut input = promtool.stdin.take();
        let give = async {
            if let Some(input) = &mut input {
                // It may be satisfied, or not, without having read all.
                let _ = input.write_all(stdin.as_bytes()).await;
            }
            drop(input);
        };
        let (output, ()) = tokio::join!(promtool.wait_with_output(), give);
        let output = output?;
        let printed = [output.stdout, output.stderr].concat();
        Ok(Verdict {
            passed: output.status.success(),
            printed: String::from_utf8_lossy(&printed).into_owned(),
        })
    }

    /// The data in the answer to a request of its HTTP API.
    async fn get(&self, path: &str) -> Result<Value, QueryError> {
        let uri = format!("http://{}/api/v1/{path}", self.address);
        let request = Request::get(uri).body(()).map_err(ureq::Error::from)?;
        let (status, body) = http::send(&self.http, request).await?;
        let mut answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if answer["status"] == "success" {
            return Ok(answer["data"].take());
        }
        Err(QueryError::Refused {
            request: path.to_owned(),
            reason: format!("{status} {}", String::from_utf8_lossy(&body)),
        })
    }
}

/// Why Prometheus has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// A request got no answer.
    #[error("Prometheus can't be reached: {0}")]
    Http(#[from] ureq::Error),
    /// Prometheus refused a request.
    #[error("Prometheus refused {request}: {reason}")]
    Refused {
        /// What was asked.
        request: String,
        /// Status and its words.
        reason: String,
    },
    /// The targets don't answer, or not as Prometheus likes it.
    #[error("Prometheus has not scraped all its targets; what it says of them: {reason}")]
    NotScraped {
        /// The targets, each with its `lastError`.
        reason: String,
    },
}

async fn program(name: &str) -> Result<PathBuf, StartError> {
    let fetched = tokio::task::spawn_blocking(|| fetch::packages(&PROMETHEUS)).await;
    let tree = fetched.map_err(std::io::Error::other)?;
    Ok(tree?.root().join("usr/bin").join(name))
}

fn configured(targets: &[Target]) -> Value {
    let job = |(number, target): (usize, &Target)| {
        let mut job = json!({
            "job_name": format!("target-{number}"),
            "static_configs": [{ "targets": [target.address.to_string()] }],
        });
        if let Some(token) = &target.token {
            job["authorization"] = json!({ "credentials": token });
        }
        job
    };
    json!({
        "global": { "scrape_interval": SCRAPED_EVERY, "scrape_timeout": SCRAPED_EVERY },
        "scrape_configs": targets.iter().enumerate().map(job).collect::<Vec<_>>(),
    })
}
