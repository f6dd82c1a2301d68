//! Restarts without a gap: systemd starts the next process when the main process of the unit has ended, and calls may go on
//! for minutes. So under socket activation the main process only watches over another one, which serves, and ends as soon as
//! that one has released the listeners. The unit has `KillMode=process`, so the process with the calls stays until they are over.

use std::{env, io, os::unix::net::UnixStream, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
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

/// Gives the listeners up, as on SIGTERM, if the process that watches over this one is killed: the service manager then
/// starts another one, and two must not serve.
pub(super) fn end_with_parent() -> Result<(), Failure> {
    if env::var_os(SERVING).is_some() {
        set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(|error| cant_start(error.into()))?;
    }
    Ok(())
}

/// Tells the process that watches over this one that the listeners are released.
pub(super) fn release() {
    if env::var_os(SERVING).is_none() {
        return;
    }
    // From now on that process may end. None of this fails but for want of a descriptor; it then ends with this one.
    let _ = set_parent_process_death_signal(None);
    if let Ok(nothing) = std::fs::File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&nothing);
    }
}

fn cant_start(error: io::Error) -> Failure {
    Failure::new(format_args!("can't start the process that serves: {error}"))
}
