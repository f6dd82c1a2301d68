//! The media threads. They read every call, keep its schedule and write what is due. No application code runs on
//! them, and they never wait for any.

mod acceptor;
mod batch;
pub(crate) mod clock;
mod closing;
mod codec;
mod commands;
mod connection;
mod event_loop;
mod lateness;
mod levels;
mod limits;
mod listener;
mod playing;
mod shared;
mod tap;
mod wheel;

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, SyncSender},
    },
    task::Waker,
    thread::{self, JoinHandle},
    time::Duration,
};

use arc_swap::ArcSwap;
use crossbeam_queue::SegQueue;
use parking_lot::Mutex;
use rustix::process::setpriority_process;
use sidetone_driver::IoBackend;
use sidetone_proto::{CallConfig, EndReason, OtherProtocol};

use crate::{
    admission::Networks,
    event::Codec,
    server::Tuning,
    stats::{CallSummary, LatenessHistogram},
};
use event_loop::MediaThread;
use lateness::LatenessCounters;
pub(crate) use limits::LimitConfig;
use limits::{Entry, Excess, Waiting};

pub(crate) use batch::Batch;
pub(crate) use commands::{CommandQueue, Piece};
pub(crate) use listener::canonical;
pub(crate) use playing::Playing;
pub(crate) use shared::{CallRef, CallShared, EndWanted, SubmitError};
pub(crate) use sidetone_driver::Token;
pub(crate) use tap::{Purpose, Tap, TapBuffer, TapFrame};
pub use tap::{Side, Sides};

/// The configuration of a server's media threads.
#[derive(Debug)]
pub(crate) struct MediaConfig {
    pub(crate) call: CallConfig,
    /// How long before it a call's longest duration is reported.
    pub(crate) max_duration_warning: Duration,
    pub(crate) codec: Codec,
    pub(crate) receive_buffer: Duration,
    pub(crate) playback_buffer: Duration,
    /// At the start; [`MediaShared::max_calls`] counts.
    pub(crate) max_calls: usize,
    /// At the start; [`MediaShared::networks`] counts.
    pub(crate) networks: Networks,
    pub(crate) limits: LimitConfig,
    pub(crate) io_backend: IoBackend,
    pub(crate) tuning: Tuning,
}

/// Where a media thread announces calls. These methods run on the media thread and must not block.
pub(crate) trait Arrivals: Send + Sync {
    /// A call has sent its UUID and is to be handled.
    fn arrived(&self, call: CallRef);

    /// A call was rejected.
    fn rejected(&self, summary: CallSummary);

    /// A connection ended before its UUID came.
    fn unidentified(&self, peer: SocketAddr, reason: EndReason);

    /// An event-loop iteration is over: wakes these handlers, which have news, and empties `wakes`.
    fn wake(&self, wakes: &mut Vec<Waker>);
}

/// The state that all media threads of a server share.
pub(crate) struct MediaShared {
    pub(crate) config: MediaConfig,
    pub(crate) arrivals: Box<dyn Arrivals>,
    pub(crate) max_calls: AtomicUsize,
    pub(crate) networks: ArcSwap<Networks>,
    /// Calls that have sent a UUID and are not over.
    pub(crate) running: AtomicUsize,
    /// New calls are rejected: the server is shutting down.
    pub(crate) draining: AtomicBool,
    /// New connections are accepted.
    pub(crate) listening: AtomicBool,
    /// Connections that have sent a UUID and are not closed. Their calls may be over.
    pub(crate) identified: AtomicUsize,
    /// All media threads run at a raised priority.
    pub(crate) prioritised: AtomicBool,
    /// All media threads use io_uring.
    pub(crate) io_uring: AtomicBool,
    pub(crate) counters: ServerCounters,
}

/// Counts since the start of the server.
#[derive(Debug, Default)]
pub(crate) struct ServerCounters {
    pub(crate) connections: AtomicUsize,
    pub(crate) calls: AtomicUsize,
    pub(crate) rejected: AtomicUsize,
    pub(crate) excess_connects: AtomicUsize,
    pub(crate) without_identity: AtomicUsize,
    pub(crate) probes: AtomicUsize,
    pub(crate) other_protocols: [AtomicUsize; OtherProtocol::ALL.len()],
    pub(crate) crowded_out: AtomicUsize,
    pub(crate) out_of_descriptors: AtomicUsize,
}

/// Sends commands to one media thread, from any thread.
#[derive(Clone, Debug)]
pub(crate) struct MediaHandle(Arc<Mailbox>);

#[derive(Debug)]
struct Mailbox {
    waker: Arc<sidetone_driver::Waker>,
    commands: SegQueue<ThreadCommand>,
    /// Connections of this thread. The accepting thread assigns a new one to the least loaded thread.
    load: AtomicUsize,
    lateness: LatenessCounters,
}

#[derive(Debug)]
enum ThreadCommand {
    /// Takes over a connection that another thread accepted.
    AddConnection(NewConnection),
    /// Closes a connection, if it has no UUID: there are too many of these.
    CrowdOut(Entry),
    /// Polls a connection now: its handler asked for something that can't wait for the next slot.
    Poll(Token),
    /// Stops accepting. The listener stays open if another process holds it, too.
    StopListening,
    /// Hangs up all connections and ends the thread.
    Stop,
}

/// A connection that was accepted, and what the limits say of it.
#[derive(Debug)]
struct NewConnection {
    stream: TcpStream,
    peer: SocketAddr,
    excess: Option<Excess>,
    waiting: Waiting,
}

impl MediaHandle {
    fn new() -> io::Result<Self> {
        let mailbox = Mailbox {
            waker: Arc::new(sidetone_driver::Waker::new()?),
            commands: SegQueue::new(),
            load: AtomicUsize::new(0),
            lateness: LatenessCounters::default(),
        };
        Ok(Self(Arc::new(mailbox)))
    }

    pub(crate) fn request_poll(&self, token: Token) {
        self.command(ThreadCommand::Poll(token));
    }

    pub(crate) fn stop_listening(&self) {
        self.command(ThreadCommand::StopListening);
    }

    /// Only the thread itself records there.
    fn lateness(&self) -> &LatenessCounters {
        &self.0.lateness
    }

    fn command(&self, command: ThreadCommand) {
        self.0.commands.push(command);
        self.0.waker.wake();
    }
}

/// The running media threads of a server. Dropping it hangs up every call, and blocks until the threads have ended.
pub(crate) struct Media {
    pub(crate) shared: Arc<MediaShared>,
    threads: Arc<MediaThreads>,
}

/// The threads, shared by everything that may stop them.
pub(crate) struct MediaThreads {
    handles: Vec<MediaHandle>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Media {
    /// Starts `count` threads, of which the first accepts from `listener`.
    ///
    /// # Errors
    ///
    /// If a thread can't be started, or can't open its I/O driver.
    pub(crate) fn start(
        listener: TcpListener,
        config: MediaConfig,
        arrivals: Box<dyn Arrivals>,
        count: usize,
    ) -> io::Result<Self> {
        let shared = Arc::new(MediaShared {
            max_calls: AtomicUsize::new(config.max_calls),
            networks: ArcSwap::from_pointee(config.networks.clone()),
            config,
            arrivals,
            running: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            listening: AtomicBool::new(true),
            identified: AtomicUsize::new(0),
            prioritised: AtomicBool::new(true),
            io_uring: AtomicBool::new(true),
            counters: ServerCounters::default(),
        });
        let handles = (0..count.max(1))
            .map(|_| MediaHandle::new())
            .collect::<io::Result<Vec<_>>>()?;
        let mut listener = Some(listener);
        let mut threads = Vec::new();
        for (index, handle) in handles.iter().enumerate() {
            let setup = Setup {
                handle: handle.clone(),
                siblings: handles.clone(),
                listener: listener.take(),
                shared: Arc::clone(&shared),
            };
            let (ready, started) = mpsc::sync_channel(1);
            let thread = thread::Builder::new().name(format!("sidetone-media-{index}"));
            threads.push(thread.spawn(move || setup.run(&ready))?);
            // The channel closes without a message only if the thread panicked.
            started
                .recv()
                .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        }
        Ok(Self {
            shared,
            threads: Arc::new(MediaThreads {
                handles,
                running: Mutex::new(threads),
            }),
        })
    }

    pub(crate) fn threads(&self) -> Arc<MediaThreads> {
        Arc::clone(&self.threads)
    }

    /// The number of open connections.
    pub(crate) fn open(&self) -> usize {
        let loads = self.threads.handles.iter();
        loads
            .map(|handle| handle.0.load.load(Ordering::Acquire))
            .sum()
    }
}

impl MediaThreads {
    /// The thread that accepts.
    pub(crate) fn acceptor(&self) -> &MediaHandle {
        &self.handles[0]
    }

    /// What all threads have recorded since they started.
    pub(crate) fn lateness(&self) -> LatenessHistogram {
        let mut all = LatenessHistogram::default();
        let threads = self.handles.iter();
        threads.for_each(|handle| handle.lateness().add_to(&mut all));
        all
    }

    /// Hangs up every call. The threads end when the peers have closed, or after a grace period. Doesn't block.
    pub(crate) fn stop(&self) {
        for handle in &self.handles {
            handle.command(ThreadCommand::Stop);
        }
    }

    /// Blocks until the threads have ended, for at most `max_wait`.
    pub(crate) fn wait(&self, max_wait: Duration) {
        let end = clock::now() + max_wait;
        while !self.have_ended() && clock::now() < end {
            thread::sleep(END_CHECK_INTERVAL);
        }
    }

    fn have_ended(&self) -> bool {
        // The lock is held only by `Media::drop`, which joins the threads.
        let running = self.running.try_lock();
        running.is_some_and(|running| running.iter().all(JoinHandle::is_finished))
    }
}

/// How often `wait` checks whether the threads have ended.
const END_CHECK_INTERVAL: Duration = Duration::from_millis(2);

/// The niceness of a media thread: it runs before other threads of its processor, and is done soon. Not a real-time
/// priority, under which a bug could lock up the machine.
const MEDIA_NICENESS: i32 = -11;

/// What a media thread starts with. It opens the driver itself, since an io_uring belongs to the thread that made it.
struct Setup {
    handle: MediaHandle,
    siblings: Vec<MediaHandle>,
    listener: Option<TcpListener>,
    shared: Arc<MediaShared>,
}

impl Setup {
    /// Runs a media thread to its end. Sends to `ready` first whether it has started.
    fn run(self, ready: &SyncSender<io::Result<()>>) {
        if let Err(error) = setpriority_process(None, MEDIA_NICENESS) {
            self.shared.prioritised.store(false, Ordering::Release);
            tracing::info!(%error, "media threads run at ordinary priority");
        }
        match self.thread() {
            Ok(thread) => {
                report(ready, Ok(()));
                thread.run();
            }
            Err(error) => report(ready, Err(error)),
        }
    }

    fn thread(self) -> io::Result<MediaThread> {
        let driver = self
            .shared
            .config
            .io_backend
            .open(Arc::clone(&self.handle.0.waker))?;
        if driver.backend() != IoBackend::IoUring {
            self.shared.io_uring.store(false, Ordering::Release);
        }
        MediaThread::new(
            self.handle,
            self.siblings,
            driver,
            self.listener,
            self.shared,
        )
    }
}

fn report(ready: &SyncSender<io::Result<()>>, outcome: io::Result<()>) {
    // `Media::start` waits for this message, so the receiver exists.
    let _ = ready.send(outcome);
}

impl Drop for Media {
    fn drop(&mut self) {
        self.threads.stop();
        for thread in self.threads.running.lock().drain(..) {
            // The panic hook has already reported a panic.
            let _ = thread.join();
        }
    }
}
