//! A gateway with a file of its own, and what a test does with it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use serde_json::Value;
use sidetone_caller::{CallRecord, Caller, Voice};
use sidetone_gateway::{Config, Gateway, GatewayHandle, Inherited, config::ConfigErrors};
use tempfile::TempDir;
use uuid::Uuid;

/// What a step may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The token of [`TestGateway::start`] that may do everything.
pub(crate) const ADMIN: &str = "the-secret-of-admin";

pub(crate) struct TestGateway {
    pub(crate) address: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) handle: GatewayHandle,
    pub(crate) folder: TempDir,
    log: Arc<Log>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Log {
    events: Mutex<Vec<Value>>,
    more: Condvar,
}

/// An answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A file with ports of the system's choice, and what a test adds to its tables: `server`, and the rest.
pub(crate) fn file(server: &str, rest: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{server}\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [[http.token]]\nname = \"admin\"\nsecret = {{ file = \"admin.key\" }}\nmay = [\"read\", \"listen\", \"control\"]\n{rest}"
    )
}

/// Echoes every call that comes, with a ticket or without.
pub(crate) const OPEN: &str = "tickets = \"optional\"\ndefault_route = \"echo\"";
pub(crate) const ECHO: &str = "[route.echo]\necho = {}\n";

impl TestGateway {
    pub(crate) fn start(server: &str, rest: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), server, rest)
    }

    pub(crate) fn start_in(folder: TempDir, server: &str, rest: &str) -> Self {
        Self::start_watched(folder, server, rest, |_| ())
    }

    /// With something that is called with each event, before anything else happens.
    pub(crate) fn start_watched(
        folder: TempDir,
        server: &str,
        rest: &str,
        watch: impl Fn(&Value) + Send + Sync + 'static,
    ) -> Self {
        std::fs::write(folder.path().join("admin.key"), ADMIN).unwrap();
        let config = Config::parse(&file(server, rest), &folder.path().join("sidetone.toml"));
        let config = config.unwrap();
        let log = Arc::<Log>::default();
        let (started, starting) = channel();
        let sink = Arc::clone(&log);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(serve(config, sink, started, watch));
        });
        let (address, http, handle) = starting.recv().unwrap();
        Self {
            address,
            http,
            handle,
            folder,
            log,
            thread: Some(thread),
        }
    }

    pub(crate) fn reload(&self, server: &str, rest: &str) -> Result<(), ConfigErrors> {
        let path = self.folder.path().join("sidetone.toml");
        Config::parse(&file(server, rest), &path).map(|config| self.handle.reload(config))
    }

    /// Places a call that says its UUID and lasts this long, unless the server ends it.
    pub(crate) fn call(&self, id: Uuid, duration: Duration) -> JoinHandle<CallRecord> {
        let caller = Caller::new(self.address)
            .uuid(id)
            .say(Voice::Ramp(7))
            .hang_up_after(duration);
        self.place(caller)
    }

    pub(crate) fn place(&self, caller: Caller) -> JoinHandle<CallRecord> {
        thread::spawn(move || caller.call().unwrap())
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], None)
    }

    pub(crate) fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let token = format!("Bearer {ADMIN}");
        self.request(method, path, &[("authorization", &token)], body)
    }

    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.http));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = match body {
            None => agent.run(request.body(()).unwrap()),
            Some(body) => {
                let request = request.header("content-type", "application/json");
                agent.run(request.body(body.to_string()).unwrap())
            }
        }
        .unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.body_mut().read_to_string().unwrap(),
        }
    }

    /// A ticket's UUID.
    pub(crate) fn ticket(&self, query: &str) -> Uuid {
        let answer = self.get(&format!("/v1/tickets?{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body.split(',').next().unwrap().parse().unwrap()
    }

    /// Waits for the first event of this type for which `is_it`, from the start of the gateway on.
    pub(crate) fn event(&self, kind: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut events = self.log.events.lock();
        loop {
            let found = events
                .iter()
                .find(|event| event["type"] == kind && is_it(&event["data"]));
            if let Some(event) = found {
                return event["data"].clone();
            }
            if self.log.more.wait_until(&mut events, deadline).timed_out() {
                panic!("no {kind} among {events:#?}");
            }
        }
    }

    pub(crate) fn of(&self, kind: &str, id: Uuid) -> Value {
        self.event(kind, |data| data["call"] == id.to_string())
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.log.events.lock().clone()
    }

    /// Waits until the HTTP API shows this call.
    pub(crate) fn wait_for_call(&self, id: Uuid) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.admin("GET", &format!("/v1/calls/{id}"), None);
            if answer.status == 200 {
                return answer.json();
            }
            assert!(
                Instant::now() < deadline,
                "the call did not start: {answer:?}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn end(&mut self) {
        self.handle.shut_down();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking());
        }
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.end();
    }
}

async fn serve(
    config: Config,
    log: Arc<Log>,
    started: Sender<(SocketAddr, SocketAddr, GatewayHandle)>,
    watch: impl Fn(&Value) + Send + Sync + 'static,
) {
    let sink = Arc::new(move |event: &sidetone_gateway::Published| {
        let event = serde_json::from_str(&event.log).unwrap();
        watch(&event);
        log.events.lock().push(event);
        log.more.notify_all();
    });
    let gateway = Gateway::open(config, Inherited::default(), sink)
        .await
        .unwrap();
    let http = gateway.http_address().unwrap();
    started
        .send((gateway.address(), http, gateway.handle()))
        .unwrap();
    gateway.run(|| ()).await.unwrap();
}

/// Server-sent events, each with its name and its data.
pub(crate) struct EventStream(pub(crate) Receiver<(String, String)>);

impl EventStream {
    /// Reads from the gateway until it, or the test, ends.
    pub(crate) fn open(gateway: &TestGateway) -> Self {
        use std::io::{BufRead, BufReader};

        let (sender, receiver) = channel();
        let response = ureq::get(format!("http://{}/v1/events", gateway.http))
            .header("authorization", format!("Bearer {ADMIN}"))
            .call()
            .unwrap();
        thread::spawn(move || {
            let mut name = String::new();
            for line in BufReader::new(response.into_body().into_reader()).lines() {
                let Ok(line) = line else { return };
                if let Some(text) = line.strip_prefix("event: ") {
                    name = text.into();
                } else if let Some(data) = line.strip_prefix("data: ")
                    && sender.send((name.clone(), data.into())).is_err()
                {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// Waits for the next event of this name.
    pub(crate) fn next(&self, name: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (found, data) = self.0.recv_timeout(left).unwrap();
            if found == name {
                return serde_json::from_str(&data).unwrap();
            }
        }
    }
}
