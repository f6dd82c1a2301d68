//! Events, sent to other programs as [Standard Webhooks](https://www.standardwebhooks.com).
//!
//! Each message is a POST with JSON and the headers `webhook-id`, `webhook-timestamp` and, for an
//! endpoint with a secret, `webhook-signature`. Any status of 2xx means that it was received. All
//! else is a failure and retried for a day, at first after a second, later every 15 minutes. So a
//! receiver gets each message at least once, and knows a repeated one by its id.
//!
//! Messages of a call arrive in order: a later one waits until the earlier one was received or given
//! up. Calls don't wait for each other, and neither do endpoints. Messages without a call are in no
//! order.
//!
//! With a spool, messages outlive a restart and a killed process. `spool` says what a power cut
//! costs. Messages of an endpoint that is no longer configured are kept for what is left of their
//! day, in case it comes back.

mod delivery;
mod message;
mod queue;
mod schedule;
mod sender;
mod signature;
mod spool;

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use http::Uri;
use parking_lot::{Mutex, RwLock};
use sidetone_websocket::tls::TlsError;
use tokio::{
    runtime::Handle,
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use crate::http_client::Trust;
use delivery::Target;
use message::{Fingerprint, Message};
use queue::{Queue, Sending};
use schedule::Schedule;
use sender::{Sender, Settings};
use spool::{Adopted, Keys, Spool};

pub use signature::{InvalidSecret, SigningKey};

/// How long the spool may take to end.
const SPOOL_TIMEOUT: Duration = Duration::from_secs(2);

/// Where events go.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// What [`Backlog`] calls it.
    pub name: String,
    /// `http` or `https`. It also identifies the endpoint over restarts and reloads.
    pub url: Uri,
    /// Signs messages.
    pub key: Option<SigningKey>,
    /// The kinds of events that it gets.
    pub events: BTreeSet<String>,
}

/// How much is kept and sent, for each endpoint. Beyond that, the oldest messages are dropped.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many messages wait. On disk, each takes a file.
    pub messages: usize,
    /// How long their bodies are together, in bytes. They are also kept in memory. A body longer
    /// than this or 256 KiB is not sent.
    pub bytes: usize,
    /// How many requests are made at a time.
    pub concurrency: usize,
    /// How long messages are kept and retried.
    pub keep: Duration,
    /// The pause after a message's first failure. Each further failure doubles it.
    pub first_pause: Duration,
    /// The longest pause, also where an endpoint asks for one with `Retry-After`.
    pub longest_pause: Duration,
    /// How long an endpoint may take to respond.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            messages: 10_000,
            bytes: 32 << 20,
            concurrency: 8,
            keep: Duration::from_secs(24 * 60 * 60),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(15 * 60),
            timeout: Duration::from_secs(15),
        }
    }
}

impl Limits {
    fn schedule(&self) -> Schedule {
        Schedule {
            first_pause: self.first_pause,
            longest_pause: self.longest_pause,
        }
    }
}

/// What waits for an endpoint, and counts since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The endpoint's [name](Endpoint::name), or host and path if it is no longer configured.
    pub endpoint: String,
    /// Whether messages are sent.
    pub state: EndpointState,
    /// Messages that were not received yet.
    pub waiting: usize,
    /// The length of their bodies.
    pub bytes: usize,
    /// How long the oldest has been waiting.
    pub oldest: Option<Duration>,
    /// Messages that were received.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Messages that were given up since they were too old.
    pub expired: u64,
    /// Messages that were dropped since too many waited, or since they were too long.
    pub dropped: u64,
}

/// Whether an endpoint gets messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// It does.
    Sending,
    /// It answered 410 Gone. Messages wait for [`Hooks::set_endpoints`].
    Gone,
    /// It is not configured. What waits for it is kept for a day.
    Removed,
}

/// Why hooks can't be sent as configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HooksError {
    /// An address that hooks can't go to. It is not quoted since it may hold a secret.
    #[error(
        "a hook's address is not usable: write http://HOST:PORT/PATH or https://HOST/PATH, without a user \
         name or password"
    )]
    Url,
    /// Two endpoints with the same address.
    #[error("two hooks go to {0}: make one of them, with the events of both")]
    Duplicate(String),
    /// TLS can't be set up: often, the machine trusts nobody.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The spool can't be used.
    #[error("can't keep hooks in {}: {source}; make it a folder that the server may write to", path.display())]
    Spool {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
}

/// Sends events to endpoints. Dropping it ends its tasks; use [`close`](Self::close) to send what is
/// due first.
pub struct Hooks {
    inner: Arc<Inner>,
    closing: watch::Sender<bool>,
}

struct Inner {
    limits: Limits,
    keys: Arc<Keys>,
    spool: Option<Arc<Spool>>,
    trust: Mutex<Trust>,
    senders: RwLock<Vec<Running>>,
    /// The tasks of all senders. Dropping it ends them.
    tasks: Mutex<JoinSet<()>>,
    runtime: Handle,
    closing: watch::Receiver<bool>,
}

struct Running {
    sender: Arc<Sender>,
    task: AbortHandle,
}

/// An endpoint that was checked.
struct Checked {
    fingerprint: Fingerprint,
    shown: Arc<str>,
    settings: Settings,
}

impl Hooks {
    /// Starts sending to `endpoints`, on the current tokio runtime, with the default [`Limits`].
    ///
    /// `spool` is the folder in which messages outlive a restart; it is created if it is not there.
    /// Several processes may use it. Without one they are kept in memory.
    ///
    /// # Errors
    ///
    /// [`HooksError`] if an endpoint or the spool is not usable.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn open(endpoints: Vec<Endpoint>, spool: Option<&Path>) -> Result<Self, HooksError> {
        Self::open_with(endpoints, spool, Limits::default())
    }

    /// [`open`](Self::open) with other limits.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn open_with(
        endpoints: Vec<Endpoint>,
        spool: Option<&Path>,
        limits: Limits,
    ) -> Result<Self, HooksError> {
        let mut trust = Trust::default();
        let checked = check(endpoints, &limits, &mut trust)?;
        let keys = Arc::<Keys>::default();
        let unusable = |path: &Path, source| HooksError::Spool {
            path: path.into(),
            source,
        };
        let spool = spool.map(|path| {
            let opened = Spool::open(path, Arc::clone(&keys), limits.keep);
            opened
                .map(|opened| (path, opened))
                .map_err(|error| unusable(path, error))
        });
        let (spool, writer) = match spool.transpose()? {
            Some((path, (spool, writer))) => (Some(Arc::new(spool)), Some((path, writer))),
            None => (None, None),
        };
        let (closing, is_closing) = watch::channel(false);
        let inner = Arc::new(Inner {
            limits,
            keys,
            spool,
            trust: Mutex::new(trust),
            senders: RwLock::default(),
            tasks: Mutex::default(),
            runtime: Handle::current(),
            closing: is_closing,
        });
        inner.configure(checked);
        if let Some((path, writer)) = writer {
            let inner = Arc::downgrade(&inner);
            let adopt = move |adopted| {
                if let Some(inner) = Weak::upgrade(&inner) {
                    inner.adopt(adopted);
                }
            };
            writer.start(adopt).map_err(|error| unusable(path, error))?;
        }
        Ok(Self { inner, closing })
    }

    /// Sends an event to all endpoints that get its `kind`. `body` is JSON.
    ///
    /// It waits neither for the network nor for the disk. A process that is killed within the
    /// moment that it takes to write a file loses the message.
    pub fn send(&self, kind: &str, call: Option<Uuid>, body: impl Into<Arc<str>>) {
        let body = body.into();
        let id: Arc<str> = format!("msg_{}", Uuid::new_v4().simple()).into();
        for Running { sender, .. } in &*self.inner.senders.read() {
            if !sender.settings.read().events.contains(kind) {
                continue;
            }
            let message = Arc::new(Message {
                key: self.inner.keys.next(),
                id: Arc::clone(&id),
                endpoint: sender.fingerprint.clone(),
                shown: Arc::clone(&sender.shown),
                call,
                body: Arc::clone(&body),
            });
            let spool = self.inner.spool.as_deref();
            // First, since it may be removed as soon as it is in the queue.
            if let Some(spool) = spool {
                spool.put(Arc::clone(&message));
            }
            sender.push(spool, message, Duration::ZERO);
        }
    }

    /// What waits for each endpoint. One that is no longer configured is in it while something
    /// waits for it.
    pub fn backlog(&self) -> Vec<Backlog> {
        let now = Instant::now();
        let senders = self.inner.senders.read();
        let backlogs = senders.iter().map(|it| it.sender.backlog(now));
        let is_shown = |it: &Backlog| it.state != EndpointState::Removed || it.waiting > 0;
        backlogs.filter(is_shown).collect()
    }

    /// Whether messages can't be written to the spool at the moment. They are kept in memory, and
    /// written when that works again.
    pub fn is_spool_failing(&self) -> bool {
        self.inner
            .spool
            .as_ref()
            .is_some_and(|spool| spool.is_failing())
    }

    /// Replaces the endpoints. One that stays keeps its messages and counts, and gets them at once,
    /// even if it was gone. One that is left out gets nothing more; what waits for it is kept for
    /// what is left of its day, and sent if it is configured again.
    ///
    /// Reads certificates from the disk if the first endpoint with `https` comes.
    ///
    /// # Errors
    ///
    /// [`HooksError`] if an endpoint is not usable; then nothing changes.
    pub fn set_endpoints(&self, endpoints: Vec<Endpoint>) -> Result<(), HooksError> {
        let checked = check(endpoints, &self.inner.limits, &mut self.inner.trust.lock())?;
        self.inner.configure(checked);
        Ok(())
    }

    /// Sends what is due, until `deadline`, and ends. What failed before is not tried again. With a
    /// spool, the next process sends the rest; without one, it is lost. Returns how many messages
    /// that is.
    ///
    /// Nothing may be sent after this. The spool gets up to 2 s more than the deadline. Dropping the
    /// future ends the sending as dropping the hooks does.
    pub async fn close(&self, deadline: Instant) -> usize {
        self.closing.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock());
        // An error is the deadline.
        let _ = timeout_at(deadline, async {
            while tasks.join_next().await.is_some() {}
        })
        .await;
        tasks.shutdown().await;
        if let Some(spool) = &self.inner.spool {
            spool.stop();
            let deadline = deadline.max(Instant::now() + SPOOL_TIMEOUT);
            if timeout_at(deadline, spool.ended()).await.is_err() {
                tracing::error!("the disk takes too long: hooks that were not written are lost");
            }
        }
        let senders = self.inner.senders.read();
        senders
            .iter()
            .map(|it| it.sender.queue.lock().waiting())
            .sum()
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

impl Inner {
    fn configure(&self, endpoints: Vec<Checked>) {
        let now = Instant::now();
        let mut senders = self.senders.write();
        for Running { sender, .. } in &*senders {
            let stays = |it: &Checked| it.fingerprint == sender.fingerprint;
            if !endpoints.iter().any(stays) {
                sender.remove();
            }
        }
        for endpoint in endpoints {
            let known = senders
                .iter()
                .find(|it| it.sender.fingerprint == endpoint.fingerprint);
            match known {
                Some(Running { sender, .. }) => sender.configure(endpoint.settings, now),
                None => senders.push(self.start(endpoint, Sending::On)),
            }
        }
        senders.retain(|it| {
            let is_over = it.sender.is_over();
            if is_over {
                it.task.abort();
            }
            !is_over
        });
    }

    /// Takes messages of a process that is gone.
    fn adopt(&self, adopted: Adopted) {
        let mut senders = self.senders.write();
        for (message, age) in adopted {
            let known = senders
                .iter()
                .find(|it| it.sender.fingerprint == message.endpoint);
            let sender = match known {
                Some(Running { sender, .. }) => Arc::clone(sender),
                None => {
                    tracing::warn!(
                        "hooks wait for {}, which is not configured: they are kept for a day",
                        message.shown
                    );
                    let removed = Checked {
                        fingerprint: message.endpoint.clone(),
                        shown: Arc::clone(&message.shown),
                        settings: Settings::default(),
                    };
                    let running = self.start(removed, Sending::Removed);
                    let sender = Arc::clone(&running.sender);
                    senders.push(running);
                    sender
                }
            };
            sender.push(self.spool.as_deref(), Arc::new(message), age);
        }
    }

    fn start(&self, endpoint: Checked, sending: Sending) -> Running {
        let queue = Queue::new(self.limits, sending);
        let sender = Sender::new(
            endpoint.fingerprint,
            endpoint.shown,
            endpoint.settings,
            queue,
        );
        let sender = Arc::new(sender);
        let run = Arc::clone(&sender).run(self.spool.clone(), self.closing.clone());
        let task = self.tasks.lock().spawn_on(run, &self.runtime);
        Running { sender, task }
    }
}

/// Checks endpoints, and prepares to send to them.
fn check(
    endpoints: Vec<Endpoint>,
    limits: &Limits,
    trust: &mut Trust,
) -> Result<Vec<Checked>, HooksError> {
    let mut checked = Vec::<Checked>::new();
    for endpoint in endpoints {
        let url = &endpoint.url;
        let authority = url.authority().filter(|it| !it.as_str().contains('@'));
        let is_http = matches!(url.scheme_str(), Some("http" | "https"));
        let Some(authority) = authority.filter(|it| is_http && !it.host().is_empty()) else {
            return Err(HooksError::Url);
        };
        let shown = format!("{authority}{}", url.path());
        let fingerprint = Fingerprint::of(url);
        if checked.iter().any(|it| it.fingerprint == fingerprint) {
            return Err(HooksError::Duplicate(shown));
        }
        let target = Target::new(url, endpoint.key, limits, trust)?;
        checked.push(Checked {
            fingerprint,
            shown: shown.into(),
            settings: Settings {
                name: endpoint.name,
                events: endpoint.events,
                target: Some(Arc::new(target)),
            },
        });
    }
    Ok(checked)
}
