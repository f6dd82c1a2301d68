//! Posts to hooks and to the functions of bots.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Method, Request, Uri, header};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use sidetone_websocket::tls::{
    self, TlsError,
    rustls::{ClientConfig, RootCertStore},
};

use crate::hooks::SigningKey;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest head of a response, in bytes.
const HEAD_LIMIT: usize = 64 << 10;

/// Sends requests over HTTP/1, with TLS where the address asks for it. It follows no redirects.
pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Trusts the machine's certificates, which are read once.
#[derive(Debug, Default)]
pub(crate) struct Trust(Option<Arc<ClientConfig>>);

impl Trust {
    fn client_config(&mut self) -> Result<Arc<ClientConfig>, TlsError> {
        if let Some(config) = &self.0 {
            return Ok(Arc::clone(config));
        }
        let config = tls::client_config(tls::system_roots()?)?;
        Ok(Arc::clone(self.0.insert(config)))
    }
}

/// A client for this address.
///
/// # Errors
///
/// TLS can't be set up.
pub(crate) fn http_client(url: &Uri, trust: &mut Trust) -> Result<HttpClient, TlsError> {
    let tls = match url.scheme_str() {
        Some("https") => trust.client_config()?,
        _ => tls::client_config(RootCertStore::empty())?,
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(Arc::unwrap_or_clone(tls))
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http1_max_buf_size(HEAD_LIMIT)
        .build(connector))
}

/// A POST of JSON, signed as Standard Webhooks say.
pub(crate) fn signed_post(
    url: &Uri,
    key: Option<&SigningKey>,
    id: &str,
    body: &str,
) -> http::Result<Request<Full<Bytes>>> {
    // Receivers turn old timestamps away, so it is this attempt's.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let timestamp = now.unwrap_or_default().as_secs();
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(url.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .header(
            header::USER_AGENT,
            concat!("sidetone/", env!("CARGO_PKG_VERSION")),
        )
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp);
    if let Some(key) = key {
        request = request.header("webhook-signature", key.sign(id, timestamp, body));
    }
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
}
