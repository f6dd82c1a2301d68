//! Google Cloud Speech-to-Text v2: `StreamingRecognize` over gRPC, with its limits.
//!
//! The texts of its refusals are the service's own where these are known. What it does not publish is how fast
//! audio may come; this one takes a little more than twice the speed of speech.

mod cable;
mod dialog;
mod server;

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

/// On a connection in memory.
const BUFFER: usize = 64 * 1024;
/// So long a client's system waits for a sign of the other end: `TCP_USER_TIMEOUT`.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the service allows. Times can be made shorter, for a test that has to run in real time.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The project that exists.
    pub project: String,
    /// The token that is asked for; none for an emulator, which takes anybody.
    pub token: Option<String>,
    /// Where it is.
    pub location: String,
    /// The recognizers that were created; the implicit one, `_`, is always there.
    pub recognizers: Vec<String>,
    /// The models that it has.
    pub models: Vec<String>,
    /// Whether they tell the confidence of words.
    pub word_confidence: bool,
    /// Streams at a time.
    pub streams: usize,
    /// How long a stream may last, in time and in audio.
    pub longest_stream: Duration,
    /// How long a stream may be without a request.
    pub longest_pause: Duration,
    /// Bytes of audio in one request: the smaller one of its two limits.
    pub longest_piece: usize,
    /// How much faster than speech audio may come.
    pub speed: f64,
    /// How much of it may come at once.
    pub at_once: Duration,
    /// How long a result takes.
    pub delay: Duration,
    /// The times of words are multiples of this.
    pub precision: Duration,
    /// What it answers in place of gRPC: a status, an address that it has moved to, and a text.
    pub plain: Option<(u16, &'static str, &'static str)>,
    /// A word of so many letters is added to each result.
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
            longest_stream: Duration::from_secs(300),
            longest_pause: Duration::from_secs(10),
            longest_piece: 15_000,
            speed: 2.2,
            at_once: Duration::from_millis(500),
            delay: Duration::from_millis(300),
            precision: Duration::from_millis(100),
            plain: None,
            padding: 0,
        }
    }
}

/// One stream as the service saw it.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// The name of the recognizer.
    pub recognizer: String,
    /// The encoding, as the protocol names it.
    pub encoding: String,
    /// Samples per second.
    pub hz: u32,
    /// The model.
    pub model: String,
    /// The phrases that are likelier.
    pub phrases: Vec<String>,
    /// The audio, as it came.
    pub audio: Vec<u8>,
    /// How it ended: `None` if the client ended it in order.
    pub refusal: Option<String>,
    /// Whether it is over.
    pub over: bool,
}

/// A service that runs until it is dropped.
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
    /// Starts one that is reached through [`channel`](Self::channel) only: in memory, so that it runs in virtual
    /// time too.
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

    /// Also takes connections from a listener. Answers its address.
    pub fn listen(&mut self, listener: TcpListener) -> std::io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        let (state, incoming) = (Arc::clone(&self.state), self.incoming.clone());
        self.tasks.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (near, far) = duplex(BUFFER);
                state.join(socket, near);
                let _ = incoming.send(far);
            }
        });
        Ok(address)
    }

    /// A channel to it.
    pub fn channel(&self) -> Channel {
        let connector = server::Connector {
            state: Arc::clone(&self.state),
            incoming: self.incoming.clone(),
        };
        Endpoint::from_static("http://in.memory").connect_with_connector_lazy(connector)
    }

    /// Changes the rules from now on, also for streams that are open.
    pub fn change(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.state.rules.lock());
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        for connection in self.state.connections.lock().drain(..) {
            connection.abort();
        }
    }

    /// Lets all connections die without a sign, as when a cable is pulled. Through [`channel`](Self::channel)
    /// it is noticed after 10 s.
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
        self.cut();
    }
}

impl State {
    /// Makes one connection of two, which can be cut.
    fn join<A, B>(&self, mut a: A, mut b: B)
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
