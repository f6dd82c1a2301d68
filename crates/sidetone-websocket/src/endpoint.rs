//! The address of a service, and the way to a connection.

use std::{fmt, path::Path, time::Duration};

use http::{HeaderName, HeaderValue, Uri, header::SEC_WEBSOCKET_PROTOCOL, uri::InvalidUri};
use thiserror::Error;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};
use tokio_websockets::{ClientBuilder, Config, Connector, Error, Limits, MaybeTlsStream, upgrade};

use crate::{
    Connection,
    peer_stream::{PeerStream, Refusal},
    service_message,
    tls::{self, TlsError, rustls},
};

/// What is shorter is no secret, and hiding it would make messages unreadable.
const MIN_SECRET_LEN: usize = 4;

/// Why an address can't be used. The texts show neither its query nor a user name or password.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressError {
    /// It is not the address of a WebSocket.
    #[error("{shown:?} is not the address of a WebSocket: write ws://HOST:PORT or wss://HOST")]
    Invalid {
        /// The address, as far as it may be shown.
        shown: String,
    },
    /// It holds a user name, which would not be sent.
    #[error("the address of a WebSocket can't hold a user name")]
    UserName,
    /// It has no TLS, so no certificate would be checked.
    #[error(
        "{shown} has no certificate to check: write wss:// for TLS, or leave the certificates out"
    )]
    NoTls {
        /// The address, as far as it may be shown.
        shown: String,
    },
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why there is no connection. The reasons are for operators. They never hold the value of a header
/// or of the address's query.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConnectError {
    /// The service answered something else than a WebSocket.
    #[error("{reason}")]
    Refused {
        /// The HTTP status; 101 if the service opened a WebSocket with another subprotocol than
        /// asked for.
        status: u16,
        /// The status with what it usually means, and what the service says.
        reason: String,
    },
    /// There was no answer in HTTP: the name is unknown, nothing listens there, the certificate is
    /// not trusted, the time is over.
    #[error("{reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
}

impl ConnectError {
    /// Whether another attempt may succeed without a change of settings: nothing was refused, or
    /// with a status that passes (408, 425, 429 and from 500 on).
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            Self::Unavailable { .. } => true,
        }
    }

    fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable {
            reason: reason.into(),
        }
    }
}

/// What is asked of a service to open a connection.
#[derive(Clone)]
pub struct Request {
    /// Added to the address's query, percent-encoded, without a `?`. No secret: a refusal may show
    /// it.
    pub query: String,
    /// Headers to send. Of two with one name the later one is sent. Those of the WebSocket
    /// handshake can't be set.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The subprotocol to ask for. A service that answers another one is refused. One that answers
    /// none is accepted, as many answer none.
    pub subprotocol: Option<&'static str>,
    /// The longest message accepted, in bytes. The default is 256 KiB.
    pub max_message_len: usize,
    /// The time for name look-up, connection, TLS and handshake together. The default is 10 s.
    pub timeout: Duration,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            query: String::new(),
            headers: Vec::new(),
            subprotocol: None,
            max_message_len: 256 * 1024,
            timeout: Duration::from_secs(10),
        }
    }
}

/// Without the values of headers.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&HeaderName> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Request")
            .field("query", &self.query)
            .field("headers", &headers)
            .field("subprotocol", &self.subprotocol)
            .field("max_message_len", &self.max_message_len)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// The address of a service that speaks WebSocket.
///
/// `Display` and `Debug` show it without its query, which may hold a secret.
pub struct Endpoint {
    uri: Uri,
    host: String,
    port: u16,
    connector: Connector,
}

impl Endpoint {
    /// Parses an address of the form `ws://host:port/path?query` or `wss://…`, where the path and
    /// the query may be left out. For `wss://` it reads the certificates that the machine trusts.
    ///
    /// # Errors
    ///
    /// [`AddressError`] if it is another kind of address, holds a user name, or needs TLS on a
    /// machine without trusted certificates.
    pub fn new(address: &str) -> Result<Self, AddressError> {
        let invalid = || AddressError::Invalid {
            shown: without_secrets(address),
        };
        let uri: Uri = address.parse().map_err(|_: InvalidUri| invalid())?;
        let (is_tls, default_port) = match uri.scheme_str() {
            Some("ws") => (false, 80),
            Some("wss") => (true, 443),
            _ => return Err(invalid()),
        };
        if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
            return Err(AddressError::UserName);
        }
        // Only the URI has IPv6 addresses in brackets.
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(invalid());
        }
        let connector = match is_tls {
            true => Connector::Rustls(tls::client_config(tls::system_roots()?)?.into()),
            false => Connector::Plain,
        };
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(default_port),
            connector,
            uri,
        })
    }

    /// Trusts only the certificates in this file, in PEM format: those of a private authority, or
    /// the service's own.
    ///
    /// # Errors
    ///
    /// [`AddressError`] if the file can't be read or holds no certificate, or if the address is
    /// `ws://…`.
    pub fn with_roots(mut self, pem_file: &Path) -> Result<Self, AddressError> {
        if matches!(self.connector, Connector::Plain) {
            return Err(AddressError::NoTls {
                shown: self.to_string(),
            });
        }
        let config = tls::client_config(tls::roots_in(pem_file)?)?;
        self.connector = Connector::Rustls(config.into());
        Ok(self)
    }

    /// The whole address, with its query, which may hold a secret.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Connects. Dropping the future closes what was opened.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] with what the service said, or why nothing could be asked.
    pub async fn connect(&self, request: &Request) -> Result<Connection, ConnectError> {
        let mut builder = ClientBuilder::from_uri(self.with_query(&request.query)?)
            .config(Config::default().frame_size(usize::MAX))
            .limits(Limits::default().max_payload_len(Some(request.max_message_len)));
        for (name, value) in request.headers(self)? {
            builder = builder
                .add_header(name.clone(), value)
                .map_err(|_| not_to_be_set(&name))?;
        }
        let deadline = Deadline::after(request.timeout);
        let stream = self.connect_stream(&deadline).await?;
        let (stream, refused) = PeerStream::new(stream);
        let connected = deadline.limit(builder.connect_on(stream), "reply").await?;
        let error = match connected {
            Ok((socket, response)) => {
                let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
                self.check_subprotocol(chosen, request)?;
                return Ok(Connection::new(socket));
            }
            Err(Error::Upgrade(error)) => error,
            Err(_) if refused.has_ended() => {
                return Err(ConnectError::unavailable(
                    "it closed the connection without a whole reply",
                ));
            }
            Err(error) => return Err(ConnectError::unavailable(error.to_string())),
        };
        let secrets = self.secrets(request);
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        let refusal = refused.refusal(deadline.at).await;
        Err(match error {
            upgrade::Error::DidNotSwitchProtocols(status) => {
                self.refused(status, &refusal, &secrets)
            }
            error => {
                let reason = match service_message::from_body(&refusal.body, &secrets) {
                    message if message.is_empty() => error.to_string(),
                    message => message,
                };
                ConnectError::unavailable(format!("it does not speak WebSocket: {reason}"))
            }
        })
    }

    async fn connect_stream(
        &self,
        deadline: &Deadline,
    ) -> Result<MaybeTlsStream<TcpStream>, ConnectError> {
        let failed = |what: &str, error: &dyn fmt::Display| {
            ConnectError::unavailable(format!("{what}: {error}"))
        };
        let looked_up = lookup_host((self.host.as_str(), self.port));
        let addresses: Vec<_> = deadline
            .limit(looked_up, "address of its name")
            .await?
            .map_err(|error| failed("its name can't be looked up", &error))?
            .collect();
        let stream = deadline
            .limit(TcpStream::connect(&*addresses), "connection")
            .await?
            .map_err(|error| failed("no connection", &error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| failed("no connection", &error))?;
        let wrapped = self.connector.wrap(&self.host, stream);
        let error = match deadline.limit(wrapped, "TLS").await? {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let hint = match is_about_the_certificate(&error) {
            true => ": is its authority among those trusted, and the name in the address right?",
            false => "",
        };
        Err(ConnectError::unavailable(format!("no TLS: {error}{hint}")))
    }

    fn with_query(&self, query: &str) -> Result<Uri, ConnectError> {
        if query.is_empty() {
            return Ok(self.uri.clone());
        }
        let known = self.uri.query().filter(|it| !it.is_empty());
        let separator = match (known, self.uri.query()) {
            (Some(_), _) => "&",
            (None, Some(_)) => "",
            (None, None) => "?",
        };
        format!("{}{separator}{query}", self.uri)
            .parse()
            .map_err(|_: InvalidUri| {
                ConnectError::unavailable(
                    "the query is too long, or has characters that must be percent-encoded",
                )
            })
    }

    fn check_subprotocol(
        &self,
        chosen: Option<&HeaderValue>,
        request: &Request,
    ) -> Result<(), ConnectError> {
        let Some(chosen) = chosen else {
            return Ok(());
        };
        let asked = request.subprotocol;
        if asked.is_some_and(|it| it.as_bytes() == chosen.as_bytes()) {
            return Ok(());
        }
        let secrets = self.secrets(request);
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        let chosen = String::from_utf8_lossy(chosen.as_bytes());
        let chosen = service_message::one_line(&chosen, &secrets);
        Err(ConnectError::Refused {
            status: 101,
            reason: match asked {
                Some(asked) => {
                    format!(
                        "it speaks the subprotocol {chosen:?}, not {asked:?}: is it the right service?"
                    )
                }
                None => format!(
                    "it speaks the subprotocol {chosen:?}, which it was not asked for: is it the right service?"
                ),
            },
        })
    }

    fn refused(&self, status: u16, refusal: &Refusal, secrets: &[&str]) -> ConnectError {
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
        ConnectError::Refused { status, reason }
    }

    /// What must not be shown. Services may repeat what they were sent.
    fn secrets(&self, request: &Request) -> Vec<String> {
        let headers = request.headers.iter();
        let headers = headers.filter_map(|(_, value)| value.to_str().ok());
        // In "Bearer SECRET" the last word is one.
        let words = headers.clone().filter_map(|it| it.split(' ').next_back());
        let query = self.uri.query().unwrap_or_default();
        let sent = query
            .split('&')
            .filter_map(|it| Some(it.split_once('=')?.1));
        let meant = form_urlencoded::parse(query.as_bytes()).map(|(_, value)| value.into_owned());
        let mut secrets: Vec<String> = headers
            .chain(words)
            .chain([query])
            .chain(sent)
            .map(str::to_owned)
            .chain(meant)
            .filter(|it| it.len() >= MIN_SECRET_LEN)
            .collect();
        // A part must not be replaced before the whole.
        secrets.sort_unstable_by_key(|it| std::cmp::Reverse(it.len()));
        secrets
    }
}

impl Request {
    /// All that are sent beside those of the handshake.
    fn headers(&self, endpoint: &Endpoint) -> Result<Vec<(HeaderName, HeaderValue)>, ConnectError> {
        let mut headers = self.headers.clone();
        if headers
            .iter()
            .any(|(name, _)| name == SEC_WEBSOCKET_PROTOCOL)
        {
            return Err(not_to_be_set(&SEC_WEBSOCKET_PROTOCOL));
        }
        if let Some(subprotocol) = self.subprotocol {
            let value = HeaderValue::try_from(subprotocol).map_err(|_| {
                ConnectError::unavailable(format!(
                    "no service like {endpoint} has a subprotocol {subprotocol:?}"
                ))
            })?;
            headers.push((SEC_WEBSOCKET_PROTOCOL, value));
        }
        Ok(headers)
    }
}

/// Without the query, which may hold settings and secrets.
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

struct Deadline {
    at: Instant,
    after: Duration,
}

impl Deadline {
    fn after(after: Duration) -> Self {
        // A time beyond what the clock can express is no limit.
        let far = Duration::from_secs(365 * 86_400);
        Self {
            at: Instant::now() + after.min(far),
            after,
        }
    }

    async fn limit<T>(&self, work: impl Future<Output = T>, due: &str) -> Result<T, ConnectError> {
        let after = self.after.as_secs_f64();
        timeout_at(self.at, work)
            .await
            .map_err(|_| ConnectError::unavailable(format!("no {due} within {after} s")))
    }
}

fn is_about_the_certificate(error: &Error) -> bool {
    let Error::Io(error) = error else {
        return false;
    };
    let error = error.get_ref().and_then(|it| it.downcast_ref());
    matches!(error, Some(rustls::Error::InvalidCertificate(_)))
}

fn not_to_be_set(name: &HeaderName) -> ConnectError {
    ConnectError::unavailable(format!(
        "the header {name} belongs to the handshake and can't be set: remove it"
    ))
}

/// An address that could not be parsed, without its query and without a user name.
fn without_secrets(address: &str) -> String {
    let end = address.find(['?', '#']).unwrap_or(address.len());
    let address = &address[..end];
    let Some((user, rest)) = address.rsplit_once('@') else {
        return address.to_owned();
    };
    let scheme = user.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        Some(scheme) => format!("{scheme}://…@{rest}"),
        None => format!("…@{rest}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_query_joins_the_one_of_the_address() {
        for (address, query, expected) in [
            ("ws://h", "a=1", "ws://h/?a=1"),
            ("ws://h/p?", "a=1", "ws://h/p?a=1"),
            ("ws://h/p?k=v", "a=1", "ws://h/p?k=v&a=1"),
            ("ws://h/p?k=v", "", "ws://h/p?k=v"),
        ] {
            let endpoint = Endpoint::new(address).unwrap();
            assert_eq!(endpoint.with_query(query).unwrap().to_string(), expected);
        }
        let error = Endpoint::new("ws://h")
            .unwrap()
            .with_query("a b")
            .unwrap_err();
        assert!(error.to_string().contains("percent-encoded"), "{error}");
    }

    #[test]
    fn an_invalid_address_is_shown_without_its_secrets() {
        for (address, shown) in [
            ("http://u:pass@h/p?k=pass", "\"http://…@h/p\""),
            ("u:pass@h", "\"…@h\""),
            ("ws ://u:pa@ss@h", "\"ws ://…@h\""),
            ("h:1?k=pass", "\"h:1\""),
            ("wss:///p", "\"wss:///p\""),
            ("", "\"\""),
        ] {
            let error = Endpoint::new(address).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with(shown), "{text}");
            assert!(!format!("{text} {error:?}").contains("pass"), "{error:?}");
        }
        let error = Endpoint::new("ws://u:pass@h").unwrap_err();
        assert_eq!(error, AddressError::UserName);
    }
}
