//! Services that speak WebSocket: their connections, with errors as recognizers have them.

use std::{fmt, time::Duration};

use http::{HeaderName, HeaderValue};
use sidetone_websocket::{ConnectError, ConnectionError, Message, Request, service_message};
use tokio::time::timeout;

use crate::SpeechError;

/// A service that takes no data for this long is broken.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The address of a service.
pub(crate) struct Endpoint {
    service: &'static str,
    endpoint: sidetone_websocket::Endpoint,
}

impl Endpoint {
    /// Parses an address of the form `ws://host:port/path` or `wss://…`.
    pub(crate) fn new(service: &'static str, address: &str) -> Result<Self, SpeechError> {
        match sidetone_websocket::Endpoint::new(address) {
            Ok(endpoint) => Ok(Self { service, endpoint }),
            Err(error) => Err(SpeechError::Settings(format!("{service}: {error}"))),
        }
    }

    /// Connects, with `query` added to the address.
    pub(crate) async fn connect(
        &self,
        query: &str,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Connection, SpeechError> {
        let service = self.service;
        let request = Request {
            query: query.into(),
            headers: headers.into(),
            ..Request::default()
        };
        match self.endpoint.connect(&request).await {
            Ok(connection) => Ok(Connection {
                service,
                connection,
            }),
            Err(error) => {
                let is_temporary = error.is_temporary();
                let (ConnectError::Refused { reason, .. } | ConnectError::Unavailable { reason }) =
                    error;
                Err(match is_temporary {
                    true => SpeechError::Unavailable { service, reason },
                    false => SpeechError::Refused { service, reason },
                })
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.endpoint, f)
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
    connection: sidetone_websocket::Connection,
}

impl Connection {
    pub(crate) async fn send_text(&mut self, text: impl Into<String>) -> Result<(), SpeechError> {
        self.send(Message::Text(text.into())).await
    }

    pub(crate) async fn send_binary(&mut self, bytes: Vec<u8>) -> Result<(), SpeechError> {
        self.send(Message::Binary(bytes)).await
    }

    #[cfg(feature = "vosk")]
    pub(crate) async fn close(self) {
        self.connection.close(1000).await;
    }

    async fn send(&mut self, message: Message) -> Result<(), SpeechError> {
        self.connection.queue(message);
        match timeout(SEND_TIMEOUT, self.connection.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.send_failed(error).await),
            Err(_) => Err(self.broken("it takes no more audio".into())),
        }
    }

    /// The error for data that can't be sent. A service that closed the connection has said why.
    async fn send_failed(&mut self, error: ConnectionError) -> SpeechError {
        let close = async {
            loop {
                if let Received::Closed(code, reason) = self.next().await? {
                    return Ok::<_, SpeechError>((code, reason));
                }
            }
        };
        match timeout(SEND_TIMEOUT, close).await {
            Ok(Ok((code, reason))) => self.closed(code, &reason),
            Ok(Err(_)) | Err(_) => self.broken(error.to_string()),
        }
    }

    /// Waits for the next message. Cancellation safe.
    pub(crate) async fn next(&mut self) -> Result<Received, SpeechError> {
        use sidetone_websocket::Received as Message;
        loop {
            match self.connection.next().await {
                Ok(Message::Text(text)) => return Ok(Received::Text(text)),
                Ok(Message::Closed { code, reason }) => return Ok(Received::Closed(code, reason)),
                Ok(Message::Binary(_) | Message::Pong) => {}
                Err(error) => return Err(self.broken(error.to_string())),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::SinkExt;
    use tokio::{join, net::TcpListener};
    use tokio_websockets::{CloseCode, ServerBuilder};

    use super::*;

    #[tokio::test]
    async fn audio_that_cannot_be_sent_is_reported_with_the_reason_of_the_close() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("ws://{}", listener.local_addr().unwrap());
        let endpoint = Endpoint::new("Vosk", &address).unwrap();
        let accept = async {
            let (stream, _) = listener.accept().await.unwrap();
            ServerBuilder::new().accept(stream).await.unwrap().1
        };
        let (connection, mut server) = join!(endpoint.connect("", &[]), accept);
        let mut connection = connection.unwrap();
        let busy = CloseCode::SERVICE_OVERLOAD;
        let close = tokio_websockets::Message::close(Some(busy), "out of workers");
        server.send(close).await.unwrap();
        // Closing a socket with something to read resets its connection.
        connection.send_text("unread").await.unwrap();
        drop(server);
        let error = connection.send_binary(vec![0; 320]).await.unwrap_err();
        let expected = "the connection to Vosk broke: the service closed it: 1013 out of workers";
        assert_eq!(error.to_string(), expected);
    }
}
