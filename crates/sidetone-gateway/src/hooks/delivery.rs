//! One attempt to deliver a message.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use tokio::time::timeout;

use super::{
    HooksError, Limits, SigningKey,
    message::Message,
    queue::{Failure, Outcome},
};
use crate::{
    http_client::{HttpClient, Trust, http_client, signed_post},
    with_sources,
};

/// How much of a response is read, so that its connection can be used again, and for how long.
const RESPONSE_LIMIT: usize = 64 << 10;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// An endpoint's address, and what is needed to send there.
#[derive(Debug)]
pub(super) struct Target {
    url: Uri,
    key: Option<SigningKey>,
    client: HttpClient,
    timeout: Duration,
}

impl Target {
    pub(super) fn new(
        url: &Uri,
        key: Option<SigningKey>,
        limits: &Limits,
        trust: &mut Trust,
    ) -> Result<Self, HooksError> {
        Ok(Self {
            url: url.clone(),
            key,
            client: http_client(url, trust)?,
            timeout: limits.timeout,
        })
    }

    /// Sends a message once. Dropping the future drops the connection.
    pub(super) async fn attempt(&self, message: &Message) -> Outcome {
        let request = match signed_post(&self.url, self.key.as_ref(), &message.id, &message.body) {
            Ok(request) => request,
            Err(error) => return failed(error.to_string(), None, false),
        };
        let response = match timeout(self.timeout, self.client.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return failed(with_sources(&error), None, true),
            Err(_) => {
                let reason = format!("no response within {:?}", self.timeout);
                return failed(reason, None, true);
            }
        };
        let (head, body) = response.into_parts();
        let outcome = outcome(head.status, &head.headers, SystemTime::now());
        // The head decides. A body that doesn't end costs its connection, no more.
        let _ = timeout(RESPONSE_TIMEOUT.min(self.timeout), discard(body)).await;
        outcome
    }
}

/// What a response means. Redirects are not followed, since hooks go only to configured addresses.
fn outcome(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Outcome {
    let code = status.as_u16();
    match code {
        200..=299 => Outcome::Delivered,
        410 => Outcome::Gone,
        300..=399 => {
            let reason =
                format!("status {code}: redirects are not followed; configure the final address");
            failed(reason, None, false)
        }
        429 | 503 => failed(
            format!("status {code}"),
            retry_after(headers, now),
            code == 503,
        ),
        _ => failed(format!("status {code}"), None, matches!(code, 502 | 504)),
    }
}

/// `Retry-After`, which is a number of seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

fn failed(reason: String, retry_after: Option<Duration>, is_outage: bool) -> Outcome {
    Outcome::Failed(Failure {
        reason,
        retry_after,
        is_outage,
    })
}

async fn discard(mut body: Incoming) {
    let mut read = 0;
    while read < RESPONSE_LIMIT
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_2xx_is_delivered_and_only_410_is_gone() {
        let now = SystemTime::now();
        for code in 200..=599 {
            let status = StatusCode::from_u16(code).unwrap();
            match outcome(status, &HeaderMap::new(), now) {
                Outcome::Delivered => assert!((200..=299).contains(&code)),
                Outcome::Gone => assert_eq!(code, 410),
                Outcome::Failed(failure) => {
                    assert!(!(200..=299).contains(&code) && code != 410);
                    assert!(failure.reason.contains(&code.to_string()));
                }
            }
        }
    }

    #[test]
    fn retry_after_is_a_number_or_a_date_and_else_ignored() {
        let date = "Thu, 25 Feb 2021 15:02:10 GMT";
        let now = httpdate::parse_http_date(date).unwrap() - Duration::from_secs(90);
        let asked = |code: u16, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            match outcome(StatusCode::from_u16(code).unwrap(), &headers, now) {
                Outcome::Failed(failure) => failure.retry_after.map(|it| it.as_secs()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(asked(429, "120"), Some(120));
        assert_eq!(asked(503, date), Some(90));
        assert_eq!(asked(503, "Thu, 25 Feb 1999 15:02:10 GMT"), Some(0));
        assert_eq!(asked(429, "18446744073709551615"), Some(u64::MAX));
        assert_eq!(asked(429, "soon"), None);
        assert_eq!(asked(429, "-1"), None);
        assert_eq!(asked(500, "120"), None);
    }
}
