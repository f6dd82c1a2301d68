//! What sends one endpoint its messages, as its queue says.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::{Mutex, RwLock};
use tokio::{
    select,
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use super::{
    Backlog, EndpointState,
    delivery::Target,
    message::{Fingerprint, Key, Message},
    queue::{Failure, Fate, Next, Outcome, Queue, Sending},
    spool::Spool,
};

/// How often messages that have waited for too long are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// A line about the same matter is logged no more often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// An endpoint, whether it is configured or only has messages from when it was.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) fingerprint: Fingerprint,
    /// Its host and path.
    pub(super) shown: Arc<str>,
    pub(super) settings: RwLock<Settings>,
    pub(super) queue: Mutex<Queue>,
    pub(super) wake: Notify,
    failures: Mutex<Throttle>,
    drops: Mutex<Throttle>,
}

#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) events: BTreeSet<String>,
    /// `None` if it is not configured.
    pub(super) target: Option<Arc<Target>>,
}

/// Lets one log line through in a while, and counts the others.
#[derive(Debug, Default)]
struct Throttle {
    last: Option<Instant>,
    suppressed: u64,
}

impl Sender {
    pub(super) fn new(
        fingerprint: Fingerprint,
        shown: Arc<str>,
        settings: Settings,
        queue: Queue,
    ) -> Self {
        Self {
            fingerprint,
            shown,
            settings: RwLock::new(settings),
            queue: Mutex::new(queue),
            wake: Notify::new(),
            failures: Mutex::default(),
            drops: Mutex::default(),
        }
    }

    /// Takes other settings, and sends.
    pub(super) fn configure(&self, settings: Settings, now: Instant) {
        *self.settings.write() = settings;
        self.queue.lock().enable(now);
        self.wake.notify_one();
    }

    /// Ends sending, but not what is in flight.
    pub(super) fn remove(&self) {
        *self.settings.write() = Settings::default();
        let mut queue = self.queue.lock();
        let is_news = queue.sending != Sending::Removed;
        queue.sending = Sending::Removed;
        if is_news && queue.waiting() > 0 {
            let (waiting, shown) = (queue.waiting(), &self.shown);
            tracing::warn!(
                "{waiting} hooks wait for {shown}, which is no longer configured: they are kept for a day"
            );
        }
    }

    /// Whether nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        let queue = self.queue.lock();
        queue.sending == Sending::Removed && queue.waiting() == 0
    }

    pub(super) fn backlog(&self, now: Instant) -> Backlog {
        let name = self.settings.read().name.clone();
        let queue = self.queue.lock();
        let endpoint = match queue.sending {
            Sending::Removed => self.shown.to_string(),
            Sending::On | Sending::Gone => name,
        };
        let counts = queue.counts;
        Backlog {
            endpoint,
            state: match queue.sending {
                Sending::On => EndpointState::Sending,
                Sending::Gone => EndpointState::Gone,
                Sending::Removed => EndpointState::Removed,
            },
            waiting: queue.waiting(),
            bytes: queue.bytes(),
            oldest: queue.oldest(now),
            delivered: counts.delivered,
            failed: counts.failed,
            expired: counts.expired,
            dropped: counts.dropped,
        }
    }

    /// Puts a message in the queue, which may drop older ones for it.
    pub(super) fn push(&self, spool: Option<&Spool>, message: Arc<Message>, age: Duration) {
        let now = Instant::now();
        let dropped = self.queue.lock().push(message, age, now);
        self.wake.notify_one();
        if dropped.is_empty() {
            return;
        }
        for key in &dropped {
            forget(spool, *key);
        }
        if let Some(more) = self.drops.lock().pass(dropped.len() as u64, now) {
            let shown = &self.shown;
            tracing::error!(
                "too many hooks wait for {shown}: {} dropped, the oldest first; does it answer?",
                more + dropped.len() as u64
            );
        }
    }

    /// Sends messages until `closing`, and then those that are due. Cancel safe: what is in flight
    /// is sent again by the process that finds it in the spool.
    pub(super) async fn run(
        self: Arc<Self>,
        spool: Option<Arc<Spool>>,
        mut closing: watch::Receiver<bool>,
    ) {
        let mut attempts = FuturesUnordered::<BoxFuture<'static, (Key, Outcome)>>::new();
        loop {
            let is_closing = *closing.borrow_and_update();
            let now = Instant::now();
            let (expired, next) = {
                let mut queue = self.queue.lock();
                (queue.expire(now), queue.next(now))
            };
            for key in &expired {
                forget(spool.as_deref(), *key);
            }
            if !expired.is_empty() {
                let shown = &self.shown;
                tracing::error!(
                    "{} hooks for {shown} are too old to send, and lost",
                    expired.len()
                );
            }
            let until = match next {
                Next::Attempt(message) => {
                    let target = self.settings.read().target.clone();
                    attempts.push(Box::pin(attempt(target, message)));
                    continue;
                }
                Next::Wait(_) if is_closing && attempts.is_empty() => return,
                Next::Wait(at) => at.unwrap_or(now + EXPIRE_EVERY).min(now + EXPIRE_EVERY),
            };
            select! {
                Some((key, outcome)) = attempts.next() => self.finish(spool.as_deref(), key, &outcome),
                () = self.wake.notified() => {}
                () = sleep_until(until) => {}
                Ok(()) = closing.changed() => {}
            }
        }
    }

    fn finish(&self, spool: Option<&Spool>, key: Key, outcome: &Outcome) {
        let now = Instant::now();
        let fate = self.queue.lock().finish(key, outcome, now, fastrand::f64());
        let shown = &self.shown;
        match (outcome, &fate) {
            (_, Fate::Delivered) => {}
            (Outcome::Gone, _) => tracing::error!(
                "{shown} answered 410 Gone: it gets no hooks until the configuration is read again"
            ),
            (Outcome::Failed(failure), _) => {
                let reason = &failure.reason;
                if fate == Fate::GivenUp {
                    tracing::error!(
                        "a hook for {shown} was retried for as long as it is kept, and is lost: {reason}"
                    );
                } else if let Some(more) = self.failures.lock().pass(1, now) {
                    let more = match more {
                        0 => String::new(),
                        more => format!(" (and {more} more attempts)"),
                    };
                    tracing::warn!("a hook for {shown} failed and is retried: {reason}{more}");
                }
            }
            (Outcome::Delivered, _) => {}
        }
        if fate != Fate::Waits {
            forget(spool, key);
        }
    }
}

impl Throttle {
    /// Whether to log now: then, how many were suppressed since the last line.
    fn pass(&mut self, count: u64, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + LOG_EVERY) {
            self.suppressed += count;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

async fn attempt(target: Option<Arc<Target>>, message: Arc<Message>) -> (Key, Outcome) {
    let outcome = match target {
        Some(target) => target.attempt(&message).await,
        // Between two configurations; the queue sends nothing without a target.
        None => Outcome::Failed(Failure {
            reason: "it is not configured".into(),
            retry_after: None,
            is_outage: true,
        }),
    };
    (message.key, outcome)
}

fn forget(spool: Option<&Spool>, key: Key) {
    if let Some(spool) = spool {
        spool.remove(key);
    }
}
