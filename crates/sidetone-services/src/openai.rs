//! A stand-in for OpenAI's `POST /v1/audio/transcriptions`, which refuses what the real service
//! refuses.

mod upload;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::stream;
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{self, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::AbortHandle};

use crate::{Recognized, ToneDecoder, Word, text};
pub use upload::Upload;
use upload::read;

/// The largest upload the real service accepts, in bytes.
const MAX_BODY_LEN: usize = 25 * 1024 * 1024;
/// The shortest audio it accepts.
const MIN_AUDIO: Duration = Duration::from_millis(100);

/// How the server behaves.
#[derive(Clone)]
pub struct Rules {
    /// The key required. `None` by default.
    pub key: Option<String>,
    /// The one model it has: `whisper-1` by default.
    pub model: String,
    /// Whether its model reports more than the text, as `whisper-1` does and `gpt-4o-transcribe`
    /// does not.
    pub verbose: bool,
    /// How many requests, from the first one on, are held until all of them have come and then
    /// answered in reverse order.
    pub reversed: usize,
    /// The status with which it refuses a request, by the request's number from 0.
    pub fault: fn(usize) -> Option<u16>,
    /// The form of its replies.
    pub form: Form,
}

/// The forms in which servers with OpenAI's protocol reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// OpenAI's own.
    #[default]
    Usual,
    /// The text alone, whatever was requested.
    Text,
    /// The words are in the segments, each with its probability.
    WordsInSegments,
    /// A request for `verbose_json` gets this status and an error.
    NotVerbose(u16),
    /// An error with this text and the status of a success.
    Error(String),
    /// A redirect to this address.
    Moved(String),
    /// A reply that does not end.
    Endless,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            key: None,
            model: "whisper-1".into(),
            verbose: true,
            reversed: 0,
            fault: |_| None,
            form: Form::Usual,
        }
    }
}

/// A server that runs until it is dropped.
pub struct Service {
    address: SocketAddr,
    state: Arc<State>,
    task: AbortHandle,
}

struct State {
    rules: Rules,
    requests: AtomicUsize,
    concurrent: AtomicUsize,
    max_concurrent: AtomicUsize,
    /// Of the requests answered in reverse: how many have come, plus how many were answered.
    steps: watch::Sender<usize>,
    uploads: Mutex<Vec<Upload>>,
}

impl Service {
    /// Serves on a free port of 127.0.0.1.
    pub async fn start(rules: Rules) -> std::io::Result<Self> {
        Self::on(TcpListener::bind("127.0.0.1:0").await?, rules)
    }

    /// Serves on this listener.
    pub fn on(listener: TcpListener, rules: Rules) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            rules,
            requests: AtomicUsize::new(0),
            concurrent: AtomicUsize::new(0),
            max_concurrent: AtomicUsize::new(0),
            steps: watch::Sender::new(0),
            uploads: Mutex::default(),
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&state))).abort_handle();
        Ok(Self {
            address,
            state,
            task,
        })
    }

    /// Its address up to the version: `http://127.0.0.1:PORT/v1`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The uploads transcribed, in the order in which they came.
    pub fn uploads(&self) -> Vec<Upload> {
        self.state.uploads.lock().clone()
    }

    /// How many requests came, including those refused.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::Acquire)
    }

    /// The most requests it had at a time.
    pub fn max_concurrent(&self) -> usize {
        self.state.max_concurrent.load(Ordering::Acquire)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(|request| state.handle(request));
            // A client that disconnects is not an error of the server.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A status and the text of its body.
type Refusal = (StatusCode, String);

impl State {
    async fn handle(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let number = self.requests.fetch_add(1, Ordering::AcqRel);
        let concurrent = self.concurrent.fetch_add(1, Ordering::AcqRel) + 1;
        self.max_concurrent.fetch_max(concurrent, Ordering::AcqRel);
        let reply = self.reply_to(number, request).await;
        self.concurrent.fetch_sub(1, Ordering::AcqRel);
        let (status, reply) = match reply {
            Ok(reply) => (StatusCode::OK, reply),
            Err((status, message)) => (status, json!({ "error": { "message": message } })),
        };
        Ok(self.response(status, &reply))
    }

    fn response(&self, status: StatusCode, reply: &Value) -> Response<Body> {
        let mut content_type = "application/json";
        let mut body = reply.to_string();
        if self.rules.form == Form::Text && status.is_success() {
            content_type = "text/plain; charset=utf-8";
            body = format!("{}\n", reply["text"].as_str().unwrap_or_default());
        }
        let body = match self.rules.form {
            Form::Endless => {
                let chunk = Bytes::from(vec![b'x'; 1 << 16]);
                let chunks = stream::repeat_with(move || Ok(Frame::data(chunk.clone())));
                StreamBody::new(chunks).boxed_unsync()
            }
            _ => Full::new(Bytes::from(body)).boxed_unsync(),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Form::Moved(address) = &self.rules.form {
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            if let Ok(address) = HeaderValue::from_str(address) {
                response.headers_mut().insert(header::LOCATION, address);
            }
        }
        response
    }

    async fn reply_to(&self, number: usize, request: Request<Incoming>) -> Result<Value, Refusal> {
        if request.uri().path() != "/v1/audio/transcriptions" {
            return Err((StatusCode::NOT_FOUND, "Invalid URL".into()));
        }
        if request.method() != Method::POST {
            return Err((
                StatusCode::METHOD_NOT_ALLOWED,
                "Only POST is allowed".into(),
            ));
        }
        self.check_key(&request)?;
        let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
        let body = Limited::new(request.into_body(), MAX_BODY_LEN)
            .collect()
            .await;
        let body = body.map_err(|_| {
            (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("Maximum content size limit ({MAX_BODY_LEN}) exceeded"),
            )
        })?;
        let upload = read(content_type.as_ref(), body.to_bytes()).await?;
        self.wait_in_reverse(number).await;
        if let Some(status) = (self.rules.fault)(number) {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
            return Err((status, "The server had an error".into()));
        }
        let reply = self.transcribe(&upload)?;
        self.uploads.lock().push(upload);
        Ok(reply)
    }

    async fn wait_in_reverse(&self, number: usize) {
        let reversed = self.rules.reversed;
        if number < reversed {
            // From the last request to the first.
            let step = 2 * reversed - 1 - number;
            self.steps.send_modify(|steps| *steps += 1);
            // `self` holds the sender, so this can't fail.
            let _ = self
                .steps
                .subscribe()
                .wait_for(|steps| *steps >= step)
                .await;
            self.steps.send_modify(|steps| *steps += 1);
        }
    }

    fn check_key(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        let Some(key) = &self.rules.key else {
            return Ok(());
        };
        let given = request.headers().get(header::AUTHORIZATION);
        let given = given.and_then(|it| it.to_str().ok()).unwrap_or_default();
        match given.strip_prefix("Bearer ") {
            Some(given) if given == key => Ok(()),
            // Some servers repeat the key.
            Some(given) => Err((
                StatusCode::UNAUTHORIZED,
                format!("Incorrect API key provided: {given}."),
            )),
            None => Err((
                StatusCode::UNAUTHORIZED,
                "You didn't provide an API key.".into(),
            )),
        }
    }

    fn transcribe(&self, upload: &Upload) -> Result<Value, Refusal> {
        if upload.model != self.rules.model {
            return Err((
                StatusCode::NOT_FOUND,
                format!("The model `{}` does not exist", upload.model),
            ));
        }
        if upload.duration() < MIN_AUDIO {
            return Err(bad(
                "Audio file is too short. Minimum audio length is 0.1 seconds.",
            ));
        }
        let words = decode(upload);
        match (upload.response_format.as_str(), &self.rules.form) {
            (_, Form::Error(message)) => return Ok(json!({ "error": message })),
            ("verbose_json", Form::NotVerbose(status)) => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::IM_A_TEAPOT);
                return Err((status, "'list' object has no attribute 'segments'".into()));
            }
            ("verbose_json", Form::WordsInSegments) => return Ok(in_segments(&words)),
            _ => {}
        }
        match upload.response_format.as_str() {
            "verbose_json" if self.rules.verbose => Ok(verbose(upload, &words)),
            "verbose_json" => Err(bad(
                "response_format 'verbose_json' is not compatible with this model. Use 'json' instead.",
            )),
            "json" => Ok(json!({ "text": text(&words) })),
            _ => Err(bad("Invalid value for 'response_format'")),
        }
    }
}

fn decode(upload: &Upload) -> Vec<Word> {
    let mut decoder = ToneDecoder::new(upload.hz);
    let mut words: Vec<Word> = Vec::new();
    for result in decoder.push(&upload.samples) {
        if let Recognized::Final(more) = result {
            words.extend(more);
        }
    }
    words.extend(decoder.finish().unwrap_or_default());
    words
}

fn verbose(upload: &Upload, words: &[Word]) -> Value {
    let duration = upload.duration().as_secs_f64();
    let mut reply = json!({
        "task": "transcribe",
        // The real service sends the language's English name.
        "language": "english",
        "duration": duration,
        // Whisper starts every segment with a space.
        "text": format!(" {}", text(words)),
        "segments": [{
            "id": 0,
            "start": 0.0,
            "end": duration,
            "text": text(words),
            "avg_logprob": -0.25,
            "no_speech_prob": 0.01,
        }],
    });
    if upload.granularities.iter().any(|it| it == "word") {
        let timed = words.iter().map(|word| {
            json!({
                "word": word.text,
                "start": word.start.as_secs_f64(),
                "end": word.end.as_secs_f64(),
            })
        });
        reply["words"] = timed.collect();
    }
    reply
}

/// The form of servers based on faster-whisper.
fn in_segments(words: &[Word]) -> Value {
    let segments = words.iter().map(|word| {
        json!({
            "text": format!(" {}", word.text),
            "avg_logprob": -0.25,
            "no_speech_prob": 0.01,
            "words": [{
                "word": format!(" {}", word.text),
                "start": word.start.as_secs_f64(),
                "end": word.end.as_secs_f64(),
                "probability": 0.75,
            }],
        })
    });
    let segments: Vec<Value> = segments.collect();
    json!({ "text": text(words), "language": "en", "segments": segments, "words": null })
}

fn bad(message: &str) -> Refusal {
    (StatusCode::BAD_REQUEST, message.into())
}
