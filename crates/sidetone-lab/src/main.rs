//! Runs one Asterisk whose calls go to an AudioSocket server, and shows what it logs, until Ctrl-C.

#![allow(clippy::print_stdout)] // A program for a terminal.

use std::fs::{File, Permissions};
use std::io::{Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use sidetone_lab::{Asterisk, Options};
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};

/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Runs a real Asterisk on this machine, wired to an AudioSocket server, and says how to make it call.
#[derive(Parser)]
#[command(name = "sidetone-lab")]
struct Arguments {
    /// Where the AudioSocket server listens
    #[arg(long, default_value = "127.0.0.1:9092")]
    server: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    println!("Starting Asterisk; the first time it is fetched, which takes some ten seconds.");
    let asterisk = Asterisk::start(Options {
        server: Some(arguments.server),
    })
    .await?;
    explain(&asterisk, arguments.server, &console(&asterisk)?);
    let mut log = File::open(asterisk.log_file())?;
    // What it said while booting is of no interest.
    log.seek(SeekFrom::End(0))?;
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = show(&mut log, &asterisk) => outcome?,
        stopped = ctrl_c() => stopped?,
        _ = terminated.recv() => {}
    }
    show_news(&mut log)?;
    println!("\nStopping Asterisk.");
    Ok(())
}

fn explain(asterisk: &Asterisk, server: SocketAddr, console: &Path) {
    let (pid, sip, console) = (asterisk.pid(), asterisk.sip(), console.display());
    println!(
        "
Asterisk runs as process {pid}. Its calls go to {server}; start a server there, then

  a call from its console, the caller being a tone (100 is AudioSocket(), 101 is Dial at 16 kHz):
    {console} channel originate Local/100@recipes/n extension tone@caller
  a call from a softphone on this machine, speaking to the server yourself:
    account softphone, password sidetone, server {sip}, transport UDP; dial 9092
  any other command of its console:
    {console} core show channels

Ctrl-C stops it. What it logs:
"
    );
}

/// A script that runs a command on Asterisk's console: the whole command is too long to be typed.
fn console(asterisk: &Asterisk) -> std::io::Result<PathBuf> {
    let script = asterisk.folder().join("console");
    std::fs::write(
        &script,
        format!("#!/bin/sh\nexec {:?} -rx \"$*\"\n", asterisk.console()),
    )?;
    std::fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    Ok(script)
}

/// Passes on what Asterisk logs, for as long as it runs.
async fn show(log: &mut File, asterisk: &Asterisk) -> anyhow::Result<()> {
    while asterisk.is_running() {
        show_news(log)?;
        tokio::time::sleep(LOOK).await;
    }
    show_news(log)?;
    anyhow::bail!("Asterisk ended by itself; the lines above say why")
}

fn show_news(log: &mut File) -> std::io::Result<()> {
    std::io::copy(log, &mut std::io::stdout()).map(drop)
}
