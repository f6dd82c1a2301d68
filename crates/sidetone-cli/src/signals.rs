//! What each signal means, from the beginning of the process until it is gone.
//!
//! A thread of its own heeds them, so that one that comes late is heeded, too: while the last calls end, while a
//! disk or a reader keeps the rest of the process waiting.

use std::{io, sync::LazyLock, thread, time::Duration};

use parking_lot::Mutex;
use rustix::process::Signal;
use sidetone::ServerHandle;
use signal_hook::{consts::signal, iterator};
use tokio::sync::watch;

use crate::{failure::Failure, stderr};

/// These end the process: with grace the first time, at once the second. SIGHUP is among them until there is a
/// configuration to read again.
const ENDING: [i32; 5] = [
    signal::SIGHUP,
    signal::SIGINT,
    signal::SIGTERM,
    signal::SIGXCPU,
    Signal::POWER.as_raw(),
];

/// This one ends it at once.
const AT_ONCE: i32 = signal::SIGQUIT;

/// These would end a process that does not heed them, and mean nothing to this one. What goes beyond a limit on the
/// size of files fails with an error besides, as on a full disk. SIGPIPE is ignored from the start.
const ENDING_NOTHING: [i32; 7] = [
    signal::SIGUSR1,
    signal::SIGUSR2,
    signal::SIGXFSZ,
    signal::SIGALRM,
    signal::SIGVTALRM,
    signal::SIGPROF,
    signal::SIGIO,
];

/// How long the last words on standard error may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The first signal that ended the process with grace.
static FIRST: LazyLock<watch::Sender<Option<i32>>> = LazyLock::new(watch::Sender::default);

/// The calls to be hung up by whatever ends the process at once.
static SERVER: Mutex<Option<ServerHandle>> = Mutex::new(None);

/// From now on signals mean what is said above.
pub(crate) fn heed() -> Result<(), Failure> {
    let cant = |error: io::Error| Failure::new(format_args!("can't watch for signals: {error}"));
    let ignored = ignored();
    let heeded = ENDING.into_iter().chain(ENDING_NOTHING).chain([AT_ONCE]);
    // Started with nohup, it is to outlive the terminal.
    let heeded =
        heeded.filter(|number| *number != signal::SIGHUP || !ignored.contains(&signal::SIGHUP));
    let mut signals = iterator::Signals::new(heeded).map_err(cant)?;
    let heeding = thread::Builder::new().name("sidetone-signals".into());
    heeding
        .spawn(move || signals.forever().for_each(handle))
        .map_err(cant)?;
    Ok(())
}

fn handle(number: i32) {
    if ENDING_NOTHING.contains(&number) {
        return;
    }
    let is_first = number != AT_ONCE && FIRST.receiver_count() > 0 && FIRST.borrow().is_none();
    if is_first {
        FIRST.send_replace(Some(number));
    } else {
        leave(128 + number);
    }
}

/// The signals that were ignored when the process started.
fn ignored() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let mask = mask.unwrap_or(0);
    (1..=64)
        .filter(|number| mask & (1 << (number - 1)) != 0)
        .collect()
}

/// Waits for the first signal that ends the process with grace. While nobody waits, the first one ends it at once.
pub(crate) struct FirstSignal(watch::Receiver<Option<i32>>);

impl FirstSignal {
    pub(crate) fn new() -> Self {
        Self(FIRST.subscribe())
    }

    pub(crate) async fn comes(&mut self) {
        // The sender is there as long as the process is.
        let _ = self.0.wait_for(Option::is_some).await;
    }
}

/// From now on the calls of this server are hung up by whatever ends the process at once.
pub(crate) fn hang_up_at_the_end(server: ServerHandle) {
    *SERVER.lock() = Some(server);
}

/// Ends the process at once, but not without a word to the calls.
pub(crate) fn leave(code: i32) -> ! {
    hang_up();
    stderr::finish(LAST_WORDS);
    std::process::exit(code)
}

/// Hangs up all calls.
pub(crate) fn hang_up() {
    let server = SERVER.lock().take();
    if let Some(server) = server {
        server.hang_up_all();
    }
}
