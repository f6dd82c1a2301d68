//! A gateway that is killed, and one that is restarted while calls come.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::Signal;
use serde_json::Value;
use sidetone_lab::ami::Originate;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::tickets::has_a_caller;
use super::{Dialplan, Folder, Gateway, Log, Receiver, file, hook, names, signal, spawn, until};
use crate::binary::binary;
use crate::wire::SOON;
use crate::{Lab, scenarios};

scenarios![a_killed_gateway_loses_no_hook_and_no_recording];
scenarios![fn crowded: a_restart_refuses_no_call_and_loses_no_result];

/// How fast calls are placed, per second.
const PLACED_PER_SECOND: u32 = 50;

/// Places calls by the application and by Dial in turns. Their callers do this.
async fn place(lab: &Lab, calls: usize, caller: &str) -> anyhow::Result<()> {
    let mut clock = interval(Duration::from_secs(1) / PLACED_PER_SECOND);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..calls {
        clock.tick().await;
        let channel = ["Local/104@recipes/n", "Local/105@recipes/n"][number % 2];
        let call = Originate::exten(channel, "caller", caller).variable("__S", "60");
        lab.ami.originate(&call).await?;
    }
    Ok(())
}

async fn a_killed_gateway_loses_no_hook_and_no_recording(lab: Arc<Lab>) -> anyhow::Result<()> {
    const CALLS: usize = 50;
    const ENDPOINTS: [&str; 2] = ["/crm", "/archive"];
    let receiver = Receiver::start().await?;
    receiver.set_failing(true);
    let hooks = ENDPOINTS.map(|path| hook(&receiver.url(&path[1..]), &["call.started"]));
    let route = "[route.support]\necho = {}\nrecord = true\n";
    let folder = Folder::with(&lab, &file("", &(hooks.concat() + route)))?;
    let gateway = Gateway::start(&lab, &folder).await?;
    place(&lab, CALLS, "tone").await?;
    let all_there = || (gateway.log.all("call.started").len() == CALLS).then_some(());
    until("all calls come", all_there).await?;
    let spool = folder.path("state/hooks");
    let pending = || {
        let pending = pending(&spool);
        (pending.len() == CALLS * ENDPOINTS.len()).then_some(pending)
    };
    let pending = until("all hooks are kept", pending).await?;
    // Something is recorded of the last call, too.
    sleep(Duration::from_millis(2_500)).await;
    let started = gateway.log.all("call.started");
    ensure!(gateway.log.all("call.ended").is_empty());
    gateway.kill().await?;
    let attempts = receiver.lock().attempts;
    ensure!(attempts > 0 && receiver.received().is_empty());

    // Without a gateway, every dialplan comes to its end.
    let deadline = Instant::now() + SOON;
    while !lab
        .asterisk
        .cli("core show channels count")
        .await?
        .starts_with("0 active channels")
    {
        ensure!(Instant::now() < deadline, "calls are left");
        sleep(Duration::from_millis(100)).await;
    }

    receiver.set_failing(false);
    let gateway = Gateway::start(&lab, &folder).await?;
    let arrived = || {
        let received = receiver.received().into_iter();
        let arrived: BTreeSet<_> = received.map(|hook| (hook.path, hook.id)).collect();
        (arrived.len() >= pending.len()).then_some(arrived)
    };
    let arrived = until("all hooks arrive", arrived).await?;
    ensure!(arrived == pending, "{arrived:#?} instead of {pending:#?}");
    receiver.saw_nothing_wrong()?;

    let files = names(&folder.path("recordings"));
    for call in &started {
        let id = call["call"].as_str().context("no UUID")?;
        let recording = files
            .iter()
            .find(|name| name.contains(id) && name.contains(".wav"))
            .with_context(|| format!("no recording of {id} among {files:#?}"))?;
        let rate = match call["params"]["to"] == "104" {
            true => 8_000,
            false => 16_000,
        };
        has_a_caller(&folder.path("recordings").join(recording), rate)?;
        let side_file = std::fs::read(folder.path(&format!("recordings/{id}.json")))?;
        let side_file: Value = serde_json::from_slice(&side_file)?;
        ensure!(side_file["params"] == call["params"], "{side_file}");
    }
    eprintln!(
        "    {} hooks arrived after {attempts} attempts that failed, and {} recordings open",
        arrived.len(),
        started.len()
    );
    gateway.end().await
}

/// The path of its endpoint and the id of every hook on disk.
fn pending(spool: &std::path::Path) -> BTreeSet<(String, String)> {
    let mut pending = BTreeSet::new();
    for folder in names(spool) {
        let folder = spool.join(folder);
        for name in names(&folder) {
            if name.ends_with(".json")
                && let Ok(content) = std::fs::read(folder.join(&name))
                && let Ok(hook) = serde_json::from_slice::<Value>(&content)
                && let Some((_, path)) = hook["shown"].as_str().and_then(|it| it.rsplit_once('/'))
                && let Some(id) = hook["id"].as_str()
            {
                pending.insert((format!("/{path}"), id.to_owned()));
            }
        }
    }
    pending
}

/// What systemd does for a unit with two sockets and `Type=notify`.
struct Systemd {
    sockets: [OwnedFd; 2],
    http: SocketAddr,
    notifications: UnixDatagram,
    folder: Folder,
}

/// A unit's process.
struct Unit {
    main: Child,
    log: Log,
}

impl Systemd {
    fn new(folder: Folder) -> anyhow::Result<Self> {
        let notifications = UnixDatagram::bind(folder.path("notify"))?;
        let listeners = [
            TcpListener::bind("127.0.0.1:0")?,
            TcpListener::bind("127.0.0.1:0")?,
        ];
        let http = listeners[1].local_addr()?;
        let [calls, answers] = listeners.each_ref().map(|listener| {
            // Numbers that the shell below does not use itself, open for it.
            let socket = fcntl_dupfd_cloexec(listener, 100)?;
            fcntl_setfd(&socket, FdFlags::empty())?;
            anyhow::Ok(socket)
        });
        Ok(Self {
            sockets: [calls?, answers?],
            http,
            notifications,
            folder,
        })
    }

    /// Starts the unit, and waits until it is ready.
    async fn start(&self) -> anyhow::Result<Unit> {
        let [calls, http] = self.sockets.each_ref().map(AsRawFd::as_raw_fd);
        let script = format!(
            "export LISTEN_FDS=2 LISTEN_FDNAMES=audiosocket:http LISTEN_PID=$$; \
             exec \"$0\" serve \"$1\" 3<&{calls} 4<&{http} {calls}<&- {http}<&-"
        );
        let mut command = Command::new("bash");
        command
            .args(["-c", &script])
            .arg(binary().await?)
            .arg(self.folder.path("sidetone.toml"))
            .env("NOTIFY_SOCKET", self.folder.path("notify"));
        let (main, log) = spawn(command)?;
        timeout(2 * SOON, self.notified("READY=1"))
            .await
            .context("the unit is not ready")??;
        Ok(Unit { main, log })
    }

    async fn notified(&self, state: &str) -> anyhow::Result<()> {
        let mut message = [0; 1024];
        loop {
            let length = self.notifications.recv(&mut message).await?;
            let text = String::from_utf8_lossy(&message[..length]);
            if text.lines().any(|line| line == state) {
                return Ok(());
            }
        }
    }
}

impl Unit {
    /// Asks it to end, and waits for the main process, as systemd does before it starts the next one.
    async fn stop(&mut self) -> anyhow::Result<()> {
        signal(&self.main, Signal::TERM)?;
        let status = timeout(2 * SOON, self.main.wait()).await;
        let status = status.context("the main process does not end")??;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

async fn a_restart_refuses_no_call_and_loses_no_result(lab: Arc<Lab>) -> anyhow::Result<()> {
    const BEFORE: usize = 100;
    const MEANWHILE: usize = 150;
    // All of the first are there when the restart begins, and each ends by itself.
    let route = "[route.support]\necho = {}\nmax_duration = \"6s\"\nresult = \"set,DONE\"\n";
    let folder = Folder::with(&lab, &file("", route))?;
    let systemd = Systemd::new(folder)?;
    lab.ami.set_global("H", &systemd.http.to_string()).await?;
    let start = lab.asterisk.log().len();
    let mut first = systemd.start().await?;
    place(&lab, BEFORE, "wait").await?;
    let all_there = || (first.log.all("call.started").len() == BEFORE).then_some(());
    until("all calls come", all_there).await?;

    let first_log = first.log.clone();
    let restart = async {
        sleep(Duration::from_millis(500)).await;
        let begun = Instant::now();
        first.stop().await?;
        let released = begun.elapsed();
        let second = systemd.start().await?;
        anyhow::Ok((second, released, begun.elapsed()))
    };
    let placing = place(&lab, MEANWHILE, "wait");
    let ((mut second, released, ready), ()) = tokio::try_join!(restart, placing)?;
    let old = first_log.all("call.started").len();
    let stopping = first_log.event("stopping", |_| true).await?;

    let all = BEFORE + MEANWHILE;
    let ended = || {
        let dialplan = Dialplan::since(&lab, start);
        let with = dialplan.count("result-set@sidetone-result NoOp(the gateway says DONE)");
        let without = dialplan.count("result-@sidetone-result");
        let elsewhere = dialplan.count("s@sidetone-elsewhere Playback(");
        (with + without + elsewhere >= all).then_some((with, without, elsewhere))
    };
    let ended = until("each dialplan ends", ended).await;
    let ended = ended.with_context(|| {
        let dialplan = Dialplan::since(&lab, start);
        let with = dialplan.count("result-set@sidetone-result");
        format!("{with} of {all}")
    })?;
    ensure!(
        ended == (all, 0, 0),
        "of {all} dialplans, these have a result, none, and went elsewhere: {ended:?}"
    );
    eprintln!(
        "    {old} calls of the old process, {} of the new one; {}; the old process let go after {released:.1?}, \
         and the new one was ready after {ready:.1?}",
        second.log.all("call.started").len(),
        stopping["text"].as_str().unwrap_or_default()
    );
    for log in [&first_log, &second.log] {
        for kind in ["call.rejected", "call.notice", "alarm"] {
            ensure!(log.all(kind).is_empty(), "{:#?}", log.all(kind));
        }
    }
    // Its output ends with the process that has finished the calls.
    first_log.is_over().await?;
    ensure!(first_log.all("call.ended").len() == old);
    second.stop().await?;
    second.log.is_over().await
}
