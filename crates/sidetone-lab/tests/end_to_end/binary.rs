//! The command `sidetone` as an operator runs it, behind a real Asterisk.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sidetone_audio::tone::{caller_voice, greeting};
use sidetone_caller::{Codec, exact_runs, ramp};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::alike::{alike_in_pieces, place_of};
use crate::person::samples;
use crate::recording::tracks;
use crate::serve::{Way, dial, place};
use crate::wire::{FRAME, SOON};
use crate::{Lab, scenarios, sound_file};

scenarios![
    play_plays_a_file_and_hangs_up,
    echo_echoes,
    record_records_the_caller,
    demo_greets_and_echoes,
];

/// A machine that compiles at the same time takes so long.
const BUILD: Duration = Duration::from_secs(200);

async fn play_plays_a_file_and_hangs_up(lab: Arc<Lab>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(lab.asterisk.folder())?;
    let (file, sound) = (folder.path().join("sound.wav"), ramp(1, 0, 150 * FRAME));
    sound_file::write(&file, 8_000, &sound)?;
    let mut command = Running::serve(folder.path(), &["play", &file.display().to_string()]).await?;
    for way in [Way::Application, Way::DialOn("slin")] {
        let mut call = dial(&lab, command.address, way, Codec::default()).await?;
        call.reaches(way.after()).await?;
        call.person.ended(SOON).await?;
        let runs = exact_runs(&sound, &samples(&call.person.heard()));
        ensure!(
            matches!(runs[..], [run] if run.source == 0 && run.length >= sound.len()),
            "{way:?}: {runs:?}"
        );
        let ended = command.event("call_ended").await?;
        ensure!(ended["id"] == call.id.to_string(), "{ended}");
        ensure!(
            ended["reason"] == "finished" && ended["ended_by"] == "server",
            "{ended}"
        );
    }
    command.end().await
}

async fn echo_echoes(lab: Arc<Lab>) -> anyhow::Result<()> {
    let mut command = Running::serve(lab.asterisk.folder(), &["echo"]).await?;
    for way in [Way::Application, Way::Dial("slin")] {
        let call = place(&lab, command.address, way).await?;
        let said = caller_voice(8_000, Duration::from_secs(2), 1);
        let likeness = alike_in_pieces(&said, &call.hears(&said).await?, 8_000);
        ensure!(likeness >= 0.95, "{way:?}: correlates {likeness:.4}");
        call.person.hang_up().await?;
        let ended = command.event("call_ended").await?;
        ensure!(is_callers_end(&ended), "{ended}");
    }
    command.end().await
}

async fn record_records_the_caller(lab: Arc<Lab>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(lab.asterisk.folder())?;
    let mut command = Running::serve(folder.path(), &["record", "calls"]).await?;
    let call = place(&lab, command.address, Way::Application).await?;
    let said = ramp(2, 0, 150 * FRAME);
    call.hears(&said).await?;
    call.person.hang_up().await?;
    let recorded = command.event("recorded").await?;
    ensure!(
        recorded["id"] == call.id.to_string() && recorded["failure"].is_null(),
        "{recorded}"
    );
    let file = recorded["files"][0].as_str().context("no file")?;
    let (left, right) = tracks(&folder.path().join(file))?;
    let runs = exact_runs(&said, &left);
    let whole: usize = runs.iter().map(|run| run.length).sum();
    // A machine that is busy for longer than 30 ms leaves a mark.
    ensure!(whole >= said.len() * 9 / 10, "{runs:?}");
    ensure!(
        right.iter().all(|sample| *sample == 0),
        "it played something"
    );
    command.end().await
}

async fn demo_greets_and_echoes(lab: Arc<Lab>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(lab.asterisk.folder())?;
    // It tells a story, not events.
    let (child, mut lines) = start(folder.path(), &["demo", "--listen", "127.0.0.1:0"]).await?;
    let listens = line(&mut lines, "listens on").await?;
    let address = listens
        .trim()
        .trim_end_matches('.')
        .rsplit(' ')
        .next()
        .context("no address")?;
    let command = Running {
        child,
        address: address.parse()?,
        lines,
    };
    let call = place(&lab, command.address, Way::Application).await?;
    // The greeting takes 1.8 s.
    call.person.has_heard(110).await?;
    let said = caller_voice(8_000, Duration::from_secs(3), 5);
    let echoed = call.hears(&said).await?;
    let heard = samples(&call.person.heard());
    call.person.hang_up().await?;
    let (likeness, at) = place_of(&greeting(8_000), &heard[..150 * FRAME], 8_000);
    eprintln!(
        "    the greeting correlates {likeness:.4} after {} ms",
        at / 8
    );
    ensure!(likeness >= 0.95, "the greeting correlates {likeness:.4}");
    let likeness = alike_in_pieces(&said, &echoed, 8_000);
    eprintln!("    the echo correlates {likeness:.4}");
    ensure!(likeness >= 0.95, "the echo correlates {likeness:.4}");
    command.end().await
}

/// Whether the caller ended this call. An Asterisk that has audio unread in that moment resets the connection.
pub(crate) fn is_callers_end(ended: &Value) -> bool {
    ["caller_hung_up", "connection_reset"]
        .map(Value::from)
        .contains(&ended["reason"])
}

/// The command at work.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) async fn serve(folder: &Path, words: &[&str]) -> anyhow::Result<Self> {
        let words = [words, &["--listen", "127.0.0.1:0"]].concat();
        let (child, lines) = start(folder, &words).await?;
        let mut running = Self {
            child,
            address: ([127, 0, 0, 1], 0).into(),
            lines,
        };
        let listening = running.event("listening").await?;
        running.address = listening["address"]
            .as_str()
            .context("no address")?
            .parse()?;
        Ok(running)
    }

    /// The next event of this name.
    pub(crate) async fn event(&mut self, name: &str) -> anyhow::Result<Value> {
        let mark = format!("\"event\":\"{name}\"");
        Ok(serde_json::from_str(&line(&mut self.lines, &mark).await?)?)
    }

    /// Ends it as a service manager does.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        let pid = self
            .child
            .id()
            .and_then(|pid| Pid::from_raw(pid.cast_signed()));
        kill_process(pid.context("it ended by itself")?, Signal::TERM)?;
        let status = timeout(SOON, self.child.wait())
            .await
            .context("TERM does not end it")??;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

async fn start(
    folder: &Path,
    words: &[&str],
) -> anyhow::Result<(Child, Lines<BufReader<ChildStdout>>)> {
    let mut child = Command::new(binary().await?)
        .args(words)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.stdout.take().context("no output")?;
    Ok((child, BufReader::new(output).lines()))
}

/// The next line that contains this.
async fn line(lines: &mut Lines<BufReader<ChildStdout>>, mark: &str) -> anyhow::Result<String> {
    loop {
        let line = timeout(SOON, lines.next_line()).await;
        let line = line.with_context(|| format!("no line with {mark}"))??;
        let line = line.with_context(|| format!("it ended before {mark}"))?;
        if line.contains(mark) {
            return Ok(line);
        }
    }
}

/// Where the command is, which is built if it is not there.
pub(crate) async fn binary() -> anyhow::Result<PathBuf> {
    let building = tokio::task::spawn_blocking(sidetone_lab::sidetone);
    let built = timeout(BUILD, building)
        .await
        .context("cargo build hangs")?;
    Ok(built??)
}
