//! What monitoring asks for.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use utoipa::openapi::OpenApi;

use super::{App, auth::MayRead};
use crate::metrics;

/// Figures for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "monitoring",
    responses((status = OK, content_type = "text/plain", body = String), (status = UNAUTHORIZED, body = super::problem::Problem))
)]
pub(super) async fn metrics(_: MayRead, State(app): State<Arc<App>>) -> Response {
    let headers = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    (headers, app.metrics.encode()).into_response()
}

/// Whether the process is alive
#[utoipa::path(get, path = "/livez", tag = "monitoring", security(()), responses((status = OK, body = String)))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Whether it takes calls
///
/// Not if it is full, draining, about to end, or short of disk.
#[utoipa::path(
    get, path = "/readyz", tag = "monitoring", security(()),
    responses((status = OK, body = String), (status = SERVICE_UNAVAILABLE, body = String, description = "Why not, a word per line"))
)]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let reasons = app.shared.not_ready();
    match reasons.is_empty() {
        true => "ok\n".into_response(),
        false => {
            let text = reasons.join("\n") + "\n";
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

/// This description.
pub(super) async fn openapi(_: MayRead, Extension(api): Extension<Arc<OpenApi>>) -> Json<OpenApi> {
    Json((*api).clone())
}
