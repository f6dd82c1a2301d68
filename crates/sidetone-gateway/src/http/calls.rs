//! What there is to see of calls.

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
};
use serde::Serialize;
use uuid::Uuid;

use super::{App, auth::MayRead, problem::Problem};
use crate::{
    call::RunningCall,
    snapshot::{self, CallSnapshot, Status},
};

/// The running call that the path names.
pub(super) struct ThisCall(pub(super) Arc<RunningCall>);

impl FromRequestParts<Arc<App>> for ThisCall {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let id = Path::<String>::from_request_parts(parts, app).await;
        let id = id.ok().and_then(|Path(id)| Uuid::try_parse(&id).ok());
        let call = id.and_then(|id| app.shared.registry.call(id));
        call.map(Self).ok_or_else(Problem::no_such_call)
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Calls {
    /// The oldest first.
    calls: Vec<CallSnapshot>,
}

/// The running calls
#[utoipa::path(
    get, path = "/v1/calls", tag = "calls",
    responses((status = OK, body = Calls), (status = UNAUTHORIZED, body = Problem))
)]
pub(super) async fn list(_: MayRead, State(app): State<Arc<App>>) -> Json<Calls> {
    let calls = snapshot::calls(&app.shared.registry);
    Json(Calls { calls })
}

/// One running call
#[utoipa::path(
    get, path = "/v1/calls/{id}", tag = "calls",
    params(("id" = Uuid, Path, description = "The call's UUID")),
    responses(
        (status = OK, body = CallSnapshot),
        (status = NOT_FOUND, body = Problem),
        (status = UNAUTHORIZED, body = Problem),
    )
)]
pub(super) async fn one(
    _: MayRead,
    ThisCall(call): ThisCall,
) -> Result<Json<CallSnapshot>, Problem> {
    let call = CallSnapshot::of(&call).ok_or_else(Problem::no_such_call)?;
    Ok(Json(call))
}

/// The gateway as a whole
#[utoipa::path(
    get, path = "/v1/status", tag = "calls",
    responses((status = OK, body = Status), (status = UNAUTHORIZED, body = Problem))
)]
pub(super) async fn status(_: MayRead, State(app): State<Arc<App>>) -> Json<Status> {
    Json(Status::of(&app.shared))
}
