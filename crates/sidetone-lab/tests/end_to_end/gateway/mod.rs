//! `sidetone serve` behind a real Asterisk, with the dialplan that its documentation shows.

pub(crate) mod bots;
pub(crate) mod restarts;
pub(crate) mod tickets;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::Lab;
use crate::binary::binary;
use crate::wire::SOON;

/// How often is looked for what has no event.
const LOOK: Duration = Duration::from_millis(20);

/// What a request of a test may take.
const ANSWER: Duration = Duration::from_secs(20);

/// The token of [`file`] that may read and control.
const ADMIN: &str = "the-secret-of-admin";

/// What hooks are signed with, in base64.
const HOOK_KEY: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A gateway's file with ports of the system's choice, and what a scenario adds to its `[server]` and behind its tables. Calls
/// are recorded, and have a token for the scenario.
fn file(server: &str, rest: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nstate_dir = \"state\"\n{server}\n\
         [http]\nlisten = \"127.0.0.1:0\"\n\
         [[http.token]]\nname = \"admin\"\nsecret = {{ file = \"admin.key\" }}\nmay = [\"read\", \"control\"]\n\
         [recording]\ndir = \"recordings\"\n{rest}\n"
    )
}

/// A hook of the file, with the given events.
fn hook(url: &str, events: &[&str]) -> String {
    format!("[[hook]]\nurl = \"{url}\"\nsecret = {{ file = \"hook.key\" }}\nevents = {events:?}\n")
}

/// A folder with a gateway's file, and where the gateway keeps what it keeps.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn with(lab: &Lab, file: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(lab.asterisk.folder())?;
        std::fs::write(folder.path().join("sidetone.toml"), file)?;
        std::fs::write(folder.path().join("admin.key"), ADMIN)?;
        std::fs::write(folder.path().join("hook.key"), format!("whsec_{HOOK_KEY}"))?;
        Ok(Self(folder))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A running `sidetone serve FILE`. Dropped, it is killed.
pub(crate) struct Gateway {
    child: Child,
    log: Log,
    address: SocketAddr,
    http: SocketAddr,
}

/// The events that a gateway has written so far.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    events: Vec<Value>,
    is_over: bool,
}

impl Gateway {
    /// Starts it, and has the recipes ask it for tickets.
    pub(crate) async fn start(lab: &Lab, folder: &Folder) -> anyhow::Result<Self> {
        let mut command = Command::new(binary().await?);
        command.arg("serve").arg(folder.path("sidetone.toml"));
        let (child, log) = spawn(command)?;
        let listening = log.event("listening", |_| true).await?;
        let address = |key: &str| {
            let text = listening[key].as_str().unwrap_or_default();
            let text = text.trim_start_matches("http://").trim_end_matches('/');
            text.parse::<SocketAddr>()
                .with_context(|| listening.to_string())
        };
        let (address, http) = (address("address")?, address("http")?);
        lab.ami.set_global("H", &http.to_string()).await?;
        Ok(Self {
            child,
            log,
            address,
            http,
        })
    }

    /// Ends it as a service manager does.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        signal(&self.child, Signal::TERM)?;
        let status = timeout(2 * SOON, self.child.wait()).await;
        let status = status.context("TERM does not end it")??;
        ensure!(status.success(), "{status}");
        Ok(())
    }

    /// Ends it as the kernel does that is short of memory.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        Ok(())
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let (status, body) = request(self.http, "GET", path, None).await?;
        ensure!(status == 200, "{path}: {status} {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// Does something that has to be done for this answer.
    pub(crate) async fn act(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<()> {
        let (status, answer) = request(self.http, method, path, body).await?;
        ensure!(
            (200..300).contains(&status),
            "{method} {path}: {status} {answer}"
        );
        Ok(())
    }

    /// A ticket as a dialplan gets it.
    pub(crate) async fn ticket(&self, query: &str) -> anyhow::Result<String> {
        let (status, body) =
            request(self.http, "GET", &format!("/v1/tickets?{query}"), None).await?;
        ensure!(status == 200, "{status} {body}");
        Ok(body)
    }
}

fn spawn(mut command: Command) -> anyhow::Result<(Child, Log)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.stdout.take().context("no output")?;
    let log = Log::default();
    let written = log.clone();
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
            written.lock().events.push(event);
        }
        written.lock().is_over = true;
    });
    Ok((child, log))
}

fn signal(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    Ok(kill_process(pid.context("it ended by itself")?, signal)?)
}

impl Log {
    fn lock(&self) -> std::sync::MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data of all events of this type so far.
    pub(crate) fn all(&self, kind: &str) -> Vec<Value> {
        let written = self.lock();
        let events = written.events.iter().filter(|event| event["type"] == kind);
        events.map(|event| event["data"].clone()).collect()
    }

    /// Waits for the first event of this type that fits, from the start on.
    pub(crate) async fn event(
        &self,
        kind: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let deadline = Instant::now() + 2 * SOON;
        loop {
            if let Some(found) = self.all(kind).into_iter().find(&fits) {
                return Ok(found);
            }
            {
                let written = self.lock();
                ensure!(
                    Instant::now() < deadline && !written.is_over,
                    "no {kind} that fits among {:#?}",
                    written.events
                );
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until nobody writes it any more.
    pub(crate) async fn is_over(&self) -> anyhow::Result<()> {
        until("the gateway ends", || self.lock().is_over.then_some(())).await
    }
}

/// Waits until there is something.
async fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + 3 * SOON;
    loop {
        if let Some(found) = found() {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "{what}: not in time");
        sleep(LOOK).await;
    }
}

/// The status and the body of an answer.
async fn request(
    http: SocketAddr,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> anyhow::Result<(u16, String)> {
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://{http}{path}"));
    let is_dialplan = path.starts_with("/v1/tickets");
    let request = if is_dialplan {
        request
    } else {
        request.header("authorization", format!("Bearer {ADMIN}"))
    };
    let request = request
        .header("content-type", "application/json")
        .body(body.map_or_else(String::new, |body| body.to_string()))?;
    let answered = spawn_blocking(move || {
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER));
        let mut answer = agent.build().new_agent().run(request)?;
        anyhow::Ok((
            answer.status().as_u16(),
            answer.body_mut().read_to_string()?,
        ))
    });
    answered.await?
}

/// Receives hooks, checks their signatures, and answers as told.
pub(crate) struct Receiver {
    address: SocketAddr,
    hooks: Arc<Mutex<Hooks>>,
    task: AbortHandle,
}

#[derive(Default)]
struct Hooks {
    is_failing: bool,
    received: Vec<Hook>,
    attempts: usize,
    wrong: Vec<String>,
}

/// A hook that was received.
#[derive(Clone, Debug)]
pub(crate) struct Hook {
    pub(crate) path: String,
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

impl Receiver {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let hooks = Arc::<Mutex<Hooks>>::default();
        let shared = Arc::clone(&hooks);
        let router = Router::new().fallback(async move |request: Request| {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await;
            let mut hooks = shared.lock().unwrap_or_else(PoisonError::into_inner);
            hooks.take(head.uri.path(), &head.headers, &body.unwrap_or_default())
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async { axum::serve(listener, router).await }).abort_handle();
        Ok(Self {
            address,
            hooks,
            task,
        })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Hooks> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers 503 from now on, or no longer.
    pub(crate) fn set_failing(&self, is_failing: bool) {
        self.lock().is_failing = is_failing;
    }

    /// All hooks that were received so far.
    pub(crate) fn received(&self) -> Vec<Hook> {
        self.lock().received.clone()
    }

    /// Waits for the first hook that fits, from the start on.
    pub(crate) async fn hook(&self, fits: impl Fn(&Hook) -> bool) -> anyhow::Result<Hook> {
        let found = until("a hook", || self.received().into_iter().find(&fits)).await;
        found.with_context(|| format!("{:#?}", self.received()))
    }

    /// That every request was a hook, signed.
    pub(crate) fn saw_nothing_wrong(&self) -> anyhow::Result<()> {
        let hooks = self.lock();
        ensure!(hooks.wrong.is_empty(), "{:#?}", hooks.wrong);
        Ok(())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hooks {
    fn take(&mut self, path: &str, headers: &HeaderMap, body: &Bytes) -> StatusCode {
        self.attempts += 1;
        match hook_of(path, headers, body) {
            Err(error) => {
                self.wrong.push(format!("{error:#}: {headers:?} {body:?}"));
                StatusCode::BAD_REQUEST
            }
            Ok(_) if self.is_failing => StatusCode::SERVICE_UNAVAILABLE,
            Ok(hook) => {
                self.received.push(hook);
                StatusCode::NO_CONTENT
            }
        }
    }
}

/// The hook, if its signature is right, as its receiver finds out.
fn hook_of(path: &str, headers: &HeaderMap, body: &Bytes) -> anyhow::Result<Hook> {
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.with_context(|| format!("no {name}"))
    };
    let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
    let signature = header("webhook-signature")?.strip_prefix("v1,");
    let signature = STANDARD.decode(signature.context("another version")?)?;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &STANDARD.decode(HOOK_KEY)?);
    let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    if ring::hmac::verify(&key, &signed, &signature).is_err() {
        bail!("a wrong signature");
    }
    let event: Value = serde_json::from_slice(body)?;
    Ok(Hook {
        path: path.to_owned(),
        id: id.to_owned(),
        kind: event["type"].as_str().context("no type")?.to_owned(),
        data: event["data"].clone(),
    })
}

/// What the dialplan has done, by channel: each step as `EXTEN@CONTEXT APPLICATION(ARGUMENTS)`.
pub(crate) struct Dialplan(HashMap<String, Vec<String>>);

impl Dialplan {
    /// What Asterisk has logged from this byte on.
    pub(crate) fn since(lab: &Lab, start: usize) -> Self {
        let log = lab.asterisk.log();
        let mut steps: HashMap<String, Vec<String>> = HashMap::new();
        for line in log.get(start..).unwrap_or_default().lines() {
            if let Some((channel, step)) = step(line) {
                steps.entry(channel).or_default().push(step);
            }
        }
        Self(steps)
    }

    /// The steps of the channel that has this text in one of them.
    pub(crate) fn of(&self, text: &str) -> Option<&[String]> {
        let mut all = self.0.values();
        let found = all.find(|steps| steps.iter().any(|step| step.contains(text)));
        found.map(Vec::as_slice)
    }

    /// How many steps start like this.
    pub(crate) fn count(&self, start: &str) -> usize {
        let steps = self.0.values().flatten();
        steps.filter(|step| step.starts_with(start)).count()
    }
}

/// `… Executing [EXTEN@CONTEXT:PRIORITY] APPLICATION("CHANNEL", "ARGUMENTS") in new stack`.
fn step(line: &str) -> Option<(String, String)> {
    let (_, rest) = line.split_once("Executing [")?;
    let (place, rest) = rest.split_once("] ")?;
    let (application, rest) = rest.split_once("(\"")?;
    let (channel, rest) = rest.split_once("\", \"")?;
    let (arguments, _) = rest.rsplit_once("\")")?;
    let (place, _) = place.rsplit_once(':')?;
    Some((
        channel.to_owned(),
        format!("{place} {application}({arguments})"),
    ))
}

/// Waits until the dialplan of the call with this UUID has come to a step that starts like this, and answers all of its steps.
async fn came_to(lab: &Lab, start: usize, id: Uuid, step: &str) -> anyhow::Result<Vec<String>> {
    let deadline = Instant::now() + 2 * SOON;
    let id = id.to_string();
    loop {
        let dialplan = Dialplan::since(lab, start);
        let steps = dialplan.of(&id).unwrap_or_default();
        if steps.iter().any(|it| it.starts_with(step)) {
            return Ok(steps.to_vec());
        }
        ensure!(
            Instant::now() < deadline,
            "the dialplan does not come to {step:?}: {steps:#?}"
        );
        sleep(LOOK).await;
    }
}

/// Everything in a folder, by name.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
