use std::{io::Cursor, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use sidetone_audio::wav::{Channels, Writer};
use sidetone_websocket::{
    service_message,
    tls::{self, TlsError, rustls::RootCertStore},
};
use tokio::time::timeout;

use super::{
    NAME,
    detail::DetailSupport,
    reply::{self, Reply},
};
use crate::SpeechError;

/// The usual path, which an address may leave out.
const DEFAULT_PATH: &str = "/v1/audio/transcriptions";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A transcript that takes longer than the audio is kept is of no use.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest reply accepted, in bytes. It would hold far more than 15 s of speech.
const MAX_RESPONSE_LEN: usize = 1 << 20;

/// A service and the settings of requests to it.
#[derive(Debug)]
pub(super) struct Service {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    pub(super) uri: Uri,
    authorization: Option<HeaderValue>,
    pub(super) model: String,
    pub(super) language: Option<String>,
    pub(super) prompt: Option<String>,
    detail: DetailSupport,
}

/// The reply to one request.
pub(super) struct Response {
    pub(super) status: StatusCode,
    /// In lower case.
    pub(super) content_type: String,
    /// The target of a redirect.
    location: Option<String>,
    pub(super) body: Bytes,
}

#[cfg(test)]
impl Response {
    pub(super) fn new(status: StatusCode, content_type: &str, body: &str) -> Self {
        Self {
            status,
            content_type: content_type.into(),
            location: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }
}

impl Service {
    pub(super) fn new(address: &str) -> Result<Self, SpeechError> {
        let uri = with_default_path(address)?;
        let roots = match uri.scheme_str() {
            Some("https") => tls::system_roots(),
            // Without TLS no certificate is needed.
            _ => Ok(RootCertStore::empty()),
        };
        let tls = roots
            .and_then(tls::client_config)
            .map_err(|error: TlsError| SpeechError::Settings(error.to_string()))?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(Arc::unwrap_or_clone(tls))
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            uri,
            authorization: None,
            model: "whisper-1".into(),
            language: None,
            prompt: None,
            detail: DetailSupport::default(),
        })
    }

    pub(super) fn set_key(&mut self, key: &str) -> Result<(), SpeechError> {
        let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| {
            SpeechError::Settings(
                "the key has characters that no key has: was another file given?".into(),
            )
        })?;
        // Keeps the key out of `Debug` output.
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(())
    }

    pub(super) async fn transcribe(&self, samples: &[i16], hz: u32) -> Result<Reply, SpeechError> {
        let wav = wav(samples, hz);
        if !self.detail.is_enabled() {
            let response = self.request(&wav, false).await?;
            return self.parse_response(&response);
        }
        let response = self.request(&wav, true).await?;
        let parsed = self.parse_response(&response);
        let Some(refusal) = self.detail.rejection(response.status, parsed.is_ok()) else {
            return parsed;
        };
        // Some models know only the text, and some servers fail on requests for more.
        let response = self.request(&wav, false).await;
        let parsed = response.and_then(|it| self.parse_response(&it));
        self.detail.record_fallback(refusal, parsed.is_ok());
        parsed
    }

    async fn request(&self, wav: &[u8], verbose: bool) -> Result<Response, SpeechError> {
        let form = self.form(wav, verbose);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(header::CONTENT_TYPE, form.content_type());
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        let request = request
            .body(Full::new(form.finish()))
            .map_err(|error| SpeechError::Settings(error.to_string()))?;
        let exchange = async {
            let response = self.client.request(request).await;
            let response = response.map_err(|error| error_chain(&error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_RESPONSE_LEN).collect().await;
            let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                true => "its reply is longer than a transcript can be".into(),
                false => error_chain(&*error),
            })?;
            let value = |name| {
                let value = head.headers.get(name)?;
                Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
            };
            let content_type = value(header::CONTENT_TYPE).unwrap_or_default();
            Ok(Response {
                status: head.status,
                content_type: content_type.to_ascii_lowercase(),
                location: value(header::LOCATION),
                body: body.to_bytes(),
            })
        };
        match timeout(RESPONSE_TIMEOUT, exchange).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(reason)) => Err(unavailable(reason)),
            Err(_) => Err(unavailable("no reply within 30 s".into())),
        }
    }

    fn form(&self, wav: &[u8], verbose: bool) -> Form {
        let mut form = Form::new();
        form.text("model", &self.model);
        if let Some(language) = &self.language {
            form.text("language", language);
        }
        if let Some(prompt) = &self.prompt {
            form.text("prompt", prompt);
        }
        match verbose {
            true => {
                form.text("response_format", "verbose_json");
                form.text("timestamp_granularities[]", "word");
                form.text("timestamp_granularities[]", "segment");
            }
            false => form.text("response_format", "json"),
        }
        form.wav(wav);
        form
    }

    fn parse_response(&self, response: &Response) -> Result<Reply, SpeechError> {
        if response.status.is_success() {
            return reply::parse(response).map_err(|error| error.into_error(&self.secrets()));
        }
        let status = response.status.as_u16();
        let message = match service_message::from_body(&response.body, &self.secrets()) {
            message if message.is_empty() => message,
            message => format!(": {message}"),
        };
        match status {
            300..=399 => Err(refused(self.redirect(response))),
            // Some services quote a part of the key here.
            401 => Err(refused(
                "status 401: is the key right, and does it know this model?".into(),
            )),
            403 => Err(refused(format!(
                "status 403: is the key right, and does it know this model?{message}"
            ))),
            404 => Err(refused(format!(
                "status 404: are the address and the model right?{message}"
            ))),
            408 | 409 | 425 | 429 | 500.. => Err(unavailable(format!("status {status}{message}"))),
            _ => Err(refused(format!("status {status}{message}"))),
        }
    }

    /// Audio goes to the configured address and nowhere else.
    fn redirect(&self, response: &Response) -> String {
        let status = response.status.as_u16();
        let target = response.location.as_deref();
        service_message::redirect(status, target, &self.uri, &self.secrets())
    }

    /// What error texts must not contain.
    fn secrets(&self) -> [&str; 1] {
        let key = self.authorization.as_ref().and_then(|it| it.to_str().ok());
        [key.map_or("", |it| it.trim_start_matches("Bearer "))]
    }
}

/// A multipart form.
struct Form {
    boundary: String,
    body: Vec<u8>,
}

impl Form {
    fn new() -> Self {
        // Long enough never to occur in a sound by chance.
        let boundary = format!("sidetone-{:032x}", fastrand::u128(..));
        Self {
            boundary,
            body: Vec::new(),
        }
    }

    fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    fn text(&mut self, name: &str, value: &str) {
        self.part(&format!("name=\"{name}\""), value.as_bytes());
    }

    fn wav(&mut self, wav: &[u8]) {
        let head = "name=\"file\"; filename=\"utterance.wav\"\r\nContent-Type: audio/wav";
        self.part(head, wav);
    }

    fn part(&mut self, head: &str, content: &[u8]) {
        let head = format!(
            "--{}\r\nContent-Disposition: form-data; {head}\r\n\r\n",
            self.boundary
        );
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(content);
        self.body.extend_from_slice(b"\r\n");
    }

    fn finish(mut self) -> Bytes {
        let end = format!("--{}--\r\n", self.boundary);
        self.body.extend_from_slice(end.as_bytes());
        self.body.into()
    }
}

/// The address with the usual path if it has none.
fn with_default_path(address: &str) -> Result<Uri, SpeechError> {
    let invalid = || {
        SpeechError::Settings(
            "write the address of a transcription service as http://HOST:PORT or https://HOST, with \
             its path if that is not the usual one, and without a user name"
                .into(),
        )
    };
    let uri: Uri = address.trim().parse().map_err(|_| invalid())?;
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    // A user name would not be sent, and must not be shown.
    let host = uri.authority().filter(|it| !it.as_str().contains('@'));
    if !scheme || host.is_none() {
        return Err(invalid());
    }
    let path = match uri.path().trim_end_matches('/') {
        "" | "/v1" => DEFAULT_PATH,
        _ => return Ok(uri),
    };
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static(path));
    Uri::from_parts(parts).map_err(|_| invalid())
}

fn wav(samples: &[i16], hz: u32) -> Vec<u8> {
    let write = || {
        let mut wav = Writer::new(Cursor::new(Vec::new()), hz, Channels::Mono)?;
        wav.write(samples)?;
        wav.finish().map(Cursor::into_inner)
    };
    // Writing to memory does not fail, and no utterance comes near 4 GiB.
    write().unwrap_or_default()
}

pub(super) fn unavailable(reason: String) -> SpeechError {
    SpeechError::Unavailable {
        service: NAME,
        reason,
    }
}

fn refused(reason: String) -> SpeechError {
    SpeechError::Refused {
        service: NAME,
        reason,
    }
}

/// The error with its sources.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_usual_path_may_be_left_out() {
        let path = |address: &str| with_default_path(address).unwrap().to_string();
        let whole = "http://127.0.0.1:8000/v1/audio/transcriptions";
        for address in [
            "http://127.0.0.1:8000",
            "http://127.0.0.1:8000/",
            "http://127.0.0.1:8000/v1/",
            whole,
        ] {
            assert_eq!(path(address), whole);
        }
        let own = "http://127.0.0.1:8080/inference";
        assert_eq!(path(own), own);
    }

    #[test]
    fn an_invalid_address_is_not_quoted_since_it_may_hold_a_secret() {
        for address in ["ws://x", "x", "http://", "https://me:secret@host/v1", ""] {
            let error = with_default_path(address).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_error_never_quotes_the_key() {
        let mut service = Service::new("http://127.0.0.1:1").unwrap();
        service.set_key("sk-topsecret").unwrap();
        let body = r#"{"error": {"message": "sk-topsecret can't have\n this"}}"#;
        for status in [200, 301, 400, 401, 403, 404, 429, 500] {
            let mut response = Response::new(StatusCode::from_u16(status).unwrap(), "", body);
            response.location = Some("http://x/?key=sk-topsecret".into());
            let error = service.parse_response(&response).unwrap_err().to_string();
            assert!(!error.contains("topsecret"), "{error}");
            let is_quoted = !matches!(status, 301 | 401);
            assert_eq!(error.contains("… can't have this"), is_quoted, "{error}");
        }
        assert!(!format!("{service:?}").contains("topsecret"));
    }
}
