//! The daemon: what it is made of, how it starts, reloads and ends.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use sidetone::{Call, Networks, PlayError, ServeError, Server, ServerHandle, record::RecordError};
use tokio::task::AbortHandle;

use crate::{
    bot,
    bus::{Bus, EventSink},
    capacity::{Capacity, wanted_calls},
    config::{self, Config},
    event::GatewayEvent,
    handover::{Handover, HandoverDir},
    hooks::{Hooks, HooksError},
    http::{Access, HttpThread, generated_token},
    recording::Recordings,
    registry::Registry,
    route, with_sources,
};

/// Connections without a UUID at a time.
const MAX_UNIDENTIFIED: usize = 256;
/// And of one address.
const MAX_UNIDENTIFIED_PER_ADDRESS: usize = 32;
/// How long they may be silent.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections of one address in a second. Asterisk sets up a hundred calls a second at most.
const MAX_CONNECTS_PER_SECOND: usize = 200;

/// The library lets so many more in, so that the gateway itself says why it rejects a call.
const ADMISSION_MARGIN: usize = 64;

/// How long calls' ends may take to be reported.
const LAST_REPORTS: Duration = Duration::from_secs(20);
/// How long hooks that are due may take when the process ends.
const LAST_HOOKS: Duration = Duration::from_secs(5);
/// The alarm while the gateway runs by an older file, since the newer one is wrong.
const BAD_FILE: &str = "configuration";

/// What everything in the process reaches.
pub(crate) struct Shared {
    pub(crate) registry: Arc<Registry>,
    pub(crate) recordings: Option<Arc<Recordings>>,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) server: ServerHandle,
    pub(crate) handover: Option<HandoverDir>,
    capacity: Capacity,
    pub(crate) started: Instant,
}

impl Shared {
    /// Why no call should come now, in words for monitoring.
    pub(crate) fn not_ready(&self) -> Vec<&'static str> {
        let registry = &self.registry;
        let (unused, _) = registry.tickets(Instant::now());
        let is_full = registry.running().len() + unused >= registry.max_calls();
        let is_short = self
            .recordings
            .as_ref()
            .is_some_and(|it| it.is_short_of_disk());
        [
            ("full", is_full),
            ("draining", registry.draining().is_some()),
            ("ending", registry.is_closing()),
            ("disk", is_short),
        ]
        .into_iter()
        .filter_map(|(name, is_so)| is_so.then_some(name))
        .collect()
    }
}

/// Listeners that another process has opened: systemd, or the process that this one replaces.
#[derive(Debug, Default)]
pub struct Inherited {
    /// For Asterisk.
    pub audio_socket: Option<TcpListener>,
    /// For HTTP.
    pub http: Option<TcpListener>,
}

/// Why a gateway can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The AudioSocket server can't listen.
    #[error("can't listen for calls")]
    Calls(#[from] ServeError),
    /// The page and the API can't listen.
    #[error("can't listen on {address} for HTTP")]
    Http {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The folder for recordings can't be used.
    #[error(transparent)]
    Recording(#[from] RecordError),
    /// Hooks can't be sent, or kept.
    #[error(transparent)]
    Hooks(#[from] HooksError),
    /// The folder for what outlasts the process can't be used.
    #[error("can't use state_dir {}", .path.display())]
    State {
        /// The folder.
        path: std::path::PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The system gives no random numbers.
    #[error("the system has no random numbers")]
    Random,
    /// The system gives no thread.
    #[error("can't start a thread")]
    Thread(#[source] io::Error),
}

/// A gateway that listens. Calls and requests wait until [`run`](Self::run).
pub struct Gateway {
    shared: Arc<Shared>,
    server: Server,
    http: Option<HttpThread>,
    http_address: Option<SocketAddr>,
    generated_token: Option<String>,
    is_inherited: bool,
    ticker: AbortHandle,
}

/// Steers a running gateway.
#[derive(Clone)]
pub struct GatewayHandle {
    shared: Arc<Shared>,
    is_inherited: bool,
}

impl Gateway {
    /// Listens. Every event goes to `log`.
    ///
    /// # Errors
    ///
    /// An address that can't be listened on, or a folder that can't be used.
    pub async fn open(
        config: Config,
        inherited: Inherited,
        log: EventSink,
    ) -> Result<Self, OpenError> {
        let capacity = Capacity::raised();
        let limit_notice = capacity.notice(wanted_calls(&config));
        let http = config.http.as_ref().map(|http| http.listen);
        let http = match (http, inherited.http) {
            (None, _) => None,
            (Some(_), Some(listener)) => Some(listener),
            (Some(address), None) => Some(
                TcpListener::bind(address).map_err(|source| OpenError::Http { address, source })?,
            ),
        };
        let state_dir = config.server.state_dir.as_deref();
        let handover = state_dir.map(HandoverDir::open).transpose();
        let handover = handover.map_err(|(path, source)| OpenError::State { path, source })?;
        let spool = state_dir.map(|dir| dir.join("hooks"));
        let hooks = Arc::new(Hooks::open(config.hooks.clone(), spool.as_deref())?);
        let bus = Bus::new(vec![log, to_hooks(&hooks)], config.server.log_digits);
        let recording = config.recording.clone();
        let listen = config.server.listen;
        let has_tokens = config
            .http
            .as_ref()
            .is_some_and(|http| !http.tokens.is_empty());
        let registry = Arc::new(Registry::new(config, capacity.calls(), bus));
        let recordings = recording.map(|settings| Recordings::open(&settings, &registry));
        let recordings = recordings.transpose()?;
        let is_inherited = inherited.audio_socket.is_some();
        let builder = builder(&registry);
        let server = match inherited.audio_socket {
            Some(listener) => {
                listener.set_nonblocking(true).map_err(ServeError::Media)?;
                builder.from_listener(listener)?
            }
            None => builder.bind(listen).await?,
        };
        let shared = Arc::new(Shared {
            registry,
            recordings,
            hooks,
            server: server.handle(),
            handover,
            capacity,
            started: Instant::now(),
        });
        shared.take_over();
        if let Some(text) = limit_notice {
            shared.notice("limits", text);
        }
        let generated = generated_token().map_err(|_| OpenError::Random)?;
        let generated_token = (http.is_some() && !has_tokens)
            .then(|| String::from_utf8_lossy(generated.secret.expose()).into_owned());
        let http_address = http.as_ref().and_then(|http| http.local_addr().ok());
        let access = Access::new(generated);
        let http = http
            .map(|listener| HttpThread::start(listener, &shared, access, server.local_addr()))
            .transpose()
            .map_err(OpenError::Thread)?;
        let ticker = tokio::spawn(tick(Arc::clone(&shared))).abort_handle();
        Ok(Self {
            shared,
            server,
            http,
            http_address,
            generated_token,
            is_inherited,
            ticker,
        })
    }

    /// The address that Asterisk connects to.
    pub fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// The address of the page and the API, unless there is none.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// The token to log in with, if the file has none and one was made.
    pub fn generated_token(&self) -> Option<&str> {
        self.generated_token.as_deref()
    }

    /// What steers the gateway while it runs.
    pub fn handle(&self) -> GatewayHandle {
        GatewayHandle {
            shared: Arc::clone(&self.shared),
            is_inherited: self.is_inherited,
        }
    }

    /// Hangs up all calls if the process has to end at once.
    pub fn server(&self) -> ServerHandle {
        self.server.handle()
    }

    /// Serves until [`GatewayHandle::shut_down`], and until the calls are over. `on_release` is called when the listeners are
    /// no longer used, so that another process may take over.
    ///
    /// # Errors
    ///
    /// A media thread that failed.
    pub async fn run(self, on_release: impl FnOnce() + Send) -> Result<(), ServeError> {
        let shared = Arc::clone(&self.shared);
        let handler_shared = Arc::clone(&shared);
        let handler = move |call: Call| {
            let shared = Arc::clone(&handler_shared);
            async move { handle(call, shared).await }
        };
        let serving = self.server.serve(handler);
        let mut serving = std::pin::pin!(serving);
        let closing = shared.registry.closed();
        let ended = tokio::select! {
            ended = &mut serving => Some(ended),
            () = closing => None,
        };
        let mut http = self.http;
        if self.is_inherited
            && let Some(http) = http.take()
        {
            http.stop().await;
        }
        shared.hand_over();
        on_release();
        let ended = finish(ended, serving, &shared).await;
        // Dialplans ask for results until the last call is over.
        if let Some(http) = http {
            http.stop().await;
        }
        self.ticker.abort();
        ended
    }
}

async fn finish(
    ended: Option<Result<(), ServeError>>,
    serving: impl Future<Output = Result<(), ServeError>>,
    shared: &Shared,
) -> Result<(), ServeError> {
    let ended = match ended {
        Some(ended) => ended,
        None => serving.await,
    };
    shared.registry.settle(LAST_REPORTS).await;
    if let Some(recordings) = &shared.recordings {
        recordings.finish().await;
    }
    let left = shared
        .hooks
        .close((Instant::now() + LAST_HOOKS).into())
        .await;
    if left > 0 {
        let text = match shared.handover {
            Some(_) => format!("{left} hooks wait in state_dir for the next start"),
            None => {
                format!("{left} hooks are lost: with state_dir they would wait for the next start")
            }
        };
        shared.notice("hooks", text);
    }
    ended
}

/// Every event that a hook can ask for.
fn to_hooks(hooks: &Arc<Hooks>) -> EventSink {
    let hooks = Arc::clone(hooks);
    Arc::new(move |event| {
        if let Some(kind) = event.kind {
            hooks.send(kind.name(), event.call, Arc::clone(&event.full));
        }
    })
}

async fn handle(call: Call, shared: Arc<Shared>) -> Result<(), PlayError> {
    let recordings = shared.recordings.clone();
    route::handle(call, Arc::clone(&shared.registry), recordings).await
}

impl GatewayHandle {
    /// Uses this configuration for new calls and requests. What can't change while the gateway runs stays as it is and is said.
    pub fn reload(&self, config: Config) {
        let registry = &self.shared.registry;
        let old = registry.config();
        let fixed = unchangeable(&old, &config);
        self.shared.server.set_networks(networks(&config));
        if let Err(error) = self.shared.hooks.set_endpoints(config.hooks.clone()) {
            let text = format!("the hooks stay as they were: {}", with_sources(&error));
            self.shared.notice("hooks", text);
        }
        if let Some(text) = self.shared.capacity.notice(wanted_calls(&config)) {
            self.shared.notice("limits", text);
        }
        registry.set_config(config);
        bot::forget_removed(registry);
        self.report_good_file();
        let max_calls = registry.max_calls() + ADMISSION_MARGIN;
        self.shared.server.set_max_calls(max_calls);
        let text = match fixed.is_empty() {
            true => "the file was read again".to_owned(),
            false => format!(
                "the file was read again; restart the gateway for what changed in {}",
                fixed.join(", ")
            ),
        };
        self.shared.notice("reloaded", text);
    }

    /// Says that a file could not be used, and that nothing has changed.
    pub fn report_bad_file(&self, errors: &config::ConfigErrors) {
        let text = format!("nothing has changed, since the file is wrong: {errors}");
        self.shared.registry.bus.publish(GatewayEvent::Alarm {
            name: BAD_FILE.into(),
            is_active: true,
            text,
        });
    }

    fn report_good_file(&self) {
        let bus = &self.shared.registry.bus;
        if bus.has_alarm(BAD_FILE) {
            bus.publish(GatewayEvent::Alarm {
                name: BAD_FILE.into(),
                is_active: false,
                text: "the file is good again".into(),
            });
        }
    }

    /// Takes no new calls, and ends when the running ones are over, at the latest after the file's `grace`. Calls that come
    /// to an inherited listener wait there for the process that follows; others are rejected.
    pub fn shut_down(&self) {
        let registry = &self.shared.registry;
        let grace = registry.config().server.grace;
        match self.is_inherited {
            true => self.shared.server.hand_over(grace),
            false => {
                registry.end_tickets();
                self.shared.server.shutdown(grace);
            }
        }
        registry.close();
        self.shared.notice(
            "stopping",
            format!(
                "{} calls may go on for {} s",
                registry.running().len(),
                grace.as_secs()
            ),
        );
    }
}

impl Shared {
    fn notice(&self, name: &'static str, text: String) {
        self.registry
            .bus
            .publish(GatewayEvent::Notice { name, text });
    }

    /// Takes over what the process before left.
    fn take_over(&self) {
        let Some(dir) = &self.handover else {
            return;
        };
        match dir.take() {
            Ok(None) => {}
            Ok(Some(left)) => {
                dir.expect(&left);
                let Handover {
                    tickets,
                    running,
                    results,
                } = left;
                let restored = self.registry.restore_tickets(tickets);
                self.registry.restore_results(results);
                let text = format!(
                    "{restored} unused tickets, and {} calls that the process before finishes",
                    running.len()
                );
                self.notice("taken_over", text);
            }
            Err(error) => self.notice(
                "taken_over",
                format!(
                    "nothing of the process before can be read: {}",
                    with_sources(&error)
                ),
            ),
        }
    }

    /// Leaves to the process that follows what it needs. From now on results go there, too.
    fn hand_over(&self) {
        let Some(dir) = &self.handover else {
            return;
        };
        // First, so that a call that ends meanwhile is in one of the three.
        self.registry.leave_results_in(dir.clone());
        let running = self.registry.running();
        let running = running.iter().map(|call| {
            let context = &call.context;
            (context.id, context.minted_by.clone())
        });
        let left = Handover {
            tickets: self.registry.save_tickets(),
            running: running.chain(dir.unfinished()).collect(),
            results: self.registry.results(),
        };
        let text = match dir.leave(&left) {
            Ok(()) => format!(
                "unused tickets wait for the process that follows; this one finishes {} calls",
                left.running.len()
            ),
            Err(error) => format!("unused tickets are lost: {}", with_sources(&error)),
        };
        self.notice("handed_over", text);
    }
}

/// Once a second: what is due then.
async fn tick(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    loop {
        interval.tick().await;
        let registry = &shared.registry;
        registry.report_suppressed();
        if registry
            .draining()
            .is_some_and(|until| Instant::now() >= until)
        {
            for call in registry.running() {
                call.hang_up();
            }
        }
    }
}

fn builder(registry: &Arc<Registry>) -> sidetone::ServerBuilder {
    let config = registry.config();
    let (admitting, ending, failing) = (
        Arc::clone(registry),
        Arc::clone(registry),
        Arc::clone(registry),
    );
    let builder = Server::builder()
        .max_calls(registry.max_calls() + ADMISSION_MARGIN)
        .codec(config.server.codec)
        .identity_timeout(IDENTITY_TIMEOUT)
        .max_unidentified(MAX_UNIDENTIFIED)
        .max_unidentified_per_address(MAX_UNIDENTIFIED_PER_ADDRESS)
        .max_connects_per_second(MAX_CONNECTS_PER_SECOND)
        .allow(networks(&config))
        .admit(move |info| std::future::ready(admitting.admit(info)))
        .on_call_end(move |summary| ending.end(summary))
        .on_handler_error(move |info, error| failing.report_handler_error(info, &error));
    match &config.server.trusted {
        Some(trusted) => builder.trusted(trusted.clone()),
        None => builder,
    }
}

fn networks(config: &Config) -> Networks {
    config
        .server
        .allow
        .clone()
        .unwrap_or_else(Networks::loopback)
}

/// The keys whose values changed and need a restart.
fn unchangeable(old: &Config, new: &Config) -> Vec<&'static str> {
    let (server, new_server) = (&old.server, &new.server);
    let recording_dir = |config: &Config| config.recording.as_ref().map(|it| it.dir.clone());
    [
        ("server.listen", server.listen != new_server.listen),
        ("server.codec", server.codec != new_server.codec),
        ("server.trusted", server.trusted != new_server.trusted),
        ("server.state_dir", server.state_dir != new_server.state_dir),
        (
            "server.bot_memory",
            server.bot_memory != new_server.bot_memory,
        ),
        ("http.listen", old.http_listen() != new.http_listen()),
        ("recording.dir", recording_dir(old) != recording_dir(new)),
    ]
    .into_iter()
    .filter_map(|(key, changed)| changed.then_some(key))
    .collect()
}
