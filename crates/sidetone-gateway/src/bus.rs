//! Where events go: to the log, to the hooks, and to those who watch.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::broadcast;

use crate::event::{AlarmName, GatewayEvent, Published, timestamp};

/// Events that a slow watcher may lag behind.
const WATCHERS_QUEUE: usize = 1024;

/// Gets every event. It must not wait.
pub type EventSink = Arc<dyn Fn(&Published) + Send + Sync>;

/// Publishes events.
pub(crate) struct Bus {
    sinks: Vec<EventSink>,
    watchers: broadcast::Sender<Arc<Published>>,
    with_digits: AtomicBool,
    alarms: Mutex<BTreeMap<AlarmName, ActiveAlarm>>,
}

/// Something that needs an operator.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ActiveAlarm {
    #[schema(value_type = String)]
    name: AlarmName,
    text: String,
    /// When it began: RFC 3339, UTC.
    since: String,
}

impl Bus {
    pub(crate) fn new(sinks: Vec<EventSink>, with_digits: bool) -> Self {
        Self {
            sinks,
            watchers: broadcast::Sender::new(WATCHERS_QUEUE),
            with_digits: AtomicBool::new(with_digits),
            alarms: Mutex::default(),
        }
    }

    pub(crate) fn publish(&self, event: GatewayEvent) {
        let with_digits = self.with_digits.load(Ordering::Relaxed);
        let now = OffsetDateTime::now_utc();
        self.note_alarm(&event, now);
        let published = Arc::new(event.publish(now, with_digits));
        for sink in &self.sinks {
            sink(&published);
        }
        // It fails if nobody watches.
        let _ = self.watchers.send(published);
    }

    fn note_alarm(&self, event: &GatewayEvent, now: OffsetDateTime) {
        let GatewayEvent::Alarm {
            name,
            is_active,
            text,
        } = event
        else {
            return;
        };
        let mut alarms = self.alarms.lock();
        if !is_active {
            alarms.remove(name);
            return;
        }
        let alarm = alarms.entry(name.clone()).or_insert_with(|| ActiveAlarm {
            name: name.clone(),
            text: String::new(),
            since: timestamp(now),
        });
        alarm.text.clone_from(text);
    }

    pub(crate) fn has_alarm(&self, name: &str) -> bool {
        self.alarms.lock().contains_key(name)
    }

    /// The alarms that have begun and not ended.
    pub(crate) fn alarms(&self) -> Vec<ActiveAlarm> {
        self.alarms.lock().values().cloned().collect()
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
