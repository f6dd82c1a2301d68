//! `bot` and `when_bot_fails`: the bot of a route.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use sidetone_bot::{
    Bot, Endpoint,
    dialect::{Asterisk, Dialect, Plivo, Twilio, Vonage},
};
use toml::Spanned;

use super::{
    file::Resolver,
    openai::{self, OpenAiTable},
    secret::{Secret, Source},
    units::Time,
};
use crate::functions::FunctionService;

/// `bot = { … }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    dialect: Spanned<String>,
    url: Option<Spanned<String>>,
    #[serde(default)]
    headers: BTreeMap<Spanned<String>, Spanned<HeaderSource>>,
    ca_file: Option<Spanned<PathBuf>>,
    connect_within: Option<Time>,
    comfort: Option<Spanned<PathBuf>>,
    reconnect: Option<Spanned<u32>>,
    prebuffer: Option<Time>,
    account_sid: Option<Spanned<String>>,
    auth_token: Option<Spanned<Source>>,
    openai: Option<Spanned<OpenAiTable>>,
}

/// A header's value, or where it is.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum HeaderSource {
    Plain(String),
    Secret(Source),
}

/// `when_bot_fails = { … }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FailureTable {
    pub(super) play: Option<Spanned<PathBuf>>,
    pub(super) result: Option<Spanned<String>>,
}

/// What is built of a table.
pub(super) struct Built {
    pub(super) bot: Bot,
    pub(super) account: Option<TwilioAccount>,
    pub(super) functions: Option<Arc<FunctionService>>,
}

/// Who may use Twilio's REST resource for calls of a route.
#[derive(Clone, Debug)]
pub(crate) struct TwilioAccount {
    /// Any, unless the file says which.
    pub(crate) sid: Option<String>,
    pub(crate) auth_token: Secret,
}

/// The dialects, by their names in the file.
const DIALECTS: [&str; 5] = ["asterisk", "openai", "plivo", "twilio", "vonage"];

/// Connections of a call that may be made again, at once after each that breaks.
const MAX_RECONNECTS: u32 = 10;

impl Table {
    /// Whether a bot of this dialect says in words what is said.
    pub(super) fn has_transcripts(&self) -> bool {
        self.dialect.get_ref() == "openai"
    }

    /// Builds the bot, without a connection to it: it may be away now, and there for the first call. `span` is the table's place.
    pub(super) fn build(
        mut self,
        span: Range<usize>,
        resolver: &mut Resolver<'_>,
        sounds: Option<&Path>,
    ) -> Option<Built> {
        let endpoint = self.endpoint(span.clone(), resolver);
        let account = self.account(resolver);
        let openai = self.openai(span, resolver);
        let functions = openai.as_ref().and_then(|built| built.functions.clone());
        let dialect: Option<Arc<dyn Dialect>> = match openai {
            Some(built) => Some(Arc::new(built.dialect)),
            None => self.dialect(resolver, account.as_ref()),
        };
        let headers = self.headers(resolver);
        let reconnects = self.reconnects(resolver);
        let comfort = self.comfort.as_ref();
        let comfort = comfort.map(|file| resolver.sound(file, sounds));
        let mut bot = Bot::with_dialect(endpoint?, dialect?).reconnects(reconnects);
        for (name, value) in headers {
            bot = bot.header(name, value);
        }
        if let Some(time) = self.connect_within {
            bot = bot.connect_within(time.0);
        }
        if let Some(prebuffer) = self.prebuffer {
            bot = bot.prebuffer(prebuffer.0);
        }
        if let Some(clip) = comfort {
            bot = bot.comfort(&clip?);
        }
        Some(Built {
            bot,
            account,
            functions,
        })
    }

    fn endpoint(&self, span: Range<usize>, resolver: &mut Resolver<'_>) -> Option<Endpoint> {
        let is_openai = self.dialect.get_ref() == "openai";
        let (address, span) = match &self.url {
            Some(url) => (url.get_ref().as_str(), url.span()),
            None if is_openai => (openai::ADDRESS, span),
            None => {
                let text = "say where the bot is: url = \"ws://HOST:PORT/PATH\"";
                resolver.errors.add(span, text);
                return None;
            }
        };
        let endpoint = resolver.errors.take(span, Endpoint::new(address))?;
        match &self.ca_file {
            None => Some(endpoint),
            Some(file) => {
                let trusted = endpoint.with_roots(&resolver.folder.join(file.get_ref()));
                resolver.errors.take(file.span(), trusted)
            }
        }
    }

    /// None for another dialect, and for errors, which are collected.
    fn openai(&mut self, span: Range<usize>, resolver: &mut Resolver<'_>) -> Option<openai::Built> {
        let is_openai = self.dialect.get_ref() == "openai";
        match (is_openai, self.openai.take()) {
            (true, Some(table)) => table.into_inner().build(resolver),
            (true, None) => {
                let text = "say what the bot is: openai = { key = { env = \"OPENAI_API_KEY\" }, model = \"gpt-realtime\" }";
                resolver.errors.add(span, text);
                None
            }
            (false, Some(table)) => {
                let text = "leave it out: it is only for the dialect openai";
                resolver.errors.add(table.span(), text);
                None
            }
            (false, None) => None,
        }
    }

    fn dialect(
        &self,
        resolver: &mut Resolver<'_>,
        account: Option<&TwilioAccount>,
    ) -> Option<Arc<dyn Dialect>> {
        let name = self.dialect.get_ref();
        match name.as_str() {
            "asterisk" => Some(Arc::new(Asterisk::default())),
            // Its errors are collected.
            "openai" => None,
            "plivo" => Some(Arc::new(Plivo::default())),
            "vonage" => Some(Arc::new(Vonage::default())),
            "twilio" => {
                let mut twilio = Twilio::default();
                if let Some(sid) = &self.account_sid {
                    twilio = twilio.account_sid(sid.get_ref());
                }
                if let Some(account) = account {
                    let token = String::from_utf8_lossy(account.auth_token.expose());
                    twilio = twilio.auth_token(token);
                }
                Some(Arc::new(twilio))
            }
            _ => {
                resolver.unknown(&self.dialect, "dialect", DIALECTS.into_iter());
                None
            }
        }
    }

    fn account(&self, resolver: &mut Resolver<'_>) -> Option<TwilioAccount> {
        if self.dialect.get_ref() != "twilio" {
            let spans = [
                self.account_sid.as_ref().map(Spanned::span),
                self.auth_token.as_ref().map(Spanned::span),
            ];
            for span in spans.into_iter().flatten() {
                let text = "leave it out: it is only for the dialect twilio";
                resolver.errors.add(span, text);
            }
            return None;
        }
        let sid = match &self.account_sid {
            Some(sid) if is_sid(sid.get_ref()) => Some(sid.get_ref().clone()),
            Some(sid) => {
                let text = "an account's SID is AC and 32 hexadecimal digits";
                resolver.errors.add(sid.span(), text);
                return None;
            }
            None => None,
        };
        let source = self.auth_token.as_ref()?;
        let token = source.get_ref().read(resolver.folder);
        let auth_token = resolver.errors.take(source.span(), token)?;
        Some(TwilioAccount { sid, auth_token })
    }

    fn reconnects(&self, resolver: &mut Resolver<'_>) -> u32 {
        let Some(times) = &self.reconnect else {
            return 0;
        };
        if *times.get_ref() > MAX_RECONNECTS {
            let text = format!(
                "give a number from 0 to {MAX_RECONNECTS}: the caller hears nothing of the bot meanwhile"
            );
            resolver.errors.add(times.span(), text);
        }
        *times.get_ref()
    }

    fn headers(&self, resolver: &mut Resolver<'_>) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (name, source) in &self.headers {
            let value = match source.get_ref() {
                HeaderSource::Plain(text) => Ok(text.clone()),
                HeaderSource::Secret(source) => source
                    .read_key(resolver.folder)
                    .map(|secret| String::from_utf8_lossy(secret.expose()).into_owned()),
            };
            let value = resolver.errors.take(source.span(), value);
            let value =
                value.map(|value| HeaderValue::try_from(value).map_err(|error| error.to_string()));
            let value = value.and_then(|value| resolver.errors.take(source.span(), value));
            let header =
                HeaderName::try_from(name.get_ref().as_str()).map_err(|error| error.to_string());
            let header = resolver.errors.take(name.span(), header);
            if let (Some(header), Some(mut value)) = (header, value) {
                value.set_sensitive(true);
                headers.push((header, value));
            }
        }
        headers
    }
}

fn is_sid(text: &str) -> bool {
    let digits = text.strip_prefix("AC");
    digits
        .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|it| it.is_ascii_hexdigit()))
}
