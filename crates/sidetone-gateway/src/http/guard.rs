//! What is refused to everyone: requests of foreign pages, and of names that are not ours.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{App, problem::Problem};

/// What every answer says to browsers. The page has a policy of its own besides.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let config = app.shared.registry.config();
    let hosts = config.http.as_ref().map_or(&[][..], |http| &http.hosts);
    let mut response = match check(request.headers(), hosts) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    protect(response.headers_mut());
    response
}

/// Adds what every answer says to browsers.
pub(super) fn protect(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

fn check(headers: &HeaderMap, hosts: &[String]) -> Result<(), Problem> {
    let host = single(headers, &header::HOST)
        .ok_or_else(|| Problem::bad_request("a request names one host"))?;
    if !is_ours(host, hosts) {
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "this gateway has another name: if it is meant, add it to [http] hosts",
        ));
    }
    let foreign = || {
        Problem::new(
            StatusCode::FORBIDDEN,
            "pages of other sites can't use this gateway",
        )
    };
    if let Some(site) = headers.get("sec-fetch-site")
        && !matches!(site.as_bytes(), b"same-origin" | b"none")
    {
        return Err(foreign());
    }
    match headers.get(header::ORIGIN) {
        None => Ok(()),
        Some(origin) => {
            let origin = origin.to_str().ok().and_then(|it| it.split_once("://"));
            match origin {
                Some((_, origin)) if origin.eq_ignore_ascii_case(host) => Ok(()),
                _ => Err(foreign()),
            }
        }
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    }
}

/// Whether a browser that shows this host talks to us knowingly: a name that someone else controls can be made to lead here,
/// an address can't.
fn is_ours(host: &str, hosts: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok()
        || hosts
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name) || known.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn allowed(pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        check(&headers, &["gateway.example".into()]).is_ok()
    }

    #[test]
    fn only_names_that_are_ours_are_served() {
        for host in [
            "127.0.0.1:9093",
            "localhost",
            "[::1]:9093",
            "10.1.2.3",
            "Gateway.example:443",
        ] {
            assert!(allowed(&[("host", host)]), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "",
            "gateway.example.evil",
        ] {
            assert!(!allowed(&[("host", host)]), "{host}");
        }
        assert!(!allowed(&[]));
        assert!(!allowed(&[("host", "localhost"), ("host", "localhost")]));
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let host = ("host", "localhost:9093");
        assert!(allowed(&[host, ("origin", "http://localhost:9093")]));
        assert!(allowed(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(allowed(&[host, ("sec-fetch-site", "none")]));
        for origin in [
            "null",
            "http://localhost",
            "http://evil.example",
            "http://localhost:9094",
        ] {
            assert!(!allowed(&[host, ("origin", origin)]), "{origin}");
        }
        for site in ["cross-site", "same-site", ""] {
            assert!(!allowed(&[host, ("sec-fetch-site", site)]), "{site}");
        }
    }
}
