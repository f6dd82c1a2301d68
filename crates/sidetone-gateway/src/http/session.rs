//! The page's sessions: a cookie that says whose it is and until when, signed with the secret of the token.
//!
//! Nothing is kept of a session, so it survives a restart of the gateway, and ends when its token changes.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::{App, auth::Identity, problem::Problem};
use crate::config::{Permissions, Secret};

const COOKIE: &str = "sidetone_session";

/// How long a session lasts: a working day.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// A session whose cookie was found to be ours.
pub(super) struct Session {
    /// The name of its token.
    pub(super) name: String,
    csrf: String,
}

impl Session {
    /// Makes the cookie and the CSRF value of a new session.
    fn begin(name: &str, secret: &Secret, nonce: &str, now: SystemTime) -> (String, String) {
        let claims = format!("{name}.{}.{nonce}", seconds(now + LIFETIME));
        let mac = sign(secret, "session", &claims);
        (format!("{claims}.{mac}"), sign(secret, "csrf", &claims))
    }

    /// The session of a cookie, if it is signed with the secret of the token that it names, and not over.
    pub(super) fn verify(
        cookie: &str,
        now: SystemTime,
        secret_of: impl Fn(&str) -> Option<Secret>,
    ) -> Option<Self> {
        let (claims, mac) = cookie.rsplit_once('.')?;
        let (name, rest) = claims.split_once('.')?;
        let secret = secret_of(name)?;
        let expected = sign(&secret, "session", claims);
        if !bool::from(expected.as_bytes().ct_eq(mac.as_bytes())) {
            return None;
        }
        let (until, _) = rest.split_once('.')?;
        (seconds(now) < until.parse::<u64>().ok()?).then(|| Self {
            name: name.into(),
            csrf: sign(&secret, "csrf", claims),
        })
    }

    /// Whether the page itself sent the request: other pages don't know the value.
    pub(super) fn is_confirmed(&self, headers: &HeaderMap) -> bool {
        let value = headers.get("x-csrf-token");
        value.is_some_and(|value| self.csrf.as_bytes().ct_eq(value.as_bytes()).into())
    }
}

fn sign(secret: &Secret, purpose: &str, claims: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    let mac = hmac::sign(&key, format!("sidetone {purpose} {claims}").as_bytes());
    URL_SAFE_NO_PAD.encode(mac)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// The session's cookie of a request.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let mut cookies = cookies
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(';'));
    cookies.find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

#[derive(Deserialize, utoipa::ToSchema)]
pub(super) struct LogIn {
    /// A token of the gateway's file.
    token: String,
}

/// Who is logged in.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct LoggedIn {
    /// The token's name.
    name: String,
    /// What it may do.
    may: Vec<&'static str>,
    /// Sent as `X-CSRF-Token` with every request that is not GET. Absent without a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf: Option<String>,
}

/// Begin a session of the page
#[utoipa::path(
    post, path = "/v1/session", tag = "page", request_body = LogIn, security(()),
    responses((status = OK, body = LoggedIn), (status = UNAUTHORIZED, body = Problem))
)]
pub(super) async fn log_in(
    State(app): State<Arc<App>>,
    body: Result<Json<LogIn>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(LogIn { token }) = body?;
    let config = app.shared.registry.config();
    let configured = config.http.as_ref().map_or(&[][..], |http| &http.tokens);
    let token = app.access.by_secret(configured, token.trim().as_bytes())?;
    let mut nonce = [0; 16];
    SystemRandom::new().fill(&mut nonce).map_err(|_| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the system has no random numbers",
        )
    })?;
    let nonce = URL_SAFE_NO_PAD.encode(nonce);
    let (cookie, csrf) = Session::begin(&token.name, &token.secret, &nonce, SystemTime::now());
    let cookie = format!(
        "{COOKIE}={cookie}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}",
        LIFETIME.as_secs()
    );
    let body = LoggedIn::new(token.name.clone(), token.may, Some(csrf));
    Ok(([(header::SET_COOKIE, cookie)], Json(body)).into_response())
}

/// End the session of the page
#[utoipa::path(
    delete, path = "/v1/session", tag = "page",
    responses((status = NO_CONTENT), (status = UNAUTHORIZED, body = Problem))
)]
pub(super) async fn log_out(identity: Identity) -> Result<Response, Problem> {
    if identity.name.is_none() {
        return Err(Problem::no_token());
    }
    let cookie = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Who is logged in, and what they may do
#[utoipa::path(
    get, path = "/v1/session", tag = "page",
    responses((status = OK, body = LoggedIn), (status = UNAUTHORIZED, body = Problem))
)]
pub(super) async fn who(
    State(app): State<Arc<App>>,
    identity: Identity,
    headers: HeaderMap,
) -> Result<Json<LoggedIn>, Problem> {
    let Some(name) = identity.name else {
        return Err(Problem::no_token());
    };
    let config = app.shared.registry.config();
    let configured = config.http.as_ref().map_or(&[][..], |http| &http.tokens);
    let session = cookie(&headers).and_then(|cookie| {
        Session::verify(cookie, SystemTime::now(), |name| {
            let token = app.access.by_name(configured, name)?;
            Some(token.secret.clone())
        })
    });
    let csrf = session.map(|session| session.csrf);
    Ok(Json(LoggedIn::new(name, identity.may, csrf)))
}

impl LoggedIn {
    fn new(name: String, may: Permissions, csrf: Option<String>) -> Self {
        let all = [
            ("tickets", may.tickets),
            ("read", may.read),
            ("listen", may.listen),
            ("control", may.control),
        ];
        let may = all.into_iter().filter(|(_, may)| *may);
        Self {
            name,
            may: may.map(|(name, _)| name).collect(),
            csrf,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_session_is_its_tokens_until_it_ends() {
        let (secret, now) = (Secret::new("0123456789abcdef"), SystemTime::now());
        let (cookie, csrf) = Session::begin("page", &secret, "nonce", now);
        let verify = |cookie: &str, now, secret: &Secret| {
            Session::verify(cookie, now, |name| (name == "page").then(|| secret.clone()))
        };
        let session = verify(&cookie, now, &secret).unwrap();
        assert_eq!(session.name, "page");
        let mut headers = HeaderMap::new();
        assert!(!session.is_confirmed(&headers));
        headers.insert("x-csrf-token", HeaderValue::from_str(&csrf).unwrap());
        assert!(session.is_confirmed(&headers));

        assert!(verify(&cookie, now + LIFETIME, &secret).is_none());
        assert!(verify(&cookie, now, &Secret::new("another secret..")).is_none());
        assert!(verify(&cookie.replace("page", "root"), now, &secret).is_none());
        for garbage in ["", ".", "page", "page.1", "page.1.2", "page.9999999999.n."] {
            assert!(verify(garbage, now, &secret).is_none(), "{garbage}");
        }
    }
}
