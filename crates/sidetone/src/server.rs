use std::{
    fmt,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use crate::{
    admission::{Admission, Admit, Decision, Request},
    call::{Call, CallHandle},
    error::ServeError,
    handler::{Handler, Outcome},
    media::{Arrivals, EndWanted, Media, SharedLink},
    stats::{CallSummary, ServerStats},
};

mod builder;
pub use builder::Builder;

/// How long handlers may go on after their calls were ended by a shutdown.
const AFTER_GRACE: Duration = Duration::from_secs(5);

/// A listening AudioSocket server.
///
/// The listener is open from [`Builder::bind`] on; calls are answered with silence until
/// [`serve`](Self::serve) or [`accept`](Self::accept) takes them.
pub struct Server {
    media: Arc<Media>,
    local: SocketAddr,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    admit: Option<Arc<Admit>>,
    admitting: JoinSet<Option<Admitted>>,
    on_call_end: Option<OnCallEnd>,
    registry: Arc<Registry>,
    shutdown: watch::Sender<Option<Duration>>,
    at_drop: EndWanted,
}

pub(crate) type OnCallEnd = Arc<dyn Fn(CallSummary) + Send + Sync>;

/// What a call was admitted with.
struct Admitted {
    link: SharedLink,
    data: Option<Box<dyn std::any::Any + Send + Sync>>,
}

enum Arrival {
    Call(SharedLink),
    TurnedAway(CallSummary),
}

struct ToServer(mpsc::UnboundedSender<Arrival>);

impl Arrivals for ToServer {
    fn arrived(&self, call: SharedLink) {
        // With no server left the media threads are about to be told to stop.
        let _ = self.0.send(Arrival::Call(call));
    }

    fn turned_away(&self, summary: CallSummary) {
        let _ = self.0.send(Arrival::TurnedAway(summary));
    }
}

impl Server {
    /// Settings, with their defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn start(listener: TcpListener, builder: Builder) -> Result<Self, ServeError> {
        let local = listener.local_addr().map_err(ServeError::Media)?;
        let (sender, arrivals) = mpsc::unbounded_channel();
        let announce = Box::new(ToServer(sender));
        let media = Media::start(listener, builder.media, announce, builder.media_threads)
            .map_err(ServeError::Media)?;
        Ok(Self {
            media: Arc::new(media),
            local,
            arrivals,
            admit: builder.admit,
            admitting: JoinSet::new(),
            on_call_end: builder.on_call_end,
            registry: Arc::default(),
            shutdown: watch::channel(None).0,
            at_drop: EndWanted::HangUp,
        })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// A handle for shutting down and for finding calls, from anywhere.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle {
            media: Arc::clone(&self.media),
            registry: Arc::clone(&self.registry),
            shutdown: self.shutdown.clone(),
        }
    }

    /// Waits for the next call that is let in. Dropped, the call is hung up.
    ///
    /// `None` after [`ServerHandle::shutdown`] or [`ServerHandle::hand_over`] was called.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it has taken no call.
    pub async fn accept(&mut self) -> Option<Call> {
        let mut shutdown = self.shutdown.subscribe();
        loop {
            tokio::select! {
                biased;
                _ = shutdown.wait_for(Option::is_some) => return None,
                call = self.next_admitted() => return call,
            }
        }
    }

    /// Gives every call to `handler`, each in a task of its own, until it is shut down.
    ///
    /// After [`ServerHandle::shutdown`], running calls get its grace time and their handlers 5 s more; then
    /// this returns.
    pub async fn serve(mut self, handler: impl Handler) -> Result<(), ServeError> {
        self.at_drop = EndWanted::Finish;
        let handler = Arc::new(handler);
        let mut handling = JoinSet::new();
        let mut shutdown = self.shutdown.subscribe();
        let grace = loop {
            tokio::select! {
                biased;
                grace = shutdown.wait_for(Option::is_some) => break grace.ok().and_then(|grace| *grace),
                Some(call) = self.next_admitted() => {
                    handling.spawn(handle(Arc::clone(&handler), call));
                }
                Some(_) = handling.join_next() => {}
            }
        };
        self.drain(grace.unwrap_or_default(), handling).await;
        Ok(())
    }

    /// The next call past the admission hook. `None` when the media threads are gone.
    async fn next_admitted(&mut self) -> Option<Call> {
        loop {
            tokio::select! {
                arrival = self.arrivals.recv() => match arrival? {
                    Arrival::TurnedAway(summary) => self.tell_end(summary),
                    Arrival::Call(link) => match &self.admit {
                        None => return Some(self.let_in(Admitted { link, data: None })),
                        Some(admit) => {
                            self.admitting.spawn(ask(Arc::clone(admit), link));
                        }
                    },
                },
                Some(Ok(Some(admitted))) = self.admitting.join_next() => return Some(self.let_in(admitted)),
            }
        }
    }

    fn let_in(&self, admitted: Admitted) -> Call {
        let handle = CallHandle::new(Arc::clone(&admitted.link));
        self.registry.add(handle.clone());
        if let Some(hook) = self.on_call_end.clone() {
            tokio::spawn(async move {
                let reason = handle.closed().await;
                hook(handle.summary(reason));
            });
        }
        Call::new(admitted.link, self.at_drop, admitted.data)
    }

    fn tell_end(&self, summary: CallSummary) {
        if let Some(hook) = &self.on_call_end {
            hook(summary);
        }
    }

    /// Waits until the running calls are over, ends them when the grace time is, and waits for the handlers.
    async fn drain(mut self, grace: Duration, mut handling: JoinSet<()>) {
        let end_of_grace = Instant::now() + grace;
        let mut last_moment = end_of_grace + AFTER_GRACE;
        let mut graceful = true;
        let registry = Arc::clone(&self.registry);
        loop {
            let running = self.media.running() > 0;
            if !running && handling.is_empty() {
                break;
            }
            tokio::select! {
                Some(_) = handling.join_next() => {}
                Some(call) = self.next_admitted() => drop(call),
                () = registry.all_over(), if running => {}
                () = sleep_until(end_of_grace), if graceful => {
                    graceful = false;
                    last_moment = Instant::now() + AFTER_GRACE;
                    registry.calls().iter().for_each(|call| call.end(EndWanted::Shutdown));
                }
                () = sleep_until(last_moment), if !graceful => break,
            }
        }
        handling.shutdown().await;
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

async fn ask(admit: Arc<Admit>, link: SharedLink) -> Option<Admitted> {
    match admit(Request {
        id: link.id,
        peer: link.peer,
    })
    .await
    {
        Admission(Decision::Accept(data)) => Some(Admitted { link, data }),
        Admission(Decision::TurnAway) => {
            link.end(EndWanted::Refuse);
            None
        }
    }
}

async fn handle<H: Handler>(handler: Arc<H>, call: Call) {
    let ending = call.handle();
    let Outcome(result) = handler.handle(call).await;
    if let Err(error) = result {
        tracing::warn!(call = %ending.id(), %error, "a handler failed; its call is hung up");
        ending.end(EndWanted::Fail);
    }
}

/// The calls of a server that are not over.
#[derive(Default)]
struct Registry(Mutex<Calls>);

#[derive(Default)]
struct Calls {
    handles: Vec<CallHandle>,
    /// At this many handles the ones of calls that are over are dropped.
    tidy_at: usize,
}

impl Registry {
    fn add(&self, handle: CallHandle) {
        let mut calls = self.0.lock();
        if calls.handles.len() >= calls.tidy_at {
            calls.handles.retain(|call| call.ended().is_none());
            calls.tidy_at = (calls.handles.len() * 2).max(64);
        }
        calls.handles.push(handle);
    }

    fn calls(&self) -> Vec<CallHandle> {
        let calls = self.0.lock();
        calls
            .handles
            .iter()
            .filter(|call| call.ended().is_none())
            .cloned()
            .collect()
    }

    async fn all_over(&self) {
        for call in self.calls() {
            call.closed().await;
        }
    }
}

/// Reaches a running server from anywhere.
#[derive(Clone)]
pub struct ServerHandle {
    media: Arc<Media>,
    registry: Arc<Registry>,
    shutdown: watch::Sender<Option<Duration>>,
}

impl ServerHandle {
    /// Ends the server gently: the listener stays open, new calls are turned away, and running ones are hung
    /// up after `grace` if they are not over by then. [`Server::serve`] returns when all is done.
    ///
    /// A closed listener would refuse connections, and what Asterisk does then can end innocent calls.
    pub fn shutdown(&self, grace: Duration) {
        self.media.shared.draining.store(true, Ordering::Release);
        self.shutdown.send_replace(Some(grace));
    }

    /// Leaves the listener to somebody else who holds it, and ends as [`shutdown`](Self::shutdown) does, but
    /// turns nobody away: for a restart in which no call is refused.
    ///
    /// The successor must be listening on the same socket already, through a duplicate of it that it was
    /// given; see [`Builder::from_listener`].
    pub fn hand_over(&self, grace: Duration) {
        self.media.stop_listening();
        self.shutdown.send_replace(Some(grace));
    }

    /// The calls that are running.
    pub fn calls(&self) -> Vec<CallHandle> {
        self.registry.calls()
    }

    /// The running call of this UUID; if several have it, one of them.
    pub fn call(&self, id: Uuid) -> Option<CallHandle> {
        self.registry
            .calls()
            .into_iter()
            .find(|call| call.id() == id)
    }

    /// What was counted since the server started.
    pub fn stats(&self) -> ServerStats {
        let tally = &self.media.shared.tally;
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        ServerStats {
            connections: read(&tally.connections),
            calls: read(&tally.calls),
            running: self.media.running(),
            turned_away: read(&tally.turned_away),
            without_identity: read(&tally.without_identity),
            out_of_descriptors: read(&tally.out_of_descriptors),
        }
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle")
            .field("stats", &self.stats())
            .finish()
    }
}
