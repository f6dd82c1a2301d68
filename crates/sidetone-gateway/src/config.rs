//! The gateway's file, read and checked, with all that it names loaded.

mod bot;
mod error;
mod file;
mod openai;
mod secret;
mod transcriber;
mod units;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sidetone::{Clip, Codec, Networks};
use sidetone_bot::Bot;
use sidetone_speech::Recognizer;

use crate::{action::Action, functions::FunctionService, hooks::Endpoint, pattern::Pattern};

pub(crate) use bot::TwilioAccount;
pub use error::{ConfigError, ConfigErrors};
pub use secret::Secret;

/// What `sidetone serve` uses without a file.
pub const DEFAULT: &str = include_str!("config/default.toml");

/// Everything that the file says.
#[derive(Debug)]
pub struct Config {
    pub(crate) server: Server,
    pub(crate) http: Option<Http>,
    pub(crate) routes: BTreeMap<String, Arc<Route>>,
    pub(crate) recording: Option<Recording>,
    pub(crate) hooks: Vec<Endpoint>,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) listen: SocketAddr,
    /// What a ticket tells Asterisk to connect to, if that is not `listen`.
    pub(crate) advertise: Option<String>,
    pub(crate) allow: Option<Networks>,
    pub(crate) trusted: Option<Networks>,
    pub(crate) max_calls: Option<usize>,
    pub(crate) max_duration: Option<Duration>,
    pub(crate) tickets: TicketPolicy,
    pub(crate) ticket_lifetime: Duration,
    pub(crate) default_route: Option<String>,
    pub(crate) codec: Codec,
    pub(crate) grace: Duration,
    pub(crate) state_dir: Option<PathBuf>,
    /// Where the files lie that the HTTP API may play.
    pub(crate) sounds_dir: Option<PathBuf>,
    pub(crate) log_digits: bool,
    /// What the bots of all calls may have queued, in bytes.
    pub(crate) bot_memory: u64,
}

/// Whether a call needs a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TicketPolicy {
    Required,
    Optional,
}

#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) listen: SocketAddr,
    /// Names that a browser may ask for, besides localhost and addresses.
    pub(crate) hosts: Vec<String>,
    pub(crate) tokens: Vec<Token>,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) name: String,
    pub(crate) secret: Secret,
    pub(crate) may: Permissions,
    /// The most tickets of this token that may be unused at a time.
    pub(crate) max_unused: Option<usize>,
}

/// What a token may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Permissions {
    pub(crate) tickets: bool,
    pub(crate) read: bool,
    pub(crate) listen: bool,
    pub(crate) control: bool,
}

impl Permissions {
    pub(crate) const ALL: Self = Self {
        tickets: true,
        read: true,
        listen: true,
        control: true,
    };
}

/// What happens to a call.
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) play: Option<Clip>,
    pub(crate) echo: bool,
    pub(crate) record: bool,
    pub(crate) save_transcript: bool,
    pub(crate) transcriber: Option<Arc<dyn Recognizer>>,
    pub(crate) bot: Option<RouteBot>,
    pub(crate) max_duration: Option<Duration>,
    /// How many calls it has at a time, whatever the gateway has.
    pub(crate) max_calls: Option<usize>,
    /// The result of its calls, unless something else sets one.
    pub(crate) result: Action,
    /// The extensions that a result may dial.
    pub(crate) dial: Vec<Pattern>,
}

/// The bot of a route.
#[derive(Debug)]
pub(crate) struct RouteBot {
    pub(crate) bot: Bot,
    /// Who may use Twilio's REST resource for its calls; nobody, unless the file says who.
    pub(crate) account: Option<TwilioAccount>,
    /// What carries out its functions.
    pub(crate) functions: Option<Arc<FunctionService>>,
    pub(crate) failure: BotFailureBranch,
}

/// What happens when a bot fails.
pub(crate) struct BotFailureBranch {
    pub(crate) play: Option<Clip>,
    pub(crate) result: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recording {
    pub(crate) dir: PathBuf,
    pub(crate) keep: Option<Duration>,
    pub(crate) min_free: Option<u64>,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// All that is wrong with it, each with its line and column.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigErrors::unreadable(path, &error))?;
        Self::parse(&text, path)
    }

    /// The embedded default.
    pub fn embedded() -> Result<Self, ConfigErrors> {
        Self::parse(DEFAULT, Path::new("the default"))
    }

    /// Checks the text of a file. Relative paths in it start at the folder of `path`.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        file::File::parse(text)
            .map_err(|error| error::syntax(path, text, &error))
            .and_then(|file| file::resolve(file, text, path))
    }

    /// The address that the AudioSocket server listens on.
    pub fn listen(&self) -> SocketAddr {
        self.server.listen
    }

    /// The address of the page and the HTTP API, unless there is none.
    pub fn http_listen(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.listen)
    }
}

impl fmt::Debug for BotFailureBranch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BotFailureBranch")
            .field("result", &self.result)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
