use std::{
    any::Any,
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    thread::{self, JoinHandle, Thread},
};

use crossbeam_queue::SegQueue;
use parking_lot::Mutex;

use super::{CallInfo, Input, Reply};
use crate::{
    error::{CallError, ServeError},
    live::LiveLine,
    media::{Arrivals, Batch, EndWanted, Entry, Media, SharedLink},
    server::Builder,
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
    ready: Vec<Ready>,
    next: AtomicUsize,
    stopping: AtomicBool,
    on_call: Box<OnCall>,
    on_error: Box<OnError>,
}

/// The calls of one worker that have news.
#[derive(Default)]
struct Ready {
    calls: SegQueue<Arc<CallbackCall>>,
    thread: Mutex<Option<Thread>>,
}

/// One call, as its worker sees it.
struct CallbackCall {
    link: SharedLink,
    worker: usize,
    workers: Arc<Workers>,
    /// It is in its worker's queue, or being worked on.
    queued: AtomicBool,
    /// Only the worker takes this lock.
    state: Mutex<State>,
}

struct State {
    info: CallInfo,
    batch: Batch,
    reply: Reply,
    on_input: Option<Box<OnInput>>,
}

impl CallbackServer {
    pub(super) fn start(
        settings: Builder,
        on_call: Box<OnCall>,
        on_error: Box<OnError>,
        address: impl ToSocketAddrs,
    ) -> Result<Self, ServeError> {
        let (listener, config, count) = settings.into_parts(address)?;
        let local = listener.local_addr().map_err(ServeError::Media)?;
        let workers = Arc::new(Workers {
            ready: (0..count).map(|_| Ready::default()).collect(),
            next: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            on_call,
            on_error,
        });
        let threads = (0..count)
            .map(|index| spawn(&workers, index))
            .collect::<Result<_, _>>();
        let threads = threads.map_err(ServeError::Media)?;
        let arrivals = Box::new(ToWorkers(Arc::clone(&workers)));
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

struct ToWorkers(Arc<Workers>);

impl Arrivals for ToWorkers {
    fn arrived(&self, link: SharedLink) {
        let workers = &self.0;
        let worker = workers.next.fetch_add(1, Ordering::Relaxed) % workers.ready.len();
        let info = CallInfo {
            id: link.id,
            peer: link.peer,
        };
        let reply = Reply {
            link: link.clone(),
            line: LiveLine::new(link.clone(), None),
            rate: link.rate(),
        };
        let state = State {
            info,
            batch: Batch::default(),
            reply,
            on_input: None,
        };
        let call = CallbackCall {
            link,
            worker,
            workers: Arc::clone(workers),
            queued: AtomicBool::new(false),
            state: Mutex::new(state),
        };
        Arc::new(call).wake();
    }

    fn turned_away(&self, _: CallSummary) {}
}

impl Wake for CallbackCall {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let workers = Arc::clone(&self.workers);
            let ready = &workers.ready[self.worker];
            ready.calls.push(self);
            ready.unpark();
        }
    }
}

impl Ready {
    fn unpark(&self) {
        if let Some(thread) = &*self.thread.lock() {
            thread.unpark();
        }
    }
}

fn spawn(workers: &Arc<Workers>, index: usize) -> std::io::Result<JoinHandle<()>> {
    let own = Arc::clone(workers);
    let thread = thread::Builder::new()
        .name(format!("sidetone-callback-{index}"))
        .spawn(move || own.run(index))?;
    *workers.ready[index].thread.lock() = Some(thread.thread().clone());
    Ok(thread)
}

impl Workers {
    fn run(&self, index: usize) {
        let ready = &self.ready[index];
        loop {
            while let Some(call) = ready.calls.pop() {
                call.work();
            }
            if self.stopping.load(Ordering::Acquire) && ready.calls.is_empty() {
                return;
            }
            thread::park();
        }
    }
}

impl CallbackCall {
    /// Calls the callbacks for everything that has come.
    fn work(self: Arc<Self>) {
        self.queued.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&self));
        let mut state = self.state.lock();
        let result = catch_unwind(AssertUnwindSafe(|| {
            while self.link.fill(&mut state.batch, &waker) {
                state.work(&self.workers);
            }
        }));
        if let Err(panic) = result {
            state.fail(&self.workers, &*panic);
            waker.wake();
        }
    }
}

impl State {
    fn work(&mut self, workers: &Workers) {
        let on_input = self
            .on_input
            .get_or_insert_with(|| (workers.on_call)(&self.info));
        while let Some((entry, samples)) = self.batch.take() {
            let input = match entry {
                Entry::Audio(audio) => {
                    self.reply.rate = audio.rate;
                    Input::Audio(samples)
                }
                Entry::Dtmf(digit) => Input::Dtmf(digit),
                Entry::Drained => Input::PlaybackDrained,
                Entry::Ended(reason) => Input::Ended(reason),
                Entry::Trouble(error) => {
                    (workers.on_error)(&self.info, &error);
                    continue;
                }
                Entry::Codec(_) | Entry::Lagged { .. } | Entry::Mark(_) | Entry::Underrun => {
                    continue;
                }
            };
            on_input(input, &mut self.reply);
        }
    }

    /// A callback panicked: its call ends, and it is never called again.
    fn fail(&mut self, workers: &Workers, panic: &(dyn Any + Send)) {
        self.on_input = Some(Box::new(|_, _| {}));
        self.reply.link.end(EndWanted::Fail);
        let error = CallError::Handler(panic_text(panic));
        // Were this callback to panic, too, there would be nobody left to tell.
        let _ = catch_unwind(AssertUnwindSafe(|| (workers.on_error)(&self.info, &error)));
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it panicked".into())
}
