//! Servers on free ports and callers on threads of their own. The caller's record is the judge.
#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "every test binary uses a part of it"
)]
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::{
    env,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Which I/O back end a test's servers run over.
pub use sidetone::IoBackend;
use sidetone::{
    Call, CallSummary, EndReason, Event, Handler, Outcome, ServeError, Server, ServerBuilder,
    ServerHandle, Uuid,
};
use sidetone_caller::{CallRecord, Caller, call_all};
use tokio::task::JoinHandle;

/// A test with its name.
pub type Test = (&'static str, fn(IoBackend));

/// Runs these tests over each back end, so many at a time; the main of a test binary that also is the other process of its tests.
pub fn run_tests(at_a_time: usize, tests: &[Test]) {
    let mut arguments = libtest_mimic::Arguments::from_args();
    arguments.test_threads = Some(at_a_time);
    let trials = tests.iter().flat_map(|&(name, test)| {
        [IoBackend::Epoll, IoBackend::IoUring].map(|io| {
            libtest_mimic::Trial::test(format!("{name}::{io}"), move || {
                test(io);
                Ok(())
            })
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// Makes a test of an I/O back end two tests, `name::epoll` and `name::io_uring`.
macro_rules! over_each_back_end {
    ($(#[$attribute:meta])* async fn $name:ident($io:ident: $Io:ty $(,)?) $body:block) => {
        async fn $name($io: $Io) $body

        mod $name {
            use $crate::support::IoBackend;

            $(#[$attribute])*
            async fn epoll() {
                $crate::support::boxed(super::$name(IoBackend::Epoll)).await;
            }

            $(#[$attribute])*
            async fn io_uring() {
                $crate::support::boxed(super::$name(IoBackend::IoUring)).await;
            }
        }
    };
    ($(#[$attribute:meta])* fn $name:ident($io:ident: $Io:ty $(,)?) $body:block) => {
        fn $name($io: $Io) $body

        mod $name {
            use $crate::support::IoBackend;

            $(#[$attribute])*
            fn epoll() {
                super::$name(IoBackend::Epoll);
            }

            $(#[$attribute])*
            fn io_uring() {
                super::$name(IoBackend::IoUring);
            }
        }
    };
}
pub(crate) use over_each_back_end;

/// A future whose code is there once, not wherever it is awaited.
pub fn boxed<'a, T>(future: impl Future<Output = T> + 'a) -> Pin<Box<dyn Future<Output = T> + 'a>> {
    Box::pin(future)
}

/// Names the back end to a process.
const VARIABLE: &str = "SIDETONE_IO_BACKEND";

/// Settings of a server over this back end.
pub fn builder(io: IoBackend) -> ServerBuilder {
    Server::builder().io_backend(to_be_had(io))
}

/// This program again, whose servers run over this back end.
pub fn another_process(io: IoBackend) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    match to_be_had(io) {
        IoBackend::Auto => command.env_remove(VARIABLE),
        named => command.env(VARIABLE, named.to_string()),
    };
    command
}

/// In such a process: the server took what was named.
pub fn assert_named(server: &ServerHandle) {
    if let Ok(named) = env::var(VARIABLE) {
        assert_eq!(server.stats().io_uring, named == "io_uring");
    }
}

/// Falls back to epoll where io_uring is not available, except in CI, which must have it.
fn to_be_had(io: IoBackend) -> IoBackend {
    match io {
        IoBackend::IoUring if env::var_os("CI").is_none() => IoBackend::Auto,
        named => named,
    }
}

/// A runtime with so many workers.
pub fn runtime(workers: usize) -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(workers);
    builder.enable_all().build().unwrap()
}

pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Any handler. The code of a server is there once, not for each of the hundreds of handlers that tests have.
struct AnyHandler(Box<dyn Fn(Call) -> Handling + Send + Sync>);

type Handling = Pin<Box<dyn Future<Output = Outcome> + Send>>;

impl AnyHandler {
    fn new(handler: impl Handler) -> Self {
        let handler = Arc::new(handler);
        Self(Box::new(move |call| {
            let handler = Arc::clone(&handler);
            Box::pin(async move { handler.handle(call).await })
        }))
    }
}

impl Handler for AnyHandler {
    fn handle(&self, call: Call) -> impl Future<Output = Outcome> + Send {
        self.0(call)
    }
}

/// A server that runs on the test's runtime.
pub struct Running {
    pub address: SocketAddr,
    pub handle: ServerHandle,
    pub served: JoinHandle<Result<(), ServeError>>,
    ended: Arc<Mutex<Vec<CallSummary>>>,
}

/// Serves on a free port.
pub async fn serve(settings: ServerBuilder, handler: impl Handler) -> Running {
    let ended = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&ended);
    let server = settings
        .on_call_end(move |summary| told.lock().unwrap().push(summary))
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    Running {
        ended,
        ..run(server, handler)
    }
}

/// Serves with a server that was made elsewhere.
pub fn run(server: Server, handler: impl Handler) -> Running {
    Running {
        address: server.local_addr(),
        handle: server.handle(),
        served: tokio::spawn(server.serve(AnyHandler::new(handler))),
        ended: Arc::default(),
    }
}

impl Running {
    pub fn caller(&self) -> Caller {
        Caller::new(self.address)
    }

    /// How many ends have been told.
    pub fn told(&self) -> usize {
        self.ended.lock().unwrap().len()
    }

    /// Shuts it down at once and gives the summaries of all calls that it told of.
    pub async fn end(self) -> Vec<CallSummary> {
        self.handle.shutdown(Duration::ZERO);
        self.served.await.unwrap().unwrap();
        std::mem::take(&mut *self.ended.lock().unwrap())
    }
}

/// Places one call and waits for its end.
pub async fn call(caller: Caller) -> CallRecord {
    calls(vec![caller]).await.remove(0)
}

/// Places calls on a thread of their own and waits for the end of all.
pub async fn calls(callers: Vec<Caller>) -> Vec<CallRecord> {
    let records = tokio::task::spawn_blocking(move || call_all(callers));
    let records = records.await.unwrap().into_iter();
    records.map(|record| record.unwrap()).collect()
}

/// An echo that is whole even if it comes to its work late, once in a while.
pub async fn echo(mut call: Call) {
    let mut line = call.live();
    line.set_prebuffer(millis(100));
    while let Some(event) = call.next().await {
        if let Event::Audio(frame) = event {
            line.push(frame.samples());
        }
    }
}

/// A call that says these frames in one piece with its UUID and hangs up so long after that.
pub async fn short_call(address: SocketAddr, id: Uuid, frames: Vec<Vec<i16>>, lasting: Duration) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut said = [&[0x01, 0, 16][..], id.as_bytes()].concat();
    for frame in &frames {
        said.push(0x10);
        said.extend((2 * frame.len() as u16).to_be_bytes());
        said.extend(frame.iter().flat_map(|sample| sample.to_le_bytes()));
    }
    stream.write_all(&said).await.unwrap();
    tokio::time::sleep(lasting).await;
    stream.shutdown().await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
}

/// Waits until something is so that no event tells of.
#[track_caller]
pub fn until(is_so: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let look = async {
            while !is_so() {
                tokio::time::sleep(millis(5)).await;
            }
        };
        let looked = tokio::time::timeout(Duration::from_secs(60), look).await;
        assert!(looked.is_ok(), "{caller}: it never came to be so");
    }
}

/// Reads on until the end.
pub async fn listen(mut call: Call) {
    while call.next().await.is_some() {}
}

pub fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// All that was heard but silence.
pub fn sound(record: &CallRecord) -> Vec<i16> {
    let heard = record.heard_samples().iter().copied();
    heard.filter(|sample| *sample != 0).collect()
}

/// Whether the caller ended it. One that hangs up with audio unread resets the connection.
pub fn is_callers_end(reason: EndReason) -> bool {
    matches!(reason, EndReason::CallerHungUp | EndReason::ConnectionReset)
}
