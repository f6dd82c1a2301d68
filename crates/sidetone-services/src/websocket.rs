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
    io::AsyncWriteExt,
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
    accepting: AbortHandle,
}

impl Service {
    pub(crate) async fn start(rules: impl Rules) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (trouble, watched) = watch::channel(Trouble::None);
        let connections = Arc::<AtomicUsize>::default();
        let (rules, counter) = (Arc::new(rules), Arc::clone(&connections));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(Arc::clone(&rules), stream, watched.clone()));
            }
        });
        Ok(Self {
            address,
            trouble,
            connections,
            accepting: accepting.abort_handle(),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, trouble: Trouble) {
        self.trouble.send_replace(trouble);
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

async fn serve(rules: Arc<impl Rules>, stream: TcpStream, mut trouble: watch::Receiver<Trouble>) {
    let mut until_down = trouble.clone();
    tokio::select! {
        // First, or a client that is quick would be served up to the first moment in which nothing is to be read.
        biased;
        _ = until_down.wait_for(|it| *it == Trouble::Down) => {}
        // A client that breaks the connection, or never begins one, is no concern of the service.
        _ = converse(rules, stream, &mut trouble) => {}
    }
}

async fn converse(
    rules: Arc<impl Rules>,
    mut stream: TcpStream,
    trouble: &mut watch::Receiver<Trouble>,
) -> Result<(), tokio_websockets::Error> {
    let request = Request::peek(&stream).await?;
    let wrong = *trouble.borrow();
    let admitted = match wrong {
        Trouble::Refuse(status) => Err(status),
        _ => rules.admit(&request),
    };
    let mut dialog = match admitted {
        Ok(dialog) => dialog,
        Err(status) => {
            let refusal = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(refusal.as_bytes()).await?;
            return Ok(());
        }
    };
    let (_, mut socket) = ServerBuilder::new().accept(stream).await?;
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
            _ => {}
        }
        if say(&mut socket, answer).await? {
            return Ok(());
        }
    }
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
