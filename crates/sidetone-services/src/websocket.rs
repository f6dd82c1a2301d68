//! What the WebSocket stand-ins share: connections, and injected faults.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use percent_encoding::percent_decode_str;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_websockets::{CloseCode, Message, ServerBuilder, WebSocketStream};

/// A fault to inject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// None.
    #[default]
    None,
    /// Each connection is cut off once it has taken this much audio.
    CutAfter(Duration),
    /// Each connection is refused with this HTTP status.
    Refuse(u16),
    /// Each connection is refused with this HTTP status and body.
    RefuseWith(u16, &'static str),
    /// Each connection is redirected to this address.
    Moved(&'static str),
    /// The handshake sends up to this many bytes of a header that does not end.
    EndlessHandshake(usize),
    /// The server reads nothing, and sends up to this many bytes of pings as fast as it can.
    Pings(usize),
    /// Each reply is replaced by this text.
    Reply(&'static str),
    /// The server takes audio and does not reply.
    Hang,
    /// Each message takes this long.
    Slow(Duration),
    /// The server is down: new and open connections are cut off at once.
    Down,
}

/// A server on a port of 127.0.0.1, until it is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    connections: Arc<AtomicUsize>,
    flooded_bytes: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl Service {
    pub(crate) async fn start(rules: impl Rules) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (fault, watched) = watch::channel(Fault::None);
        let connections = Arc::<AtomicUsize>::default();
        let (rules, counter) = (Arc::new(rules), Arc::clone(&connections));
        let flooded_bytes = Arc::<AtomicUsize>::default();
        let flood = Arc::clone(&flooded_bytes);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let (rules, flood) = (Arc::clone(&rules), Arc::clone(&flood));
                tokio::spawn(serve(rules, stream, watched.clone(), flood));
            }
        });
        Ok(Self {
            address,
            fault,
            connections,
            flooded_bytes,
            accepting: accepting.abort_handle(),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// How many bytes were sent by a fault that floods.
    pub(crate) fn flooded_bytes(&self) -> usize {
        self.flooded_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(Fault::Down);
    }
}

/// The protocol of one service.
pub(crate) trait Rules: Send + Sync + 'static {
    /// Starts a session, or refuses it with an HTTP status.
    fn admit(&self, request: &Request) -> Result<Box<dyn Session>, u16>;
}

/// One connection, from the server's side.
pub(crate) trait Session: Send {
    /// What the server says first.
    fn greeting(&mut self) -> Reply {
        Reply::default()
    }

    /// Handles a message from the client.
    fn handle_message(&mut self, message: &Message) -> Reply;

    /// How much audio was taken.
    fn audio_taken(&self) -> Duration;

    /// How long the client may send nothing, and the reply if it does.
    fn idle_timeout(&self) -> Option<(Duration, Reply)> {
        None
    }
}

/// What the server sends.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) texts: Vec<String>,
    /// The code and reason to close with, after the texts.
    pub(crate) close: Option<(CloseCode, &'static str)>,
}

impl Reply {
    pub(crate) fn text(text: impl ToString) -> Self {
        Self {
            texts: vec![text.to_string()],
            close: None,
        }
    }

    pub(crate) fn close(code: CloseCode, reason: &'static str) -> Self {
        Self::default().and_close(code, reason)
    }

    pub(crate) fn and_close(mut self, code: CloseCode, reason: &'static str) -> Self {
        self.close = Some((code, reason));
        self
    }
}

/// The client's HTTP request.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// In the order of the query, decoded.
    pub(crate) parameters: Vec<(String, String)>,
    /// By names in lower case.
    pub(crate) headers: HashMap<String, String>,
}

impl Request {
    /// Reads the request without consuming it, since it may be refused before the WebSocket starts.
    async fn peek(stream: &TcpStream) -> io::Result<Self> {
        let mut buffer = vec![0; 8192];
        loop {
            let length = stream.peek(&mut buffer).await?;
            let head = String::from_utf8_lossy(&buffer[..length]);
            if let Some((head, _)) = head.split_once("\r\n\r\n") {
                return Ok(Self::parse(head));
            }
            if length == 0 || length == buffer.len() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            // The rest is on its way; peeking can't wait for it.
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn parse(head: &str) -> Self {
        let mut lines = head.lines();
        let target = lines.next().unwrap_or_default().split(' ').nth(1);
        let (path, query) = target
            .map(|it| it.split_once('?').unwrap_or((it, "")))
            .unwrap_or_default();
        let headers = lines.filter_map(|it| it.split_once(": "));
        let parameters = query.split('&').filter_map(|it| it.split_once('='));
        Self {
            path: path.into(),
            parameters: parameters
                .map(|(name, value)| {
                    let value = percent_decode_str(value).decode_utf8_lossy();
                    (name.into(), value.into_owned())
                })
                .collect(),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.into()))
                .collect(),
        }
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| value.as_str())
    }
}

async fn serve(
    rules: Arc<impl Rules>,
    stream: TcpStream,
    mut fault: watch::Receiver<Fault>,
    flooded_bytes: Arc<AtomicUsize>,
) {
    let mut until_down = fault.clone();
    tokio::select! {
        // First, or a fast client would be served until nothing is left to read.
        biased;
        _ = until_down.wait_for(|it| *it == Fault::Down) => {}
        // A client that disconnects is not an error of the server.
        _ = handle_connection(rules, stream, &mut fault, &flooded_bytes) => {}
    }
}

async fn handle_connection(
    rules: Arc<impl Rules>,
    mut stream: TcpStream,
    fault: &mut watch::Receiver<Fault>,
    flooded_bytes: &AtomicUsize,
) -> Result<(), tokio_websockets::Error> {
    let request = Request::peek(&stream).await?;
    let injected = *fault.borrow();
    let admitted = match injected {
        Fault::Refuse(status) => Err((status, "", "")),
        Fault::RefuseWith(status, text) => Err((status, "", text)),
        Fault::Moved(address) => Err((308, address, "")),
        Fault::EndlessHandshake(max_bytes) => {
            stream.write_all(b"HTTP/1.1 101 Yes\r\nX-Y: ").await?;
            return Ok(flood(&mut stream, &[b'x'; 4096], max_bytes, flooded_bytes).await?);
        }
        _ => rules.admit(&request).map_err(|status| (status, "", "")),
    };
    let mut session = match admitted {
        Ok(session) => session,
        Err((status, location, text)) => {
            let length = text.len();
            let head = format!(
                "HTTP/1.1 {status} No\r\nLocation: {location}\r\nContent-Length: {length}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await?;
            // In a segment of its own, as from many proxies.
            tokio::task::yield_now().await;
            stream.write_all(text.as_bytes()).await?;
            // Until the client disconnects.
            stream.read_to_end(&mut Vec::new()).await?;
            return Ok(());
        }
    };
    let (_, mut socket) = ServerBuilder::new().accept(stream).await?;
    if let Fault::Pings(max_bytes) = injected {
        let mut ping = [0; 127];
        [ping[0], ping[1]] = [0x89, 125];
        flood(socket.get_mut(), &ping, max_bytes, flooded_bytes).await?;
        std::future::pending::<()>().await;
    }
    send_reply(&mut socket, session.greeting()).await?;
    loop {
        let idle_timeout = session.idle_timeout();
        let limit = idle_timeout.as_ref().map_or(Duration::MAX, |it| it.0);
        let reply = match (timeout(limit, socket.next()).await, idle_timeout) {
            (Ok(Some(message)), _) => session.handle_message(&message?),
            (Err(_), Some((_, reply))) => reply,
            _ => return Ok(()),
        };
        let injected = *fault.borrow();
        match injected {
            Fault::CutAfter(limit) if session.audio_taken() >= limit => return Ok(()),
            Fault::Hang => continue,
            Fault::Slow(delay) => sleep(delay).await,
            Fault::Reply(text) if !reply.texts.is_empty() => {
                send_reply(&mut socket, Reply::text(text)).await?;
                continue;
            }
            _ => {}
        }
        if send_reply(&mut socket, reply).await? {
            return Ok(());
        }
    }
}

/// Sends the same bytes again and again, and counts them.
async fn flood(
    stream: &mut TcpStream,
    chunk: &[u8],
    max_bytes: usize,
    flooded_bytes: &AtomicUsize,
) -> io::Result<()> {
    let many = chunk.repeat(100);
    while flooded_bytes.load(Ordering::Relaxed) < max_bytes {
        stream.write_all(&many).await?;
        flooded_bytes.fetch_add(many.len(), Ordering::Relaxed);
    }
    Ok(())
}

/// Sends a reply. Returns true if it closed the connection.
async fn send_reply(
    socket: &mut WebSocketStream<TcpStream>,
    reply: Reply,
) -> Result<bool, tokio_websockets::Error> {
    for text in reply.texts {
        socket.send(Message::text(text)).await?;
    }
    let Some((code, reason)) = reply.close else {
        return Ok(false);
    };
    socket.send(Message::close(Some(code), reason)).await?;
    // Until the client closes, too.
    while let Ok(Some(Ok(_))) = timeout(Duration::from_secs(1), socket.next()).await {}
    Ok(true)
}

/// The samples of linear 16-bit PCM.
pub(crate) fn linear16(bytes: &[u8]) -> Vec<i16> {
    let pairs = bytes.chunks_exact(2);
    pairs.map(|it| i16::from_le_bytes([it[0], it[1]])).collect()
}
