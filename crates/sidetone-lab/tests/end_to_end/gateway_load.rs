//! Calls of a gateway that is asked for tickets, scraped, watched and listened to, while the endpoint of its hooks hangs. They are no
//! later than calls of one that is left in peace.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use sidetone_lab::sidetone;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::wire::SOON;
use crate::{Lab, scenarios};

scenarios![questions_and_watchers_delay_no_call];

const CALLS: usize = 300;
/// How long the lateness of each run is measured.
const MEASURED: Duration = Duration::from_secs(6);
const WARM_UP: Duration = Duration::from_secs(2);
const TICKETS_PER_SECOND: u32 = 200;
const PAGES: usize = 20;
const LISTENING: usize = 5;
/// How often calls are placed in a crowd, at most.
const ROUNDS: usize = 4;
/// What all that may cost a frame. Here gateway, callers, pages and listeners share the machine's cores, and the gateway is built
/// without optimized dependencies; it costs about a millisecond then.
const ALLOWED: Duration = Duration::from_millis(3);
/// How much more memory the process may hold afterwards. The results of 600 calls are kept for 5 minutes, their hooks until the
/// endpoint takes them, and the allocator keeps what was used for the pages.
const KEPT: u64 = 12 << 20;
/// How long a connection may be silent.
const SILENT_FOR: Duration = Duration::from_secs(30);
const SECRET: &str = "a-secret-that-only-this-test-has";

async fn questions_and_watchers_delay_no_call(_: Arc<Lab>) -> anyhow::Result<()> {
    let hanging = TcpListener::bind("127.0.0.1:0").await?;
    let hooks = hanging.local_addr()?;
    let gateway = Served::start(hooks).await?;
    let silent = tokio::spawn(silent(gateway.address));
    let hooks_taken = Arc::<AtomicUsize>::default();
    tokio::spawn(take_and_hang(hanging, Arc::clone(&hooks_taken)));
    let mut in_peace = Vec::new();
    let mut crowded = Vec::new();
    let (mut base, mut after) = (None, 0);
    // In turns, so that what else the machine does meanwhile is in both. A machine that stands still for a moment spoils one run,
    // whichever it is.
    while crowded.len() < ROUNDS && !is_no_worse(&crowded, &in_peace) {
        in_peace.push(gateway.load().await?);
        // Nobody may listen to its calls any more.
        let before = gateway.settled_memory().await?;
        base.get_or_insert(before);
        let crowd = Crowd::start(&gateway);
        crowded.push(gateway.load().await?);
        crowd.end().await?;
        after = gateway.settled_memory().await?;
    }
    let base = base.unwrap_or_default();
    eprintln!(
        "    {crowded:?}, and {in_peace:?} in peace; memory {} kB, before {} kB",
        after >> 10,
        base >> 10
    );
    ensure!(
        is_no_worse(&crowded, &in_peace),
        "{crowded:?}, and {in_peace:?} in peace"
    );
    ensure!(after <= base + KEPT, "{after} bytes, {base} before");
    ensure!(
        hooks_taken.load(Ordering::Relaxed) > 0,
        "the endpoint got no hook"
    );
    let silent = timeout(SILENT_FOR + SOON, silent)
        .await
        .context("a silent connection stays")???;
    ensure!(
        (SILENT_FOR - Duration::from_secs(1)..SILENT_FOR + SOON).contains(&silent),
        "a silent connection was closed after {silent:?}"
    );
    Ok(())
}

/// Whether the best of the crowded runs was as good as the best of those in peace, but for what is allowed.
fn is_no_worse(crowded: &[Quality], in_peace: &[Quality]) -> bool {
    let late = |runs: &[Quality]| runs.iter().map(|run| run.late).min();
    let lost = |runs: &[Quality]| runs.iter().map(|run| run.lost).min();
    match (late(crowded), late(in_peace)) {
        (Some(crowd), Some(peace)) => crowd <= peace + ALLOWED && lost(crowded) <= lost(in_peace),
        _ => false,
    }
}

/// Hooks' connections, each of which sends its request and hears nothing.
async fn take_and_hang(listener: TcpListener, taken: Arc<AtomicUsize>) {
    let mut held = Vec::new();
    while let Ok((stream, _)) = listener.accept().await {
        taken.fetch_add(1, Ordering::Relaxed);
        held.push(stream);
    }
}

/// How long a connection stays that is silent.
async fn silent(address: SocketAddr) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    // It may be sent a hang-up first.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    Ok(began.elapsed())
}

/// What calls were like.
#[derive(Debug)]
struct Quality {
    /// 99 of 100 frames were at most this late.
    late: Duration,
    /// Frames that did not come back.
    lost: u64,
}

/// A gateway that echoes.
struct Served {
    child: Child,
    address: SocketAddr,
    http: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Served {
    async fn start(hooks: SocketAddr) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("token"), SECRET)?;
        let file = folder.path().join("sidetone.toml");
        // Unused tickets may hold half of the places, and those of two seconds are more: some who ask get none.
        std::fs::write(
            &file,
            format!(
                "[server]\nlisten = \"127.0.0.1:0\"\ntrusted = [\"127.0.0.1\"]\ntickets = \"optional\"\ndefault_route = \"echo\"\n\
                 max_calls = {}\nticket_lifetime = \"2s\"\nstate_dir = \"state\"\n\
                 [http]\nlisten = \"127.0.0.1:0\"\n\
                 [[http.token]]\nname = \"all\"\nsecret = {{ file = \"token\" }}\nmay = [\"read\", \"listen\", \"control\"]\n\
                 [route.echo]\necho = {{}}\n\
                 [[hook]]\nurl = \"http://{hooks}/\"\nevents = [\"call.started\", \"call.ended\"]\n",
                2 * CALLS + 100
            ),
        )?;
        let mut child = Command::new(command().await?)
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let listening = loop {
            let line = timeout(SOON, lines.next_line())
                .await
                .context("it does not listen")??;
            let line = line.context("it ended")?;
            let event: Value = serde_json::from_str(&line)?;
            if event["type"] == "listening" {
                break event["data"].clone();
            }
        };
        // What it logs has to be read.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let http = listening["http"].as_str().context("no HTTP")?;
        let http = http.trim_start_matches("http://").trim_end_matches('/');
        Ok(Self {
            address: listening["address"]
                .as_str()
                .context("no address")?
                .parse()?,
            http: http.parse()?,
            child,
            _folder: folder,
        })
    }

    /// Places calls that are echoed.
    async fn load(&self) -> anyhow::Result<Quality> {
        let seconds = |time: Duration| time.as_secs_f64().to_string();
        let output = Command::new(command().await?)
            .args(["load", &self.address.to_string(), "--json"])
            .args(["--calls", &CALLS.to_string()])
            .args([
                "--seconds",
                &seconds(MEASURED),
                "--warm-up",
                &seconds(WARM_UP),
            ])
            .kill_on_drop(true)
            .output()
            .await?;
        let report = String::from_utf8(output.stdout)?;
        let report: Value = serde_json::from_str(&report).with_context(|| report.clone())?;
        let frames = &report["frames"];
        for never in ["duplicate", "foreign", "forbidden", "blocked"] {
            ensure!(frames[never] == 0, "{report}");
        }
        ensure!(report["ended_early"] == 0, "{report}");
        let micros = report["pace"]["lateness_us"]["p99"].as_f64();
        Ok(Quality {
            late: Duration::from_secs_f64(micros.context("no lateness")? / 1e6),
            lost: frames["lost"].as_u64().context("no count")?,
        })
    }

    /// What it holds in memory when no call is left, in bytes.
    async fn settled_memory(&self) -> anyhow::Result<u64> {
        let settled = async {
            while value(&self.metrics().await?, "sidetone_calls ")? > 0.0 {
                sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        };
        timeout(SOON, settled).await.context("calls are left")??;
        let pid = self.child.id().context("it ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kilobytes = value(&status.replace(" kB", "").replace('\t', " "), "VmRSS:")?;
        Ok(kilobytes as u64 * 1024)
    }

    async fn metrics(&self) -> anyhow::Result<String> {
        let (status, body) = get(self.http, "/metrics").await?;
        ensure!(status == 200, "{status}: {body}");
        Ok(body)
    }
}

/// The number behind the beginning of a line.
fn value(text: &str, beginning: &str) -> anyhow::Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(beginning));
    let number = line.with_context(|| format!("no {beginning} in {text}"))?;
    Ok(number.trim().parse()?)
}

async fn command() -> anyhow::Result<std::path::PathBuf> {
    Ok(spawn_blocking(sidetone).await??)
}

/// All who ask, watch and listen.
struct Crowd {
    tasks: JoinSet<anyhow::Result<()>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    minted: AtomicUsize,
    refused: AtomicUsize,
    scrapes: AtomicUsize,
    /// Bytes that pages were sent, and those who listen.
    shown: AtomicUsize,
    heard: AtomicUsize,
}

impl Crowd {
    fn start(gateway: &Served) -> Self {
        let (http, counts) = (gateway.http, Arc::<Counts>::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(ask_for_tickets(http, Arc::clone(&counts)));
        tasks.spawn(scrape(http, Arc::clone(&counts)));
        for _ in 0..PAGES {
            let counts = Arc::clone(&counts);
            tasks.spawn(async move { read(http, "/v1/events", &counts.shown).await });
        }
        tasks.spawn(listen(http, Arc::clone(&counts)));
        Self { tasks, counts }
    }

    /// Fails if somebody was not served.
    async fn end(mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.tasks.try_join_next() {
            ended??;
        }
        self.tasks.shutdown().await;
        eprintln!("    {:?}", self.counts);
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let seconds = (MEASURED.as_secs()) as usize;
        let asked = of(&self.counts.minted) + of(&self.counts.refused);
        let is_served = of(&self.counts.minted) > 0
            && of(&self.counts.refused) > 0
            && asked >= seconds * TICKETS_PER_SECOND as usize * 9 / 10
            && of(&self.counts.scrapes) >= seconds
            // A UUID and two levels of each call, five times a second.
            && of(&self.counts.shown) >= seconds * PAGES * CALLS * 5 * 40
            && of(&self.counts.heard) >= seconds * LISTENING * 192_000 * 8 / 10;
        ensure!(is_served, "somebody was not served: {:?}", self.counts);
        Ok(())
    }
}

/// Each on a connection of its own, as CURL() asks.
async fn ask_for_tickets(http: SocketAddr, counts: Arc<Counts>) -> anyhow::Result<()> {
    let mut clock = interval(Duration::from_secs(1) / TICKETS_PER_SECOND);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut asking = JoinSet::new();
    loop {
        clock.tick().await;
        let counts = Arc::clone(&counts);
        asking.spawn(async move {
            let (status, body) = get(http, "/v1/tickets?route=echo&from=%2B4930123").await?;
            match (status, body.is_empty()) {
                (200, false) => counts.minted.fetch_add(1, Ordering::Relaxed),
                (429 | 503, true) => counts.refused.fetch_add(1, Ordering::Relaxed),
                other => anyhow::bail!("{other:?}: {body}"),
            };
            Ok(())
        });
        while let Some(answered) = asking.try_join_next() {
            answered??;
        }
    }
}

async fn scrape(http: SocketAddr, counts: Arc<Counts>) -> anyhow::Result<()> {
    let mut clock = interval(Duration::from_secs(1));
    loop {
        clock.tick().await;
        let (status, _) = get(http, "/metrics").await?;
        ensure!(status == 200, "{status}");
        counts.scrapes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Listens to the first calls that there are.
async fn listen(http: SocketAddr, counts: Arc<Counts>) -> anyhow::Result<()> {
    let ids = loop {
        let (_, body) = get(http, "/v1/calls").await?;
        let calls: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
        let calls = calls.as_array().or_else(|| calls["calls"].as_array());
        let ids = calls
            .into_iter()
            .flatten()
            .filter_map(|call| call["id"].as_str());
        let ids: Vec<String> = ids.take(LISTENING).map(str::to_owned).collect();
        if ids.len() == LISTENING {
            break ids;
        }
        sleep(Duration::from_millis(50)).await;
    };
    let mut listening = JoinSet::new();
    for id in ids {
        let counts = Arc::clone(&counts);
        listening.spawn(async move {
            read(http, &format!("/v1/calls/{id}/listen"), &counts.heard).await
        });
    }
    while let Some(ended) = listening.join_next().await {
        ended??;
    }
    Ok(())
}

async fn request(http: SocketAddr, path: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(http).await?;
    // A dialplan on the same machine has no token.
    let authorization = match path.starts_with("/v1/tickets") {
        true => String::new(),
        false => format!("Authorization: Bearer {SECRET}\r\n"),
    };
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {http}\r\n{authorization}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// The status and the body of an answer.
async fn get(http: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = request(http, path).await?;
    let mut answer = String::new();
    let read = timeout(SOON, stream.read_to_string(&mut answer)).await;
    read.with_context(|| format!("no answer to {path}"))??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    Ok((
        head.get(9..12).context("no status")?.parse()?,
        body.to_owned(),
    ))
}

/// Reads a stream to its end, and counts its bytes.
async fn read(http: SocketAddr, path: &str, count: &AtomicUsize) -> anyhow::Result<()> {
    let mut stream = BufReader::new(request(http, path).await?);
    let mut status = String::new();
    stream.read_line(&mut status).await?;
    if !status.contains(" 200 ") {
        stream.read_to_string(&mut status).await?;
        anyhow::bail!("{path}: {status}");
    }
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            length => count.fetch_add(length, Ordering::Relaxed),
        };
    }
}
