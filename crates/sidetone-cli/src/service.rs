//! What all serving commands share: listening, calls, shutting down.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use listenfd::ListenFd;
use sidetone::{
    Admission, Call, Networks, PlayError, ServeError, Server, ServerBuilder, ServerHandle,
};
use uuid::Uuid;

use crate::{
    address::{self, Allowed},
    afterwards::Afterwards,
    args::Serving,
    board::{Board, Watch},
    dialplan,
    events::Event,
    failure::{Failure, Verdict, with_sources},
    notices,
    recordings::Recordings,
    report::{Reporter, Style, Teller},
    signals::{self, FirstSignal},
};

/// A server that listens, and what tells of its calls.
pub(crate) struct Service {
    server: Server,
    board: Arc<Board>,
    reporter: Reporter,
    recordings: Option<Arc<Recordings>>,
    afterwards: Afterwards,
    grace: Duration,
    /// Heeded from the moment that somebody can know of the server.
    signal: FirstSignal,
    /// The listener came from systemd, which keeps it open.
    inherited: bool,
}

/// How a command differs from the others before it serves.
pub(crate) struct Manner {
    /// Where every call is recorded.
    pub(crate) record: Option<PathBuf>,
    pub(crate) style: Style,
    /// Networks that may connect besides those that were given.
    pub(crate) also_allow: Option<Networks>,
    /// The call that is not told of.
    pub(crate) unreported: Option<Uuid>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            record: None,
            style: Style::of_stdout(),
            also_allow: None,
            unreported: None,
        }
    }
}

impl Service {
    /// Listens.
    pub(crate) async fn open(options: &Serving, manner: Manner) -> Result<Self, Failure> {
        let Allowed { networks, names } = address::allowed(&options.allow).await?;
        let networks = networks.map(|all| match manner.also_allow {
            Some(also) => all.and(also),
            None => all,
        });
        let inherited = ListenFd::from_env().take_tcp_listener(0).map_err(|error| {
            Failure::new(format_args!(
                "the socket in LISTEN_FDS is no TCP listener: {error}"
            ))
        })?;
        let recorder = manner
            .record
            .as_deref()
            .map(Recordings::prepare)
            .transpose()?;
        // The thread starts before the server does, but says nothing if that fails.
        let reporter = Reporter::start(manner.style, manner.unreported)?;
        let board = Arc::new(Board::new(reporter.teller(), options.log_digits));
        reporter.show(&board);
        let builder = settings(options, networks, &board);
        let was_inherited = inherited.is_some();
        let server = match inherited {
            Some(listener) => take_over(builder, listener),
            None => listen(builder, &options.listen).await?,
        };
        let server = server.map_err(|error| cant_serve(&error, options))?;
        signals::hang_up_at_the_end(server.handle());
        for (name, addresses) in names {
            let allowed = Event::Allowed { name, addresses };
            reporter.teller().tell(allowed);
        }
        let recordings = recorder.map(|recorder| Recordings::new(recorder, reporter.teller()));
        Ok(Self {
            recordings: recordings.map(Arc::new),
            afterwards: Afterwards::default(),
            server,
            board,
            reporter,
            grace: Duration::from_secs(options.grace.into()),
            signal: FirstSignal::new(),
            inherited: was_inherited,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    pub(crate) fn handle(&self) -> ServerHandle {
        self.server.handle()
    }

    pub(crate) fn teller(&self) -> Teller {
        self.reporter.teller()
    }

    /// For what a handler leaves to be done after its call.
    pub(crate) fn afterwards(&self) -> Afterwards {
        self.afterwards.clone()
    }

    /// Says where it listens and how Asterisk gets there.
    pub(crate) fn announce(&self) {
        let address = self.address();
        self.teller().tell(Event::Listening {
            address,
            dialplan: dialplan::lines(address),
        });
    }

    /// Gives each call to `handler`, until a signal or somebody with a handle ends it.
    pub(crate) async fn run<H, F>(self, handler: H) -> Result<Verdict, Failure>
    where
        H: Fn(Call, Watch) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), PlayError>> + Send,
    {
        let ending = Ending {
            handle: self.server.handle(),
            teller: self.reporter.teller(),
            grace: self.grace,
            inherited: self.inherited,
        };
        let noticing = tokio::spawn(notices::tell(
            self.server.handle(),
            self.reporter.teller(),
            Arc::clone(&self.board),
        ));
        let ending = tokio::spawn(ending.on(self.signal));
        let (board, recordings) = (Arc::clone(&self.board), self.recordings.clone());
        let serving = self.server.serve(move |call: Call| {
            if let Some(recordings) = &recordings {
                recordings.begin(&call);
            }
            let handling = board.watch(&call).map(|watch| handler(call, watch));
            async move {
                match handling {
                    Some(handling) => handling.await,
                    // Every call is let in with its row.
                    None => Ok(()),
                }
            }
        });
        serving.await.map_err(Failure::new)?;
        self.afterwards.finish().await;
        ending.abort();
        noticing.abort();
        self.board.settled().await;
        if let Some(recordings) = &self.recordings {
            recordings.finish().await;
        }
        self.reporter.teller().tell(Event::Stopped);
        self.reporter.finish();
        Ok(Verdict::Good)
    }
}

fn settings(options: &Serving, networks: Option<Networks>, board: &Arc<Board>) -> ServerBuilder {
    let (admitting, ending) = (Arc::clone(board), Arc::clone(board));
    let builder = Server::builder()
        .max_calls(options.max_calls)
        .codec(options.codec.into())
        .reset_when_killed(options.reset_when_killed)
        .admit(move |request| {
            let row = admitting.begin(request.id, request.peer);
            std::future::ready(Admission::accept_with(row))
        })
        .on_call_end(move |summary| ending.end(summary));
    match networks {
        Some(networks) => builder.allow(networks),
        None => builder,
    }
}

/// The hint that goes with every address that can't be listened on as it was given.
const HOST_PORT: &str = "give --listen as HOST:PORT, like 127.0.0.1:9092 for this machine or 0.0.0.0:9092 for all its addresses";

async fn listen(
    builder: ServerBuilder,
    address: &str,
) -> Result<Result<Server, ServeError>, Failure> {
    match address::fault(address) {
        None => Ok(builder.bind(address).await),
        Some(fault) => Err(Failure::new(format_args!(
            "can't listen on {address}: {fault}; {HOST_PORT}"
        ))),
    }
}

fn take_over(builder: ServerBuilder, listener: TcpListener) -> Result<Server, ServeError> {
    listener.set_nonblocking(true).map_err(ServeError::Media)?;
    builder.from_listener(listener)
}

fn cant_serve(error: &ServeError, options: &Serving) -> Failure {
    match error {
        ServeError::NotAllowed { address } => Failure::new(format_args!(
            "{address} can be reached from other machines and AudioSocket has no login: say who may connect with --allow NET (like --allow 10.0.0.0/8), or let everybody in with --allow any"
        )),
        ServeError::Bind { source, .. } => match source.kind() {
            io::ErrorKind::AddrInUse => Failure::new(format_args!(
                "{error}, or let the system choose one with --listen {}",
                on_any_port(&options.listen)
            )),
            // The error says what to do.
            io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput => Failure::new(error),
            _ => Failure::new(format_args!("{}; {HOST_PORT}", with_sources(error))),
        },
        _ => Failure::new(with_sources(error)),
    }
}

fn on_any_port(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some((host, _)) => format!("{host}:0"),
        None => "127.0.0.1:0".into(),
    }
}

/// Ends the server with grace on the first signal; the second one needs nobody.
struct Ending {
    handle: ServerHandle,
    teller: Teller,
    grace: Duration,
    inherited: bool,
}

impl Ending {
    async fn on(self, mut signal: FirstSignal) {
        signal.comes().await;
        match self.inherited {
            // systemd keeps the socket: new calls wait there for the next process.
            true => self.handle.hand_over(self.grace),
            false => self.handle.shutdown(self.grace),
        }
        // Not before it is so: who reads this may place a call at once.
        self.teller.tell(Event::ShuttingDown {
            // Also those that wait to be let in: the other side hears them answered.
            running: self.handle.stats().running,
            grace_ms: self.grace.as_millis() as u64,
        });
    }
}
