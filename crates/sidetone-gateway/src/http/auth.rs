//! Who asks, and what they may do.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use utoipa::{
    Modify,
    openapi::{
        OpenApi,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{App, connections::Peer, problem::Problem, session};
use crate::{
    config::{self, Permissions, Secret},
    rate_limit::RateLimit,
};

/// Wrong tokens and passwords that are looked at each second. More are refused unseen.
const FAILURES_PER_SECOND: u32 = 20;

/// The name of the token that is made if the file has none.
pub(crate) const GENERATED: &str = "generated";

/// What requests are let in by.
pub(crate) struct Access {
    /// Used while the file has no token.
    generated: config::Token,
    failures: Mutex<RateLimit>,
}

/// Somebody who may do something.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// The token's name; none for a dialplan on this machine.
    pub(super) name: Option<String>,
    pub(super) may: Permissions,
    /// The most tickets that may be unused.
    pub(super) max_unused: Option<usize>,
    /// Asked with a session's cookie alone, which a browser sends for other pages of the same host, too.
    pub(super) is_unconfirmed: bool,
}

impl Identity {
    /// For the log.
    pub(super) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| "(local)".into())
    }
}

/// A token that nobody can guess, with all permissions.
pub(crate) fn generated_token() -> Result<config::Token, ring::error::Unspecified> {
    let mut bytes = [0; 24];
    SystemRandom::new().fill(&mut bytes)?;
    Ok(config::Token {
        name: GENERATED.into(),
        secret: Secret::new(URL_SAFE_NO_PAD.encode(bytes)),
        may: Permissions::ALL,
        max_unused: None,
    })
}

impl Access {
    pub(crate) fn new(generated: config::Token) -> Self {
        Self {
            generated,
            failures: Mutex::new(RateLimit::new(FAILURES_PER_SECOND)),
        }
    }

    /// The tokens that count now.
    fn tokens<'a>(&'a self, configured: &'a [config::Token]) -> &'a [config::Token] {
        match configured.is_empty() {
            true => std::slice::from_ref(&self.generated),
            false => configured,
        }
    }

    /// The token with this secret.
    pub(super) fn by_secret<'a>(
        &'a self,
        configured: &'a [config::Token],
        secret: &[u8],
    ) -> Result<&'a config::Token, Problem> {
        // All of them, so that the time says nothing of which one it is.
        let mut found = None;
        for token in self.tokens(configured) {
            if token.secret.is(secret) {
                found = Some(token);
            }
        }
        found.ok_or_else(|| self.failed())
    }

    pub(super) fn by_name<'a>(
        &'a self,
        configured: &'a [config::Token],
        name: &str,
    ) -> Option<&'a config::Token> {
        let mut tokens = self.tokens(configured).iter();
        tokens.find(|token| token.name == name)
    }

    fn failed(&self) -> Problem {
        match self.note_failure() {
            true => Problem::new(
                StatusCode::UNAUTHORIZED,
                "this is none of the gateway's tokens",
            ),
            false => Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many wrong tokens: wait a second",
            ),
        }
    }

    /// Somebody gave a wrong secret. False if there were too many of them in this second.
    pub(super) fn note_failure(&self) -> bool {
        let mut failures = self.failures.lock();
        let now = Instant::now();
        failures.take_due(now);
        failures.allows(now, 1)
    }
}

/// Who asks: by the token in `Authorization`, by the session's cookie, or by being a dialplan on this machine.
fn identify(app: &App, parts: &Parts) -> Result<Identity, Problem> {
    let config = app.shared.registry.config();
    let configured = config.http.as_ref().map_or(&[][..], |http| &http.tokens);
    if let Some(header) = parts.headers.get(header::AUTHORIZATION) {
        let token = header.as_bytes();
        let token = token
            .split_at_checked(7)
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        let (_, token) = token.ok_or_else(|| {
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "send the token as `Authorization: Bearer TOKEN`",
            )
        })?;
        let token = app.access.by_secret(configured, token.trim_ascii())?;
        return Ok(identity_of(token));
    }
    if let Some(cookie) = session::cookie(&parts.headers) {
        let now = SystemTime::now();
        let session = session::Session::verify(cookie, now, |name| {
            let token = app.access.by_name(configured, name)?;
            Some(token.secret.clone())
        });
        let session = session.ok_or_else(|| {
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "this session is over: log in again",
            )
        })?;
        let is_safe = matches!(parts.method, Method::GET | Method::HEAD);
        let is_unconfirmed = !session.is_confirmed(&parts.headers);
        if !is_safe && is_unconfirmed {
            return Err(Problem::unconfirmed());
        }
        let token = app.access.by_name(configured, &session.name);
        let token = token.ok_or_else(Problem::no_token)?;
        return Ok(Identity {
            is_unconfirmed,
            ..identity_of(token)
        });
    }
    let needs_token = configured.iter().any(|token| token.may.tickets);
    match is_local(parts) && !needs_token {
        true => Ok(Identity {
            name: None,
            may: Permissions {
                tickets: true,
                ..Permissions::default()
            },
            max_unused: None,
            is_unconfirmed: false,
        }),
        false => Err(Problem::no_token()),
    }
}

fn identity_of(token: &config::Token) -> Identity {
    Identity {
        name: Some(token.name.clone()),
        may: token.may,
        max_unused: token.max_unused,
        is_unconfirmed: false,
    }
}

/// Whether a program of this machine asks for itself. A proxy on this machine asks for others.
fn is_local(parts: &Parts) -> bool {
    let peer = parts.extensions.get::<Peer>();
    let is_proxied = |headers: &HeaderMap| {
        headers.contains_key("forwarded") || headers.contains_key("x-forwarded-for")
    };
    peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback()) && !is_proxied(&parts.headers)
}

impl Problem {
    pub(super) fn unconfirmed() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "a session sends its csrf value as X-CSRF-Token",
        )
    }

    pub(super) fn no_token() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "send a token of the file's as `Authorization: Bearer TOKEN`",
        )
    }

    pub(super) fn may_not(what: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            format!("this token may not do that: give it \"{what}\" in `may`"),
        )
    }
}

impl FromRequestParts<Arc<App>> for Identity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        identify(app, parts)
    }
}

macro_rules! permission {
    ($(#[$doc:meta])* $name:ident, $field:ident) => {
        $(#[$doc])*
        pub(super) struct $name(pub(super) Identity);

        impl FromRequestParts<Arc<App>> for $name {
            type Rejection = Problem;

            async fn from_request_parts(
                parts: &mut Parts,
                app: &Arc<App>,
            ) -> Result<Self, Problem> {
                let identity = identify(app, parts)?;
                match identity.may.$field {
                    true => Ok(Self(identity)),
                    false if identity.name.is_none() => Err(Problem::no_token()),
                    false => Err(Problem::may_not(stringify!($field))),
                }
            }
        }
    };
}

permission!(
    /// Somebody who may see calls and figures.
    MayRead,
    read
);
permission!(
    /// Somebody who may hear calls.
    MayListen,
    listen
);
permission!(
    /// Somebody who may change calls.
    MayControl,
    control
);

/// The token, in the description of the API.
pub(super) struct TokenScheme;

impl Modify for TokenScheme {
    fn modify(&self, description: &mut OpenApi) {
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token of the gateway's file"))
            .build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(token));
    }
}
