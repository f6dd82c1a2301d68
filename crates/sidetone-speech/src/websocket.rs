mod handshake;

use std::{fmt, io, time::Duration};

use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue, Uri};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_websockets::{
    ClientBuilder, Connector, Error, Limits, MaybeTlsStream, Message, Payload, WebSocketStream,
    upgrade,
};

use crate::{SpeechError, tls, words};
use handshake::{Beginning, Refusal};

/// Name look-up, connection, TLS and handshake have to be done by then.
const CONNECT: Duration = Duration::from_secs(10);
/// Whoever does not take a piece of audio for so long does not listen.
const SEND: Duration = Duration::from_secs(10);
/// No service has that much to say at once: it is a quarter of an hour of words with their times.
const LONGEST_MESSAGE: usize = 256 * 1024;

/// Where a service is reached by WebSocket.
pub(crate) struct Endpoint {
    service: &'static str,
    uri: Uri,
    host: String,
    port: u16,
    connector: Connector,
}

impl Endpoint {
    /// `address` as `ws://host:port/path` or with `wss`.
    pub(crate) fn new(service: &'static str, address: &str) -> Result<Self, SpeechError> {
        let wrong = |why: &str| {
            SpeechError::Settings(format!("{address:?} is no address of {service}: {why}"))
        };
        let uri: Uri = address
            .parse()
            .map_err(|_| wrong("write ws://HOST:PORT or wss://HOST"))?;
        let (connector, usual) = match uri.scheme_str() {
            Some("ws") => (Connector::Plain, 80),
            Some("wss") => (Connector::Rustls(tls::client_config()?.into()), 443),
            _ => return Err(wrong("write ws://HOST:PORT or wss://HOST")),
        };
        // They would not be sent, and must not be shown.
        if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
            return Err(SpeechError::Settings(format!(
                "the address of {service} can't hold a user name"
            )));
        }
        let host = uri.host().unwrap_or_default();
        Ok(Self {
            service,
            // Only the URI has them in brackets.
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(usual),
            connector,
            uri,
        })
    }

    /// `query` is added to the address.
    pub(crate) async fn connect(
        &self,
        query: &str,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Connection, SpeechError> {
        match timeout(CONNECT, self.open(query, headers)).await {
            Ok(connected) => connected,
            Err(_) => Err(self.unavailable("no answer within 10 s".into())),
        }
    }

    async fn open(
        &self,
        query: &str,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Connection, SpeechError> {
        let (stream, left) = Beginning::new(self.stream().await.map_err(|it| self.cant(&it))?);
        let mut builder = ClientBuilder::from_uri(self.asking(query))
            .limits(Limits::default().max_payload_len(Some(LONGEST_MESSAGE)));
        for (name, value) in headers {
            let named = builder.add_header(name.clone(), value.clone());
            builder = named.map_err(|it| self.cant(&it))?;
        }
        let error = match builder.connect_on(stream).await {
            Ok((mut socket, _)) => {
                socket.get_mut().begun();
                return Ok(Connection {
                    service: self.service,
                    socket,
                    owed: None,
                });
            }
            Err(Error::Upgrade(error)) => error,
            Err(error) => return Err(self.cant(&error)),
        };
        // Services show what they were sent.
        let secrets = headers.iter().filter_map(|(_, value)| value.to_str().ok());
        let secrets = secrets.filter_map(|it| it.split(' ').next_back());
        let secrets: Vec<&str> = secrets.collect();
        let refusal = left.refusal().await;
        Err(match error {
            upgrade::Error::DidNotSwitchProtocols(status) => {
                self.refused(status, &refusal, &secrets)
            }
            error => {
                let reason = match words::of(&refusal.body, &secrets) {
                    said if said.is_empty() => error.to_string(),
                    said => said,
                };
                self.unavailable(format!("it does not speak WebSocket: {reason}"))
            }
        })
    }

    async fn stream(&self) -> Result<MaybeTlsStream<TcpStream>, Error> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        self.connector.wrap(&self.host, stream).await
    }

    fn cant(&self, error: &Error) -> SpeechError {
        self.unavailable(error.to_string())
    }

    fn asking(&self, query: &str) -> Uri {
        if query.is_empty() {
            return self.uri.clone();
        }
        let known = self.uri.query().filter(|it| !it.is_empty());
        let separator = if known.is_some() { "&" } else { "?" };
        let uri = format!("{}{separator}{query}", self.uri);
        // What is added is encoded, so it can't spoil an address.
        uri.parse().unwrap_or_else(|_| self.uri.clone())
    }

    fn refused(&self, status: u16, refusal: &Refusal, secrets: &[&str]) -> SpeechError {
        let hint = match status {
            200..=299 => ": it answers, but with no WebSocket: is the address right?",
            401 | 403 => ": are the credentials right?",
            402 => ": the account has nothing left to pay with",
            404 => ": is the address right?",
            429 => ": too many requests",
            _ => "",
        };
        let said = match words::of(&refusal.body, secrets) {
            said if said.is_empty() => said,
            said => format!(": {said}"),
        };
        let reason = match status {
            300..=399 => words::moved(status, refusal.location.as_deref(), &self.uri, secrets),
            _ => format!("status {status}{hint}{said}"),
        };
        match status {
            408 | 425 | 429 | 500.. => self.unavailable(reason),
            _ => SpeechError::Refused {
                service: self.service,
                reason,
            },
        }
    }

    fn unavailable(&self, reason: String) -> SpeechError {
        SpeechError::Unavailable {
            service: self.service,
            reason,
        }
    }
}

/// Without the query, which says nothing about where it goes.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let authority = self.uri.authority().map_or("", |it| it.as_str());
        write!(f, "{scheme}://{authority}{}", self.uri.path())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// What a service sent.
#[derive(Debug)]
pub(crate) enum Said {
    Text(String),
    /// It closed the connection: a code as in RFC 6455, and its reason.
    Closed(u16, String),
}

pub(crate) struct Connection {
    service: &'static str,
    socket: WebSocketStream<Beginning<MaybeTlsStream<TcpStream>>>,
    /// Since when a ping has been without its answer. Answers wait without a limit, so nothing is read until they
    /// are gone.
    owed: Option<Instant>,
}

impl Connection {
    pub(crate) async fn send_text(&mut self, text: impl Into<Payload>) -> Result<(), SpeechError> {
        self.send(Message::text(text)).await
    }

    pub(crate) async fn send_binary(&mut self, bytes: Vec<u8>) -> Result<(), SpeechError> {
        self.send(Message::binary(bytes)).await
    }

    /// Ends it without waiting for the other side to agree.
    #[cfg(feature = "vosk")]
    pub(crate) async fn close(mut self) {
        // Everything is said: whether it hears of the end changes nothing.
        let _ = self
            .send(Message::close(
                Some(tokio_websockets::CloseCode::NORMAL_CLOSURE),
                "",
            ))
            .await;
    }

    async fn send(&mut self, message: Message) -> Result<(), SpeechError> {
        match timeout(SEND, self.socket.send(message)).await {
            Ok(Ok(())) => {
                self.owed = None;
                Ok(())
            }
            Ok(Err(error)) => Err(self.broken(error.to_string())),
            Err(_) => Err(self.broken("it takes no more audio".into())),
        }
    }

    /// Sends the answers to pings. Cancel safe.
    async fn answer(&mut self) -> Result<(), SpeechError> {
        let Some(since) = self.owed else {
            return Ok(());
        };
        match timeout_at(since + SEND, self.socket.flush()).await {
            Ok(Ok(())) => {
                self.owed = None;
                Ok(())
            }
            Ok(Err(error)) => Err(self.broken(error.to_string())),
            Err(_) => Err(self.broken("it asks for signs of life and takes none".into())),
        }
    }

    /// Waits for what the service says next. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Said, SpeechError> {
        loop {
            self.answer().await?;
            let message = match self.socket.next().await {
                Some(Ok(message)) => message,
                Some(Err(Error::Io(error))) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(self.broken("it was cut".into()));
                }
                Some(Err(error)) => return Err(self.broken(error.to_string())),
                None => return Err(self.broken("it was cut".into())),
            };
            if message.is_ping() {
                self.owed.get_or_insert_with(Instant::now);
            }
            if let Some(text) = message.as_text() {
                return Ok(Said::Text(text.to_owned()));
            }
            if let Some((code, reason)) = message.as_close() {
                return Ok(Said::Closed(code.into(), reason.to_owned()));
            }
        }
    }

    /// It closed the connection before everything was said.
    pub(crate) fn closed(&self, code: u16, reason: &str) -> SpeechError {
        let reason = format!("the service closed it: {code} {reason}");
        self.broken(reason.trim_end().into())
    }

    /// What it sent is none of its messages: what is told is what it says.
    pub(crate) fn strange(&self, message: &str) -> SpeechError {
        self.broken(match words::of(message.as_bytes(), &[]) {
            said if said.is_empty() => "an empty message".into(),
            said => format!("it says: {said}"),
        })
    }

    pub(crate) fn broken(&self, reason: String) -> SpeechError {
        SpeechError::Broken {
            service: self.service,
            reason,
        }
    }
}

/// Samples as linear 16-bit PCM, little endian.
pub(crate) fn linear16(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|it| it.to_le_bytes()).collect()
}
