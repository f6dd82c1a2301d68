//! What systemd and the gateway tell each other: sockets, readiness, reloads, and that all is well.

use std::{
    env,
    net::TcpListener,
    sync::{
        LazyLock,
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use listenfd::ListenFd;
use sd_notify::NotifyState;
use sidetone_gateway::Inherited;

use crate::failure::Failure;

/// The names of the sockets in the unit (`FileDescriptorName=`).
const AUDIO_SOCKET: &str = "audiosocket";
const HTTP: &str = "http";

/// The listeners that systemd opened. Without names, the first is for calls and the second for HTTP.
pub(super) fn sockets() -> Result<Inherited, Failure> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    let mut inherited = Inherited::default();
    let mut sockets = ListenFd::from_env();
    for index in 0..sockets.len() {
        let listener = sockets.take_tcp_listener(index).map_err(|error| {
            Failure::new(format_args!(
                "socket {index} from systemd is not a TCP listener ({error}): use ListenStream= with a TCP port in the socket unit"
            ))
        })?;
        let name = names.get(index).copied().unwrap_or_default();
        let place = place(&mut inherited, name, index)?;
        *place = listener;
    }
    Ok(inherited)
}

fn place<'a>(
    inherited: &'a mut Inherited,
    name: &str,
    index: usize,
) -> Result<&'a mut Option<TcpListener>, Failure> {
    match (name, index) {
        (AUDIO_SOCKET, _) => Ok(&mut inherited.audio_socket),
        (HTTP, _) => Ok(&mut inherited.http),
        (_, 0) => Ok(&mut inherited.audio_socket),
        (_, 1) => Ok(&mut inherited.http),
        _ => Err(Failure::new(format_args!(
            "systemd gave more sockets than two: name them {AUDIO_SOCKET} and {HTTP} with FileDescriptorName="
        ))),
    }
}

/// The gateway serves.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The file is being read again.
pub(super) fn reloading() {
    let Ok(now) = NotifyState::monotonic_usec_now() else {
        return;
    };
    notify(&[NotifyState::Reloading, now]);
}

/// No new calls are taken.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells the watchdog twice in its interval that the process is alive. Ends at once without one.
pub(super) async fn keep_alive() {
    let interval = env::var("WATCHDOG_USEC").ok();
    let interval = interval.and_then(|it| it.parse::<u64>().ok());
    let Some(interval) = interval.filter(|it| *it > 0) else {
        return;
    };
    let mut ticks = tokio::time::interval(Duration::from_micros(interval / 2));
    loop {
        ticks.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

/// Sends them from a thread of its own, as the manager may be slow to read.
fn notify(states: &[NotifyState<'_>]) {
    let text = states.iter().map(|state| format!("{state}\n")).collect();
    if let Some(thread) = &*THREAD {
        // So many wait only if nobody reads.
        let _ = thread.try_send(text);
    }
}

/// Messages that may wait to be sent.
const QUEUE: usize = 16;

/// None without a service manager, or a thread.
static THREAD: LazyLock<Option<SyncSender<String>>> = LazyLock::new(|| {
    env::var_os("NOTIFY_SOCKET")?;
    let (sender, messages) = sync_channel::<String>(QUEUE);
    let thread = std::thread::Builder::new().name("sidetone-notify".into());
    let send = move || {
        for message in messages {
            // A manager that is gone needs to know nothing.
            let _ = sd_notify::notify(&[NotifyState::Custom(message.trim_end())]);
        }
    };
    thread.spawn(send).ok()?;
    Some(sender)
});
