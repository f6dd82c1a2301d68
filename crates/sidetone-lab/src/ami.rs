//! The Asterisk Manager Interface: placing calls and hearing what becomes of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::asterisk::Asterisk;

/// How long Asterisk may take to answer an action.
const ANSWER: Duration = Duration::from_secs(10);

/// A logged-in connection to the manager interface.
///
/// ```no_run
/// # async fn example(asterisk: &sidetone_lab::Asterisk) -> Result<(), sidetone_lab::ami::AmiError> {
/// use std::time::Duration;
/// use sidetone_lab::ami::{Ami, Originate};
///
/// let ami = Ami::connect(asterisk).await?;
/// let mut events = ami.events();
/// let call = Originate::exten("Local/app@target/n", "caller", "tone")
///     .variable("__U", "6b36bd2c-9d4c-4f5e-a1f9-000000000001")
///     .variable("__D", "127.0.0.1:9092")
///     .variable("__T", "first");
/// ami.originate(&call).await?;
/// let event = events.wait(Duration::from_secs(5), |event| event.is_lab("first", "after-app")).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Ami {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    // One receiver for each `Events`, told everything that comes.
    subscribers: Subscribers,
    next_action: AtomicU64,
    reader: AbortHandle,
}

/// What came from Asterisk: an event, or the answer to an action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    headers: Vec<(String, String)>,
}

/// Everything that came since [`Ami::events`], in order; nothing is lost, however late it is read.
#[derive(Debug)]
pub struct Events {
    messages: mpsc::UnboundedReceiver<Message>,
}

/// A call to be placed: a channel to create, and what to do with it once it has answered.
#[derive(Clone, Debug)]
pub struct Originate {
    headers: Vec<(&'static str, String)>,
}

type Subscribers = Arc<Mutex<Vec<mpsc::UnboundedSender<Message>>>>;

impl Ami {
    /// Connects and logs in.
    ///
    /// # Errors
    ///
    /// If nothing of the kind listens there.
    pub async fn connect(asterisk: &Asterisk) -> Result<Self, AmiError> {
        let (reader, writer) = TcpStream::connect(asterisk.ami()).await?.into_split();
        let subscribers = Subscribers::default();
        let reader =
            tokio::spawn(read(BufReader::new(reader), Arc::clone(&subscribers))).abort_handle();
        let writer = tokio::sync::Mutex::new(writer);
        let ami = Self {
            writer,
            subscribers,
            next_action: AtomicU64::new(1),
            reader,
        };
        ami.action(
            "Login",
            &[("Username", "lab".into()), ("Secret", "lab".into())],
        )
        .await?;
        Ok(ami)
    }

    /// Everything that comes from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        let (sender, messages) = mpsc::unbounded_channel();
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sender);
        Events { messages }
    }

    /// Has a call placed, and answers its action's id as soon as Asterisk has taken the request. What becomes of the call is said
    /// by the event `OriginateResponse` of that `ActionID`, once its channel has answered or failed to.
    ///
    /// # Errors
    ///
    /// [`AmiError::Refused`] with Asterisk's reason.
    pub async fn originate(&self, call: &Originate) -> Result<String, AmiError> {
        let response = self.action("Originate", &call.headers).await?;
        Ok(response.get("ActionID").to_owned())
    }

    /// Sets a global variable, which a call sees where it has none of its own by that name.
    ///
    /// # Errors
    ///
    /// [`AmiError::Refused`] with Asterisk's reason.
    pub async fn set_global(&self, name: &str, value: &str) -> Result<(), AmiError> {
        self.action(
            "Setvar",
            &[("Variable", name.into()), ("Value", value.into())],
        )
        .await
        .map(drop)
    }

    /// Hangs a channel up by its name, or each whose name fits a regular expression between slashes.
    ///
    /// # Errors
    ///
    /// [`AmiError::Refused`] if there is none.
    pub async fn hang_up(&self, channel: &str) -> Result<(), AmiError> {
        self.action("Hangup", &[("Channel", channel.into())])
            .await
            .map(drop)
    }

    /// Sends any action and answers the response to it.
    ///
    /// # Errors
    ///
    /// [`AmiError::Refused`] with Asterisk's reason; [`AmiError::Late`] after 10 s without a response.
    pub async fn action(
        &self,
        name: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Message, AmiError> {
        let id = format!("lab-{}", self.next_action.fetch_add(1, Ordering::Relaxed));
        let mut text = format!("Action: {name}\r\nActionID: {id}\r\n");
        for (key, value) in headers {
            text.push_str(&format!("{key}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut answers = self.events();
        self.writer.lock().await.write_all(text.as_bytes()).await?;
        let answer = |message: &Message| {
            message.get("ActionID") == id && !message.get("Response").is_empty()
        };
        let response = answers.wait(ANSWER, answer).await?;
        if response.get("Response") == "Error" {
            return Err(AmiError::Refused {
                action: name.into(),
                reason: response.get("Message").into(),
            });
        }
        Ok(response)
    }
}

impl Drop for Ami {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Events {
    /// The next message that fits; those before it are passed over. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`AmiError::Late`] if none has come within `limit`, [`AmiError::Gone`] if the connection ended.
    pub async fn wait(
        &mut self,
        limit: Duration,
        fits: impl Fn(&Message) -> bool,
    ) -> Result<Message, AmiError> {
        let deadline = Instant::now() + limit;
        loop {
            match timeout_at(deadline, self.messages.recv()).await {
                Ok(Some(message)) if fits(&message) => return Ok(message),
                Ok(Some(_)) => {}
                Ok(None) => return Err(AmiError::Gone),
                Err(_) => return Err(AmiError::Late { limit }),
            }
        }
    }
}

impl Message {
    /// The value of a header, empty if there is none.
    #[must_use]
    pub fn get(&self, key: &str) -> &str {
        let found = self
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(key));
        found.map_or("", |(_, value)| value)
    }

    /// Whether it is the event of this name.
    #[must_use]
    pub fn is(&self, event: &str) -> bool {
        self.get("Event") == event
    }

    /// Whether it is what the lab's dialplan tells at `place` (`after-app`, `after-dial`, `hangup`, `caller-hangup`, `returned`) of
    /// the call with this tag. After Dial and at hang-up its headers `dialstatus` and `cause` hold what the dialplan sees.
    #[must_use]
    pub fn is_lab(&self, tag: &str, place: &str) -> bool {
        self.is("UserEvent")
            && self.get("UserEvent") == "Lab"
            && self.get("tag") == tag
            && self.get("where") == place
    }

    fn push_line(&mut self, line: &str) {
        // The greeting is the only line without a colon.
        if let Some((key, value)) = line.split_once(':') {
            self.headers
                .push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
}

impl Originate {
    /// A call whose channel, once it has answered, goes to an extension.
    #[must_use]
    pub fn exten(channel: &str, context: &str, exten: &str) -> Self {
        let to = [
            ("Context", context.into()),
            ("Exten", exten.into()),
            ("Priority", "1".into()),
        ];
        Self::channel(channel).with(to)
    }

    /// A call whose channel, once it has answered, runs an application.
    #[must_use]
    pub fn application(channel: &str, application: &str, data: &str) -> Self {
        Self::channel(channel).with([("Application", application.into()), ("Data", data.into())])
    }

    /// Sets a variable on the channel; a name that starts with `__` is inherited by every channel it makes.
    #[must_use]
    pub fn variable(self, name: &str, value: &str) -> Self {
        // Each in a header of its own: Asterisk drops lines that are too long.
        self.with([("Variable", format!("{name}={value}"))])
    }

    /// How long the channel may take to answer; 30 s if nothing is said.
    #[must_use]
    pub fn answer_within(self, limit: Duration) -> Self {
        self.with([("Timeout", limit.as_millis().to_string())])
    }

    fn channel(channel: &str) -> Self {
        Self {
            headers: vec![("Channel", channel.into()), ("Async", "true".into())],
        }
    }

    fn with(mut self, headers: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.headers.extend(headers);
        self
    }
}

/// What can go wrong with the manager interface.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AmiError {
    /// The connection could not be made, or broke.
    #[error("the manager interface can't be reached: {0}")]
    Io(#[from] std::io::Error),
    /// Asterisk refused an action.
    #[error("Asterisk refused {action}: {reason}")]
    Refused {
        /// The action's name.
        action: String,
        /// Asterisk's words.
        reason: String,
    },
    /// What was waited for did not come.
    #[error("nothing that fits came within {limit:?}; Asterisk's log says what happened instead")]
    Late {
        /// How long it was waited for.
        limit: Duration,
    },
    /// The connection ended.
    #[error("Asterisk closed the manager connection; did it stop?")]
    Gone,
}

/// Cuts the stream into messages, which end with an empty line.
async fn read(mut reader: BufReader<OwnedReadHalf>, subscribers: Subscribers) {
    let mut message = Message::default();
    let mut line = Vec::new();
    // An error is an end like any other: the receivers see it when the senders are dropped.
    while reader.read_until(b'\n', &mut line).await.unwrap_or(0) > 0 {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if !text.is_empty() {
            message.push_line(&text);
            continue;
        }
        let whole = std::mem::take(&mut message);
        let mut subscribers = subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| subscriber.send(whole.clone()).is_ok());
    }
    subscribers
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
}
