//! Accepts connections, so many at a time, and gives them up when they are idle or slow.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{Response, StatusCode},
    response::IntoResponse,
};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tower::ServiceExt;

use super::{MAX_BODY, guard, problem::Problem};

/// Connections at a time. For a further one another is closed, so that no crowd keeps a dialplan from its ticket.
const MAX_CONNECTIONS: usize = 512;

/// How long a request's head may take, and how long a connection may be idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a request's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

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
    let table = Arc::<Table>::default();
    let (closing, is_closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            _ = &mut stop => break,
            (stream, peer) = accept(&listener, &table) => {
                let (router, is_closing) = (router.clone(), is_closing.clone());
                let (connection, closed) = table.add();
                connections.spawn(async move {
                    tokio::select! {
                        () = serve_one(stream, peer, router, is_closing, connection) => {}
                        _ = closed => {}
                    }
                });
            }
        }
    }
    drop(listener);
    closing.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(patience, all).await;
}

async fn accept(listener: &TcpListener, table: &Table) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if concerns_one_connection(&error) => {}
            Err(_) => {
                table.close_one();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The open connections.
#[derive(Default)]
struct Table {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    last_key: u64,
    open: HashMap<u64, Entry>,
}

struct Entry {
    /// A request has come in whole, and its answer is not complete.
    is_answering: bool,
    /// Since when that is so.
    since: Instant,
    /// Dropped, the connection is closed.
    _close: oneshot::Sender<()>,
}

impl Table {
    /// Adds a connection, which is to be closed when the receiver is ready. If there are too many, another one makes way.
    fn add(self: &Arc<Self>) -> (Connection, oneshot::Receiver<()>) {
        let (close, closed) = oneshot::channel();
        let mut entries = self.entries.lock();
        while entries.open.len() >= MAX_CONNECTIONS {
            entries.close_one();
        }
        entries.last_key += 1;
        let key = entries.last_key;
        let entry = Entry {
            is_answering: false,
            since: Instant::now(),
            _close: close,
        };
        entries.open.insert(key, entry);
        let table = Arc::clone(self);
        (Connection { table, key }, closed)
    }

    fn close_one(&self) {
        self.entries.lock().close_one();
    }
}

impl Entries {
    /// Closes the one that has been waiting for a request longest. If all are being answered, the one that takes longest: an
    /// event stream, whose reader comes again.
    fn close_one(&mut self) {
        let order = |(_, entry): &(&u64, &Entry)| (entry.is_answering, entry.since);
        let first = self.open.iter().min_by_key(order).map(|(key, _)| *key);
        if let Some(key) = first {
            self.open.remove(&key);
        }
    }
}

/// A place in the table, as long as this is there.
struct Connection {
    table: Arc<Table>,
    key: u64,
}

impl Connection {
    fn set_answering(&self, is_answering: bool) {
        if let Some(entry) = self.table.entries.lock().open.get_mut(&self.key) {
            entry.is_answering = is_answering;
            entry.since = Instant::now();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.table.entries.lock().open.remove(&self.key);
    }
}

/// A request that is being answered, as long as this is there.
struct Answering(Arc<Connection>);

impl Answering {
    fn new(connection: Arc<Connection>) -> Self {
        connection.set_answering(true);
        Self(connection)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.set_answering(false);
    }
}

/// The body of an answer that takes as long as its stream. Other answers are complete when they are made: a client that does
/// not read one holds up nobody.
struct StreamBody {
    body: Body,
    _answering: Answering,
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
    connection: Connection,
) {
    // Without it, an event waits for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let (begun, mut has_begun) = watch::channel(false);
    let connection = Arc::new(connection);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        begun.send_replace(true);
        answer(request, peer, router.clone(), Arc::clone(&connection))
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    // An error is the peer's: it is gone, or does not speak HTTP, and was told so. A connection whose request is still on its
    // way when the process hands over gets its answer: a dialplan does not ask twice.
    let is_due = async {
        let _ = is_closing.wait_for(|closing| *closing).await;
        let _ = has_begun.wait_for(|begun| *begun).await;
    };
    tokio::select! {
        _ = serving.as_mut() => return,
        () = is_due => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

/// Answers a request when all of it is there.
async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    router: Router,
    connection: Arc<Connection>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let (head, body) = request.into_parts();
    let body = match timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            let text = format!("the body of a request has {} KiB at most", MAX_BODY / 1024);
            return Ok(refused(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        Err(_) => {
            let longest = BODY_TIMEOUT.as_secs();
            let text = format!("the body of a request takes {longest} s at most");
            return Ok(refused(StatusCode::REQUEST_TIMEOUT, text));
        }
    };
    let answering = Answering::new(connection);
    let mut request = Request::from_parts(head, Body::from(body));
    request.extensions_mut().insert(Peer(peer));
    let response = router.oneshot(request).await?;
    let is_stream = response.size_hint().exact().is_none();
    Ok(match is_stream {
        true => response.map(|body| {
            Body::new(StreamBody {
                body,
                _answering: answering,
            })
        }),
        false => response,
    })
}

/// The answer to a request that is not there in whole.
fn refused(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Problem::new(status, text).into_response();
    guard::protect(response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn answer_to(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(|body: Bytes| async move { body });
        let (_stop, stopping) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, router, stopping, Duration::ZERO));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        serving.abort();
        answer
    }

    // The clock goes on by itself when nothing else does.
    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
        let whole = answer_to(&format!("{head}Content-Length: 2\r\n\r\nab")).await;
        assert!(
            whole.starts_with("HTTP/1.1 200") && whole.ends_with("ab"),
            "{whole}"
        );
        let slow = answer_to(&format!("{head}Content-Length: 2\r\n\r\na")).await;
        assert!(slow.starts_with("HTTP/1.1 408"), "{slow}");
        assert!(slow.contains("nosniff"), "{slow}");
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n8000\r\n");
        let long = answer_to(&format!("{chunked}{}", "a".repeat(0x8000))).await;
        assert!(long.starts_with("HTTP/1.1 413"), "{long}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_is_given_up() {
        for head in ["", "GET / HTTP/1.1\r\nHost: a\r\n"] {
            let answer = answer_to(head).await;
            assert!(!answer.contains("200"), "{answer}");
        }
    }

    #[test]
    fn the_longest_waiting_goes_before_those_that_are_answered() {
        let table = Arc::<Table>::default();
        let mut open: Vec<_> = (0..MAX_CONNECTIONS).map(|_| table.add()).collect();
        open[0].0.set_answering(true);
        let is_closed = |closed: &mut oneshot::Receiver<()>| {
            closed.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        let (_newest, mut closed) = table.add();
        assert!(is_closed(&mut open[1].1) && !is_closed(&mut open[0].1) && !is_closed(&mut closed));
        // It has waited since its answer was complete.
        open[2].0.set_answering(true);
        open[2].0.set_answering(false);
        let _another = table.add();
        assert!(is_closed(&mut open[3].1) && !is_closed(&mut open[2].1));
        let others = &open[4..];
        others
            .iter()
            .for_each(|(connection, _)| connection.set_answering(true));
        for _ in 0..4 {
            let (connection, closed) = table.add();
            connection.set_answering(true);
            open.push((connection, closed));
        }
        // Nobody waits any more: the longest answer.
        assert!(is_closed(&mut open[0].1));
        assert_eq!(table.entries.lock().open.len(), MAX_CONNECTIONS);
    }
}
