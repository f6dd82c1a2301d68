//! The media plane: the threads that read every call, keep its grid and write what is due. No application
//! code runs here, and nothing here waits for any.

mod batch;
pub(crate) mod clock;
mod closing;
mod codec;
mod commands;
mod connection;
mod event_loop;
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

use crossbeam_queue::SegQueue;
use parking_lot::Mutex;
use rustix::process::setpriority_process;
use sidetone_driver::IoBackend;
use sidetone_proto::{CallConfig, OtherProtocol};

use crate::{admission::Networks, event::Codec, server::Tuning, stats::CallSummary};
use event_loop::MediaThread;

pub(crate) use batch::Batch;
pub(crate) use commands::{CommandQueue, Piece};
pub(crate) use listener::canonical;
pub(crate) use playing::Playing;
pub(crate) use shared::{CallRef, CallShared, EndWanted, NotSubmitted};
pub(crate) use sidetone_driver::Token;
pub use tap::Side;
pub(crate) use tap::{Purpose, Tap, TapBuffer};

/// What the media threads of a server are told once.
#[derive(Debug)]
pub(crate) struct MediaConfig {
    pub(crate) call: CallConfig,
    /// How long before it a call's longest duration is reported.
    pub(crate) max_duration_warning: Duration,
    pub(crate) codec: Codec,
    pub(crate) receive_buffer: Duration,
    pub(crate) playback_buffer: Duration,
    pub(crate) max_calls: usize,
    pub(crate) networks: Networks,
    pub(crate) io_backend: IoBackend,
    pub(crate) tuning: Tuning,
}

/// Where a media thread announces calls. What is called here must not wait.
pub(crate) trait Arrivals: Send + Sync {
    /// A call said its UUID and is to be handled.
    fn arrived(&self, call: CallRef);

    /// A call was rejected.
    fn rejected(&self, summary: CallSummary);

    /// A turn is over: these handlers have news, and are to be woken. Leaves none.
    fn wake(&self, wakes: &mut Vec<Waker>);
}

/// What all media threads of a server share.
pub(crate) struct MediaShared {
    pub(crate) config: MediaConfig,
    pub(crate) arrivals: Box<dyn Arrivals>,
    /// Calls with a UUID that are not over.
    pub(crate) running: AtomicUsize,
    /// New calls are rejected: the server is shutting down.
    pub(crate) draining: AtomicBool,
    /// New connections are accepted.
    pub(crate) listening: AtomicBool,
    /// Connections that have said their UUID and are not closed, though the call may be over.
    pub(crate) answered: AtomicUsize,
    /// The system lets the media threads go before others.
    pub(crate) prioritised: AtomicBool,
    /// All media threads run over io_uring.
    pub(crate) io_uring: AtomicBool,
    pub(crate) tally: Tally,
}

/// What a server has counted since it started.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) connections: AtomicUsize,
    pub(crate) calls: AtomicUsize,
    pub(crate) rejected: AtomicUsize,
    pub(crate) without_identity: AtomicUsize,
    pub(crate) other_protocols: [AtomicUsize; OtherProtocol::ALL.len()],
    pub(crate) crowded_out: AtomicUsize,
    pub(crate) out_of_descriptors: AtomicUsize,
}

/// How to reach one media thread from anywhere.
#[derive(Clone, Debug)]
pub(crate) struct MediaHandle(Arc<Mailbox>);

#[derive(Debug)]
struct Mailbox {
    waker: Arc<sidetone_driver::Waker>,
    commands: SegQueue<Command>,
    /// Connections on this thread, for the acceptor to choose the least loaded.
    load: AtomicUsize,
}

#[derive(Debug)]
enum Command {
    /// A connection that was accepted elsewhere.
    Adopt(TcpStream, SocketAddr),
    /// Something was asked of a call that can't wait for its next slot.
    Attend(Token),
    /// Accept no more; the listener stays open for whoever else holds it.
    StopListening,
    /// Hang up everything and end.
    Stop,
}

impl MediaHandle {
    fn new() -> io::Result<Self> {
        let mailbox = Mailbox {
            waker: Arc::new(sidetone_driver::Waker::new()?),
            commands: SegQueue::new(),
            load: AtomicUsize::new(0),
        };
        Ok(Self(Arc::new(mailbox)))
    }

    pub(crate) fn attend(&self, token: Token) {
        self.command(Command::Attend(token));
    }

    pub(crate) fn stop_listening(&self) {
        self.command(Command::StopListening);
    }

    fn command(&self, command: Command) {
        self.0.commands.push(command);
        self.0.waker.wake();
    }
}

/// The running media threads of a server. Dropping it hangs up every call and ends them.
pub(crate) struct Media {
    pub(crate) shared: Arc<MediaShared>,
    threads: Arc<MediaThreads>,
}

/// The threads, shared by all who may stop them.
pub(crate) struct MediaThreads {
    handles: Vec<MediaHandle>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Media {
    /// Starts `count` threads; the first one accepts from `listener`.
    pub(crate) fn start(
        listener: TcpListener,
        config: MediaConfig,
        arrivals: Box<dyn Arrivals>,
        count: usize,
    ) -> io::Result<Self> {
        let shared = Arc::new(MediaShared {
            config,
            arrivals,
            running: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            listening: AtomicBool::new(true),
            answered: AtomicUsize::new(0),
            prioritised: AtomicBool::new(true),
            io_uring: AtomicBool::new(true),
            tally: Tally::default(),
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
            // It ends without a word only if it panicked.
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

    /// The threads, which may be stopped by somebody else, too.
    pub(crate) fn threads(&self) -> Arc<MediaThreads> {
        Arc::clone(&self.threads)
    }

    /// Connections that are open.
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

    /// Has every call hung up. The threads end when the other sides have closed.
    pub(crate) fn stop(&self) {
        for handle in &self.handles {
            handle.command(Command::Stop);
        }
    }

    /// Waits until the threads have ended, but no longer than this. Blocks.
    pub(crate) fn wait(&self, longest: Duration) {
        let end = clock::now() + longest;
        while !self.have_ended() && clock::now() < end {
            thread::sleep(LOOK);
        }
    }

    fn have_ended(&self) -> bool {
        // The lock is only held while all of them are waited for.
        let running = self.running.try_lock();
        running.is_some_and(|running| running.iter().all(JoinHandle::is_finished))
    }
}

/// How often it is looked whether the threads have ended.
const LOOK: Duration = Duration::from_millis(2);

/// Of a media thread: it goes before whatever else wants its processor, and is soon done. Not a real-time
/// priority, under which a fault of ours could lock the machine up.
const NICENESS: i32 = -11;

/// What a media thread begins with. The rest it makes itself: a ring belongs to the thread that made it.
struct Setup {
    handle: MediaHandle,
    siblings: Vec<MediaHandle>,
    listener: Option<TcpListener>,
    shared: Arc<MediaShared>,
}

impl Setup {
    /// Runs a media thread to its end, and says first whether it could start.
    fn run(self, ready: &SyncSender<io::Result<()>>) {
        if let Err(error) = setpriority_process(None, NICENESS) {
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
    // Whoever started the thread waits for this.
    let _ = ready.send(outcome);
}

impl Drop for Media {
    fn drop(&mut self) {
        self.threads.stop();
        for thread in self.threads.running.lock().drain(..) {
            // A panic there has already been reported by the panic hook.
            let _ = thread.join();
        }
    }
}
