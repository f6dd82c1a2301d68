//! A stand-in for Google Cloud Speech-to-Text v2: `StreamingRecognize` over gRPC, with its limits.
//!
//! Refusals have the service's own texts where these are known. How fast audio may come is not
//! documented; this server accepts a little more than twice the speed of speech.

mod client_io;
mod server;
mod session;

use std::{future::pending, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, copy_bidirectional, duplex},
    net::TcpListener,
    select,
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinSet},
};
use tonic::transport::{Channel, Endpoint};

/// The capacity of an in-memory connection, in bytes.
const BUFFER: usize = 64 * 1024;
/// How long a client's system waits for an acknowledgement: `TCP_USER_TIMEOUT`.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// The limits and contents of the service. A test in real time can shorten the durations.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The project that exists.
    pub project: String,
    /// The token required, or `None` for an emulator, which requires none.
    pub token: Option<String>,
    /// The location it serves.
    pub location: String,
    /// The recognizers that were created. The implicit one, `_`, always exists.
    pub recognizers: Vec<String>,
    /// The models it has.
    pub models: Vec<String>,
    /// Whether its models report the confidence of words.
    pub word_confidence: bool,
    /// The most concurrent streams.
    pub streams: usize,
    /// How long a stream may last, in time and in audio.
    pub max_stream: Duration,
    /// How long a stream may be without a request.
    pub max_pause: Duration,
    /// The most audio in one request, in bytes: the smaller of its two limits.
    pub max_request_len: usize,
    /// How much faster than speech audio may come.
    pub speed: f64,
    /// How much audio may come at once.
    pub max_burst: Duration,
    /// How long a result takes.
    pub delay: Duration,
    /// The resolution of word times.
    pub precision: Duration,
    /// What it sends in place of gRPC: a status, a `Location` header, and a body.
    pub http_reply: Option<(u16, &'static str, &'static str)>,
    /// The length of a word added to each result, in letters.
    pub padding: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            project: "test".into(),
            token: None,
            location: "global".into(),
            recognizers: Vec::new(),
            models: ["long", "telephony"].map(Into::into).into(),
            word_confidence: true,
            streams: 300,
            max_stream: Duration::from_secs(300),
            max_pause: Duration::from_secs(10),
            max_request_len: 15_000,
            speed: 2.2,
            max_burst: Duration::from_millis(500),
            delay: Duration::from_millis(300),
            precision: Duration::from_millis(100),
            http_reply: None,
            padding: 0,
        }
    }
}

/// One stream as the service saw it.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// The name of the recognizer.
    pub recognizer: String,
    /// The encoding, by its name in the protocol.
    pub encoding: String,
    /// Samples per second.
    pub hz: u32,
    /// The model.
    pub model: String,
    /// The phrases to expect.
    pub phrases: Vec<String>,
    /// The audio, as it was sent.
    pub audio: Vec<u8>,
    /// The status message that ended it, or `None` if the client ended it in order.
    pub refusal: Option<String>,
    /// Whether it has ended.
    pub ended: bool,
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Service {
    state: Arc<State>,
    incoming: mpsc::UnboundedSender<DuplexStream>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    rules: Mutex<Rules>,
    calls: Mutex<Vec<Call>>,
    connections: Mutex<Vec<AbortHandle>>,
    frozen: Arc<Notify>,
}

impl Service {
    /// Starts a server that is reached through [`channel`](Self::channel) only: in memory, so that
    /// it also runs in virtual time.
    pub fn new(rules: Rules) -> Self {
        let state = Arc::new(State {
            rules: Mutex::new(rules),
            calls: Mutex::default(),
            connections: Mutex::default(),
            frozen: Arc::default(),
        });
        let (incoming, connections) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(server::serve(Arc::clone(&state), connections));
        Self {
            state,
            incoming,
            tasks,
        }
    }

    /// Serves connections from `listener`, too. Returns its address.
    pub fn listen(&mut self, listener: TcpListener) -> std::io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        let (state, incoming) = (Arc::clone(&self.state), self.incoming.clone());
        self.tasks.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (near, far) = duplex(BUFFER);
                state.connect(socket, near);
                let _ = incoming.send(far);
            }
        });
        Ok(address)
    }

    /// A channel to the server.
    pub fn channel(&self) -> Channel {
        let connector = server::Connector {
            state: Arc::clone(&self.state),
            incoming: self.incoming.clone(),
        };
        Endpoint::from_static("http://in.memory").connect_with_connector_lazy(connector)
    }

    /// Changes the rules from now on, also for open streams.
    pub fn change(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.state.rules.lock());
    }

    /// Closes all connections.
    pub fn disconnect(&self) {
        for connection in self.state.connections.lock().drain(..) {
            connection.abort();
        }
    }

    /// Lets all connections die silently, as if the network were unplugged. A client on
    /// [`channel`](Self::channel) notices after 10 s.
    pub fn freeze(&self) {
        self.state.frozen.notify_waiters();
    }

    /// All streams until now.
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.disconnect();
    }
}

impl State {
    /// Joins two connections to one that can be closed.
    fn connect<A, B>(&self, mut a: A, mut b: B)
    where
        A: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let frozen = Arc::clone(&self.frozen);
        let joined = tokio::spawn(async move {
            select! {
                _ = copy_bidirectional(&mut a, &mut b) => {}
                () = frozen.notified() => pending().await,
            }
        });
        self.connections.lock().push(joined.abort_handle());
    }
}
