//! Requests to servers on loopback.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::{Request, StatusCode};

/// No answer is longer: a screenshot has some megabytes.
const LONGEST: u64 = 100 << 20;

/// For requests that each take no longer than `limit`.
pub(crate) fn agent(limit: Duration) -> ureq::Agent {
    // No proxy, whatever the environment says: this is loopback.
    let agent = ureq::Agent::config_builder()
        .proxy(None)
        .timeout_global(Some(limit))
        .http_status_as_error(false);
    agent.build().new_agent()
}

/// Sends a request and answers what came back, whatever the status.
pub(crate) async fn send<B>(
    agent: &ureq::Agent,
    request: Request<B>,
) -> Result<(StatusCode, Vec<u8>), ureq::Error>
where
    B: ureq::AsSendBody + Send + 'static,
{
    let agent = agent.clone();
    let sent = tokio::task::spawn_blocking(move || {
        let mut answer = agent.run(request)?;
        let body = answer.body_mut().with_config().limit(LONGEST);
        let body = body.read_to_vec()?;
        Ok((answer.status(), body))
    });
    sent.await
        .unwrap_or_else(|stopped| Err(ureq::Error::Io(std::io::Error::other(stopped))))
}

/// A value as it stands in a query.
pub(crate) fn percent_encoded(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}
