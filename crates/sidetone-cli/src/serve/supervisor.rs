//! Restarts without a gap: systemd starts the next process when the main process of the unit has ended, and calls may go on
//! for minutes. So under socket activation the main process only watches over another one, which serves, and ends as soon as
//! that one has released the listeners. The unit has `KillMode=process`, so the process with the calls stays until they are over.

use std::{env, io, os::unix::net::UnixStream, process::Stdio, time::Duration};

use rustix::{
    net::Shutdown,
    process::{Pid, Signal, kill_process},
};
use tokio::{
    io::AsyncReadExt,
    net::UnixStream as AsyncUnixStream,
    process::{Child, Command},
    time::timeout,
};

use crate::{
    failure::{Failure, Outcome},
    signals::{FirstSignal, ReloadSignal},
};

/// Set for the process that serves.
const SERVING: &str = "SIDETONE_SUPERVISED";

/// The process that systemd started is given the sockets by its number, which the process that serves learns from its shell.
const START: &str = "LISTEN_PID=$$ exec \"$0\" \"$@\"";

/// That a process has ended is seen a moment before it can be waited for.
const END_TIMEOUT: Duration = Duration::from_millis(200);

/// Whether this process is to watch over another one: it was given sockets by a service manager that waits for its main
/// process.
pub(super) fn is_wanted() -> bool {
    let is_ours = env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    is_ours && env::var_os("NOTIFY_SOCKET").is_some() && env::var_os(SERVING).is_none()
}

/// Starts the process that serves, and ends when that has released the listeners, or has ended.
pub(super) async fn run() -> Result<Outcome, Failure> {
    let (mut first, mut reload) = (FirstSignal::new(), ReloadSignal::new());
    let (ours, theirs) = UnixStream::pair().map_err(cant_start)?;
    ours.set_nonblocking(true).map_err(cant_start)?;
    let mut held = AsyncUnixStream::from_std(ours).map_err(cant_start)?;
    let mut child = start(theirs).map_err(cant_start)?;
    let mut byte = [0];
    loop {
        tokio::select! {
            () = first.received() => {
                forward(&child, Signal::TERM);
                let _ = held.read(&mut byte).await;
            }
            () = reload.received() => {
                forward(&child, Signal::HUP);
                continue;
            }
            // It closes its end when it has released the listeners, and when it ends.
            _ = held.read(&mut byte) => {}
        }
        return ended(&mut child).await;
    }
}

fn start(held: UnixStream) -> io::Result<Child> {
    let program = env::current_exe()?;
    Command::new("/bin/sh")
        .args(["-c", START])
        .arg(program)
        .args(env::args_os().skip(1))
        .env(SERVING, "1")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(held)))
        .spawn()
}

fn forward(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid as i32));
    if let Some(pid) = pid {
        // It fails if the process has ended, which is noticed elsewhere.
        let _ = kill_process(pid, signal);
    }
}

/// The process has released the listeners and finishes its calls, or it has failed.
async fn ended(child: &mut Child) -> Result<Outcome, Failure> {
    match timeout(END_TIMEOUT, child.wait()).await {
        Ok(Ok(status)) if !status.success() => Err(Failure::new(format_args!(
            "the process that serves has ended: {status}"
        ))),
        _ => Ok(Outcome::Passed),
    }
}

/// Tells the process that watches over this one that the listeners are released.
pub(super) fn release() {
    if env::var_os(SERVING).is_some() {
        // It fails if that process is gone, and needs to know nothing.
        let _ = rustix::net::shutdown(io::stdin(), Shutdown::Both);
    }
}

/// Waits until the process that watches over this one is gone, or has been told that the listeners are released. Without one,
/// forever. Two processes that accept calls would not know each other's tickets, so this one has to make room for the next.
pub(super) async fn gone() {
    let held = match env::var_os(SERVING) {
        Some(_) => stdin(),
        None => return std::future::pending().await,
    };
    match held {
        // Nothing is ever written to it.
        Ok(mut held) => {
            let _ = held.read(&mut [0]).await;
        }
        // Only for want of a descriptor, at the start.
        Err(_) => std::future::pending().await,
    }
}

/// The end that this process holds.
fn stdin() -> io::Result<AsyncUnixStream> {
    let held = UnixStream::from(rustix::io::dup(io::stdin())?);
    held.set_nonblocking(true)?;
    AsyncUnixStream::from_std(held)
}

fn cant_start(error: io::Error) -> Failure {
    Failure::new(format_args!("can't start the process that serves: {error}"))
}
