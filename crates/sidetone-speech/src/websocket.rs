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

use crate::{SpeechError, service_message, tls};
use handshake::{HandshakeStream, Refusal};

/// The time for name look-up, connection, TLS and handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A service that takes no data for this long is broken.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest message accepted, in bytes. It would hold the words of a quarter of an hour with
/// their times.
const MAX_MESSAGE_LEN: usize = 256 * 1024;

/// The address of a service that speaks WebSocket.
pub(crate) struct Endpoint {
    service: &'static str,
    uri: Uri,
    host: String,
    port: u16,
    connector: Connector,
}

impl Endpoint {
    /// Parses an address of the form `ws://host:port/path` or `wss://…`.
    pub(crate) fn new(service: &'static str, address: &str) -> Result<Self, SpeechError> {
        let invalid = |why: &str| {
            SpeechError::Settings(format!("{address:?} is not an address of {service}: {why}"))
        };
        let uri: Uri = address
            .parse()
            .map_err(|_| invalid("write ws://HOST:PORT or wss://HOST"))?;
        let (connector, default_port) = match uri.scheme_str() {
            Some("ws") => (Connector::Plain, 80),
            Some("wss") => (Connector::Rustls(tls::client_config()?.into()), 443),
            _ => return Err(invalid("write ws://HOST:PORT or wss://HOST")),
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
            // Only the URI has IPv6 addresses in brackets.
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(default_port),
            connector,
            uri,
        })
    }

    /// Connects, with `query` added to the address.
    pub(crate) async fn connect(
        &self,
        query: &str,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Connection, SpeechError> {
        match timeout(CONNECT_TIMEOUT, self.open(query, headers)).await {
            Ok(connected) => connected,
            Err(_) => Err(self.unavailable("no reply within 10 s".into())),
        }
    }

    async fn open(
        &self,
        query: &str,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Connection, SpeechError> {
        let (stream, refused) = HandshakeStream::new(
            self.connect_stream()
                .await
                .map_err(|it| self.connect_error(&it))?,
        );
        let mut builder = ClientBuilder::from_uri(self.with_query(query))
            .limits(Limits::default().max_payload_len(Some(MAX_MESSAGE_LEN)));
        for (name, value) in headers {
            let named = builder.add_header(name.clone(), value.clone());
            builder = named.map_err(|it| self.connect_error(&it))?;
        }
        let error = match builder.connect_on(stream).await {
            Ok((mut socket, _)) => {
                socket.get_mut().established();
                return Ok(Connection {
                    service: self.service,
                    socket,
                    pong_due: None,
                });
            }
            Err(Error::Upgrade(error)) => error,
            Err(error) => return Err(self.connect_error(&error)),
        };
        // Services may repeat what they were sent.
        let secrets = headers.iter().filter_map(|(_, value)| value.to_str().ok());
        let secrets = secrets.filter_map(|it| it.split(' ').next_back());
        let secrets: Vec<&str> = secrets.collect();
        let refusal = refused.refusal().await;
        Err(match error {
            upgrade::Error::DidNotSwitchProtocols(status) => {
                self.refused(status, &refusal, &secrets)
            }
            error => {
                let reason = match service_message::from_body(&refusal.body, &secrets) {
                    message if message.is_empty() => error.to_string(),
                    message => message,
                };
                self.unavailable(format!("it does not speak WebSocket: {reason}"))
            }
        })
    }

    async fn connect_stream(&self) -> Result<MaybeTlsStream<TcpStream>, Error> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        self.connector.wrap(&self.host, stream).await
    }

    fn connect_error(&self, error: &Error) -> SpeechError {
        self.unavailable(error.to_string())
    }

    fn with_query(&self, query: &str) -> Uri {
        if query.is_empty() {
            return self.uri.clone();
        }
        let known = self.uri.query().filter(|it| !it.is_empty());
        let separator = if known.is_some() { "&" } else { "?" };
        let uri = format!("{}{separator}{query}", self.uri);
        // The query is percent-encoded, so this can't fail.
        uri.parse().unwrap_or_else(|_| self.uri.clone())
    }

    fn refused(&self, status: u16, refusal: &Refusal, secrets: &[&str]) -> SpeechError {
        let hint = match status {
            200..=299 => ": it replies, but not as a WebSocket: is the address right?",
            401 | 403 => ": are the credentials right?",
            402 => ": the account has no credit left",
            404 => ": is the address right?",
            429 => ": too many requests",
            _ => "",
        };
        let message = match service_message::from_body(&refusal.body, secrets) {
            message if message.is_empty() => message,
            message => format!(": {message}"),
        };
        let reason = match status {
            300..=399 => {
                service_message::redirect(status, refusal.location.as_deref(), &self.uri, secrets)
            }
            _ => format!("status {status}{hint}{message}"),
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

/// Without the query, which may hold settings.
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
pub(crate) enum Received {
    Text(String),
    /// The service closed the connection, with a code (RFC 6455, 7.4) and a reason.
    Closed(u16, String),
}

pub(crate) struct Connection {
    service: &'static str,
    socket: WebSocketStream<HandshakeStream<MaybeTlsStream<TcpStream>>>,
    /// When the oldest unsent pong was queued. The queue of pongs has no limit, so nothing is read
    /// until they are sent.
    pong_due: Option<Instant>,
}

impl Connection {
    pub(crate) async fn send_text(&mut self, text: impl Into<Payload>) -> Result<(), SpeechError> {
        self.send(Message::text(text)).await
    }

    pub(crate) async fn send_binary(&mut self, bytes: Vec<u8>) -> Result<(), SpeechError> {
        self.send(Message::binary(bytes)).await
    }

    /// Closes the connection without waiting for the other side's close.
    #[cfg(feature = "vosk")]
    pub(crate) async fn close(mut self) {
        // The transcripts are complete, so a failure changes nothing.
        let _ = self
            .send(Message::close(
                Some(tokio_websockets::CloseCode::NORMAL_CLOSURE),
                "",
            ))
            .await;
    }

    async fn send(&mut self, message: Message) -> Result<(), SpeechError> {
        match timeout(SEND_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => {
                self.pong_due = None;
                Ok(())
            }
            Ok(Err(error)) => Err(self.broken(error.to_string())),
            Err(_) => Err(self.broken("it takes no more audio".into())),
        }
    }

    /// Sends queued pongs. Cancellation safe.
    async fn flush_pongs(&mut self) -> Result<(), SpeechError> {
        let Some(since) = self.pong_due else {
            return Ok(());
        };
        match timeout_at(since + SEND_TIMEOUT, self.socket.flush()).await {
            Ok(Ok(())) => {
                self.pong_due = None;
                Ok(())
            }
            Ok(Err(error)) => Err(self.broken(error.to_string())),
            Err(_) => Err(self.broken("it sends pings and takes no pongs".into())),
        }
    }

    /// Waits for the next message. Cancellation safe.
    pub(crate) async fn next(&mut self) -> Result<Received, SpeechError> {
        loop {
            self.flush_pongs().await?;
            let message = match self.socket.next().await {
                Some(Ok(message)) => message,
                Some(Err(Error::Io(error))) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(self.broken("it was cut off".into()));
                }
                Some(Err(error)) => return Err(self.broken(error.to_string())),
                None => return Err(self.broken("it was cut off".into())),
            };
            if message.is_ping() {
                self.pong_due.get_or_insert_with(Instant::now);
            }
            if let Some(text) = message.as_text() {
                return Ok(Received::Text(text.to_owned()));
            }
            if let Some((code, reason)) = message.as_close() {
                return Ok(Received::Closed(code.into(), reason.to_owned()));
            }
        }
    }

    /// The error for a connection that the service closed too early.
    pub(crate) fn closed(&self, code: u16, reason: &str) -> SpeechError {
        let reason = format!("the service closed it: {code} {reason}");
        self.broken(reason.trim_end().into())
    }

    /// The error for a message that is not of the service's protocol. It quotes the message.
    pub(crate) fn unexpected(&self, message: &str) -> SpeechError {
        self.broken(match service_message::from_body(message.as_bytes(), &[]) {
            text if text.is_empty() => "an empty message".into(),
            text => format!("it says: {text}"),
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
