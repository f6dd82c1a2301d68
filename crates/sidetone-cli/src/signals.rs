//! How the process handles signals.
//!
//! A thread of its own waits for them, so that a signal takes effect at any time: while the last calls end, and while a
//! disk or a reader blocks the rest of the process.

use std::{
    io,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::Signal;
use sidetone::ServerHandle;
use signal_hook::{consts::signal, iterator};
use tokio::sync::watch;

use crate::{failure::Failure, stderr};

/// Signals that end the process: with grace the first time, at once the second. SIGHUP is one of them, unless there is a
/// configuration to reload.
const SHUTDOWN: [i32; 5] = [
    signal::SIGHUP,
    signal::SIGINT,
    signal::SIGTERM,
    signal::SIGXCPU,
    Signal::POWER.as_raw(),
];

/// The signal that ends the process at once.
const QUIT: i32 = signal::SIGQUIT;

/// Signals that do nothing here, and would end a process that does not handle them. A write that exceeds the limit on
/// the size of files also fails with an error, as on a full disk. Rust ignores SIGPIPE.
const IGNORED: [i32; 7] = [
    signal::SIGUSR1,
    signal::SIGUSR2,
    signal::SIGXFSZ,
    signal::SIGALRM,
    signal::SIGVTALRM,
    signal::SIGPROF,
    signal::SIGIO,
];

/// How long the last lines on standard error may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The first signal that shut the process down with grace.
static FIRST: LazyLock<watch::Sender<Option<i32>>> = LazyLock::new(watch::Sender::default);

/// Counts the signals that ask for the configuration to be read again.
static RELOAD: LazyLock<watch::Sender<u64>> = LazyLock::new(watch::Sender::default);

/// A signal is ending the process at once.
static IS_EXITING: AtomicBool = AtomicBool::new(false);

/// The server whose calls are hung up before the process ends at once.
static SERVER: Mutex<Option<ServerHandle>> = Mutex::new(None);

/// Handles signals from now on.
pub(crate) fn install() -> Result<(), Failure> {
    let cant = |error: io::Error| Failure::new(format_args!("can't handle signals: {error}"));
    let handled = SHUTDOWN.into_iter().chain(IGNORED).chain([QUIT]);
    // With nohup the process outlives the terminal.
    let is_nohup = inherited_ignores().contains(&signal::SIGHUP);
    let handled = handled.filter(|number| *number != signal::SIGHUP || !is_nohup);
    let mut signals = iterator::Signals::new(handled).map_err(cant)?;
    let thread = thread::Builder::new().name("sidetone-signals".into());
    thread
        .spawn(move || signals.forever().for_each(handle))
        .map_err(cant)?;
    Ok(())
}

fn handle(number: i32) {
    if IGNORED.contains(&number) {
        return;
    }
    if number == signal::SIGHUP && RELOAD.receiver_count() > 0 {
        RELOAD.send_modify(|count| *count += 1);
        return;
    }
    let is_first = number != QUIT && FIRST.receiver_count() > 0 && FIRST.borrow().is_none();
    if is_first {
        FIRST.send_replace(Some(number));
    } else {
        exit_now(128 + number);
    }
}

/// The signals that the process was started to ignore.
fn inherited_ignores() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let mask = mask.unwrap_or(0);
    (1..=64)
        .filter(|number| mask & (1 << (number - 1)) != 0)
        .collect()
}

/// Waits for the first signal that shuts the process down with grace. Without one of these, the first signal ends the
/// process at once.
pub(crate) struct FirstSignal(watch::Receiver<Option<i32>>);

impl FirstSignal {
    pub(crate) fn new() -> Self {
        Self(FIRST.subscribe())
    }

    /// This method is cancellation safe.
    pub(crate) async fn received(&mut self) {
        // It fails only when the sender is dropped, and that is a static.
        let _ = self.0.wait_for(Option::is_some).await;
    }
}

/// SIGHUP, for a command with a configuration. While one of these exists, that signal ends nothing.
pub(crate) struct ReloadSignal(watch::Receiver<u64>);

impl ReloadSignal {
    pub(crate) fn new() -> Self {
        Self(RELOAD.subscribe())
    }

    /// This method is cancellation safe.
    pub(crate) async fn received(&mut self) {
        // It fails only when the sender is dropped, and that is a static.
        let _ = self.0.changed().await;
    }
}

/// Hangs up the calls of this server if the process ends at once.
pub(crate) fn hang_up_on_exit(server: ServerHandle) {
    *SERVER.lock() = Some(server);
}

/// Hangs up all calls and ends the process at once.
fn exit_now(code: i32) -> ! {
    IS_EXITING.store(true, Ordering::Release);
    hang_up_all();
    stderr::finish(FLUSH_TIMEOUT);
    std::process::exit(code)
}

/// Waits for the end of the process, if a signal is ending it at once. To hang up its calls ends the command, too, and the exit code
/// must be the signal's.
pub(crate) fn yield_to_exit() {
    while IS_EXITING.load(Ordering::Acquire) {
        thread::park();
    }
}

/// Hangs up the calls of the server of [`hang_up_on_exit`].
pub(crate) fn hang_up_all() {
    let server = SERVER.lock().take();
    if let Some(server) = server {
        server.hang_up_all();
    }
}
