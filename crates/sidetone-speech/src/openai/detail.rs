use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::time::Instant;

/// So long a service that has failed with detail is asked for none, as it may have been a passing trouble.
const FOR_NOW: Duration = Duration::from_secs(60);

/// Whether a service is asked for more than the text.
#[derive(Debug, Default)]
pub(super) struct Detail(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    without: Option<Without>,
    /// It has failed without detail, too, so that was not the cause.
    in_vain: bool,
}

#[derive(Clone, Copy, Debug)]
enum Without {
    Ever,
    Until(Instant),
}

/// How a service has refused detail.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    /// It said so.
    Plain,
    /// It failed, for whatever reason.
    Failure,
}

impl Detail {
    /// Whether detail is to be asked for.
    pub(super) fn is_had(&self) -> bool {
        match self.0.lock().without {
            None => true,
            Some(Without::Ever) => false,
            Some(Without::Until(end)) => Instant::now() >= end,
        }
    }

    /// Whether an answer to a request for detail is a reason to ask for less.
    pub(super) fn refused(&self, status: StatusCode, understood: bool) -> Option<Refusal> {
        let mut state = self.0.lock();
        match status {
            _ if understood => {
                state.in_vain = false;
                None
            }
            StatusCode::BAD_REQUEST
            | StatusCode::NOT_ACCEPTABLE
            | StatusCode::UNPROCESSABLE_ENTITY => Some(Refusal::Plain),
            // Once, or a service in trouble would get twice the requests.
            _ if state.in_vain => None,
            _ if status.is_success() || status.is_server_error() => Some(Refusal::Failure),
            _ => None,
        }
    }

    /// It was asked for less.
    pub(super) fn asked_for_less(&self, after: Refusal, understood: bool) {
        let mut state = self.0.lock();
        state.in_vain = !understood;
        state.without = match after {
            _ if !understood => state.without,
            Refusal::Plain => Some(Without::Ever),
            Refusal::Failure => Some(Without::Until(Instant::now() + FOR_NOW)),
        };
    }
}
