use std::{
    io::Cursor,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Method, Request, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use sidetone_audio::wav::{Channels, Writer};
use tokio::time::timeout;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::NAME;
use crate::{SpeechError, tls};

/// The usual path, of which an address may leave out the end.
const PATH: &str = "/v1/audio/transcriptions";
const CONNECT: Duration = Duration::from_secs(10);
/// A transcript that takes longer than the audio that is kept is no use.
const ANSWER: Duration = Duration::from_secs(30);
/// No answer about 15 s of speech is longer, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;
/// What a service says about an error is told up to here, in characters.
const LONGEST_REASON: usize = 200;
/// Above this and below that, Whisper's own programs take a segment for no speech at all.
const NO_SPEECH: f32 = 0.6;
const UNLIKELY: f32 = -1.0;

/// A service and how it is asked.
#[derive(Debug)]
pub(super) struct Service {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    pub(super) uri: Uri,
    authorization: Option<HeaderValue>,
    pub(super) model: String,
    pub(super) language: Option<String>,
    pub(super) prompt: Option<String>,
    /// It has refused to answer in detail; nobody asks it for that again.
    terse: AtomicBool,
}

/// What the service answers, of which only the text is sure to be there.
#[derive(Debug, Deserialize)]
pub(super) struct Reply {
    text: String,
    language: Option<String>,
    segments: Option<Vec<Segment>>,
    pub(super) words: Option<Vec<TimedWord>>,
}

#[derive(Debug, Deserialize)]
struct Segment {
    avg_logprob: Option<f32>,
    no_speech_prob: Option<f32>,
}

/// A word with its time in seconds from the beginning of the utterance.
#[derive(Debug, Deserialize)]
pub(super) struct TimedWord {
    pub(super) word: String,
    pub(super) start: f64,
    pub(super) end: f64,
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
            terse: AtomicBool::new(false),
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
        if !self.terse.load(Ordering::Relaxed) {
            match self.ask(&wav, true).await? {
                // Some models know no more than the text, and refuse to be asked for more.
                (StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY, _) => {}
                (status, body) => return self.understand(status, &body),
            }
        }
        let (status, body) = self.ask(&wav, false).await?;
        let reply = self.understand(status, &body)?;
        self.terse.store(true, Ordering::Relaxed);
        Ok(reply)
    }

    async fn ask(&self, wav: &[u8], verbose: bool) -> Result<(StatusCode, Bytes), SpeechError> {
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
            let response = self.client.request(request).await.map_err(chain)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST_ANSWER);
            let body = body.collect().await.map_err(|error| error.to_string())?;
            Ok((status, body.to_bytes()))
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

    fn understand(&self, status: StatusCode, body: &[u8]) -> Result<Reply, SpeechError> {
        if status.is_success() {
            return serde_json::from_slice(body).map_err(|error| SpeechError::Broken {
                service: NAME,
                reason: format!("what it answers is no transcript: {error}"),
            });
        }
        let status = status.as_u16();
        let said = self.complaint(body);
        match status {
            // Some services repeat the key in what they say.
            401 | 403 => Err(refused(format!(
                "status {status}: is the key right, and does it know this model?"
            ))),
            404 => Err(refused(format!(
                "status 404: are the address and the model right?{said}"
            ))),
            408 | 409 | 425 | 429 | 500.. => Err(unavailable(format!("status {status}{said}"))),
            _ => Err(refused(format!("status {status}{said}"))),
        }
    }

    /// What a service says is wrong, in one short line and without the key.
    fn complaint(&self, body: &[u8]) -> String {
        let text = String::from_utf8_lossy(body);
        let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
        let message = json.as_ref().and_then(|json| {
            let error = json.get("error").unwrap_or(json);
            let said = error.get("message").or(error.get("detail"));
            said.unwrap_or(error).as_str()
        });
        let words = message.unwrap_or(&text).split_whitespace();
        let mut line = words.collect::<Vec<_>>().join(" ");
        if let Some(key) = self.authorization.as_ref().and_then(|it| it.to_str().ok()) {
            line = line.replace(key.trim_start_matches("Bearer "), "…");
        }
        match line.is_empty() {
            true => line,
            false => format!(
                ": {}",
                line.chars().take(LONGEST_REASON).collect::<String>()
            ),
        }
    }
}

impl Reply {
    /// What was said, which is nothing if the service itself does not believe it.
    pub(super) fn said(&self) -> &str {
        let segments = self.segments.as_deref().unwrap_or_default();
        let no_speech = |segment: &Segment| {
            segment.no_speech_prob.is_some_and(|it| it > NO_SPEECH)
                && segment.avg_logprob.is_some_and(|it| it < UNLIKELY)
        };
        match !segments.is_empty() && segments.iter().all(no_speech) {
            true => "",
            false => self.text.trim(),
        }
    }

    pub(super) fn confidence(&self) -> Option<f32> {
        let segments = self.segments.as_deref().unwrap_or_default();
        let logs: Option<Vec<f32>> = segments.iter().map(|it| it.avg_logprob).collect();
        let logs = logs.filter(|logs| !logs.is_empty())?;
        let mean = logs.iter().sum::<f32>() / logs.len() as f32;
        Some(mean.exp().clamp(0.0, 1.0))
    }

    /// The language, from services that tell it as a tag and not as an English word.
    pub(super) fn language_tag(&self) -> Option<String> {
        let language = self.language.as_ref()?;
        let primary = language.split('-').next()?;
        matches!(primary.len(), 2 | 3).then(|| language.clone())
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

fn unavailable(reason: String) -> SpeechError {
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
fn chain(error: impl std::error::Error) -> String {
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
        let body = br#"{"error": {"message": "sk-topsecret can't have\n this"}}"#;
        assert_eq!(service.complaint(body), ": … can't have this");
        for status in [400, 401, 403, 404, 429, 500] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = service.understand(status, body).unwrap_err();
            assert!(!error.to_string().contains("topsecret"), "{error}");
        }
        assert!(!format!("{service:?}").contains("topsecret"));
    }

    #[test]
    fn what_the_service_does_not_believe_was_not_said() {
        let reply = |no_speech: f32| -> Reply {
            serde_json::from_value(serde_json::json!({
                "text": " Thank you. ",
                "segments": [{ "avg_logprob": -1.2, "no_speech_prob": no_speech }],
            }))
            .unwrap()
        };
        assert_eq!(reply(0.9).said(), "");
        assert_eq!(reply(0.1).said(), "Thank you.");
    }
}
