//! Where events go: to the log, to the hooks, and to whoever watches.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use time::OffsetDateTime;
use tokio::sync::broadcast;

use crate::event::{GatewayEvent, Published};

/// Events that a slow watcher may lag behind.
const WATCHERS_QUEUE: usize = 1024;

/// Gets every event. It must not wait.
pub type EventSink = Arc<dyn Fn(&Published) + Send + Sync>;

/// Publishes events.
pub(crate) struct Bus {
    sinks: Vec<EventSink>,
    watchers: broadcast::Sender<Arc<Published>>,
    with_digits: AtomicBool,
}

impl Bus {
    pub(crate) fn new(sinks: Vec<EventSink>, with_digits: bool) -> Self {
        Self {
            sinks,
            watchers: broadcast::Sender::new(WATCHERS_QUEUE),
            with_digits: AtomicBool::new(with_digits),
        }
    }

    pub(crate) fn publish(&self, event: GatewayEvent) {
        let with_digits = self.with_digits.load(Ordering::Relaxed);
        let published = Arc::new(event.publish(OffsetDateTime::now_utc(), with_digits));
        for sink in &self.sinks {
            sink(&published);
        }
        // It fails if nobody watches.
        let _ = self.watchers.send(published);
    }

    pub(crate) fn set_with_digits(&self, with_digits: bool) {
        self.with_digits.store(with_digits, Ordering::Relaxed);
    }

    pub(crate) fn watch(&self) -> broadcast::Receiver<Arc<Published>> {
        self.watchers.subscribe()
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").finish_non_exhaustive()
    }
}
