use std::{
    fmt,
    future::Future,
    net::{SocketAddr, TcpListener},
    panic::resume_unwind,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use sidetone_proto::{EndReason, Time};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, interval},
};
use uuid::Uuid;

use crate::{
    admission::{Admission, Admit, CallInfo, Decision, Networks},
    call::{Call, CallHandle},
    error::{HandlerError, ServeError, WithSources},
    handler::{self, Handler},
    media::{Arrivals, CallRef, EndWanted, Media, MediaShared, MediaThreads, canonical, clock},
    stats::{CallSummary, LatenessHistogram, OtherProtocols, ServerStats},
};

mod builder;
mod wake_task;
pub use builder::{ServerBuilder, Tuning};

/// How long handlers may go on after their calls were ended by a shutdown.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long tasks that are about to end may take to do so.
const JOIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long ending all calls at once may take: the media threads allow the other sides half a second to close.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts and rejections of calls that may wait to be accepted, beyond the number of calls at a time.
const MAX_QUEUED_ARRIVALS: usize = 4096;

/// How long a call that is over waits for the answer of the admission hook: one that answers nothing would have ever
/// more of them.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a server that shuts down looks whether it is done.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A listening AudioSocket server.
///
/// The listener is open from [`ServerBuilder::bind`] on; calls are answered with silence until
/// [`serve`](Self::serve) or [`accept`](Self::accept) takes them. A call that ends before that is handed out all the same, as
/// short ones often are over before their handlers run: it has its events, [`Event::Ended`](crate::Event::Ended) last, and can
/// be [recorded](crate::record::Recorder::record).
///
/// Dropping the server, or the future of [`serve`](Self::serve), hangs up all calls and closes the listener.
/// To end it gently, use [`ServerHandle::shutdown`].
pub struct Server {
    media: Media,
    local: SocketAddr,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    arrival_limit: Arc<ArrivalLimit>,
    /// Calls that were announced and have not been accepted yet.
    pending_calls: Arc<AtomicUsize>,
    admit: Option<Arc<Admit>>,
    admitting: JoinSet<Option<Admitted>>,
    on_call_end: Option<OnCallEnd>,
    on_unidentified: Option<OnUnidentified>,
    on_handler_error: Option<OnHandlerError>,
    /// Those who tell about ends.
    reporting: JoinSet<()>,
    registry: Arc<Registry>,
    shutdown: watch::Sender<Option<Duration>>,
    at_drop: EndWanted,
}

pub(crate) type OnCallEnd = Arc<dyn Fn(CallSummary) + Send + Sync>;
pub(crate) type OnUnidentified = Arc<dyn Fn(SocketAddr, EndReason) + Send + Sync>;
pub(crate) type OnHandlerError = Arc<dyn Fn(CallInfo, HandlerError) + Send + Sync>;

/// A call that was let in.
struct Admitted {
    call: PendingCall,
    handle: CallHandle,
}

/// Wakes the handlers that have news at the end of an iteration of a media thread, and leaves none. It must not wait.
pub(crate) type WakeAll = dyn Fn(&mut Vec<Waker>) + Send + Sync;

enum Arrival {
    Call(PendingCall),
    Rejected(Box<CallSummary>),
    Unidentified(SocketAddr, EndReason),
}

/// A call without a handler. Dropped as such, it is hung up.
struct PendingCall {
    shared: CallRef,
    count: Arc<AtomicUsize>,
    is_disarmed: bool,
}

impl PendingCall {
    fn new(shared: CallRef, count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self {
            shared,
            count: Arc::clone(count),
            is_disarmed: false,
        }
    }

    fn disarm(mut self) -> CallRef {
        self.is_disarmed = true;
        Arc::clone(&self.shared)
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if !self.is_disarmed {
            self.shared.end(if std::thread::panicking() {
                EndWanted::Fail
            } else {
                EndWanted::Shutdown
            });
            self.shared.drop_preroll();
        }
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// News of calls on its way to the server, with a bound: short calls and those rejected may come by the thousand
/// while nobody accepts.
struct ArrivalLimit {
    max: AtomicUsize,
    count: AtomicUsize,
    /// Calls for which there was no room.
    unreported: AtomicUsize,
}

impl ArrivalLimit {
    fn new(max_calls: usize) -> Self {
        let limit = Self {
            max: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            unreported: AtomicUsize::new(0),
        };
        limit.set_max_calls(max_calls);
        limit
    }

    fn set_max_calls(&self, max_calls: usize) {
        let max = max_calls.saturating_add(MAX_QUEUED_ARRIVALS);
        self.max.store(max, Ordering::Relaxed);
    }

    fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// Takes room for one more, or counts it.
    fn try_reserve(&self) -> bool {
        let is_reserved = self.count.fetch_add(1, Ordering::AcqRel) < self.max();
        if !is_reserved {
            self.count.fetch_sub(1, Ordering::AcqRel);
            self.unreported.fetch_add(1, Ordering::Relaxed);
        }
        is_reserved
    }

    fn release(&self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

struct ArrivalSender {
    sender: mpsc::UnboundedSender<Arrival>,
    arrival_limit: Arc<ArrivalLimit>,
    pending_calls: Arc<AtomicUsize>,
    /// Somebody wants to know of connections without a UUID.
    tells_unidentified: bool,
    wake: Box<WakeAll>,
}

impl Arrivals for ArrivalSender {
    fn arrived(&self, call: CallRef) {
        if !self.arrival_limit.try_reserve() {
            return call.end(EndWanted::Refuse);
        }
        // With no server left it comes back, and is hung up when it is dropped.
        let _ = self
            .sender
            .send(Arrival::Call(PendingCall::new(call, &self.pending_calls)));
    }

    fn rejected(&self, summary: CallSummary) {
        if self.arrival_limit.try_reserve() {
            let _ = self.sender.send(Arrival::Rejected(Box::new(summary)));
        }
    }

    fn unidentified(&self, peer: SocketAddr, reason: EndReason) {
        if self.tells_unidentified && self.arrival_limit.try_reserve() {
            let _ = self.sender.send(Arrival::Unidentified(peer, reason));
        }
    }

    fn wake(&self, wakes: &mut Vec<Waker>) {
        (self.wake)(wakes);
    }
}

impl Server {
    /// Settings, with their defaults.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    pub(crate) fn start(
        listener: TcpListener,
        builder: ServerBuilder,
        wake: Box<WakeAll>,
    ) -> Result<Self, ServeError> {
        let local = canonical(listener.local_addr().map_err(ServeError::Media)?);
        let (sender, arrivals) = mpsc::unbounded_channel();
        let pending_calls = Arc::default();
        let arrival_limit = Arc::new(ArrivalLimit::new(builder.media.max_calls));
        let sender_for_media = Box::new(ArrivalSender {
            sender,
            arrival_limit: Arc::clone(&arrival_limit),
            pending_calls: Arc::clone(&pending_calls),
            tells_unidentified: builder.on_unidentified.is_some(),
            wake,
        });
        let media = Media::start(
            listener,
            builder.media,
            sender_for_media,
            builder.media_threads,
        )
        .map_err(ServeError::Media)?;
        Ok(Self {
            media,
            local,
            arrivals,
            arrival_limit,
            pending_calls,
            admit: builder.admit,
            admitting: JoinSet::new(),
            on_call_end: builder.on_call_end,
            on_unidentified: builder.on_unidentified,
            on_handler_error: builder.on_handler_error,
            reporting: JoinSet::new(),
            registry: Arc::default(),
            shutdown: watch::channel(None).0,
            at_drop: EndWanted::HangUp,
        })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// A handle for shutting down and for finding calls, from anywhere. It doesn't keep the server alive.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle {
            media: Arc::clone(&self.media.shared),
            threads: self.media.threads(),
            registry: Arc::clone(&self.registry),
            arrival_limit: Arc::clone(&self.arrival_limit),
            shutdown: self.shutdown.clone(),
        }
    }

    /// Waits for the next call that is let in. Dropped, the call is hung up.
    ///
    /// Returns `None` after [`ServerHandle::shutdown`] or [`ServerHandle::hand_over`], when no more calls will come. The
    /// caller of this method ends the running calls in time.
    ///
    /// # Cancel safety
    ///
    /// This method is cancellation safe. If it is dropped before it completes, it has taken no call.
    pub async fn accept(&mut self) -> Option<Call> {
        let mut shutdown = self.shutdown.subscribe();
        tokio::select! {
            biased;
            call = self.next_admitted() => return call.map(Call::start_handler),
            _ = shutdown.wait_for(Option::is_some) => {}
        }
        let mut poll = interval(POLL_INTERVAL);
        while self.more_may_come() {
            tokio::select! {
                biased;
                call = self.next_admitted() => return call.map(Call::start_handler),
                _ = poll.tick() => {}
            }
        }
        None
    }

    /// Gives every call to `handler`, each in a task of its own, until it is shut down.
    ///
    /// After [`ServerHandle::shutdown`], running calls get its grace time and their handlers 5 s more. Then this
    /// returns `Ok`, after the last call of the [`ServerBuilder::on_call_end`] hook.
    ///
    /// # Errors
    ///
    /// Only what ends the server itself, never what ends a call. At present nothing does.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it hangs up all calls and closes the listener.
    pub fn serve(self, handler: impl Handler) -> Serve {
        // As a task it runs where the handlers do, and not on whatever thread waits for this: each call would
        // go from one thread to the other and back. The set ends it if this is dropped.
        Serve(Box::pin(async move {
            let mut serving = JoinSet::new();
            serving.spawn(self.serve_all(handler));
            match serving.join_next().await {
                Some(Err(failed)) if failed.is_panic() => resume_unwind(failed.into_panic()),
                _ => Ok(()),
            }
        }))
    }

    async fn serve_all(mut self, handler: impl Handler) {
        self.at_drop = EndWanted::Finish;
        let handler = Arc::new(handler);
        let mut handling = JoinSet::new();
        let mut shutdown = self.shutdown.subscribe();
        loop {
            tokio::select! {
                biased;
                _ = shutdown.wait_for(Option::is_some) => break,
                Some(call) = self.next_admitted() => {
                    handling.spawn(self.handling(&handler, call));
                }
                Some(_) = handling.join_next() => {}
            }
        }
        self.drain(&handler, &mut handling).await;
        self.admitting.abort_all();
        handling.abort_all();
        join_briefly(&mut self.admitting).await;
        join_briefly(&mut handling).await;
        join_briefly(&mut self.reporting).await;
    }

    fn handling<H: Handler>(
        &self,
        handler: &Arc<H>,
        call: Call,
    ) -> impl Future<Output = ()> + Send + use<H> {
        run_handler(Arc::clone(handler), call, self.on_handler_error.clone())
    }

    /// The next call past the admission hook. `None` when the media threads are gone.
    async fn next_admitted(&mut self) -> Option<Call> {
        loop {
            while self.reporting.try_join_next().is_some() {}
            // With this many, some have ended and their hooks are slow.
            while self.reporting.len() >= self.arrival_limit.max()
                && self.reporting.join_next().await.is_some()
            {}
            let admitted = tokio::select! {
                arrival = self.arrivals.recv() => {
                    let arrival = arrival?;
                    self.arrival_limit.release();
                    match arrival {
                        Arrival::Rejected(summary) => {
                            self.report_end(async move { *summary });
                            continue;
                        }
                        Arrival::Unidentified(peer, reason) => {
                            if let Some(hook) = self.on_unidentified.clone() {
                                self.reporting.spawn(async move { hook(peer, reason) });
                            }
                            continue;
                        }
                        Arrival::Call(call) => {
                            let (handle, admission_done) = self.register(&call.shared);
                            match &self.admit {
                                None => Admitted { call, handle },
                                Some(admit) => {
                                    let media = Arc::clone(&self.media.shared);
                                    let deciding = decide(Arc::clone(admit), call, handle, media, admission_done);
                                    self.admitting.spawn(deciding);
                                    continue;
                                }
                            }
                        }
                    }
                },
                Some(decided) = self.admitting.join_next() => match decided {
                    Ok(Some(admitted)) => admitted,
                    // Rejected, or the hook panicked; the call has been ended.
                    Ok(None) | Err(_) => continue,
                },
            };
            // It may have ended while it waited. It is still handled, for the caller may have spoken.
            admitted.call.disarm();
            return Some(Call::new(admitted.handle, self.at_drop));
        }
    }

    /// Registers a call. Its end is reported only after the returned sender is dropped, when the admission hook has answered.
    fn register(&mut self, shared: &CallRef) -> (CallHandle, oneshot::Sender<()>) {
        let handle = CallHandle::new(Arc::clone(shared));
        self.registry.add(handle.clone());
        let registered = handle.clone();
        let (admission_done, answered) = oneshot::channel();
        self.report_end(async move {
            // An error is what comes of dropping the other end.
            let _ = answered.await;
            let reason = handle.closed().await;
            handle.summary(reason)
        });
        (registered, admission_done)
    }

    /// Calls the hook when the call has ended.
    fn report_end(&mut self, end: impl Future<Output = CallSummary> + Send + 'static) {
        if let Some(hook) = self.on_call_end.clone() {
            self.reporting.spawn(async move { hook(end.await) });
        }
    }

    /// Whether calls are still to be handled after a shutdown.
    fn more_may_come(&self) -> bool {
        let media = &self.media.shared;
        let (open, answered) = (self.media.open(), media.identified.load(Ordering::Acquire));
        let may_identify = !media.draining.load(Ordering::Acquire)
            && (media.listening.load(Ordering::Acquire) || open > answered);
        may_identify || self.pending_calls.load(Ordering::Acquire) > 0
    }

    /// Waits until the running calls are over, ends them when the grace time is, and waits for the handlers.
    async fn drain<H: Handler>(&mut self, handler: &Arc<H>, handling: &mut JoinSet<()>) {
        let started_at = Instant::now();
        let mut handlers_deadline = None;
        let mut poll = interval(POLL_INTERVAL);
        loop {
            tokio::select! {
                // These arrived before the listener was closed.
                Some(call) = self.next_admitted() => {
                    handling.spawn(self.handling(handler, call));
                }
                Some(_) = handling.join_next() => {}
                _ = poll.tick() => {
                    let media = &self.media.shared;
                    let no_calls_left = media.identified.load(Ordering::Acquire) == 0;
                    if no_calls_left && handling.is_empty() && !self.more_may_come() {
                        break;
                    }
                    // A second shutdown may have made it shorter.
                    let grace = self.shutdown.borrow().unwrap_or_default();
                    if handlers_deadline.is_none() && started_at.elapsed() >= grace {
                        handlers_deadline = Some(Instant::now() + HANDLER_TIMEOUT);
                        media.draining.store(true, Ordering::Release);
                        self.registry.calls().iter().for_each(|call| call.end(EndWanted::Shutdown));
                    }
                    if handlers_deadline.is_some_and(|last| Instant::now() >= last) {
                        break;
                    }
                }
            }
        }
    }
}

/// A server at work: what [`Server::serve`] returns, to be awaited or spawned. It does nothing before that.
///
/// It has a name, without the handler's type in it, so that the compiler reports what is wrong with a handler once, where it is
/// given, and not again where this is awaited.
#[must_use = "a server serves only while this is awaited or spawned"]
pub struct Serve(Pin<Box<dyn Future<Output = Result<(), ServeError>> + Send>>);

impl Future for Serve {
    type Output = Result<(), ServeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").finish_non_exhaustive()
    }
}

/// Waits a moment for all of them; one that blocks its thread can't be waited for.
async fn join_briefly<T: 'static>(tasks: &mut JoinSet<T>) {
    let all = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(JOIN_TIMEOUT, all).await;
}

impl Drop for Server {
    fn drop(&mut self) {
        // The calls end with the server, and their ends are reported too.
        self.reporting.detach_all();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

async fn decide(
    admit: Arc<Admit>,
    call: PendingCall,
    handle: CallHandle,
    media: Arc<MediaShared>,
    _admission_done: oneshot::Sender<()>,
) -> Option<Admitted> {
    let info = CallInfo::new(&call.shared);
    let timed_out = async {
        handle.closed().await;
        tokio::time::sleep(ADMISSION_TIMEOUT).await;
    };
    let admission = tokio::select! {
        biased;
        admission = admit(info) => admission,
        () = timed_out => return None,
    };
    let Admission {
        decision,
        max_duration,
    } = admission;
    match decision {
        Decision::Accept(data) => {
            if let Some(duration) = max_duration {
                call.shared.closing.set_max_duration(duration);
            }
            handle.set_data(data);
            Some(Admitted { call, handle })
        }
        Decision::Reject(data) => {
            // Before the end, whose summary has it.
            handle.set_data(data);
            media.counters.calls.fetch_sub(1, Ordering::Relaxed);
            media.counters.rejected.fetch_add(1, Ordering::Relaxed);
            let shared = call.disarm();
            shared.end(EndWanted::Refuse);
            shared.drop_preroll();
            None
        }
    }
}

async fn run_handler<H: Handler>(
    handler: Arc<H>,
    call: Call,
    on_handler_error: Option<OnHandlerError>,
) {
    // Not when the task is made: where all threads are busy, it does not run at once.
    let call = call.start_handler();
    let handle = call.handle();
    let Err(error) = handler::run(&*handler, call).await else {
        return;
    };
    // At once: its call was dropped with it, and is about to end as finished.
    handle.end(EndWanted::Fail);
    let info = handle.info();
    match on_handler_error {
        Some(hook) => hook(info, error),
        None => {
            let error = WithSources(&error);
            tracing::warn!(call = %info.id, %error, "a handler failed; its call is hung up");
        }
    }
}

/// The calls of a server that are not over.
#[derive(Default)]
struct Registry(Mutex<Calls>);

#[derive(Default)]
struct Calls {
    handles: Vec<CallHandle>,
    /// At this many handles the ones of calls that are over are dropped.
    prune_at: usize,
    shutdown: Option<Shutdown>,
}

/// A shutdown under way.
#[derive(Clone, Copy)]
struct Shutdown {
    began: Time,
    grace: Duration,
}

impl Shutdown {
    /// When the calls are ended.
    fn ends_calls_at(self) -> Time {
        self.began + self.grace
    }
}

impl Registry {
    fn add(&self, handle: CallHandle) {
        let mut calls = self.0.lock();
        if calls.handles.len() >= calls.prune_at {
            calls.handles.retain(|call| call.ended().is_none());
            calls.prune_at = (calls.handles.len() * 2).max(64);
        }
        calls.handles.push(handle.clone());
        let shutdown = calls.shutdown;
        drop(calls);
        if let Some(shutdown) = shutdown {
            handle.announce_shutdown(shutdown.ends_calls_at());
        }
    }

    /// Reports a shutdown, or its new grace time, to all calls: those that come later hear of it as they are added.
    fn announce_shutdown(&self, grace: Duration) {
        let (handles, ends_at) = {
            let mut calls = self.0.lock();
            let began = calls.shutdown.map_or_else(clock::now, |last| last.began);
            let shutdown = Shutdown { began, grace };
            calls.shutdown = Some(shutdown);
            (calls.handles.clone(), shutdown.ends_calls_at())
        };
        for handle in handles {
            handle.announce_shutdown(ends_at);
        }
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
}

/// Reaches a running server from anywhere.
#[derive(Clone)]
pub struct ServerHandle {
    media: Arc<MediaShared>,
    threads: Arc<MediaThreads>,
    registry: Arc<Registry>,
    arrival_limit: Arc<ArrivalLimit>,
    shutdown: watch::Sender<Option<Duration>>,
}

impl ServerHandle {
    /// Ends the server gently: the listener stays open, new calls are rejected, and running ones are hung
    /// up after `grace` if they are not over by then. [`Server::serve`] returns when all is done. Called
    /// again, it changes the grace time, which counts from the first call of this.
    ///
    /// Handlers hear of it from [`Event::Closing`](crate::Event::Closing) and [`Call::closing`](crate::Call::closing), also those
    /// that begin later, and those of calls that [`Server::accept`] gave out.
    ///
    /// A closed listener would refuse connections, and what Asterisk does then can end innocent calls.
    pub fn shutdown(&self, grace: Duration) {
        self.media.draining.store(true, Ordering::Release);
        self.begin_shutdown(grace);
    }

    /// Stops accepting, leaves the listener open for a successor, and ends as [`shutdown`](Self::shutdown) does, but rejects no
    /// call. Connections that were accepted before are served, even if their UUID comes later. Use it for restarts.
    ///
    /// The successor must be listening on the same socket already, through a duplicate of it that it was
    /// given; see [`ServerBuilder::from_listener`].
    pub fn hand_over(&self, grace: Duration) {
        self.threads.acceptor().stop_listening();
        self.begin_shutdown(grace);
    }

    fn begin_shutdown(&self, grace: Duration) {
        self.registry.announce_shutdown(grace);
        self.shutdown.send_replace(Some(grace));
    }

    /// Whether connections are accepted, if only to reject their calls. After [`hand_over`](Self::hand_over) it takes some
    /// milliseconds until they are not, and this server's descriptor of the listener is closed.
    pub fn is_listening(&self) -> bool {
        self.media.listening.load(Ordering::Acquire)
    }

    /// Hangs up every call at once and stops listening, for a process that is about to end: on a second signal,
    /// after a panic. Each call is sent its hang-up; where a process ends without that, Asterisk may keep the call
    /// up, or end it without going on in the dialplan. Nothing can be done with the server afterwards.
    ///
    /// It needs no runtime, and blocks until the other sides have closed: mostly for some milliseconds, at most for
    /// half a second, or two if a media thread does not answer.
    pub fn hang_up_all(&self) {
        self.threads.stop();
        self.threads.wait(HANG_UP_TIMEOUT);
    }

    /// The calls that are running, with those that wait to be let in.
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

    /// Changes [`ServerBuilder::max_calls`], for calls whose UUID comes from now on. Where more calls run than that, they go on,
    /// and new ones are rejected until there are fewer.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = sidetone::Server::builder().max_calls(100).bind("127.0.0.1:9092").await?;
    /// server.handle().set_max_calls(200);
    /// # Ok(()) }
    /// ```
    pub fn set_max_calls(&self, calls: usize) {
        self.arrival_limit.set_max_calls(calls);
        self.media.max_calls.store(calls, Ordering::Relaxed);
    }

    /// Changes the networks of [`ServerBuilder::allow`], for calls whose UUID comes from now on. Running calls go on.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = sidetone::Server::builder().bind("127.0.0.1:9092").await?;
    /// server.handle().set_networks("127.0.0.1".parse()?);
    /// # Ok(()) }
    /// ```
    pub fn set_networks(&self, networks: Networks) {
        self.media.networks.store(Arc::new(networks));
    }

    /// How late the audio of all calls left since the server started, that of running calls with it.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = sidetone::Server::builder().bind("127.0.0.1:9092").await?;
    /// let before = server.handle().lateness();
    /// tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    /// let after = server.handle().lateness();
    /// let late = |lateness: &sidetone::LatenessHistogram| lateness.counts[7..].iter().sum::<u64>();
    /// println!("{} frames left more than 20 ms late", late(&after) - late(&before));
    /// # Ok(()) }
    /// ```
    pub fn lateness(&self) -> LatenessHistogram {
        self.threads.lateness()
    }

    /// What was counted since the server started.
    pub fn stats(&self) -> ServerStats {
        let counters = &self.media.counters;
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        ServerStats {
            connections: read(&counters.connections),
            calls: read(&counters.calls),
            running: self.media.running.load(Ordering::Acquire),
            rejected: read(&counters.rejected),
            unreported: read(&self.arrival_limit.unreported),
            excess_connects: read(&counters.excess_connects),
            without_identity: counters.without_identity.load(Ordering::Acquire),
            probes: read(&counters.probes),
            other_protocols: OtherProtocols(counters.other_protocols.each_ref().map(read)),
            crowded_out: read(&counters.crowded_out),
            out_of_descriptors: read(&counters.out_of_descriptors),
            prioritised: self.media.prioritised.load(Ordering::Acquire),
            io_uring: self.media.io_uring.load(Ordering::Acquire),
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
