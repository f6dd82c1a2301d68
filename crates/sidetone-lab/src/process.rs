//! A child process that never outlives this one.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Result;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tokio::time::sleep;

use crate::asterisk::StartError;

/// How long a child may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a program may take until it is ready; a second is usual.
const READY: Duration = Duration::from_secs(60);

/// How often a child that is starting, is ending, or may have died, is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A running child, ended by its pid when this is dropped.
///
/// The kernel kills the child when the *thread* that started it is gone, so that thread stays for as long as the child runs.
#[derive(Debug)]
pub(crate) struct Kept {
    pid: u32,
    stop: Option<Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Kept {
    /// Starts `command`, which has program and arguments only; what it prints goes to `output`.
    pub(crate) fn start(command: Command, output: File) -> Result<Self> {
        raise_descriptor_limit();
        let mut command = tied_to_this_process(command);
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        // Ctrl-C on the terminal is for us alone; we end the child in our own way.
        command.process_group(0);
        let (tell, told) = channel();
        let (stop, stopped) = channel();
        let keeper = std::thread::Builder::new()
            .name("keeper".into())
            .spawn(move || {
                let started = command.spawn();
                let pid = started
                    .as_ref()
                    .map(Child::id)
                    .map_err(|error| std::io::Error::from(error.kind()));
                let asked_for = tell.send(pid).is_ok();
                if let Ok(child) = started {
                    keep(child, &stopped, asked_for);
                }
            })?;
        let pid = told
            .recv()
            .unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))?;
        Ok(Self {
            pid,
            stop: Some(stop),
            keeper: Some(keeper),
        })
    }

    /// Starts a program whose output goes to the file `printed`, and waits until `ready` makes something of what is in there.
    pub(crate) async fn start_until<T>(
        program: &'static str,
        command: Command,
        printed: &Path,
        ready: impl Fn(&str) -> Option<T>,
    ) -> std::result::Result<(Self, T), StartError> {
        let process = Self::start(command, File::create(printed)?)?;
        let deadline = Instant::now() + READY;
        let so_far =
            || String::from_utf8_lossy(&std::fs::read(printed).unwrap_or_default()).into_owned();
        while Instant::now() < deadline && process.is_running() {
            if let Some(found) = ready(&so_far()) {
                return Ok((process, found));
            }
            sleep(LOOK).await;
        }
        let printed = so_far();
        Err(StartError::Program { program, printed })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn is_running(&self) -> bool {
        self.keeper
            .as_ref()
            .is_some_and(|keeper| !keeper.is_finished())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(keeper) = self.keeper.take() {
            // A keeper that panicked has nothing left to wait for.
            let _ = keeper.join();
        }
    }
}

/// Stays until the child is gone: by itself, or because nobody wants it any more.
fn keep(mut child: Child, stopped: &Receiver<()>, wanted: bool) {
    while wanted && matches!(child.try_wait(), Ok(None)) {
        if let Err(RecvTimeoutError::Disconnected) = stopped.recv_timeout(LOOK) {
            break;
        }
    }
    end(&mut child);
}

fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let deadline = Instant::now() + PATIENCE;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > deadline {
            // The next round finds it dead, or there is nothing more to be done.
            let _ = child.kill();
        } else if let Some(pid) = pid {
            // Asked again and again: a TERM that comes while Asterisk is still booting is lost.
            let _ = kill_process(pid, Signal::TERM);
        }
        std::thread::sleep(LOOK);
    }
}

/// The command that runs a program in an environment, on top of this process's: a [`Kept`] takes nothing but arguments.
pub(crate) fn with_environment<'a>(
    variables: impl IntoIterator<Item = (&'a str, &'a OsStr)>,
    program: impl AsRef<OsStr>,
) -> Command {
    let mut command = Command::new("env");
    for (name, value) in variables {
        let mut variable = std::ffi::OsString::from(name);
        variable.push("=");
        variable.push(value);
        command.arg(variable);
    }
    command.arg(program);
    command
}

/// Has the kernel kill the child when this process dies by whatever means, where `setpriv` is there to ask it to.
fn tied_to_this_process(command: Command) -> Command {
    if Command::new("setpriv").arg("--version").output().is_err() {
        return command;
    }
    let mut tied = Command::new("setpriv");
    tied.args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    tied
}

/// Hundreds of calls need thousands of descriptors, here and, by inheritance, in the child.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Short of descriptors is a failure that shows where it happens.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}
