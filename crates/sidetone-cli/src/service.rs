//! What all serving commands share: listening, handling calls, shutting down.

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
    background::BackgroundTasks,
    dialplan,
    failure::{Failure, Outcome, with_sources},
    notices,
    options::ServeOptions,
    output::{Output, Reporter, Style},
    recordings::Recordings,
    registry::{CallObserver, CallRegistry},
    server_events::ServerEvent,
    signals::{self, FirstSignal},
};

/// A server that listens, and the output that reports its calls.
pub(crate) struct Service {
    server: Server,
    registry: Arc<CallRegistry>,
    output: Output,
    recordings: Option<Arc<Recordings>>,
    background: BackgroundTasks,
    grace: Duration,
    /// It exists before the server's address is reported, so that a signal from then on ends the server with grace.
    signal: FirstSignal,
    /// The listener came from systemd, which keeps it open.
    is_inherited: bool,
}

/// What a command sets besides [`ServeOptions`].
pub(crate) struct Settings {
    /// The directory that every call is recorded into.
    pub(crate) record: Option<PathBuf>,
    pub(crate) style: Style,
    /// Networks that may connect besides those of `--allow`.
    pub(crate) also_allow: Option<Networks>,
    /// The call whose events the text leaves out.
    pub(crate) hidden: Option<Uuid>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            record: None,
            style: Style::of_stdout(),
            also_allow: None,
            hidden: None,
        }
    }
}

impl Service {
    /// Starts to listen. Calls wait until [`Self::run`].
    pub(crate) async fn open(options: &ServeOptions, settings: Settings) -> Result<Self, Failure> {
        let Allowed { networks, names } = address::allowed(&options.allow).await?;
        let networks = networks.map(|all| match settings.also_allow {
            Some(more) => all.and(more),
            None => all,
        });
        let inherited = ListenFd::from_env().take_tcp_listener(0).map_err(|error| {
            Failure::new(format_args!(
                "the socket in LISTEN_FDS is not a TCP listener ({error}): use ListenStream= with a TCP port in the systemd socket unit"
            ))
        })?;
        let recorder = settings
            .record
            .as_deref()
            .map(Recordings::prepare)
            .transpose()?;
        let output = Output::start(settings.style, settings.hidden)?;
        let registry = Arc::new(CallRegistry::new(output.reporter(), options.log_digits));
        output.show(Arc::clone(&registry) as _);
        let builder = builder(options, networks, &registry);
        let is_inherited = inherited.is_some();
        let server = match inherited {
            Some(listener) => serve_inherited(builder, listener),
            None => listen(builder, &options.listen).await?,
        };
        let server = server.map_err(|error| cant_listen(&error, options))?;
        signals::hang_up_on_exit(server.handle());
        for (name, addresses) in names {
            let allowed = ServerEvent::Allowed { name, addresses };
            output.reporter().report(allowed);
        }
        let recordings = recorder.map(|recorder| Recordings::new(recorder, output.reporter()));
        Ok(Self {
            recordings: recordings.map(Arc::new),
            background: BackgroundTasks::default(),
            server,
            registry,
            output,
            grace: Duration::from_secs(options.grace.into()),
            signal: FirstSignal::new(),
            is_inherited,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    pub(crate) fn handle(&self) -> ServerHandle {
        self.server.handle()
    }

    pub(crate) fn reporter(&self) -> Reporter {
        self.output.reporter()
    }

    /// For work that a handler leaves to be done after its call.
    pub(crate) fn background(&self) -> BackgroundTasks {
        self.background.clone()
    }

    /// Reports the address, with dialplan lines for it.
    pub(crate) fn report_listening(&self) {
        let address = self.address();
        self.reporter().report(ServerEvent::Listening {
            address,
            dialplan: dialplan::lines(address),
        });
    }

    /// Gives each call to `handler`, until a signal or a handle shuts the server down.
    pub(crate) async fn run<H, F>(self, handler: H) -> Result<Outcome, Failure>
    where
        H: Fn(Call, CallObserver) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), PlayError>> + Send,
    {
        let shutdown = ShutdownOnSignal {
            handle: self.server.handle(),
            reporter: self.output.reporter(),
            grace: self.grace,
            is_inherited: self.is_inherited,
        };
        let notices = tokio::spawn(notices::watch(
            self.server.handle(),
            self.output.reporter(),
            Arc::clone(&self.registry),
        ));
        let shutdown = tokio::spawn(shutdown.run(self.signal));
        let (registry, recordings) = (Arc::clone(&self.registry), self.recordings.clone());
        let serving = self.server.serve(move |call: Call| {
            if let Some(recordings) = &recordings {
                recordings.start(&call);
            }
            let observer = registry.observe(&call);
            let handling = observer.map(|observer| handler(call, observer));
            async move {
                match handling {
                    Some(handling) => handling.await,
                    // Unreachable: every call is accepted with its entry.
                    None => Ok(()),
                }
            }
        });
        serving.await.map_err(Failure::new)?;
        self.background.join_all().await;
        shutdown.abort();
        notices.abort();
        self.registry.finish().await;
        if let Some(recordings) = &self.recordings {
            recordings.finish().await;
        }
        self.output.reporter().report(ServerEvent::Stopped);
        self.output.finish();
        Ok(Outcome::Passed)
    }
}

fn builder(
    options: &ServeOptions,
    networks: Option<Networks>,
    registry: &Arc<CallRegistry>,
) -> ServerBuilder {
    let (starting, ending) = (Arc::clone(registry), Arc::clone(registry));
    let builder = Server::builder()
        .max_calls(options.max_calls)
        .codec(options.codec.into())
        .reset_when_killed(options.reset_when_killed)
        .admit(move |request| {
            let entry = starting.start(request.id, request.peer);
            std::future::ready(Admission::accept_with(entry))
        })
        .on_call_end(move |summary| ending.end(summary));
    match networks {
        Some(networks) => builder.allow(networks),
        None => builder,
    }
}

/// The hint that goes with every address of the wrong form.
const HOST_PORT: &str = "give --listen as HOST:PORT, like 127.0.0.1:9092 for this machine or 0.0.0.0:9092 for all its addresses";

async fn listen(
    builder: ServerBuilder,
    address: &str,
) -> Result<Result<Server, ServeError>, Failure> {
    match address::form_error(address) {
        None => Ok(builder.bind(address).await),
        Some(error) => Err(Failure::new(format_args!(
            "can't listen on {address}: {error}; {HOST_PORT}"
        ))),
    }
}

fn serve_inherited(builder: ServerBuilder, listener: TcpListener) -> Result<Server, ServeError> {
    listener.set_nonblocking(true).map_err(ServeError::Media)?;
    builder.from_listener(listener)
}

fn cant_listen(error: &ServeError, options: &ServeOptions) -> Failure {
    match error {
        ServeError::NotAllowed { address } => Failure::new(format_args!(
            "{address} can be reached from other machines, and AudioSocket has no login: name who may connect with --allow NET (like --allow 10.0.0.0/8), or let everyone connect with --allow any"
        )),
        ServeError::Bind { source, .. } => match source.kind() {
            io::ErrorKind::AddrInUse => Failure::new(format_args!(
                "{error}, or let the system choose one with --listen {}",
                on_any_port(&options.listen)
            )),
            // The error itself says what to do.
            io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput => Failure::new(error),
            _ => Failure::new(format_args!("{}; {HOST_PORT}", with_sources(&error))),
        },
        _ => Failure::new(with_sources(&error)),
    }
}

fn on_any_port(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some((host, _)) => format!("{host}:0"),
        None => "127.0.0.1:0".into(),
    }
}

/// Shuts the server down with grace on the first signal. [`signals`] handles the second one.
struct ShutdownOnSignal {
    handle: ServerHandle,
    reporter: Reporter,
    grace: Duration,
    is_inherited: bool,
}

impl ShutdownOnSignal {
    async fn run(self, mut signal: FirstSignal) {
        signal.received().await;
        match self.is_inherited {
            // systemd keeps the socket, and new calls wait there for the next process.
            true => self.handle.hand_over(self.grace),
            false => self.handle.shutdown(self.grace),
        }
        // It is reported after the shutdown has begun, as a reader may place a call at once and expect a rejection.
        self.reporter.report(ServerEvent::ShuttingDown {
            // Calls that wait to be accepted count, too: to the caller they are answered.
            running: self.handle.stats().running,
            grace_ms: self.grace.as_millis() as u64,
        });
    }
}
