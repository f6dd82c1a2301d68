//! A server, as Python's asyncio interface has it.

use std::{sync::Arc, thread};

use parking_lot::Mutex;
use pyo3::{
    exceptions::{PyOSError, PyValueError},
    prelude::*,
};
use sidetone::{
    Admission, CallHandle, CallInfo, CallSummary, Codec, Networks, ServeError, ServerBuilder,
    ServerHandle,
};
use tokio::{runtime, sync::oneshot};

use crate::{
    attachment::Attachment,
    call::{Call, Recorders},
    executor::Executor,
    forked::Guarded,
    listener,
    peer::peer_name,
    sound::duration,
    types,
};

/// Serves calls on listening sockets, and tells `sink` of them inside `poll`.
#[pyclass(frozen)]
pub(crate) struct Server(Guarded<ServerParts>);

struct ServerParts {
    executor: Arc<Executor>,
    recorders: Arc<Recorders>,
    serving: Mutex<Vec<Serving>>,
}

struct Serving {
    handle: ServerHandle,
    /// Dropped, it has the thread drop its server.
    _until: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

/// What Python says of a server. Times are seconds.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Settings {
    max_calls: usize,
    allow: Option<String>,
    trusted: Option<String>,
    codec: String,
    max_duration: Option<f64>,
    idle_timeout: Option<f64>,
    receive_buffer: Option<f64>,
    playback_buffer: Option<f64>,
    /// `sink.admit` is to be asked about each call.
    admits: bool,
    /// `sink.call_ended` is to be told of the end of each.
    tells_ends: bool,
}

#[pymethods]
impl Server {
    #[new]
    fn new(
        sockets: Vec<Bound<'_, PyAny>>,
        sink: Py<PyAny>,
        event_loop: Py<PyAny>,
        settings: Settings,
    ) -> PyResult<Self> {
        let parts = ServerParts {
            executor: Arc::new(Executor::new(event_loop)?),
            recorders: Arc::default(),
            serving: Mutex::default(),
        };
        let sink = Arc::new(sink);
        for socket in &sockets {
            let serving = parts.serve(socket, &sink, &settings)?;
            parts.serving.lock().push(serving);
        }
        Ok(Self(Guarded::new(parts)))
    }

    /// The descriptor that becomes readable when there is something to poll.
    fn fileno(&self) -> PyResult<i32> {
        Ok(self.0.get()?.executor.descriptor())
    }

    /// Deals with all that has happened.
    fn poll(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get()?.executor.poll(py);
        Ok(())
    }

    /// Rejects new calls, and tells those that run how long they have.
    fn shutdown(&self, grace: f64) -> PyResult<()> {
        let grace = duration(grace)?;
        for serving in self.0.get()?.serving.lock().iter() {
            serving.handle.shutdown(grace);
        }
        Ok(())
    }

    /// Waits until no call runs.
    fn drained<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let parts = self.0.get()?;
        let calls = parts.handles();
        parts.executor.spawn(py, async move {
            for call in calls {
                call.closed().await;
            }
            Box::new(|py: Python<'_>| Ok(py.None())) as _
        })
    }

    #[getter]
    fn stats(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let serving = self.0.get()?.serving.lock();
        let stats: Vec<_> = serving.iter().map(|one| one.handle.stats()).collect();
        types::server_stats(py, &stats)
    }

    /// Hangs up what runs, ends recordings and stops.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let parts = self.0.get()?;
        let serving = std::mem::take(&mut *parts.serving.lock());
        let recorders = Arc::clone(&parts.recorders);
        py.detach(|| {
            for Serving { thread, _until, .. } in serving {
                drop(_until);
                // A panic there has been reported by the panic hook.
                let _ = thread.join();
            }
            recorders.finish();
        });
        Ok(())
    }
}

impl ServerParts {
    fn handles(&self) -> Vec<CallHandle> {
        let serving = self.serving.lock();
        serving.iter().flat_map(|one| one.handle.calls()).collect()
    }

    fn serve(
        &self,
        socket: &Bound<'_, PyAny>,
        sink: &Arc<Py<PyAny>>,
        settings: &Settings,
    ) -> PyResult<Serving> {
        let builder = self.builder(sink, settings)?;
        // Outside a runtime: calls are woken where the event loop sees it.
        let listener = listener::duplicate(socket)?;
        let mut server = builder.from_listener(listener).map_err(serve_error)?;
        let handle = server.handle();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (_until, until) = oneshot::channel();
        let (executor, recorders) = (Arc::clone(&self.executor), Arc::clone(&self.recorders));
        let sink = Arc::clone(sink);
        let serve = async move {
            while let Some(call) = server.accept().await {
                let (sink, recorders) = (Arc::clone(&sink), Arc::clone(&recorders));
                let own = Arc::clone(&executor);
                executor.call_soon(move |py| hand_over(py, call, &sink, &own, &recorders));
            }
            server
        };
        let thread = thread::Builder::new()
            .name("sidetone-python".into())
            .spawn(move || {
                runtime.block_on(async {
                    let mut until = until;
                    tokio::select! {
                        // Running calls need the server until the program lets go of it.
                        server = serve => {
                            let _ = until.await;
                            drop(server);
                        }
                        _ = &mut until => {}
                    }
                });
            })?;
        Ok(Serving {
            handle,
            _until,
            thread,
        })
    }

    fn builder(&self, sink: &Arc<Py<PyAny>>, settings: &Settings) -> PyResult<ServerBuilder> {
        let mut builder = sidetone::Server::builder()
            .max_calls(settings.max_calls)
            .codec(codec(&settings.codec)?);
        if let Some(allow) = &settings.allow {
            builder = builder.allow(networks(allow)?);
        }
        if let Some(trusted) = &settings.trusted {
            builder = builder.trusted(networks(trusted)?);
        }
        if let Some(seconds) = settings.max_duration {
            builder = builder.max_duration(duration(seconds)?);
        }
        if let Some(seconds) = settings.idle_timeout {
            builder = builder.idle_timeout(duration(seconds)?);
        }
        if let Some(seconds) = settings.receive_buffer {
            builder = builder.receive_buffer(duration(seconds)?);
        }
        if let Some(seconds) = settings.playback_buffer {
            builder = builder.playback_buffer(duration(seconds)?);
        }
        if settings.admits {
            let (executor, sink) = (Arc::clone(&self.executor), Arc::clone(sink));
            // `call_started` and `call_ended`.
            let told = 1 + usize::from(settings.tells_ends);
            builder = builder.admit(move |info| ask(info, told, &executor, &sink));
        }
        if settings.tells_ends {
            let (executor, sink) = (Arc::clone(&self.executor), Arc::clone(sink));
            builder = builder.on_call_end(move |summary| {
                let sink = Arc::clone(&sink);
                executor.call_soon(move |py| tell_end(py, &summary, &sink));
            });
        }
        Ok(builder)
    }
}

fn hand_over(
    py: Python<'_>,
    call: sidetone::Call,
    sink: &Py<PyAny>,
    executor: &Arc<Executor>,
    recorders: &Arc<Recorders>,
) {
    let data = call.data::<Attachment>().and_then(|data| data.take(py));
    let given = Call::new(call, executor, recorders)
        .and_then(|call| sink.call_method1(py, "call_started", (call, data)));
    if let Err(error) = given {
        error.write_unraisable(py, None);
    }
}

fn tell_end(py: Python<'_>, summary: &CallSummary, sink: &Py<PyAny>) {
    let told = || {
        let id = summary.id.simple().to_string();
        let peer = peer_name(py, summary.peer)?;
        let ended = types::ended(py, summary.reason)?;
        let data = summary.data::<Attachment>().and_then(|data| data.take(py));
        let duration = summary.duration.as_secs_f64();
        sink.call_method1(py, "call_ended", (id, peer, ended, duration, data))
    };
    if let Err(error) = told() {
        error.write_unraisable(py, None);
    }
}

/// Asks the program about a call.
fn ask(
    info: CallInfo,
    told: usize,
    executor: &Arc<Executor>,
    sink: &Arc<Py<PyAny>>,
) -> impl Future<Output = Admission> + Send + use<> {
    let (decided, decision) = oneshot::channel();
    let sink = Arc::clone(sink);
    executor.call_soon(move |py| {
        let question = AdmissionRequest {
            info,
            told,
            decided: Mutex::new(Some(decided)),
        };
        if let Err(error) = sink.call_method1(py, "admit", (question,)) {
            error.write_unraisable(py, None);
        }
    });
    async { decision.await.unwrap_or_else(|_| Admission::reject()) }
}

/// A call that waits to be let in. Dropped without an answer, it is rejected.
#[pyclass(frozen)]
pub(crate) struct AdmissionRequest {
    info: CallInfo,
    /// How many are told of the data that is attached.
    told: usize,
    decided: Mutex<Option<oneshot::Sender<Admission>>>,
}

#[pymethods]
impl AdmissionRequest {
    #[getter]
    fn hex(&self) -> String {
        self.info.id.simple().to_string()
    }

    #[getter]
    fn peer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyTuple>> {
        peer_name(py, self.info.peer)
    }

    #[pyo3(signature = (data, max_duration))]
    fn accept(&self, data: Py<PyAny>, max_duration: Option<f64>) -> PyResult<()> {
        let mut admission = Admission::accept_with(Attachment::new(data, self.told));
        if let Some(seconds) = max_duration {
            admission = admission.max_duration(duration(seconds)?);
        }
        self.decide(admission);
        Ok(())
    }

    fn reject(&self) {
        self.decide(Admission::reject());
    }
}

impl AdmissionRequest {
    fn decide(&self, admission: Admission) {
        if let Some(decided) = self.decided.lock().take() {
            // The call is over already.
            let _ = decided.send(admission);
        }
    }
}

fn codec(name: &str) -> PyResult<Codec> {
    [Codec::Slin, Codec::Ulaw, Codec::Alaw, Codec::Auto]
        .into_iter()
        .find(|codec| codec.to_string() == name)
        .ok_or_else(|| {
            PyValueError::new_err(format!(
                "there is no codec {name:?}: take \"slin\", \"ulaw\", \"alaw\" or \"auto\""
            ))
        })
}

fn networks(text: &str) -> PyResult<Networks> {
    text.parse()
        .map_err(|error| PyValueError::new_err(format!("{error}")))
}

fn serve_error(error: ServeError) -> PyErr {
    match &error {
        ServeError::NotAllowed { address } => PyValueError::new_err(format!(
            "{address} can be reached from other machines, and AudioSocket has no login: say which networks may call, \
             as in allow=\"10.0.0.0/8\", or any with allow=\"any\""
        )),
        _ => PyOSError::new_err(error.to_string()),
    }
}
