//! A server that receives hooks and answers as told.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
    serve::Listener,
};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use sidetone_gateway::hooks::{Endpoint, SigningKey};
use tokio::{net::TcpListener, sync::mpsc, task::AbortHandle, time::timeout};

const PATIENCE: Duration = Duration::from_secs(30);

/// How a request is answered.
pub(super) enum Answer {
    Status(u16),
    RedirectTo(String),
    /// Never.
    Hang,
    /// 200, and a body that doesn't end.
    EndlessBody,
}

pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Received>,
    task: AbortHandle,
}

/// A request.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) headers: HeaderMap,
    pub(super) path: String,
    pub(super) body: String,
}

/// A switch from one answer to another.
#[derive(Clone, Default)]
pub(super) struct Switch(Arc<AtomicBool>);

impl Switch {
    pub(super) fn set(&self, on: bool) {
        self.0.store(on, Ordering::SeqCst);
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Receiver {
    pub(super) async fn start(
        answer: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer).await
    }

    pub(super) async fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::start_on(listener, address, answer)
    }

    pub(super) fn start_on<L: Listener>(
        listener: L,
        address: SocketAddr,
        answer: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self
    where
        L::Addr: std::fmt::Debug,
    {
        let (sender, requests) = mpsc::unbounded_channel();
        let answer = Arc::new(answer);
        let router = Router::new().fallback(move |request: Request| {
            let (sender, answer) = (sender.clone(), Arc::clone(&answer));
            async move {
                let (head, body) = request.into_parts();
                assert_eq!(head.method, http::Method::POST);
                let body = body.collect().await.unwrap().to_bytes();
                let received = Received {
                    headers: head.headers,
                    path: head.uri.to_string(),
                    body: String::from_utf8(body.into()).unwrap(),
                };
                let answer = answer(&received);
                // It fails when the test is over.
                let _ = sender.send(received);
                answer.response().await
            }
        });
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            requests,
            task: serving.abort_handle(),
        }
    }

    /// The next request.
    pub(super) async fn next(&mut self) -> Received {
        let next = timeout(PATIENCE, self.requests.recv()).await;
        next.expect("no request came").unwrap()
    }

    pub(super) async fn take(&mut self, count: usize) -> Vec<Received> {
        let mut received = Vec::new();
        while received.len() < count {
            received.push(self.next().await);
        }
        received
    }

    /// How many requests came that were not taken.
    pub(super) fn pending(&self) -> usize {
        self.requests.len()
    }

    /// An endpoint here that gets the events `call.started`, `call.ended` and `dtmf`.
    pub(super) fn endpoint(&self) -> Endpoint {
        endpoint(&format!("http://{}/hooks?key=topsecret", self.address))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Received {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }

    pub(super) fn id(&self) -> String {
        self.header("webhook-id").into()
    }

    /// The number that the test gave it.
    pub(super) fn number(&self) -> u64 {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        body["number"].as_u64().unwrap()
    }
}

impl Answer {
    async fn response(self) -> Response {
        match self {
            Self::Status(code) => StatusCode::from_u16(code).unwrap().into_response(),
            Self::RedirectTo(url) => {
                (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, url)]).into_response()
            }
            Self::Hang => std::future::pending().await,
            Self::EndlessBody => {
                let chunks =
                    futures_util::stream::repeat_with(|| Ok::<_, String>("x".repeat(1000)));
                Body::from_stream(chunks).into_response()
            }
        }
    }
}

pub(super) fn endpoint(url: &str) -> Endpoint {
    let events = ["call.started", "call.ended", "dtmf"];
    Endpoint {
        name: "crm".into(),
        url: url.parse().unwrap(),
        key: Some(SigningKey::from_secret(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()),
        events: events
            .map(String::from)
            .into_iter()
            .collect::<BTreeSet<_>>(),
    }
}
