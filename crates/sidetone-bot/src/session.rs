//! A call's data for its bot, and the events of a bot.

use std::{collections::BTreeMap, fmt, pin::Pin, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use sidetone::{Call, Event, OwnedEvent};
use uuid::Uuid;

use crate::{dialect::Transcript, failure::BotFailure};

/// A call's data for its bot: everything but the audio.
#[derive(Clone)]
pub struct Session {
    pub(crate) id: Uuid,
    pub(crate) params: Arc<BTreeMap<String, String>>,
    pub(crate) is_reconnect: bool,
    pub(crate) report: Option<Arc<Report>>,
    pub(crate) tools: Option<Arc<dyn Tools>>,
}

/// What a bot can have done in the middle of a call.
pub trait Tools: Send + Sync {
    /// Does it. `arguments` is JSON, and comes from the bot: whatever a caller talked it into.
    ///
    /// The error is told to the bot, as a reason in words.
    fn call(&self, name: &str, arguments: &str) -> ToolResult;
}

/// What a tool will have returned.
pub type ToolResult = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

type Report = dyn Fn(BotEvent) + Send + Sync;

/// What happens between a call and its bot.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum BotEvent {
    /// The bot has taken the call.
    Connected {
        /// How long that took.
        after: Duration,
    },
    /// The first audio of the bot has come.
    FirstAudio {
        /// How long after it took the call.
        after: Duration,
    },
    /// The bot did something wrong, which ends nothing.
    Complaint(String),
    /// Caller audio was dropped, because the bot does not take it.
    Dropped {
        /// How many frames of 20 ms, since the last report.
        frames: u64,
    },
    /// An event of the call that an operator may have to know of: [`OwnedEvent::Codec`], [`OwnedEvent::Error`] or
    /// [`OwnedEvent::Lagged`].
    Call(OwnedEvent),
    /// The caller pressed a key.
    Digit(char),
    /// Something that was said, in words, in dialects that have them.
    Transcript(Transcript),
    /// The connection broke, and is made once more.
    Reconnecting(BotFailure),
}

impl Session {
    /// The session of a call, without parameters.
    pub fn new(call: &Call) -> Self {
        Self::of(call.id())
    }

    /// The session of the call with this UUID.
    pub fn of(id: Uuid) -> Self {
        Self {
            id,
            params: Arc::default(),
            is_reconnect: false,
            report: None,
            tools: None,
        }
    }

    /// Adds a value to the call's data, such as `from`. The bot gets it in its dialect's own place.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.params).insert(name.into(), value.into());
        self
    }

    /// Sets all of the call's data.
    #[must_use]
    pub fn params(mut self, params: Arc<BTreeMap<String, String>>) -> Self {
        self.params = params;
        self
    }

    /// Calls `report` with each event. It must not block.
    #[must_use]
    pub fn on_event(mut self, report: impl Fn(BotEvent) + Send + Sync + 'static) -> Self {
        self.report = Some(Arc::new(report));
        self
    }

    /// What the bot can have done, in dialects that have tools. Nothing unless set.
    #[must_use]
    pub fn tools(mut self, tools: Arc<dyn Tools>) -> Self {
        self.tools = Some(tools);
        self
    }

    /// The call's UUID.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The call's data by name, and `reconnect` if the bot had this call before.
    pub fn data(&self) -> Map<String, Value> {
        let params = self.params.iter();
        let mut data: Map<_, _> = params
            .map(|(name, value)| (name.clone(), value.as_str().into()))
            .collect();
        if self.is_reconnect {
            data.insert("reconnect".into(), "true".into());
        }
        data
    }

    /// A value of the call's data.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(String::as_str)
    }

    /// Whether the bot had this call before, and lost it.
    pub fn is_reconnect(&self) -> bool {
        self.is_reconnect
    }

    pub(crate) fn report(&self, event: BotEvent) {
        if let Some(report) = &self.report {
            report(event);
        }
    }

    /// Reports an event of the call if an operator may have to know of it.
    pub(crate) fn report_call(&self, event: &Event<'_>) {
        self.report(BotEvent::Call(match event {
            Event::Codec(notice) => OwnedEvent::Codec(*notice),
            Event::Error(error) => OwnedEvent::Error(error.clone()),
            Event::Lagged { frames } => OwnedEvent::Lagged { frames: *frames },
            _ => return,
        }));
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("params", &self.params)
            .field("is_reconnect", &self.is_reconnect)
            .finish_non_exhaustive()
    }
}
