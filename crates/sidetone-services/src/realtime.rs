//! A stand-in for OpenAI's Realtime API, which refuses what the real service refuses.
//!
//! Its clock is the caller's audio: what it does at which time follows from what it has received, not from the time of day.

mod check;
mod session;

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::Value;

use crate::{
    Fault,
    websocket::{self, Request, Rules, Service},
};
use session::RealtimeSession;

/// What the server says and does in a conversation.
#[derive(Clone, Debug)]
pub struct Script {
    /// When the caller speaks, and what is answered then, one after the other. Afterwards nobody speaks.
    pub turns: VecDeque<Turn>,
    /// What is answered to requests for a response, one after the other. Afterwards a second of speech.
    pub requested: VecDeque<Answer>,
    /// How many times faster than real time it speaks.
    pub speed: u32,
    /// Its limit of a session: 60 minutes for the real service.
    pub expires_after: Duration,
}

/// A sentence of the caller, as the server's turn detection finds it.
#[derive(Clone, Debug)]
pub struct Turn {
    /// When the caller begins to speak, from the beginning of the last answer on, or from that of the conversation.
    pub after: Duration,
    /// How long the caller speaks.
    pub speech: Duration,
    /// What is answered.
    pub answer: Answer,
}

/// A response.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Speech of this length.
    Speech(Duration),
    /// Speech of this length, and then a call of a function with these arguments.
    Call(Duration, &'static str, &'static str),
    /// None: it fails with this code.
    Failure(&'static str),
}

impl Default for Script {
    fn default() -> Self {
        Self {
            turns: VecDeque::new(),
            requested: VecDeque::new(),
            speed: 10,
            expires_after: Duration::from_secs(3600),
        }
    }
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// Whether the client sent it.
    pub from_client: bool,
    /// The message.
    pub message: Value,
}

/// A piece of the server's speech.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speech {
    /// The name of its item.
    pub item_id: String,
    /// All its audio that was sent, in the session's format.
    pub audio: Vec<u8>,
    /// Where the client truncated it.
    pub truncated_ms: Option<u64>,
}

/// What is known of all conversations.
#[derive(Debug, Default)]
struct Known {
    log: Vec<Logged>,
    speeches: Vec<Speech>,
    input: Vec<u8>,
}

/// OpenAI's `/v1/realtime` on a port of 127.0.0.1, served until this is dropped.
///
/// It requires its key in the header (401) and a model (400). It refuses, with an `error` event: messages and fields that it does
/// not know, formats that it does not have, audio over 15 MiB or of half a sample, truncation beyond what it sent of an item,
/// cancelling without a response, a response while there is one, results of functions that it did not call. A session that is too
/// old expires.
#[derive(Debug)]
pub struct RealtimeServer {
    service: Service,
    known: Arc<Mutex<Known>>,
}

impl RealtimeServer {
    /// Starts the server on the current tokio runtime, for clients with this key.
    ///
    /// # Errors
    ///
    /// No port is available.
    pub async fn start(key: &str, script: Script) -> io::Result<Self> {
        let known = Arc::<Mutex<Known>>::default();
        let realtime = Realtime {
            authorization: format!("Bearer {key}"),
            script,
            known: Arc::clone(&known),
        };
        let service = Service::start(realtime).await?;
        Ok(Self { service, known })
    }

    /// The address of the server, such as `ws://127.0.0.1:40123/v1/realtime`.
    pub fn endpoint(&self) -> String {
        format!("ws://{}/v1/realtime", self.service.address())
    }

    /// Injects a fault, from now on.
    pub fn set(&self, fault: Fault) {
        self.service.set(fault);
    }

    /// How many connections were made, including those refused.
    pub fn connections(&self) -> usize {
        self.service.connections()
    }

    /// All messages so far, in their order.
    pub fn log(&self) -> Vec<Logged> {
        self.known.lock().log.clone()
    }

    /// The errors that were sent so far.
    pub fn refusals(&self) -> Vec<Value> {
        let known = self.known.lock();
        let errors = known
            .log
            .iter()
            .filter(|it| !it.from_client && it.message["type"] == "error");
        errors.map(|it| it.message["error"].clone()).collect()
    }

    /// All that was said so far, in its order.
    pub fn speeches(&self) -> Vec<Speech> {
        self.known.lock().speeches.clone()
    }

    /// The caller's audio so far, in the session's format.
    pub fn input(&self) -> Vec<u8> {
        self.known.lock().input.clone()
    }
}

struct Realtime {
    authorization: String,
    script: Script,
    known: Arc<Mutex<Known>>,
}

impl Rules for Realtime {
    fn admit(&self, request: &Request) -> Result<Box<dyn websocket::Session>, u16> {
        if request.path != "/v1/realtime" {
            return Err(404);
        }
        if request.headers.get("authorization") != Some(&self.authorization) {
            return Err(401);
        }
        if request.parameter("model").is_none_or(str::is_empty) {
            return Err(400);
        }
        let session = RealtimeSession::new(self.script.clone(), Arc::clone(&self.known));
        Ok(Box::new(session))
    }
}
