//! What the dialplan does after the call.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    App,
    auth::Identity,
    problem::{Problem, wants_json},
};
use crate::{handover::HandoverDir, registry::ResultState, results::CallResult};

/// How long a request waits for a call that is just ending.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it looks for what the process before leaves.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The result of a call that has ended
///
/// `continue`, `hangup`, `dial,EXTENSION` or `set,WORD`. It waits up to 2 s for a call that is just ending, and is kept for
/// 5 minutes. On failure the body is empty.
#[utoipa::path(
    get, path = "/v1/calls/{id}/result", tag = "dialplan",
    params(("id" = Uuid, Path, description = "The call's UUID")),
    responses(
        (status = OK, body = String, content_type = "text/plain"),
        (status = NOT_FOUND, description = "No such call, or it ended more than 5 minutes ago"),
        (status = CONFLICT, description = "The call is running"),
        (status = UNAUTHORIZED, description = "No token"),
    )
)]
pub(super) async fn result(
    State(app): State<Arc<App>>,
    identity: Result<Identity, Problem>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let found = match (identity, Uuid::try_parse(&id)) {
        (Err(problem), _) => Err(problem),
        (Ok(_), Err(_)) => Err(Problem::no_such_call()),
        (Ok(identity), Ok(id)) => find(&app, &identity, id).await,
    };
    match found {
        Err(problem) => problem.for_dialplan(&headers),
        Ok(result) => {
            let text = result.action.to_string();
            let no_store = [(header::CACHE_CONTROL, "no-store")];
            match wants_json(&headers) {
                true => (no_store, Json(serde_json::json!({"result": text}))).into_response(),
                false => (no_store, text).into_response(),
            }
        }
    }
}

async fn find(app: &App, identity: &Identity, id: Uuid) -> Result<CallResult, Problem> {
    let registry = &app.shared.registry;
    if let ResultState::Running(call) = registry.result(id, Instant::now()) {
        check(identity, call.context.minted_by.as_deref())?;
        let _ = timeout(PATIENCE, call.over()).await;
    }
    match registry.result(id, Instant::now()) {
        ResultState::Over(result) => {
            check(identity, result.minted_by.as_deref())?;
            return Ok(result);
        }
        ResultState::Running(_) => return Err(Problem::still_running()),
        ResultState::Unknown => {}
    }
    let handover = app.shared.handover.as_ref();
    let handover = handover.ok_or_else(Problem::no_such_call)?;
    let result = left(handover, id).await?;
    check(identity, result.minted_by.as_deref())?;
    Ok(result)
}

/// The result of a call that a process before finishes.
async fn left(handover: &HandoverDir, id: Uuid) -> Result<CallResult, Problem> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(result) = handover.result(id) {
            return Ok(result);
        }
        if !handover.is_expected(id) {
            return Err(Problem::no_such_call());
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Problem::still_running());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

impl Problem {
    fn still_running() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "the call is running: ask again when it has ended",
        )
    }
}

/// Who may read everything may read this; who may mint tickets, only of calls of their own.
fn check(identity: &Identity, minted_by: Option<&str>) -> Result<(), Problem> {
    let is_own = identity.may.tickets && identity.name.as_deref() == minted_by;
    match is_own || identity.may.read {
        true => Ok(()),
        false => Err(Problem::no_such_call()),
    }
}
