//! A bot, as an operator or a program sets it up.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use sidetone::{Call, Clip, EndReason};
use sidetone_websocket::Endpoint;

use crate::{dialect::Dialect, driver, failure::BotFailure, session::Session};

/// A bot: where it is, and how it is spoken to. Clones are cheap.
#[derive(Clone)]
pub struct Bot {
    pub(crate) endpoint: Arc<Endpoint>,
    /// The whole address, which signatures are made of.
    pub(crate) address: Arc<str>,
    pub(crate) dialect: Arc<dyn Dialect>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) connect_within: Duration,
    pub(crate) comfort: Option<Clip>,
    pub(crate) reconnects: u32,
    pub(crate) prebuffer: Duration,
    pub(crate) budget: Budget,
}

/// How a call with a bot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BotEnd {
    /// The call ended: the caller hung up, or this side did.
    Call(EndReason),
    /// The bot ended the conversation. What it had said by then has been heard, and the call has been hung up.
    Bot,
}

impl Bot {
    /// A bot at `endpoint` that speaks `dialect`.
    pub fn new(endpoint: Endpoint, dialect: impl Dialect) -> Self {
        Self::with_dialect(endpoint, Arc::new(dialect))
    }

    /// As [`new`](Self::new), for a dialect that is chosen at run time.
    pub fn with_dialect(endpoint: Endpoint, dialect: Arc<dyn Dialect>) -> Self {
        Self {
            address: endpoint.uri().to_string().into(),
            endpoint: Arc::new(endpoint),
            dialect,
            headers: Vec::new(),
            connect_within: Duration::from_secs(3),
            comfort: None,
            reconnects: 0,
            prebuffer: Duration::ZERO,
            budget: Budget::unlimited(),
        }
    }

    /// Sends a header with the request for a connection. It is not logged.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// How long the bot may take to take a call. 3 s unless set.
    #[must_use]
    pub fn connect_within(mut self, time: Duration) -> Self {
        self.connect_within = time;
        self
    }

    /// What the caller hears until the bot has taken the call, over and over. Silence unless set.
    #[must_use]
    pub fn comfort(mut self, clip: &Clip) -> Self {
        self.comfort = Some(clip.looped());
        self
    }

    /// How often a connection that breaks in the middle of a call is made again, in dialects in which a bot can go on. Never
    /// unless set.
    #[must_use]
    pub fn reconnects(mut self, times: u32) -> Self {
        self.reconnects = times;
        self
    }

    /// Delays the bot's speech by as much, so that a bot that sends it unevenly, in real time, is heard without gaps. None unless
    /// set. After a gap it is raised by 40 ms, to 120 ms at most.
    #[must_use]
    pub fn prebuffer(mut self, prebuffer: Duration) -> Self {
        self.prebuffer = prebuffer;
        self
    }

    /// What this bot's calls may keep together with all others of the same budget.
    #[must_use]
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = budget.clone();
        self
    }

    /// Gives the call to the bot, until either ends it.
    ///
    /// # Errors
    ///
    /// How the bot failed. The call goes on then, and is the caller's own again: what was queued is dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it closes the connection without a goodbye; what is queued on the call plays on.
    pub async fn run(&self, call: &mut Call, session: Session) -> Result<BotEnd, BotFailure> {
        driver::run(self, call, session).await
    }
}

impl fmt::Debug for Bot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bot")
            .field("endpoint", &self.endpoint)
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

/// How much bot audio that waits to be heard may be kept, by all calls together. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Amounts>);

#[derive(Debug)]
struct Amounts {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// At most so many bytes. A second of narrowband speech takes 16 kB.
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(Amounts {
            limit: bytes,
            used: AtomicU64::new(0),
        }))
    }

    fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// How many bytes are used.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    pub(crate) fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

/// What one call uses of a budget.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    bytes: u64,
}

impl Share {
    /// The call keeps `bytes` now. Fails if that is more than all may.
    pub(crate) fn set(&mut self, bytes: u64) -> Result<(), BotFailure> {
        let used = &self.budget.0.used;
        // Wrapping, so that a share that shrinks is a large addition.
        let change = bytes.wrapping_sub(self.bytes);
        let total = used
            .fetch_add(change, Ordering::Relaxed)
            .wrapping_add(change);
        let grows = bytes > self.bytes;
        self.bytes = bytes;
        match grows && total > self.budget.0.limit {
            true => Err(BotFailure::OverBudget),
            false => Ok(()),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
