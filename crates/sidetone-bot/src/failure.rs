//! How a bot fails.

/// Why a bot is not, or no longer, on a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BotFailure {
    /// There is no connection to it: nothing listens there, or it did not answer in time.
    #[error("the bot can't be reached: {0}")]
    Unavailable(String),
    /// It answers, but does not take the call.
    #[error("the bot refuses the call: {reason}")]
    Refused {
        /// The HTTP status of its answer.
        status: u16,
        /// What it says, for an operator.
        reason: String,
    },
    /// The connection broke in the middle of the call.
    #[error("the connection to the bot broke: {0}")]
    Broken(String),
    /// It closed the connection with a code that is not that of a normal end.
    #[error("the bot closed the connection: {code} {reason}")]
    Closed {
        /// The code (RFC 6455, 7.4).
        code: u16,
        /// What it says.
        reason: String,
    },
    /// It no longer answers pings.
    #[error("the bot has stopped answering")]
    Silent,
    /// Its session has reached the service's limit of time.
    #[error("the bot's session has expired: {0}")]
    Expired(String),
    /// The service has a limit of its use, which is reached.
    #[error("the bot's service takes no more for now: {0}")]
    RateLimited(String),
    /// The service does not go on: a key, an account or a setting is wrong, or it fails again and again.
    #[error("the bot's service refuses the conversation: {0}")]
    Rejected(String),
    /// What it says is not of its dialect.
    #[error("the bot does not speak its dialect: {0}")]
    Protocol(String),
    /// More audio than a call may keep is queued.
    #[error("the bot sent more audio than is kept for a call")]
    Flooded,
    /// The bot audio of all calls together is more than the server may keep.
    #[error("the bots of all calls sent more audio than the server may keep")]
    OverBudget,
}

impl BotFailure {
    /// Whether the next call will probably fail, too: the bot is away, broken or refuses.
    pub const fn is_outage(&self) -> bool {
        !matches!(
            self,
            Self::Protocol(_) | Self::Flooded | Self::OverBudget | Self::Expired(_)
        )
    }

    /// One word for it, as metrics have it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Refused { .. } => "refused",
            Self::Broken(_) => "broken",
            Self::Closed { .. } => "closed",
            Self::Silent => "silent",
            Self::Expired(_) => "expired",
            Self::RateLimited(_) => "rate_limited",
            Self::Rejected(_) => "rejected",
            Self::Protocol(_) => "protocol",
            Self::Flooded => "flooded",
            Self::OverBudget => "over_budget",
        }
    }
}
