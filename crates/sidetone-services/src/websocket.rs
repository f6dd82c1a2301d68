//! What the stand-ins with WebSocket share: connections, and what can go wrong with them.

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

/// What is wrong with a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// Each connection is cut once it has taken so much audio.
    CutAfter(Duration),
    /// Each connection is refused with this HTTP status.
    Refuse(u16),
    /// The same, and this is what is said about it.
    RefuseSaying(u16, &'static str),
    /// It has moved to this address.
    Moved(&'static str),
    /// It answers with so many bytes of a header that does not end.
    EndlessHandshake(usize),
    /// It takes nothing, and sends up to so many bytes of pings as fast as it can.
    Pings(usize),
    /// It answers with this text in place of its own.
    Say(&'static str),
    /// It takes audio and says nothing.
    Hang,
    /// It takes so long for each message.
    Slow(Duration),
    /// It is not there: connections are cut at once, those that are open too.
    Down,
}

/// A service on a port of 127.0.0.1, until it is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    address: SocketAddr,
    trouble: watch::Sender<Trouble>,
    connections: Arc<AtomicUsize>,
    flooded: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl Service {
    pub(crate) async fn start(rules: impl Rules) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (trouble, watched) = watch::channel(Trouble::None);
        let connections = Arc::<AtomicUsize>::default();
        let (rules, counter) = (Arc::new(rules), Arc::clone(&connections));
        let flooded = Arc::<AtomicUsize>::default();
        let flood = Arc::clone(&flooded);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let (rules, flood) = (Arc::clone(&rules), Arc::clone(&flood));
                tokio::spawn(serve(rules, stream, watched.clone(), flood));
            }
        });
        Ok(Self {
            address,
            trouble,
            connections,
            flooded,
            accepting: accepting.abort_handle(),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, trouble: Trouble) {
        self.trouble.send_replace(trouble);
    }

    /// How many bytes it has sent where it floods.
    pub(crate) fn flooded(&self) -> usize {
        self.flooded.load(Ordering::Relaxed)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(Trouble::Down);
    }
}

/// The rules of one service.
pub(crate) trait Rules: Send + Sync + 'static {
    /// Begins a dialog, or refuses it with an HTTP status.
    fn admit(&self, request: &Request) -> Result<Box<dyn Dialog>, u16>;
}

/// One connection, as its service sees it.
pub(crate) trait Dialog: Send {
    /// Says what a message from the client leads to.
    fn hear(&mut self, message: &Message) -> Answer;

    /// How much audio was taken.
    fn taken(&self) -> Duration;

    /// How long the client may be silent, and what that leads to.
    fn patience(&self) -> Option<(Duration, Answer)> {
        None
    }
}

/// What a service sends.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) texts: Vec<String>,
    /// Afterwards it closes, with this code and reason.
    pub(crate) close: Option<(CloseCode, &'static str)>,
}

impl Answer {
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

/// What a client asks for.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// In the order of the query, decoded.
    pub(crate) parameters: Vec<(String, String)>,
    /// By names in small letters.
    pub(crate) headers: HashMap<String, String>,
}

impl Request {
    /// Reads it without taking it, as it may have to be refused before the WebSocket begins.
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
            // More is on its way, and nothing tells when it is there.
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
    mut trouble: watch::Receiver<Trouble>,
    flooded: Arc<AtomicUsize>,
) {
    let mut until_down = trouble.clone();
    tokio::select! {
        // First, or a client that is quick would be served up to the first moment in which nothing is to be read.
        biased;
        _ = until_down.wait_for(|it| *it == Trouble::Down) => {}
        // A client that breaks the connection, or never begins one, is no concern of the service.
        _ = converse(rules, stream, &mut trouble, &flooded) => {}
    }
}

async fn converse(
    rules: Arc<impl Rules>,
    mut stream: TcpStream,
    trouble: &mut watch::Receiver<Trouble>,
    flooded: &AtomicUsize,
) -> Result<(), tokio_websockets::Error> {
    let request = Request::peek(&stream).await?;
    let wrong = *trouble.borrow();
    let admitted = match wrong {
        Trouble::Refuse(status) => Err((status, "", "")),
        Trouble::RefuseSaying(status, text) => Err((status, "", text)),
        Trouble::Moved(address) => Err((308, address, "")),
        Trouble::EndlessHandshake(most) => {
            stream.write_all(b"HTTP/1.1 101 Yes\r\nX-Y: ").await?;
            return Ok(flood(&mut stream, &[b'x'; 4096], most, flooded).await?);
        }
        _ => rules.admit(&request).map_err(|status| (status, "", "")),
    };
    let mut dialog = match admitted {
        Ok(dialog) => dialog,
        Err((status, location, text)) => {
            let length = text.len();
            let head = format!(
                "HTTP/1.1 {status} No\r\nLocation: {location}\r\nContent-Length: {length}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await?;
            // In a segment of its own, as behind many a proxy.
            tokio::task::yield_now().await;
            stream.write_all(text.as_bytes()).await?;
            // Until the client goes.
            stream.read_to_end(&mut Vec::new()).await?;
            return Ok(());
        }
    };
    let (_, mut socket) = ServerBuilder::new().accept(stream).await?;
    if let Trouble::Pings(most) = wrong {
        let mut ping = [0; 127];
        [ping[0], ping[1]] = [0x89, 125];
        flood(socket.get_mut(), &ping, most, flooded).await?;
        std::future::pending::<()>().await;
    }
    loop {
        let patience = dialog.patience();
        let limit = patience.as_ref().map_or(Duration::MAX, |it| it.0);
        let answer = match (timeout(limit, socket.next()).await, patience) {
            (Ok(Some(message)), _) => dialog.hear(&message?),
            (Err(_), Some((_, answer))) => answer,
            _ => return Ok(()),
        };
        let wrong = *trouble.borrow();
        match wrong {
            Trouble::CutAfter(limit) if dialog.taken() >= limit => return Ok(()),
            Trouble::Hang => continue,
            Trouble::Slow(delay) => sleep(delay).await,
            Trouble::Say(text) if !answer.texts.is_empty() => {
                say(&mut socket, Answer::text(text)).await?;
                continue;
            }
            _ => {}
        }
        if say(&mut socket, answer).await? {
            return Ok(());
        }
    }
}

/// Sends the same again and again, and counts it.
async fn flood(
    stream: &mut TcpStream,
    piece: &[u8],
    most: usize,
    flooded: &AtomicUsize,
) -> io::Result<()> {
    let many = piece.repeat(100);
    while flooded.load(Ordering::Relaxed) < most {
        stream.write_all(&many).await?;
        flooded.fetch_add(many.len(), Ordering::Relaxed);
    }
    Ok(())
}

/// Whether that was the last.
async fn say(
    socket: &mut WebSocketStream<TcpStream>,
    answer: Answer,
) -> Result<bool, tokio_websockets::Error> {
    for text in answer.texts {
        socket.send(Message::text(text)).await?;
    }
    let Some((code, reason)) = answer.close else {
        return Ok(false);
    };
    socket.send(Message::close(Some(code), reason)).await?;
    // Until the client agrees, or goes.
    while let Ok(Some(Ok(_))) = timeout(Duration::from_secs(1), socket.next()).await {}
    Ok(true)
}

/// The samples in linear 16-bit PCM.
pub(crate) fn linear16(bytes: &[u8]) -> Vec<i16> {
    let pairs = bytes.chunks_exact(2);
    pairs.map(|it| i16::from_le_bytes([it[0], it[1]])).collect()
}
