use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a service that failed with detail gets requests without it. The error may have had
/// another cause.
const RETRY_DETAIL_AFTER: Duration = Duration::from_secs(60);

/// Whether the service gets requests for more than the text: `verbose_json` with words and
/// segments.
#[derive(Debug, Default)]
pub(super) struct DetailSupport(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    disabled: Option<Disabled>,
    /// It failed without detail, too, so detail was not the cause.
    fails_without_detail: bool,
}

#[derive(Clone, Copy, Debug)]
enum Disabled {
    Permanently,
    Until(Instant),
}

/// How a service rejected a request for detail.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rejection {
    /// With a status that says so.
    Explicit,
    /// With any other failure.
    Failure,
}

impl DetailSupport {
    /// Whether to request detail.
    pub(super) fn is_enabled(&self) -> bool {
        match self.0.lock().disabled {
            None => true,
            Some(Disabled::Permanently) => false,
            Some(Disabled::Until(end)) => Instant::now() >= end,
        }
    }

    /// Whether the reply to a request for detail is a reason to send it again without.
    pub(super) fn rejection(&self, status: StatusCode, parsed: bool) -> Option<Rejection> {
        let mut state = self.0.lock();
        match status {
            _ if parsed => {
                state.fails_without_detail = false;
                None
            }
            StatusCode::BAD_REQUEST
            | StatusCode::NOT_ACCEPTABLE
            | StatusCode::UNPROCESSABLE_ENTITY => Some(Rejection::Explicit),
            // Only once, or a failing service would get twice the requests.
            _ if state.fails_without_detail => None,
            _ if status.is_success() || status.is_server_error() => Some(Rejection::Failure),
            _ => None,
        }
    }

    /// Records the outcome of a request without detail, sent after `after`.
    pub(super) fn record_fallback(&self, after: Rejection, parsed: bool) {
        let mut state = self.0.lock();
        state.fails_without_detail = !parsed;
        state.disabled = match after {
            _ if !parsed => state.disabled,
            Rejection::Explicit => Some(Disabled::Permanently),
            Rejection::Failure => Some(Disabled::Until(Instant::now() + RETRY_DETAIL_AFTER)),
        };
    }
}
