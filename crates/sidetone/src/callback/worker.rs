use std::{
    collections::BTreeMap,
    fmt, io,
    net::{SocketAddr, TcpListener},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

use crossbeam_queue::{ArrayQueue, SegQueue};
use parking_lot::Mutex;
use sidetone_proto::Time;
use tokio::{runtime, sync::oneshot};

use super::{CallInfo, Input, Reply};
use crate::{
    call::Call,
    error::{CallError, HandlerError, ServeError},
    event::Event,
    handler::{Handler, Outcome},
    media::{Batch, CallRef, EndWanted, clock},
    server::{ServerBuilder, ServerHandle},
};

pub(super) type OnInput = dyn FnMut(Input<'_>, &mut Reply) + Send;
pub(super) type OnCall = dyn Fn(&CallInfo) -> Box<OnInput> + Send + Sync;
pub(super) type OnError = dyn Fn(&CallInfo, &CallError) + Send + Sync;

/// A running server of the callback style.
///
/// Dropping it hangs all calls up, waits until the callbacks have heard of that, and closes the listener. To end it gently,
/// use [`ServerHandle::shutdown`].
pub struct CallbackServer {
    serving: Serving,
    workers: Vec<JoinHandle<()>>,
}

/// The server whose calls are given to workers.
pub(super) struct Serving {
    pub(super) handle: ServerHandle,
    pub(super) local: SocketAddr,
    pub(super) queues: Arc<Queues>,
    /// Runs the server: what is asked for each call, not for each frame.
    thread: Option<JoinHandle<()>>,
}

/// What the program gave.
pub(super) struct Callbacks {
    pub(super) on_call: Box<OnCall>,
    pub(super) on_error: Box<OnError>,
}

/// The calls that have news, for each worker.
pub(super) struct Queues {
    ready: Vec<ReadyQueue>,
    next: AtomicUsize,
    stopping: AtomicBool,
}

/// How many calls with news fit into a worker's queue without taking memory for them.
const QUEUE_CAPACITY: usize = 4096;

/// The calls of one worker that have news. Nobody who adds one ever waits.
pub(super) struct ReadyQueue {
    calls: ArrayQueue<Arc<CallbackCall>>,
    /// What found no space there, when thousands have news and the worker does not come to it.
    overflow: SegQueue<Arc<CallbackCall>>,
    worker: WhoWorks,
}

/// Who takes the calls out of a queue.
pub(super) enum WhoWorks {
    /// A thread of ours, once it runs.
    Thread(OnceLock<Thread>),
    /// The program, when it is told so.
    Program(Box<dyn Fn() + Send + Sync>),
}

/// One call, as its worker sees it.
pub(super) struct CallbackCall {
    shared: CallRef,
    worker: usize,
    queues: Arc<Queues>,
    callbacks: Arc<Callbacks>,
    /// It is in its worker's queue, or being worked on.
    queued: AtomicBool,
    /// Only the worker takes this lock.
    state: Mutex<State>,
}

struct State {
    info: CallInfo,
    reply: Reply,
    on_input: Option<Box<OnInput>>,
    is_over: bool,
    /// For when its tick is noted.
    tick: Option<Time>,
    /// Tells the server that the callbacks are done with the call, or failed.
    done: Option<oneshot::Sender<Result<(), HandlerError>>>,
}

impl CallbackServer {
    pub(super) fn start(
        settings: ServerBuilder,
        callbacks: Callbacks,
        listener: TcpListener,
    ) -> Result<Self, ServeError> {
        let count = settings.media_thread_count();
        let workers = (0..count).map(|_| WhoWorks::Thread(OnceLock::new()));
        let serving = Serving::start(settings, callbacks, listener, workers)?;
        let mut this = Self {
            serving,
            workers: Vec::new(),
        };
        // What has been started by then is stopped if one of them can't be.
        for index in 0..count {
            let worker = spawn(&this.serving.queues, index).map_err(ServeError::Media)?;
            this.workers.push(worker);
        }
        Ok(this)
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.serving.local
    }

    /// A handle for shutting down, for statistics and for finding calls, from anywhere. It doesn't keep the server alive.
    pub fn handle(&self) -> ServerHandle {
        self.serving.handle.clone()
    }

    /// Serves until it is [shut down](ServerHandle::shutdown), and returns when all callbacks have heard of their calls' ends
    /// and [`on_call_end`](ServerBuilder::on_call_end) of all calls.
    pub fn wait(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.serving.join();
        let queues = &self.serving.queues;
        queues.stopping.store(true, Ordering::Release);
        queues.ready.iter().for_each(ReadyQueue::tell);
        for thread in self.workers.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for CallbackServer {
    fn drop(&mut self) {
        self.serving.handle.shutdown(Duration::ZERO);
        self.join();
    }
}

impl Serving {
    /// Serves on a thread of its own, and gives the calls to `workers` in turn.
    pub(super) fn start(
        mut settings: ServerBuilder,
        callbacks: Callbacks,
        listener: TcpListener,
        workers: impl IntoIterator<Item = WhoWorks>,
    ) -> Result<Self, ServeError> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ServeError::Media)?;
        // The error callback is told already.
        settings.on_handler_error_or(|_, _| {});
        let queues = Arc::new(Queues {
            ready: workers.into_iter().map(ReadyQueue::new).collect(),
            next: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        });
        let waking = Arc::clone(&queues);
        let wake = Box::new(move |wakes: &mut Vec<Waker>| waking.wake(wakes));
        let server = settings.start(listener, wake)?;
        let (handle, local) = (server.handle(), server.local_addr());
        let handler = CallbackHandler {
            queues: Arc::clone(&queues),
            callbacks: Arc::new(callbacks),
        };
        let ended = Arc::clone(&queues);
        let serve = move || {
            // It has no errors.
            let _ = runtime.block_on(server.serve(handler));
            ended.stopping.store(true, Ordering::Release);
            ended.ready.iter().for_each(ReadyQueue::tell);
        };
        let thread = thread::Builder::new().name("sidetone-callbacks".into());
        let thread = thread.spawn(serve).map_err(ServeError::Media)?;
        Ok(Self {
            handle,
            local,
            queues,
            thread: Some(thread),
        })
    }

    /// Whether all calls are over, and all callbacks of the server's have returned.
    pub(super) fn has_ended(&self) -> bool {
        self.queues.stopping.load(Ordering::Acquire)
    }

    pub(super) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for CallbackServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackServer")
            .field("local", &self.serving.local)
            .finish_non_exhaustive()
    }
}

/// The handler that hands each call to a worker.
struct CallbackHandler {
    queues: Arc<Queues>,
    callbacks: Arc<Callbacks>,
}

impl Handler for CallbackHandler {
    async fn handle(&self, call: Call) -> Outcome {
        let (done, outcome) = oneshot::channel();
        self.start(call, done);
        // A worker that is gone has dropped its calls.
        Outcome(outcome.await.unwrap_or(Ok(())))
    }
}

impl CallbackHandler {
    fn start(&self, call: Call, done: oneshot::Sender<Result<(), HandlerError>>) {
        let queues = &self.queues;
        let worker = queues.next.fetch_add(1, Ordering::Relaxed) % queues.ready.len();
        let call = CallbackCall {
            shared: call.shared().clone(),
            worker,
            queues: Arc::clone(queues),
            callbacks: Arc::clone(&self.callbacks),
            queued: AtomicBool::new(false),
            state: Mutex::new(State {
                info: call.handle().info(),
                reply: Reply::new(call),
                on_input: None,
                is_over: false,
                tick: None,
                done: Some(done),
            }),
        };
        Arc::new(call).wake();
        queues.ready[worker].tell();
    }
}

impl Queues {
    /// The queue of the program, which has no other.
    pub(super) fn of_program(&self) -> &ReadyQueue {
        &self.ready[0]
    }

    /// First all calls are put into their queues, then each worker is woken once: one that runs as soon as
    /// there is one call for it would take the processor from the media thread for each.
    fn wake(&self, wakes: &mut Vec<Waker>) {
        wakes.drain(..).for_each(Waker::wake);
        for ready in &self.ready {
            if !ready.is_empty() {
                ready.tell();
            }
        }
    }

    fn run(&self, index: usize) {
        let ready = &self.ready[index];
        let mut worker = Worker::default();
        loop {
            // The last call is added before the worker is told to stop.
            let is_stopping = self.stopping.load(Ordering::Acquire);
            while let Some(call) = ready.pop() {
                call.work(&mut worker);
            }
            let next_tick = worker.tick();
            match next_tick {
                // A tick may have made news of its own call, and nobody wakes a worker for that.
                _ if !ready.is_empty() => {}
                _ if is_stopping => return,
                Some(delay) => thread::park_timeout(delay),
                None => thread::park(),
            }
        }
    }
}

/// What a worker's calls share.
#[derive(Default)]
pub(super) struct Worker {
    /// One for all of them, for each reads it to its end.
    batch: Batch,
    /// The calls that want a tick, one entry for each, by when.
    ticks: BTreeMap<(Time, usize), Arc<CallbackCall>>,
}

impl Worker {
    /// Gives the ticks that are due, and says how long it is to the next.
    pub(super) fn tick(&mut self) -> Option<Duration> {
        loop {
            let next = self.ticks.first_entry()?;
            let delay = next.key().0 - clock::now();
            if !delay.is_zero() {
                return Some(delay);
            }
            next.remove().give_tick(self);
        }
    }

    /// Notes when a call wants its tick, in place of what was noted.
    fn note_tick(&mut self, call: &Arc<CallbackCall>, state: &mut State) {
        let wanted = state.reply.tick.filter(|_| !state.is_over);
        if wanted == state.tick {
            return;
        }
        let key = Arc::as_ptr(call) as usize;
        if let Some(noted) = state.tick {
            self.ticks.remove(&(noted, key));
        }
        if let Some(wanted) = wanted {
            self.ticks.insert((wanted, key), Arc::clone(call));
        }
        state.tick = wanted;
    }
}

impl Wake for CallbackCall {
    /// Adds the call to its worker's queue. It does not wake the worker: media threads do that with [`Queues::wake`] at the end
    /// of an iteration, and a worker looks into its queue before it parks. A call added by another thread waits for the next
    /// iteration.
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let queues = Arc::clone(&self.queues);
            queues.ready[self.worker].push(self);
        }
    }
}

impl ReadyQueue {
    fn new(worker: WhoWorks) -> Self {
        Self {
            calls: ArrayQueue::new(QUEUE_CAPACITY),
            overflow: SegQueue::new(),
            worker,
        }
    }

    fn push(&self, call: Arc<CallbackCall>) {
        if let Err(call) = self.calls.push(call) {
            self.overflow.push(call);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.overflow.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len() + self.overflow.len()
    }

    pub(super) fn pop(&self) -> Option<Arc<CallbackCall>> {
        self.calls.pop().or_else(|| self.overflow.pop())
    }

    /// Tells its worker to look.
    pub(super) fn tell(&self) {
        match &self.worker {
            WhoWorks::Thread(thread) => {
                if let Some(thread) = thread.get() {
                    thread.unpark();
                }
            }
            WhoWorks::Program(tell) => tell(),
        }
    }
}

fn spawn(queues: &Arc<Queues>, index: usize) -> io::Result<JoinHandle<()>> {
    let own = Arc::clone(queues);
    let thread = thread::Builder::new()
        .name(format!("sidetone-callback-{index}"))
        .spawn(move || own.run(index))?;
    if let WhoWorks::Thread(worker) = &queues.ready[index].worker {
        // It was empty: each worker is started once.
        let _ = worker.set(thread.thread().clone());
    }
    Ok(thread)
}

impl CallbackCall {
    /// Calls the callbacks for everything that has come.
    pub(super) fn work(self: Arc<Self>, worker: &mut Worker) {
        // A swap, so that a wake before it is seen below and one after it queues the call again.
        self.queued.swap(false, Ordering::AcqRel);
        let mut state = self.state.lock();
        // Before anything is read: who listens in from here on has all of the call.
        if state.on_input.is_none() && !state.is_over {
            self.guard(&mut state, State::start);
        }
        // What comes from here on puts the call into the queue again.
        self.shared.take_batch(&mut worker.batch, |waker| {
            waker.get_or_insert_with(|| Waker::from(Arc::clone(&self)));
        });
        while !state.is_over && (!worker.batch.is_empty() || state.has_cleared(&self)) {
            let batch = &mut worker.batch;
            self.guard(&mut state, |state, callbacks| {
                state.handle_batch(batch, callbacks);
            });
        }
        worker.note_tick(&self, &mut state);
        if state.is_over {
            // Nothing more comes, and the waker would keep the call in memory for ever.
            self.shared
                .take_batch(&mut worker.batch, |waker| *waker = None);
            self.shared.clear_waiters();
            state.report(Ok(()));
        }
    }

    /// Forgets the callbacks of a call that nobody works on any more. The server waits for it no longer.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        state.is_over = true;
        state.on_input = None;
        self.shared.clear_waiters();
        state.report(Ok(()));
    }

    fn give_tick(self: Arc<Self>, worker: &mut Worker) {
        let mut state = self.state.lock();
        state.tick = None;
        state.reply.tick = None;
        self.guard(&mut state, |state, _| state.input(Input::Tick));
        worker.note_tick(&self, &mut state);
        if state.reply.clearing.is_some() {
            // What was heard is told when it is known, and maybe it is already.
            drop(state);
            self.wake();
        }
    }

    /// Calls what calls a callback, which may panic.
    fn guard(&self, state: &mut State, work: impl FnOnce(&mut State, &Callbacks)) {
        let worked = catch_unwind(AssertUnwindSafe(|| work(state, &self.callbacks)));
        if let Err(panic) = worked {
            let error = HandlerError::from_panic(&*panic);
            state.fail(&self.callbacks, error);
        }
    }
}

impl State {
    fn start(&mut self, callbacks: &Callbacks) {
        self.on_input = Some((callbacks.on_call)(&self.info));
        self.input(Input::Started);
    }

    fn input(&mut self, input: Input<'_>) {
        if let Some(on_input) = &mut self.on_input {
            on_input(input, &mut self.reply);
        }
    }

    /// Whether it is known what was heard of what was cleared. Else the call is woken when it is.
    fn has_cleared(&self, call: &Arc<CallbackCall>) -> bool {
        let shared = &call.shared;
        let is_known = |generation| {
            shared.cleared(generation).is_some() || {
                shared.register_waiter(&Waker::from(Arc::clone(call)));
                // What happened between the look and the registration woke nobody.
                shared.cleared(generation).is_some()
            }
        };
        self.reply.clearing.is_some_and(is_known)
    }

    fn handle_batch(&mut self, batch: &mut Batch, callbacks: &Callbacks) {
        let shared = Arc::clone(self.reply.shared());
        loop {
            if let Some(generation) = self.reply.clearing
                && let Some(heard) = self.reply.shared().cleared(generation)
            {
                self.reply.clearing = None;
                self.input(Input::Cleared(heard));
            }
            let Some((entry, samples)) = shared.take_entry(batch) else {
                break;
            };
            let input = match entry.into_event(samples, shared.began) {
                Event::Audio(frame) => {
                    self.reply.rate = frame.rate();
                    Input::Audio(frame)
                }
                Event::Dtmf(digit) => Input::Dtmf(digit),
                Event::MarkReached(mark) => Input::MarkReached(mark),
                Event::PlaybackDrained => Input::PlaybackDrained,
                Event::Underrun => Input::Underrun,
                Event::NoAudio { offset, duration } => Input::NoAudio { offset, duration },
                Event::Lagged { frames } => Input::Lagged { frames },
                Event::Codec(notice) => Input::Codec(notice),
                Event::Closing(notice) => Input::Closing(notice),
                Event::Ended(reason) => {
                    self.is_over = true;
                    Input::Ended(reason)
                }
                Event::Error(error) => {
                    (callbacks.on_error)(&self.info, &error);
                    continue;
                }
            };
            self.input(input);
        }
        if self.is_over {
            self.on_input = None;
        }
    }

    /// A callback panicked: its call ends, and it is never called again.
    fn fail(&mut self, callbacks: &Callbacks, error: HandlerError) {
        self.reply.shared().end(EndWanted::Fail);
        self.reply.cancel_tick();
        let failed = self.on_input.replace(Box::new(|_, _| {}));
        let told = CallError::Handler(error.to_string());
        // Were one of these to panic, too, there would be nobody left to tell.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(failed)));
        let _ = catch_unwind(AssertUnwindSafe(|| {
            (callbacks.on_error)(&self.info, &told);
        }));
        self.report(Err(error));
    }

    /// Tells the server, once.
    fn report(&mut self, outcome: Result<(), HandlerError>) {
        if let Some(done) = self.done.take() {
            // The server no longer waits for a callback that took too long.
            let _ = done.send(outcome);
        }
    }
}
