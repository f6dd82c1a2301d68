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
use tokio::time::timeout;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::{
    NAME,
    detail::Detail,
    reply::{self, Reply},
};
use crate::{SpeechError, tls, words};

/// The usual path, of which an address may leave out the end.
const PATH: &str = "/v1/audio/transcriptions";
const CONNECT: Duration = Duration::from_secs(10);
/// A transcript that takes longer than the audio that is kept is no use.
const ANSWER: Duration = Duration::from_secs(30);
/// No answer about 15 s of speech is longer, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// A service and how it is asked.
#[derive(Debug)]
pub(super) struct Service {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    pub(super) uri: Uri,
    authorization: Option<HeaderValue>,
    pub(super) model: String,
    pub(super) language: Option<String>,
    pub(super) prompt: Option<String>,
    detail: Detail,
}

/// What came back for one request.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// As it was sent, in small letters.
    pub(super) content_type: String,
    /// Where it says that it has moved to.
    location: Option<String>,
    pub(super) body: Bytes,
}

#[cfg(test)]
impl Answer {
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
        let uri = completed(address)?;
        let tls = match uri.scheme_str() {
            Some("https") => tls::client_config()?,
            _ => trusting_nobody()?,
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
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
            detail: Detail::default(),
        })
    }

    pub(super) fn set_key(&mut self, key: &str) -> Result<(), SpeechError> {
        let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| {
            SpeechError::Settings(
                "the key has characters that no key has: is it another file?".into(),
            )
        })?;
        // So that nothing that prints a request prints it.
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(())
    }

    pub(super) async fn transcribe(&self, samples: &[i16], hz: u32) -> Result<Reply, SpeechError> {
        let wav = wav(samples, hz);
        if !self.detail.is_had() {
            let answer = self.ask(&wav, false).await?;
            return self.understand(&answer);
        }
        let answer = self.ask(&wav, true).await?;
        let understood = self.understand(&answer);
        let Some(refusal) = self.detail.refused(answer.status, understood.is_ok()) else {
            return understood;
        };
        // Some models know no more than the text, and some servers fail when they are asked for more.
        let answer = self.ask(&wav, false).await;
        let understood = answer.and_then(|it| self.understand(&it));
        self.detail.asked_for_less(refusal, understood.is_ok());
        understood
    }

    async fn ask(&self, wav: &[u8], verbose: bool) -> Result<Answer, SpeechError> {
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
        let answering = async {
            let response = self.client.request(request).await;
            let response = response.map_err(|error| chain(&error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, LONGEST_ANSWER).collect().await;
            let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                true => "it answers with more than a transcript can be".into(),
                false => chain(&*error),
            })?;
            let value = |name| {
                let value = head.headers.get(name)?;
                Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
            };
            let content_type = value(header::CONTENT_TYPE).unwrap_or_default();
            Ok(Answer {
                status: head.status,
                content_type: content_type.to_ascii_lowercase(),
                location: value(header::LOCATION),
                body: body.to_bytes(),
            })
        };
        match timeout(ANSWER, answering).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(reason)) => Err(unavailable(reason)),
            Err(_) => Err(unavailable("no answer within 30 s".into())),
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

    fn understand(&self, answer: &Answer) -> Result<Reply, SpeechError> {
        if answer.status.is_success() {
            return reply::read(answer).map_err(|fault| fault.told(&self.secrets()));
        }
        let status = answer.status.as_u16();
        let said = match words::of(&answer.body, &self.secrets()) {
            said if said.is_empty() => said,
            said => format!(": {said}"),
        };
        match status {
            300..=399 => Err(refused(self.moved(answer))),
            // Some services repeat a part of the key in what they say.
            401 => Err(refused(
                "status 401: is the key right, and does it know this model?".into(),
            )),
            403 => Err(refused(format!(
                "status 403: is the key right, and does it know this model?{said}"
            ))),
            404 => Err(refused(format!(
                "status 404: are the address and the model right?{said}"
            ))),
            408 | 409 | 425 | 429 | 500.. => Err(unavailable(format!("status {status}{said}"))),
            _ => Err(refused(format!("status {status}{said}"))),
        }
    }

    /// Audio goes to the address that was configured, and nowhere else.
    fn moved(&self, answer: &Answer) -> String {
        let status = answer.status.as_u16();
        let target = answer.location.as_deref();
        words::moved(status, target, &self.uri, &self.secrets())
    }

    /// What is never told.
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
        // Long enough never to stand in a sound by chance.
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

/// The whole address of an address that may lack the usual path.
fn completed(address: &str) -> Result<Uri, SpeechError> {
    let wrong = || {
        SpeechError::Settings(
            "the address of a transcription service is to be written as http://HOST:PORT or https://HOST, \
             with the path if it has another than the usual one, and without a user name"
                .into(),
        )
    };
    let uri: Uri = address.trim().parse().map_err(|_| wrong())?;
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    // A user name would not be sent, and must not be shown.
    let host = uri.authority().filter(|it| !it.as_str().contains('@'));
    if !scheme || host.is_none() {
        return Err(wrong());
    }
    let path = match uri.path().trim_end_matches('/') {
        "" | "/v1" => PATH,
        _ => return Ok(uri),
    };
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static(path));
    Uri::from_parts(parts).map_err(|_| wrong())
}

/// For an address without TLS, which needs no certificates.
fn trusting_nobody() -> Result<Arc<ClientConfig>, SpeechError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| SpeechError::Settings(error.to_string()))?;
    Ok(Arc::new(
        config
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth(),
    ))
}

fn wav(samples: &[i16], hz: u32) -> Vec<u8> {
    let write = || {
        let mut wav = Writer::new(Cursor::new(Vec::new()), hz, Channels::Mono)?;
        wav.write(samples)?;
        wav.finish().map(Cursor::into_inner)
    };
    // Memory can be written to, and no utterance comes near to 4 GiB.
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

/// What happened, down to what the system said.
fn chain(error: &dyn std::error::Error) -> String {
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
        let path = |address: &str| completed(address).unwrap().to_string();
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
    fn an_address_that_is_none_is_not_repeated_with_what_may_be_secret_in_it() {
        for address in ["ws://x", "x", "http://", "https://me:secret@host/v1", ""] {
            let error = completed(address).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_service_that_repeats_the_key_does_not_make_us_say_it() {
        let mut service = Service::new("http://127.0.0.1:1").unwrap();
        service.set_key("sk-topsecret").unwrap();
        let body = r#"{"error": {"message": "sk-topsecret can't have\n this"}}"#;
        for status in [200, 301, 400, 401, 403, 404, 429, 500] {
            let mut answer = Answer::new(StatusCode::from_u16(status).unwrap(), "", body);
            answer.location = Some("http://x/?key=sk-topsecret".into());
            let error = service.understand(&answer).unwrap_err().to_string();
            assert!(!error.contains("topsecret"), "{error}");
            let is_told = !matches!(status, 301 | 401);
            assert_eq!(error.contains("… can't have this"), is_told, "{error}");
        }
        assert!(!format!("{service:?}").contains("topsecret"));
    }
}
