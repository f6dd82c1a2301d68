use std::{
    fmt,
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use super::worker::{Callbacks, Serving, WhoWorks, Worker};
use crate::{
    error::ServeError,
    server::{ServerBuilder, ServerHandle},
};

/// How often a poller that is dropped looks whether its calls have ended.
const DROP_INTERVAL: Duration = Duration::from_millis(1);

/// A server of the callback style whose callbacks run inside [`poll`](Self::poll), on the thread that calls it: for programs
/// with an event loop of their own. [`poller`](super::poller) starts one.
///
/// Dropping it hangs all calls up and closes the listener. The callbacks don't hear of that; to have them hear, use
/// [`ServerHandle::shutdown`] and go on polling until it [has ended](Self::has_ended).
pub struct Poller {
    serving: Serving,
    worker: Worker,
}

impl Poller {
    pub(super) fn start(
        settings: ServerBuilder,
        callbacks: Callbacks,
        listener: TcpListener,
        notify: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Self, ServeError> {
        let program = [WhoWorks::Program(notify)];
        Ok(Self {
            serving: Serving::start(settings, callbacks, listener, program)?,
            worker: Worker::default(),
        })
    }

    /// Calls the callbacks of all calls on which something has happened, and returns when the next tick is due, if one is.
    ///
    /// It never waits. What happens meanwhile is for the next time: the program is notified again.
    pub fn poll(&mut self) -> Option<Duration> {
        let ready = self.serving.queues.of_program();
        for _ in 0..ready.len() {
            let Some(call) = ready.pop() else { break };
            call.work(&mut self.worker);
        }
        let next_tick = self.worker.tick();
        if !ready.is_empty() {
            ready.tell();
        }
        next_tick
    }

    /// Whether the server has been [shut down](ServerHandle::shutdown), all its calls are over, and all callbacks and hooks
    /// have returned. The program is notified when it has.
    pub fn has_ended(&self) -> bool {
        self.serving.has_ended()
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.serving.local
    }

    /// A handle for shutting down, for statistics and for finding calls, from anywhere. It doesn't keep the server alive.
    pub fn handle(&self) -> ServerHandle {
        self.serving.handle.clone()
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.serving.handle.shutdown(Duration::ZERO);
        let ready = self.serving.queues.of_program();
        while !self.serving.has_ended() {
            while let Some(call) = ready.pop() {
                call.abandon();
            }
            thread::sleep(DROP_INTERVAL);
        }
        self.serving.join();
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller")
            .field("local", &self.serving.local)
            .finish_non_exhaustive()
    }
}
