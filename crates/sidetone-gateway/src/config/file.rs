//! The shape of the file, and the way from it to [`Config`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use sidetone::{Clip, Codec, Networks};
use sidetone_speech::Recognizer;
use toml::Spanned;

use super::{
    BotFailureBranch, Config, ConfigErrors, Http, Permissions, Recording, Route, RouteBot, Server,
    TicketPolicy, Token, bot,
    error::{Collector, suggest},
    secret::Source,
    transcriber,
    units::{Bytes, Time},
};
use crate::{
    action::Action,
    event::EventKind,
    hooks::{Endpoint, SigningKey},
    pattern::Pattern,
};

/// The whole file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    server: ServerTable,
    http: Option<HttpTable>,
    #[serde(default)]
    route: BTreeMap<Spanned<String>, Spanned<RouteTable>>,
    #[serde(default)]
    transcriber: BTreeMap<Spanned<String>, Spanned<transcriber::Table>>,
    recording: Option<RecordingTable>,
    #[serde(default)]
    hook: Vec<HookTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerTable {
    listen: Option<Spanned<String>>,
    advertise: Option<Spanned<String>>,
    allow: Option<Vec<Spanned<String>>>,
    trusted: Option<Vec<Spanned<String>>>,
    max_calls: Option<Spanned<usize>>,
    max_duration: Option<Time>,
    tickets: Option<TicketPolicy>,
    ticket_lifetime: Option<Spanned<Time>>,
    default_route: Option<Spanned<String>>,
    codec: Option<CodecName>,
    grace: Option<Time>,
    state_dir: Option<PathBuf>,
    sounds_dir: Option<Spanned<PathBuf>>,
    #[serde(default)]
    log_digits: bool,
    bot_memory: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CodecName {
    Slin,
    Ulaw,
    Alaw,
    Auto,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpTable {
    listen: Option<Spanned<String>>,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    token: Vec<TokenTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenTable {
    name: Spanned<String>,
    secret: Spanned<Source>,
    may: Vec<Permission>,
    max_unused: Option<usize>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Permission {
    Tickets,
    Read,
    Listen,
    Control,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteTable {
    play: Option<PlayTable>,
    echo: Option<EchoTable>,
    #[serde(default)]
    record: Option<Spanned<bool>>,
    transcribe: Option<Spanned<String>>,
    save_transcript: Option<Spanned<bool>>,
    bot: Option<Spanned<bot::Table>>,
    when_bot_fails: Option<Spanned<bot::FailureTable>>,
    max_calls: Option<Spanned<usize>>,
    max_duration: Option<Time>,
    result: Option<Spanned<String>>,
    #[serde(default)]
    dial: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlayTable {
    file: Spanned<PathBuf>,
    #[serde(default, rename = "loop")]
    looped: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EchoTable {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordingTable {
    dir: PathBuf,
    keep_days: Option<u32>,
    min_free: Option<Bytes>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HookTable {
    url: Spanned<String>,
    secret: Option<Spanned<Source>>,
    events: Vec<Spanned<String>>,
}

/// What the bots of all calls may have queued, unless the file says: four hours of speech.
const BOT_MEMORY: u64 = 256_000_000;

impl File {
    pub(super) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

/// Checks what the parser can't, and loads what the file names.
pub(super) fn resolve(file: File, text: &str, path: &Path) -> Result<Config, ConfigErrors> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut resolver = Resolver {
        folder,
        errors: Collector::new(path, text),
    };
    let recording = file.recording.map(|table| Recording {
        dir: folder.join(table.dir),
        keep: table
            .keep_days
            .map(|days| Duration::from_secs(u64::from(days) * 86_400)),
        min_free: table.min_free.map(|it| it.0),
    });
    let transcribers = resolver.transcribers(file.transcriber);
    let sounds_dir = file.server.sounds_dir.as_ref();
    let sounds = sounds_dir.map(|dir| folder.join(dir.get_ref()));
    let routes = resolver.routes(
        file.route,
        &transcribers,
        recording.is_some(),
        sounds.as_deref(),
    );
    let span = file.server.listen.as_ref().map_or(0..0, Spanned::span);
    let is_advertised = file.server.advertise.is_some();
    let server = resolver.server(file.server, &routes, sounds);
    let wildcard = server
        .as_ref()
        .filter(|it| it.listen.ip().is_unspecified() && !is_advertised)
        .map(|it| (it.listen, span));
    if let Some((listen, span)) = wildcard
        && file.http.is_some()
    {
        resolver.errors.add(
            span,
            format_args!(
                "{listen} is no address that Asterisk can connect to: say what tickets name, as in advertise = \"192.0.2.1:{}\"",
                listen.port()
            ),
        );
    }
    let http = file.http.map(|table| resolver.http(table));
    let hooks = file.hook.into_iter();
    let hooks = hooks.filter_map(|table| resolver.hook(table)).collect();
    let hooks = with_names_of_their_own(hooks);
    let (Some(server), Some(http)) = (server, http.map_or(Some(None), |http| http.map(Some)))
    else {
        return Err(resolver.errors.into_errors());
    };
    resolver.errors.finish(Config {
        server,
        http,
        routes,
        recording,
        hooks,
    })
}

/// Hooks to the same host are told apart by numbers.
fn with_names_of_their_own(mut hooks: Vec<Endpoint>) -> Vec<Endpoint> {
    let mut hosts: BTreeMap<String, usize> = BTreeMap::new();
    for hook in &mut hooks {
        let number = hosts.entry(hook.name.clone()).or_default();
        *number += 1;
        if *number > 1 {
            hook.name = format!("{}-{number}", hook.name);
        }
    }
    hooks
}

pub(super) struct Resolver<'a> {
    pub(super) folder: &'a Path,
    pub(super) errors: Collector<'a>,
}

/// Those that could be built, by name.
type Transcribers = BTreeMap<String, Option<Arc<dyn Recognizer>>>;
type Routes = BTreeMap<String, Arc<Route>>;

impl Resolver<'_> {
    fn server(
        &mut self,
        table: ServerTable,
        routes: &Routes,
        sounds_dir: Option<PathBuf>,
    ) -> Option<Server> {
        let listen = self.address(table.listen.as_ref(), "127.0.0.1:9092");
        if let Some(route) = &table.default_route
            && !routes.contains_key(route.get_ref())
        {
            let known = routes.keys().map(String::as_str);
            self.unknown(route, "route", known);
        }
        if let Some(dir) = table.sounds_dir.as_ref()
            && let Some(folder) = &sounds_dir
            && !folder.is_dir()
        {
            let text = format!("{} is no folder", folder.display());
            self.errors.add(dir.span(), text);
        }
        let max_calls = self.at_least_one(table.max_calls);
        if let Some(advertise) = &table.advertise {
            self.advertise(advertise);
        }
        let tickets = table.tickets.unwrap_or(TicketPolicy::Required);
        let ticket_lifetime = self.lifetime(table.ticket_lifetime.as_ref());
        let allow = self.networks(table.allow.as_deref());
        let listen = listen?;
        if allow.is_none() && !listen.ip().is_loopback() {
            let span = table.listen.map_or(0..0, |it| it.span());
            self.errors.add(
                span,
                format_args!(
                    "{listen} can be reached from other machines, and AudioSocket has no login: name who may connect, as in allow = [\"10.0.0.0/8\"]"
                ),
            );
        }
        Some(Server {
            listen,
            advertise: table.advertise.map(Spanned::into_inner),
            allow,
            trusted: self.networks(table.trusted.as_deref()),
            max_calls,
            max_duration: table.max_duration.map(|it| it.0),
            tickets,
            ticket_lifetime,
            default_route: table.default_route.map(Spanned::into_inner),
            codec: match table.codec {
                None | Some(CodecName::Slin) => Codec::Slin,
                Some(CodecName::Ulaw) => Codec::Ulaw,
                Some(CodecName::Alaw) => Codec::Alaw,
                Some(CodecName::Auto) => Codec::Auto,
            },
            grace: table.grace.map_or(Duration::from_secs(600), |it| it.0),
            state_dir: self.state_dir(table.state_dir),
            sounds_dir,
            log_digits: table.log_digits,
            bot_memory: table.bot_memory.map_or(BOT_MEMORY, |it| it.0),
        })
    }

    /// The folder that the file names, or that systemd made for the unit.
    fn state_dir(&self, dir: Option<PathBuf>) -> Option<PathBuf> {
        let from_file = dir.map(|dir| self.folder.join(dir));
        from_file.or_else(|| {
            let dirs = std::env::var("STATE_DIRECTORY").ok()?;
            dirs.split(':').next().map(PathBuf::from)
        })
    }

    fn lifetime(&mut self, lifetime: Option<&Spanned<Time>>) -> Duration {
        const RANGE: std::ops::RangeInclusive<u64> = 1..=3600;
        let Some(lifetime) = lifetime else {
            return Duration::from_secs(30);
        };
        let time = lifetime.get_ref().0;
        if !RANGE.contains(&time.as_secs()) {
            let text =
                "give a time from 1s to 1h: a ticket that nobody uses holds the place of a call";
            self.errors.add(lifetime.span(), text);
        }
        time
    }

    fn advertise(&mut self, advertise: &Spanned<String>) {
        let is_plain =
            |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'-' | b':' | b'[' | b']');
        let text = advertise.get_ref();
        let has_port = text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !has_port || !text.bytes().all(is_plain) {
            self.errors.add(
                advertise.span(),
                format_args!("{text:?} is nothing that Asterisk can connect to: write HOST:PORT"),
            );
        }
    }

    fn http(&mut self, table: HttpTable) -> Option<Http> {
        let listen = self.address(table.listen.as_ref(), "127.0.0.1:9093");
        let mut tokens: Vec<Token> = Vec::new();
        for token in table.token {
            let name = token.name.get_ref();
            let is_plain = |it: u8| it.is_ascii_alphanumeric() || it == b'-' || it == b'_';
            if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
                let text = "use up to 64 letters, digits, - and _ for a token's name";
                self.errors.add(token.name.span(), text);
            }
            if tokens.iter().any(|other| other.name == *name) {
                let text = format!("there is a token {name} already");
                self.errors.add(token.name.span(), text);
            }
            let secret = token.secret.get_ref().read(self.folder);
            if let Some(secret) = self.errors.take(token.secret.span(), secret) {
                tokens.push(Token {
                    name: token.name.into_inner(),
                    secret,
                    may: permissions(&token.may),
                    max_unused: token.max_unused,
                });
            }
        }
        Some(Http {
            listen: listen?,
            hosts: table.hosts,
            tokens,
        })
    }

    fn transcribers(
        &mut self,
        tables: BTreeMap<Spanned<String>, Spanned<transcriber::Table>>,
    ) -> Transcribers {
        let built = tables.into_iter().map(|(name, table)| {
            let recognizer = transcriber::build(table.get_ref(), self.folder);
            let recognizer = self.errors.take(table.span(), recognizer);
            (name.into_inner(), recognizer)
        });
        built.collect()
    }

    fn routes(
        &mut self,
        tables: BTreeMap<Spanned<String>, Spanned<RouteTable>>,
        transcribers: &Transcribers,
        can_record: bool,
        sounds: Option<&Path>,
    ) -> Routes {
        let mut routes = Routes::new();
        for (name, table) in tables {
            let is_plain = |it: u8| it.is_ascii_alphanumeric() || it == b'-' || it == b'_';
            let span = name.span();
            let name = name.into_inner();
            if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
                let text = "use up to 64 letters, digits, - and _ for a route's name";
                self.errors.add(span.clone(), text);
            }
            let (span, table) = (table.span(), table.into_inner());
            if table.play.is_none()
                && table.echo.is_none()
                && !matches!(&table.record, Some(record) if *record.get_ref())
                && table.transcribe.is_none()
                && table.bot.is_none()
            {
                self.errors.add(
                    span,
                    "say what the route does: play, echo, record, transcribe or bot",
                );
            }
            let route = self.route(&name, table, transcribers, can_record, sounds);
            routes.insert(name, Arc::new(route));
        }
        routes
    }

    fn route(
        &mut self,
        name: &str,
        table: RouteTable,
        transcribers: &Transcribers,
        can_record: bool,
        sounds: Option<&Path>,
    ) -> Route {
        let saves = table.save_transcript.as_ref().filter(|it| *it.get_ref());
        let records = table.record.as_ref().filter(|it| *it.get_ref());
        for wanted in [records, saves].into_iter().flatten() {
            if !can_record {
                let text = "say where recordings go: [recording] with dir = \"…\"";
                self.errors.add(wanted.span(), text);
            }
        }
        let bot = table.bot.as_ref().map(Spanned::get_ref);
        if let Some(saves) = saves
            && table.transcribe.is_none()
            && !bot.is_some_and(bot::Table::has_transcripts)
        {
            let text = "nothing on this route turns what is said into words: add transcribe, or a bot of the dialect openai";
            self.errors.add(saves.span(), text);
        }
        let save_transcript = saves.is_some();
        let transcriber = table.transcribe.as_ref().and_then(|wanted| {
            let found = transcribers.get(wanted.get_ref());
            if found.is_none() {
                let known = transcribers.keys().map(String::as_str);
                self.unknown(wanted, "transcriber", known);
            }
            found.cloned().flatten()
        });
        let max_calls = self.at_least_one(table.max_calls);
        let dial = table.dial.iter();
        let dial = dial.filter_map(|pattern| {
            let parsed = pattern.get_ref().parse::<Pattern>();
            self.errors.take(pattern.span(), parsed)
        });
        let mut route = Route {
            name: name.into(),
            max_calls,
            dial: dial.collect(),
            play: None,
            echo: table.echo.is_some(),
            record: table.record.is_some_and(Spanned::into_inner),
            save_transcript,
            transcriber,
            bot: None,
            max_duration: table.max_duration.map(|it| it.0),
            result: Action::Continue,
        };
        route.play = table.play.and_then(|play| self.clip(&play, sounds));
        if let Some(action) = self.result(table.result.as_ref(), &route) {
            route.result = action;
        }
        route.bot = self.bot(table.bot, table.when_bot_fails, &route, sounds);
        route
    }

    fn at_least_one(&mut self, number: Option<Spanned<usize>>) -> Option<usize> {
        let number = number?;
        if *number.get_ref() == 0 {
            self.errors
                .add(number.span(), "give a number of at least 1");
        }
        Some(number.into_inner())
    }

    fn bot(
        &mut self,
        table: Option<Spanned<bot::Table>>,
        when_fails: Option<Spanned<bot::FailureTable>>,
        route: &Route,
        sounds: Option<&Path>,
    ) -> Option<RouteBot> {
        let Some(table) = table else {
            if let Some(when_fails) = when_fails {
                let text = "leave it out: this route has no bot";
                self.errors.add(when_fails.span(), text);
            }
            return None;
        };
        if route.echo || route.play.is_some() || route.transcriber.is_some() {
            let text =
                "a route with a bot has no echo, play or transcribe: the bot hears and speaks";
            self.errors.add(table.span(), text);
        }
        let mut failure = BotFailureBranch {
            play: None,
            result: route.result.clone(),
        };
        if let Some(table) = when_fails.map(Spanned::into_inner) {
            failure.play = table.play.and_then(|file| self.sound(&file, sounds));
            if let Some(action) = self.result(table.result.as_ref(), route) {
                failure.result = action;
            }
        }
        let span = table.span();
        let built = table.into_inner().build(span, self, sounds)?;
        Some(RouteBot {
            bot: built.bot,
            account: built.account,
            functions: built.functions,
            failure,
        })
    }

    /// A result that calls of this route may have.
    fn result(&mut self, result: Option<&Spanned<String>>, route: &Route) -> Option<Action> {
        let result = result?;
        let action = result.get_ref().parse::<Action>();
        let action = action.and_then(|action| action.check(route).map(|()| action));
        self.errors.take(result.span(), action)
    }

    fn clip(&mut self, play: &PlayTable, sounds: Option<&Path>) -> Option<Clip> {
        let clip = self.sound(&play.file, sounds)?;
        Some(if play.looped { clip.looped() } else { clip })
    }

    /// A sound file, in `sounds_dir` if there is one.
    pub(super) fn sound(&mut self, file: &Spanned<PathBuf>, sounds: Option<&Path>) -> Option<Clip> {
        let path = sounds.unwrap_or(self.folder).join(file.get_ref());
        let clip = Clip::open(&path).map_err(|error| crate::with_sources(&error));
        self.errors.take(file.span(), clip)
    }

    fn hook(&mut self, table: HookTable) -> Option<Endpoint> {
        let url = hook_url(table.url.get_ref());
        let url = self.errors.take(table.url.span(), url);
        let key = self.signing_key(table.secret.as_ref());
        let mut events = BTreeSet::new();
        for event in &table.events {
            match EventKind::from_name(event.get_ref()) {
                Some(kind) => {
                    events.insert(kind.name().to_owned());
                }
                None => self.unknown(event, "event", EventKind::ALL.iter().map(|it| it.name())),
            }
        }
        if table.events.is_empty() {
            self.errors
                .add(table.url.span(), "say which events this hook gets");
        }
        let url = url?;
        Some(Endpoint {
            name: url.host().unwrap_or_default().to_owned(),
            url,
            key: key?,
            events,
        })
    }

    /// The key that signs what is sent to an address; none if it is not to be signed. `None` for an error, which is collected.
    pub(super) fn signing_key(
        &mut self,
        source: Option<&Spanned<Source>>,
    ) -> Option<Option<SigningKey>> {
        let Some(source) = source else {
            return Some(None);
        };
        let secret = source.get_ref().read(self.folder);
        let key = secret.and_then(|secret| {
            SigningKey::from_secret(secret.expose()).map_err(|error| error.to_string())
        });
        self.errors.take(source.span(), key).map(Some)
    }

    fn address(&mut self, given: Option<&Spanned<String>>, default: &str) -> Option<SocketAddr> {
        let text = given.map_or(default, |it| it.get_ref());
        let found = text.to_socket_addrs().map(|mut all| all.next());
        let address = match found {
            Ok(Some(address)) => Ok(address),
            _ => Err(format!(
                "{text:?} is no address to listen on: write HOST:PORT, like 127.0.0.1:9092"
            )),
        };
        self.errors
            .take(given.map_or(0..0, |it| it.span()), address)
    }

    fn networks(&mut self, texts: Option<&[Spanned<String>]>) -> Option<Networks> {
        let mut all: Option<Networks> = None;
        for text in texts? {
            let networks = text.get_ref().parse::<Networks>();
            if let Some(networks) = self.errors.take(text.span(), networks) {
                all = Some(match all {
                    Some(all) => all.and(networks),
                    None => networks,
                });
            }
        }
        all
    }

    pub(super) fn unknown<'a>(
        &mut self,
        name: &Spanned<String>,
        what: &str,
        known: impl Iterator<Item = &'a str> + Clone,
    ) {
        let wrong = name.get_ref();
        let all: Vec<&str> = known.clone().collect();
        let text = match (suggest(wrong, known), all.is_empty()) {
            (Some(meant), _) => format!("there is no {what} {wrong:?}: did you mean {meant:?}?"),
            (None, true) => format!("there is no {what} {wrong:?}, nor any other"),
            (None, false) => format!("there is no {what} {wrong:?}, only {}", all.join(", ")),
        };
        self.errors.add(name.span(), text);
    }
}

fn permissions(all: &[Permission]) -> Permissions {
    let mut permissions = Permissions::default();
    for permission in all {
        match permission {
            Permission::Tickets => permissions.tickets = true,
            Permission::Read => permissions.read = true,
            Permission::Listen => permissions.listen = true,
            Permission::Control => permissions.control = true,
        }
    }
    permissions
}

/// An address for hooks and functions: what it says is all there is, without user, password or template.
pub(super) fn hook_url(text: &str) -> Result<http::Uri, String> {
    let url: http::Uri = text
        .parse()
        .map_err(|error| format!("{text:?} is no address for a hook: {error}"))?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https"));
    let authority = url.authority().map(http::uri::Authority::as_str);
    match authority {
        Some(authority)
            if is_http && !authority.contains('@') && !text.contains(['{', '}', '$']) =>
        {
            Ok(url)
        }
        _ => Err(format!(
            "{text:?} is no address for a hook: write https://HOST/PATH, without a user, a password or a template"
        )),
    }
}
