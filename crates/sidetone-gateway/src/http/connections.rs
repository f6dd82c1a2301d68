//! Accepts connections, so many at a time, and gives them up when they are idle or slow.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    task::JoinSet,
};
use tower::ServiceExt;

/// Connections at a time. Further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 512;

/// How long a request's head may take, and how long a connection may be idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest head of a request. Its URL has the parameters of a ticket.
const MAX_HEAD: usize = 64 * 1024;

/// The pause after an error that concerns no single connection, such as no descriptor being left.
const PAUSE: Duration = Duration::from_millis(100);

/// The address that a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Serves until `stop` has a message, and then closes the listener. Connections that are being answered may take as long as
/// `patience`.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    mut stop: oneshot::Receiver<()>,
    patience: Duration,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (closing, is_closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            _ = &mut stop => break,
            Some((stream, peer, place)) = accept(&listener, &places) => {
                let (router, is_closing) = (router.clone(), is_closing.clone());
                connections.spawn(async move {
                    serve_one(stream, peer, router, is_closing).await;
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    closing.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(patience, all).await;
}

/// A connection, and its place among [`MAX_CONNECTIONS`].
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    loop {
        // It fails only when it is closed, which nobody does.
        let place = Arc::clone(places).acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok((stream, peer)) => return Some((stream, peer, place)),
            Err(error) if concerns_one_connection(&error) => {}
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

async fn serve_one(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut is_closing: watch::Receiver<bool>,
) {
    // Without it, an event waits for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let (begun, mut has_begun) = watch::channel(false);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        begun.send_replace(true);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        router.clone().oneshot(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // An error is the peer's: it is gone, or does not speak HTTP, and was told so. A connection whose request is still on its
    // way when the process hands over gets its answer: a dialplan does not ask twice.
    let is_due = async {
        let _ = is_closing.wait_for(|closing| *closing).await;
        let _ = has_begun.wait_for(|begun| *begun).await;
    };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = is_due => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
