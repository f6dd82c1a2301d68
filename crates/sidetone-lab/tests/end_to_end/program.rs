//! `cargo run -p sidetone-lab`: what it prints can be pasted, and it leaves nothing behind.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::wire::{Listener, SLIN, SOON};
use crate::{Lab, scenarios};

scenarios![
    the_printed_call_reaches_the_server_and_ctrl_c_ends_all,
    a_killed_program_takes_asterisk_along,
];

async fn the_printed_call_reaches_the_server_and_ctrl_c_ends_all(
    _: Arc<Lab>,
) -> anyhow::Result<()> {
    let server = Listener::bind().await?;
    let mut program = Program::start(&server).await?;
    let status = Command::new("sh")
        .arg("-c")
        .arg(&program.call)
        .status()
        .await?;
    ensure!(status.success(), "{}: {status}", program.call);
    let mut line = server.line().await?;
    line.read_kind(SLIN).await?;
    line.hang_up().await?;

    let pid = program
        .child
        .id()
        .and_then(|pid| Pid::from_raw(pid.cast_signed()))
        .context("it ended")?;
    kill_process(pid, Signal::INT)?;
    let mut rest = String::new();
    timeout(SOON, program.output.read_to_string(&mut rest)).await??;
    ensure!(
        timeout(SOON, program.child.wait()).await??.success(),
        "{rest}"
    );
    ensure!(
        rest.contains("AudioSocket("),
        "the log is not shown: {rest}"
    );
    ensure!(!Path::new(&program.console).exists(), "its folder is left");
    gone(program.asterisk).await
}

async fn a_killed_program_takes_asterisk_along(_: Arc<Lab>) -> anyhow::Result<()> {
    let server = Listener::bind().await?;
    let mut program = Program::start(&server).await?;
    program.child.kill().await?;
    // Nobody was left to do it.
    let folder = Path::new(&program.console).parent().context("no folder")?;
    std::fs::remove_dir_all(folder)?;
    gone(program.asterisk).await
}

/// The program, and what it printed before Asterisk's log.
struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
    asterisk: u32,
    call: String,
    console: String,
}

impl Program {
    async fn start(server: &Listener) -> anyhow::Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sidetone-lab"))
            .args(["--server", &server.address().to_string()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        let mut printed = String::new();
        while !printed.contains("What it logs") {
            let read = timeout(SOON, output.read_line(&mut printed))
                .await
                .context("it hangs")??;
            ensure!(read > 0, "it ended: {printed}");
        }
        let line = |mark: &str| {
            printed
                .lines()
                .find(|line| line.contains(mark))
                .context("it prints less")
        };
        let call = line("channel originate")?.trim().to_owned();
        let console = call.split(' ').next().context("no console")?.to_owned();
        let pid = line("as process")?
            .split("as process ")
            .nth(1)
            .and_then(|rest| rest.split('.').next());
        let asterisk = pid.context("no process id")?.parse()?;
        Ok(Self {
            child,
            output,
            asterisk,
            call,
            console,
        })
    }
}

/// Waits until a process is no more, or only waits for its parent to take note.
async fn gone(pid: u32) -> anyhow::Result<()> {
    let runs = || {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
    };
    let ending = async {
        while runs() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, ending).await.context("Asterisk still runs")
}
