//! The thread that answers HTTP.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

use super::{Access, App, serve};
use crate::{gateway::Shared, metrics::Metrics, snapshot::Snapshots};

/// How long requests may take that are being answered when the process hands over.
const LAST_REQUESTS: Duration = Duration::from_secs(1);
/// Below calls, whose threads ask for a higher priority.
const HTTP_NICE: i32 = 5;

/// It is not one of those that handle calls, so that no page, scrape or flood delays them.
pub(crate) struct HttpThread {
    stop: oneshot::Sender<()>,
    stopped: oneshot::Receiver<()>,
}

impl HttpThread {
    pub(crate) fn start(
        listener: TcpListener,
        shared: &Arc<Shared>,
        access: Access,
        audio_socket: SocketAddr,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopping) = oneshot::channel();
        let (ended, stopped) = oneshot::channel();
        let shared = Arc::clone(shared);
        thread::Builder::new()
            .name("sidetone-http".into())
            .spawn(move || {
                // Of this thread alone, on Linux. Without it, requests compete with handlers.
                let _ = rustix::process::setpriority_process(None, HTTP_NICE);
                runtime.block_on(async move {
                    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                        return;
                    };
                    let app = App {
                        metrics: Metrics::new(&shared),
                        snapshots: Snapshots::start(&shared),
                        access,
                        shared,
                        audio_socket,
                    };
                    serve(listener, app, stopping, LAST_REQUESTS).await;
                });
                let _ = ended.send(());
            })?;
        Ok(Self { stop, stopped })
    }

    /// Accepts no more connections, and waits for the requests that are being answered.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.stopped.await;
    }
}
