use std::{
    fmt,
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use sidetone_proto::{CallConfig, EndReason};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{ToSocketAddrs, lookup_host};

use super::{OnCallEnd, OnHandlerError, OnUnidentified, Server, WakeAll, wake_task::WakeTask};
use crate::{
    admission::{Admission, Admit, CallInfo, Networks},
    error::{HandlerError, ServeError},
    event::Codec,
    io_backend::IoBackend,
    media::{LimitConfig, MediaConfig},
    stats::CallSummary,
};

/// The kernel caps it at `net.core.somaxconn`, 4096 on most systems.
const BACKLOG: i32 = 4096;

/// What the media threads are to be good at, as long as they have time to spare. A thread that is short of it works
/// without a pause, and deals with all that came meanwhile together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tuning {
    /// Audio is on its way within a millisecond of its coming.
    #[default]
    Latency,
    /// A frame costs as little as possible: what happens within 5 ms is dealt with together. An answer is heard some
    /// 8 ms later.
    Throughput,
}

impl Tuning {
    /// The shortest time from the start of one iteration of a media thread to the start of the next.
    pub(crate) fn coalescing(self) -> Duration {
        match self {
            Self::Latency => Duration::from_millis(1),
            Self::Throughput => Duration::from_millis(5),
        }
    }
}

/// The settings of a server.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use {sidetone::{Codec, Server}, std::time::Duration};
///
/// let server = Server::builder()
///     .max_calls(200)
///     .codec(Codec::Auto)
///     .allow("10.0.0.0/8".parse()?)
///     .max_duration(Duration::from_secs(3600))
///     .bind("0.0.0.0:9092")
///     .await?;
/// # Ok(()) }
/// ```
pub struct ServerBuilder {
    pub(super) media: MediaConfig,
    pub(super) media_threads: usize,
    pub(super) reset_when_killed: bool,
    pub(super) admit: Option<Arc<Admit>>,
    pub(super) on_call_end: Option<OnCallEnd>,
    pub(super) on_unidentified: Option<OnUnidentified>,
    pub(super) on_handler_error: Option<OnHandlerError>,
    networks: Option<Networks>,
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self {
            media: MediaConfig {
                call: CallConfig::default(),
                max_duration_warning: Duration::from_secs(10),
                codec: Codec::Slin,
                receive_buffer: Duration::from_millis(250),
                playback_buffer: Duration::from_secs(600),
                max_calls: 10_000,
                networks: Networks::loopback(),
                limits: LimitConfig::default(),
                io_backend: IoBackend::Auto.into(),
                tuning: Tuning::default(),
            },
            media_threads: 1,
            reset_when_killed: false,
            admit: None,
            on_call_end: None,
            on_unidentified: None,
            on_handler_error: None,
            networks: None,
        }
    }
}

impl ServerBuilder {
    /// The number of calls at a time; further ones are rejected. The default is 10 000.
    ///
    /// To the dialplan, a rejected call looks like one that was completed. So put the first limit there (`GROUP_COUNT`).
    #[must_use]
    pub fn max_calls(mut self, calls: usize) -> Self {
        self.media.max_calls = calls;
        self
    }

    /// How many threads read and write the calls. One, unless set, does well up to about 1500 calls; more
    /// than needed cost more than they give.
    #[must_use]
    pub fn media_threads(mut self, threads: usize) -> Self {
        self.media_threads = threads.max(1);
        self
    }

    /// Whether the kernel resets the connections of a process that is killed, instead of closing them. It does not,
    /// unless set.
    ///
    /// Asterisk up to 20.13, 21.8 and 22.3, and all of 18 and 19, does not notice that a connection was closed: its calls
    /// stay up, each on a whole core. A reset ends them within milliseconds. The price: from 20.14, 21.9 and 22.4 on
    /// `AudioSocket()` goes on in the dialplan after most closes, and after no reset. Calls that the server ends are
    /// not touched by this.
    #[must_use]
    pub fn reset_when_killed(mut self, reset: bool) -> Self {
        self.reset_when_killed = reset;
        self
    }

    /// How the media threads talk to the kernel; [`IoBackend::Auto`] unless set.
    #[must_use]
    pub fn io_backend(mut self, io_backend: IoBackend) -> Self {
        self.media.io_backend = io_backend.into();
        self
    }

    /// What the media threads spend processor time on; [`Tuning::Latency`] unless set.
    #[must_use]
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.media.tuning = tuning;
        self
    }

    /// How much audio waits for a handler that is slow; 250 ms unless set. What is older is dropped, and
    /// [`Event::Lagged`](crate::Event::Lagged) says so.
    #[must_use]
    pub fn receive_buffer(mut self, audio: Duration) -> Self {
        self.media.receive_buffer = audio;
        self
    }

    /// How much audio can be queued on a call, at least the 20 ms of a slot; 10 minutes unless set. Memory
    /// is taken as it is used: a minute is 960 kB at 8 kHz.
    #[must_use]
    pub fn playback_buffer(mut self, audio: Duration) -> Self {
        self.media.playback_buffer = audio.max(Duration::from_millis(20));
        self
    }

    /// What kind `0x10` carries; linear samples unless set.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.media.codec = codec;
        self
    }

    /// How long a connection may stay without saying its UUID; 60 s unless set. With ARI, Asterisk connects
    /// when the channel is created and says the UUID when it is dialled.
    #[must_use]
    pub fn identity_timeout(mut self, timeout: Duration) -> Self {
        self.media.call.identity_timeout = timeout;
        self
    }

    /// Ends a call from which nothing came for this long. Off by default, since a muted caller may send nothing.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.media.call.idle_timeout = Some(timeout);
        self
    }

    /// Ends every call this long after its UUID. Off by default. [`Admission::max_duration`] overrides it for one call.
    #[must_use]
    pub fn max_duration(mut self, duration: Duration) -> Self {
        self.media.call.max_duration = Some(duration);
        self
    }

    /// How long before a call reaches its longest duration its handler is warned, by [`Event::Closing`](crate::Event::Closing) and
    /// [`Call::closing`](crate::Call::closing). The default is 10 s. A call with a shorter limit is warned as it starts.
    #[must_use]
    pub fn max_duration_warning(mut self, before: Duration) -> Self {
        self.media.max_duration_warning = before;
        self
    }

    /// The addresses that may connect; calls from others are rejected. It must be set when the server can be reached from other
    /// machines. On loopback the default is this machine.
    #[must_use]
    pub fn allow(mut self, networks: Networks) -> Self {
        self.networks = Some(networks);
        self
    }

    /// The number of connections that may be open without having said a UUID, on all media threads together, at least one. With
    /// one more, the oldest of them is hung up and counted in [`ServerStats::crowded_out`](crate::ServerStats::crowded_out). Unless
    /// set they may hold a quarter of the process's descriptors, and 4096 at most.
    ///
    /// ```
    /// use {sidetone::Server, std::time::Duration};
    ///
    /// let settings = Server::builder()
    ///     .max_unidentified(256)
    ///     .max_unidentified_per_address(32)
    ///     .identity_timeout(Duration::from_secs(30));
    /// ```
    #[must_use]
    pub fn max_unidentified(mut self, connections: usize) -> Self {
        self.media.limits.max_unidentified = Some(connections);
        self
    }

    /// The same of one address, at least one; an IPv6 network of 64 bits is one address. With one more, the oldest of that
    /// address is hung up, and those of others stay. There is no such limit unless it is set, nor for [trusted](Self::trusted)
    /// addresses. [`max_unidentified`](Self::max_unidentified) has an example.
    #[must_use]
    pub fn max_unidentified_per_address(mut self, connections: usize) -> Self {
        self.media.limits.max_unidentified_per_address = Some(connections);
        self
    }

    /// How often one address may connect: so many times at once, and as many each second, at least one. An IPv6 network of 64
    /// bits is one address. There is no such limit unless it is set, nor for [trusted](Self::trusted) addresses: an Asterisk is
    /// one address, whatever number of calls it sends.
    ///
    /// A connection beyond it is accepted and rejected as any other, since what Asterisk does when it is refused can end innocent
    /// calls. It has a second to say its UUID. All are counted in
    /// [`ServerStats::excess_connects`](crate::ServerStats::excess_connects), and ten of them a second are reported to
    /// [`on_call_end`](Self::on_call_end), with [`EndReason::TooManyConnects`](crate::EndReason::TooManyConnects).
    ///
    /// ```
    /// use sidetone::Server;
    ///
    /// let settings = Server::builder()
    ///     .max_connects_per_second(20)
    ///     .trusted("10.0.0.5".parse()?)
    ///     .allow("10.0.0.0/8".parse()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn max_connects_per_second(mut self, connections: usize) -> Self {
        self.media.limits.max_connects_per_second = Some(connections);
        self
    }

    /// Addresses for which there are no limits per address: your Asterisks. None, unless set. It lets nobody in: that is
    /// [`allow`](Self::allow). [`max_connects_per_second`](Self::max_connects_per_second) has an example.
    #[must_use]
    pub fn trusted(mut self, networks: Networks) -> Self {
        self.media.limits.trusted = Some(networks);
        self
    }

    /// Asks `hook` about every call before its handler starts. Meanwhile the caller hears silence. If the call ends before the
    /// hook answers, the hook's future is dropped 5 s later.
    #[must_use]
    pub fn admit<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(CallInfo) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Admission> + Send + 'static,
    {
        self.admit = Some(Arc::new(move |info| Box::pin(hook(info))));
        self
    }

    /// Calls `hook` once for every call that ended or was rejected, after [`admit`](Self::admit) has answered. The handler may
    /// still be running then, or not have started. The hook runs on the async threads and must not block.
    #[must_use]
    pub fn on_call_end(mut self, hook: impl Fn(CallSummary) + Send + Sync + 'static) -> Self {
        self.on_call_end = Some(Arc::new(hook));
        self
    }

    /// Calls `hook` once for every connection that ended before its UUID came, with its address and why it ended: health checks,
    /// port scans, other protocols, and dialplans without `Answer()` before `AudioSocket()`. Of thousands at once, some are
    /// only [counted](crate::ServerStats::without_identity). The hook runs on the async threads and must not block.
    ///
    /// ```
    /// use sidetone::Server;
    ///
    /// let settings = Server::builder().on_unidentified(|peer, reason| eprintln!("{peer}: {reason}"));
    /// ```
    #[must_use]
    pub fn on_unidentified(
        mut self,
        hook: impl Fn(SocketAddr, EndReason) + Send + Sync + 'static,
    ) -> Self {
        self.on_unidentified = Some(Arc::new(hook));
        self
    }

    /// Gives `hook` every failure of a handler, an error that it returned or a panic, once, and hangs its call up. Without a
    /// hook a failure is logged as a warning, through [`tracing`](https://docs.rs/tracing); with one it is up to the hook.
    ///
    /// That a caller hung up is no failure, whichever error says so; see [`Handler`](crate::Handler). The hook runs on the
    /// async threads and must not block.
    ///
    /// ```
    /// use {sidetone::{HandlerError, Server}, std::error::Error};
    ///
    /// let settings = Server::builder().on_handler_error(|call, error| match &error {
    ///     HandlerError::Returned(error) => eprintln!("call {}: {error}, {:?}", call.id, error.source()),
    ///     panic => eprintln!("call {}: {panic}", call.id),
    /// });
    /// ```
    #[must_use]
    pub fn on_handler_error(
        mut self,
        hook: impl Fn(CallInfo, HandlerError) + Send + Sync + 'static,
    ) -> Self {
        self.on_handler_error = Some(Arc::new(hook));
        self
    }

    /// Listens on `address`, of a host name on the first address that can be had.
    ///
    /// # Errors
    ///
    /// [`ServeError::NotAllowed`] if the address can be reached from other machines and
    /// [`allow`](Self::allow) was not called.
    pub async fn bind(
        self,
        address: impl ToSocketAddrs + fmt::Debug,
    ) -> Result<Server, ServeError> {
        let name = format!("{address:?}").trim_matches('"').to_owned();
        let failed = |source| ServeError::Bind {
            address: name.clone(),
            source,
        };
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in lookup_host(address).await.map_err(failed)? {
            self.check_allowed(address)?;
            match listen(address) {
                Ok(listener) => return self.from_listener(listener),
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    /// Serves from a listener that was bound elsewhere: handed over by systemd, or by the process that this
    /// one replaces.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub fn from_listener(self, listener: TcpListener) -> Result<Server, ServeError> {
        let wake_task = WakeTask::start();
        self.start(listener, Box::new(move |wakes| wake_task.wake(wakes)))
    }

    /// Starts the server, whose handlers `wake` is to wake.
    pub(crate) fn start(
        mut self,
        listener: TcpListener,
        wake: Box<WakeAll>,
    ) -> Result<Server, ServeError> {
        self.check_allowed(listener.local_addr().map_err(ServeError::Media)?)?;
        self.apply_networks();
        self.apply_linger(&listener)?;
        Server::start(listener, self, wake)
    }

    /// Listens without a runtime. It blocks while a host name is looked up.
    pub(crate) fn listen(
        &self,
        address: impl std::net::ToSocketAddrs,
    ) -> Result<TcpListener, ServeError> {
        let mut failure = None;
        let failed = |address: String, source| ServeError::Bind { address, source };
        let addresses = address
            .to_socket_addrs()
            .map_err(|error| failed("that address".into(), error))?;
        for address in addresses {
            self.check_allowed(address)?;
            match listen(address) {
                Ok(listener) => return Ok(listener),
                Err(error) => failure = Some(failed(address.to_string(), error)),
            }
        }
        Err(failure.unwrap_or_else(|| {
            failed(
                "that address".into(),
                io::ErrorKind::AddrNotAvailable.into(),
            )
        }))
    }

    pub(crate) fn media_thread_count(&self) -> usize {
        self.media_threads
    }

    /// Gives failures of handlers to `hook` if there is none yet.
    pub(crate) fn on_handler_error_or(
        &mut self,
        hook: impl Fn(CallInfo, HandlerError) + Send + Sync + 'static,
    ) {
        self.on_handler_error.get_or_insert_with(|| Arc::new(hook));
    }

    fn apply_networks(&mut self) {
        if let Some(networks) = self.networks.take() {
            self.media.networks = networks;
        }
    }

    /// Connections have what their listener was given; that of a process before may have been given something else.
    fn apply_linger(&self, listener: &TcpListener) -> Result<(), ServeError> {
        let linger = self.reset_when_killed.then_some(Duration::ZERO);
        let set = SockRef::from(listener).set_linger(linger);
        set.map_err(ServeError::Media)
    }

    fn check_allowed(&self, address: SocketAddr) -> Result<(), ServeError> {
        if self.networks.is_none() && !address.ip().to_canonical().is_loopback() {
            return Err(ServeError::NotAllowed { address });
        }
        Ok(())
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("media", &self.media)
            .finish_non_exhaustive()
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not have to wait for connections of the past.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
