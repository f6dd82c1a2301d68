//! `sidetone serve` as an operator runs it, for the scenarios of its page and its figures.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use sidetone_caller::{CallRecord, Caller, CallerError};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::binary::binary;
use crate::wire::SOON;

/// The secret of the token `page`, which may read, listen and control.
pub(crate) const TOKEN: &str = "the-secret-of-the-page";

/// A running gateway.
pub(crate) struct Daemon {
    child: Child,
    /// For calls.
    pub(crate) address: SocketAddr,
    /// For the page and the API.
    pub(crate) http: SocketAddr,
    log: Arc<Mutex<Vec<Value>>>,
    folder: TempDir,
}

impl Daemon {
    /// Starts it with what a scenario adds to the file: to `[server]`, and after `[http]`.
    pub(crate) async fn start(folder: &Path, server: &str, rest: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(folder)?;
        // Known beforehand, so that another one can follow in their place.
        let (calls, http) = (free_port()?, free_port()?);
        let file = format!(
            "[server]\nlisten = \"127.0.0.1:{calls}\"\n{server}\n[http]\nlisten = \"127.0.0.1:{http}\"\n\
             [[http.token]]\nname = \"page\"\nsecret = {{ file = \"page.key\" }}\nmay = [\"read\", \"listen\", \"control\"]\n{rest}"
        );
        std::fs::write(folder.path().join("page.key"), TOKEN)?;
        std::fs::write(folder.path().join("sidetone.toml"), file)?;
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let log = Arc::default();
        let child = spawn(folder.path(), &log).await?;
        let daemon = Self {
            child,
            address: address(calls),
            http: address(http),
            log,
            folder,
        };
        daemon.event("listening", |_| true).await?;
        Ok(daemon)
    }

    /// Kills it, as a machine does that fails. What it has logged is forgotten.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        self.log.lock().unwrap().clear();
        Ok(())
    }

    /// Starts it again after [`kill`](Self::kill), in the same place.
    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        self.child = spawn(self.folder.path(), &self.log).await?;
        self.event("listening", |_| true).await.map(drop)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// Waits until it has logged an event of this type, for which `is_it`.
    pub(crate) async fn event(
        &self,
        name: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let deadline = Instant::now() + SOON;
        loop {
            let found = self.events(name).into_iter().find(|data| is_it(data));
            if let Some(data) = found {
                return Ok(data);
            }
            ensure!(Instant::now() < deadline, "no {name} in {:#?}", self.log);
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The data of all events of this type so far.
    pub(crate) fn events(&self, name: &str) -> Vec<Value> {
        let log = self.log.lock().unwrap();
        let events = log.iter().filter(|event| event["type"] == name);
        events.map(|event| event["data"].clone()).collect()
    }

    /// The status and the body of an answer. With the token, it may do everything but mint tickets.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
    ) -> anyhow::Result<(u16, String)> {
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 0\r\n{}\r\n",
            self.http,
            token.unwrap_or_default()
        );
        let asking = async {
            let mut stream = TcpStream::connect(self.http).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let answer = timeout(SOON, asking).await.context("no answer")??;
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        Ok((
            head.get(9..12).context("no status")?.parse()?,
            body.to_owned(),
        ))
    }

    /// A ticket's UUID.
    pub(crate) async fn ticket(&self, query: &str) -> anyhow::Result<Uuid> {
        let (status, body) = self
            .ask("GET", &format!("/v1/tickets?{query}"), None)
            .await?;
        ensure!(status == 200, "{status} {body}");
        Ok(body.split(',').next().unwrap_or_default().parse()?)
    }

    /// What is written in `/metrics`.
    pub(crate) async fn metrics(&self) -> anyhow::Result<String> {
        let (status, body) = self.ask("GET", "/metrics", Some(TOKEN)).await?;
        ensure!(status == 200, "{status} {body}");
        Ok(body)
    }

    /// Waits until the call with this UUID is let in.
    pub(crate) async fn started(&self, id: Uuid) -> anyhow::Result<()> {
        let id = id.to_string();
        self.event("call.started", |data| data["call"] == id)
            .await
            .map(drop)
    }
}

/// Places a call. Its record comes when it is over.
pub(crate) fn place(caller: Caller) -> JoinHandle<Result<CallRecord, CallerError>> {
    tokio::task::spawn_blocking(move || caller.call())
}

/// The record of a call that is about to end.
pub(crate) async fn record(
    call: JoinHandle<Result<CallRecord, CallerError>>,
) -> anyhow::Result<CallRecord> {
    Ok(timeout(SOON, call)
        .await
        .context("the call does not end")???)
}

/// The command, which is looked for once: each time takes Cargo seconds.
pub(crate) async fn command() -> anyhow::Result<&'static Path> {
    static COMMAND: OnceCell<PathBuf> = OnceCell::const_new();
    COMMAND.get_or_try_init(binary).await.map(PathBuf::as_path)
}

async fn spawn(folder: &Path, log: &Arc<Mutex<Vec<Value>>>) -> anyhow::Result<Child> {
    let mut child = Command::new(command().await?)
        .args(["serve", "sidetone.toml"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.stdout.take().context("no output")?;
    let log = Arc::clone(log);
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
            log.lock().unwrap().push(event);
        }
    });
    Ok(child)
}

/// Below the range from which Linux takes the ports of outgoing connections, so that it is still free after a restart.
fn free_port() -> anyhow::Result<u16> {
    for _ in 0..100 {
        let port = 10_000 + Uuid::new_v4().as_fields().1 % 1_900;
        if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port is free")
}
