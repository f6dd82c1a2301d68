use std::{
    any::Any,
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    thread::{self, JoinHandle, Thread},
};

use crossbeam_queue::{ArrayQueue, SegQueue};
use parking_lot::Mutex;

use super::{CallInfo, Input, Reply};
use crate::{
    error::{CallError, HandlerError, ServeError},
    live::LiveAudio,
    media::{Arrivals, Batch, CallRef, EndWanted, Entry, Media},
    server::ServerBuilder,
    stats::CallSummary,
};

pub(super) type OnInput = dyn FnMut(Input<'_>, &mut Reply) + Send;
pub(super) type OnCall = dyn Fn(&CallInfo) -> Box<OnInput> + Send + Sync;
pub(super) type OnError = dyn Fn(&CallInfo, &CallError) + Send + Sync;

/// A running server of the two-callback style. Dropping it hangs all calls up and closes the listener.
pub struct CallbackServer {
    /// Dropped first: no call arrives after that.
    media: Option<Media>,
    workers: Arc<Workers>,
    threads: Vec<JoinHandle<()>>,
    local: SocketAddr,
}

/// The threads that callbacks run on.
struct Workers {
    ready: Vec<ReadyQueue>,
    next: AtomicUsize,
    stopping: AtomicBool,
    on_call: Box<OnCall>,
    on_error: Box<OnError>,
}

/// How many calls with news fit into a worker's queue without taking memory for them.
const QUEUE_CAPACITY: usize = 4096;

/// The calls of one worker that have news. Nobody who adds one ever waits.
struct ReadyQueue {
    calls: ArrayQueue<Arc<CallbackCall>>,
    /// What found no room there, when thousands have news and the worker does not come to it.
    overflow: SegQueue<Arc<CallbackCall>>,
    thread: OnceLock<Thread>,
}

/// One call, as its worker sees it.
struct CallbackCall {
    shared: CallRef,
    worker: usize,
    workers: Arc<Workers>,
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
}

impl CallbackServer {
    pub(super) fn start(
        settings: ServerBuilder,
        on_call: Box<OnCall>,
        on_error: Box<OnError>,
        address: impl ToSocketAddrs,
    ) -> Result<Self, ServeError> {
        let (listener, config, count) = settings.into_parts(address)?;
        let local = listener.local_addr().map_err(ServeError::Media)?;
        let workers = Arc::new(Workers {
            ready: (0..count).map(|_| ReadyQueue::new()).collect(),
            next: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            on_call,
            on_error,
        });
        let threads = (0..count)
            .map(|index| spawn(&workers, index))
            .collect::<Result<_, _>>();
        let threads = threads.map_err(ServeError::Media)?;
        let arrivals = Box::new(WorkerArrivals(Arc::clone(&workers)));
        let media = Media::start(listener, config, arrivals, count).map_err(ServeError::Media)?;
        Ok(Self {
            media: Some(media),
            workers,
            threads,
            local,
        })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves until the process ends.
    pub fn wait(mut self) {
        for thread in self.threads.drain(..) {
            // A worker ends only with the server.
            let _ = thread.join();
        }
    }
}

impl Drop for CallbackServer {
    fn drop(&mut self) {
        drop(self.media.take());
        self.workers.stopping.store(true, Ordering::Release);
        for ready in &self.workers.ready {
            ready.unpark();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for CallbackServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackServer")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

struct WorkerArrivals(Arc<Workers>);

impl Arrivals for WorkerArrivals {
    fn arrived(&self, shared: CallRef) {
        // Callbacks have nobody listen in.
        shared.end_beginning();
        let workers = &self.0;
        let worker = workers.next.fetch_add(1, Ordering::Relaxed) % workers.ready.len();
        let info = CallInfo::new(&shared);
        let reply = Reply {
            shared: shared.clone(),
            line: LiveAudio::new(shared.clone(), None),
            rate: shared.rate(),
            clearing: None,
        };
        let state = State {
            info,
            reply,
            on_input: None,
            is_over: false,
        };
        let call = CallbackCall {
            shared,
            worker,
            workers: Arc::clone(workers),
            queued: AtomicBool::new(false),
            state: Mutex::new(state),
        };
        Arc::new(call).wake();
    }

    fn rejected(&self, _: CallSummary) {}

    /// First all of them are put into their queues, then each worker is woken once: one that runs as soon as
    /// there is one call for it would take the processor from the media thread for each.
    fn wake(&self, wakes: &mut Vec<Waker>) {
        wakes.drain(..).for_each(Waker::wake);
        for ready in &self.0.ready {
            if !ready.is_empty() {
                ready.unpark();
            }
        }
    }
}

impl Wake for CallbackCall {
    /// Media threads call it, and [`WorkerArrivals::wake`] at the end of the turn; and a call's own worker, which looks into its
    /// queue before it rests.
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let workers = Arc::clone(&self.workers);
            let ready = &workers.ready[self.worker];
            ready.push(self);
        }
    }
}

impl ReadyQueue {
    fn new() -> Self {
        Self {
            calls: ArrayQueue::new(QUEUE_CAPACITY),
            overflow: SegQueue::new(),
            thread: OnceLock::new(),
        }
    }

    fn push(&self, call: Arc<CallbackCall>) {
        if let Err(call) = self.calls.push(call) {
            self.overflow.push(call);
        }
    }

    fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.overflow.is_empty()
    }

    fn pop(&self) -> Option<Arc<CallbackCall>> {
        self.calls.pop().or_else(|| self.overflow.pop())
    }

    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

fn spawn(workers: &Arc<Workers>, index: usize) -> std::io::Result<JoinHandle<()>> {
    let own = Arc::clone(workers);
    let thread = thread::Builder::new()
        .name(format!("sidetone-callback-{index}"))
        .spawn(move || own.run(index))?;
    // It was empty: each worker is started once.
    let _ = workers.ready[index].thread.set(thread.thread().clone());
    Ok(thread)
}

impl Workers {
    fn run(&self, index: usize) {
        let ready = &self.ready[index];
        // One for all its calls, for each reads it to its end.
        let mut batch = Batch::default();
        loop {
            // Whoever stops the worker has added the last call before.
            let is_stopping = self.stopping.load(Ordering::Acquire);
            while let Some(call) = ready.pop() {
                call.work(&mut batch);
            }
            if is_stopping {
                return;
            }
            thread::park();
        }
    }
}

impl CallbackCall {
    /// Calls the callbacks for everything that has come.
    fn work(self: Arc<Self>, batch: &mut Batch) {
        self.queued.store(false, Ordering::Release);
        let mut state = self.state.lock();
        // What comes from here on puts the call into the queue again.
        self.shared.fill(batch, |waker| {
            waker.get_or_insert_with(|| Waker::from(Arc::clone(&self)));
        });
        while !state.is_over && (state.has_input(batch) || state.has_cleared(&self)) {
            let worked = catch_unwind(AssertUnwindSafe(|| state.work(batch, &self.workers)));
            if let Err(panic) = worked {
                state.fail(&self.workers, &*panic);
            }
        }
        if state.is_over {
            // Nothing more comes, and the waker would keep the call in memory for ever.
            self.shared.fill(batch, |waker| *waker = None);
            self.shared.forget_waiters();
        }
    }
}

impl State {
    /// A call that has just begun is news, whether or not it says anything.
    fn has_input(&self, batch: &Batch) -> bool {
        self.on_input.is_none() || !batch.is_empty()
    }

    /// Whether it is known what was heard of what was cleared. Else the call is woken when it is.
    fn has_cleared(&self, call: &Arc<CallbackCall>) -> bool {
        let shared = &self.reply.shared;
        let is_known = |generation| {
            shared.cleared(generation).is_some() || {
                shared.wait(&Waker::from(Arc::clone(call)));
                // What happened between the look and the registration woke nobody.
                shared.cleared(generation).is_some()
            }
        };
        self.reply.clearing.is_some_and(is_known)
    }

    fn work(&mut self, batch: &mut Batch, workers: &Workers) {
        let on_input = match &mut self.on_input {
            Some(on_input) => on_input,
            not_started => {
                let on_input = not_started.insert((workers.on_call)(&self.info));
                on_input(Input::Started, &mut self.reply);
                on_input
            }
        };
        loop {
            if let Some(generation) = self.reply.clearing
                && let Some(heard) = self.reply.shared.cleared(generation)
            {
                self.reply.clearing = None;
                on_input(Input::Cleared(heard), &mut self.reply);
            }
            let Some((entry, samples)) = batch.take() else {
                break;
            };
            let input = match entry {
                Entry::Audio(audio) => {
                    self.reply.rate = audio.rate;
                    Input::Audio(samples)
                }
                Entry::Dtmf(digit) => Input::Dtmf(digit),
                Entry::Drained => Input::PlaybackDrained,
                Entry::NoAudio { duration, .. } => Input::NoAudio(duration),
                Entry::Ended(reason) => {
                    self.is_over = true;
                    Input::Ended(reason)
                }
                Entry::Trouble(error) => {
                    (workers.on_error)(&self.info, &error);
                    continue;
                }
                Entry::Codec(_)
                | Entry::Lagged { .. }
                | Entry::Mark(_)
                | Entry::Underrun
                | Entry::Closing { .. } => {
                    continue;
                }
            };
            on_input(input, &mut self.reply);
        }
        if self.is_over {
            self.on_input = None;
        }
    }

    /// A callback panicked: its call ends, and it is never called again.
    fn fail(&mut self, workers: &Workers, panic: &(dyn Any + Send)) {
        self.reply.shared.end(EndWanted::Fail);
        let failed = self.on_input.replace(Box::new(|_, _| {}));
        let error = CallError::Handler(HandlerError::from_panic(panic).to_string());
        // Were one of these to panic, too, there would be nobody left to tell.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(failed)));
        let _ = catch_unwind(AssertUnwindSafe(|| (workers.on_error)(&self.info, &error)));
    }
}
