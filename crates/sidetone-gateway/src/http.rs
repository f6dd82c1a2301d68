//! The HTTP side of the gateway: tickets and results for dialplans, the API, and the page.
//!
//! | module | what it does |
//! |---|---|
//! | `thread` | runs all of it on a thread of its own |
//! | `connections` | accepts connections, within limits |
//! | `guard` | refuses what a foreign page or a rebound name sends |
//! | `auth`, `session` | who asks, and what they may do |
//! | `problem` | how errors are told |
//! | `tickets`, `result` | what dialplans use |
//! | `calls`, `control`, `listen`, `events` | what operators and their programs use |
//! | `twilio` | what bots for Twilio ask of their calls |
//! | `health`, `page` | what monitoring and browsers use |

mod auth;
mod calls;
mod connections;
mod control;
mod events;
mod guard;
mod health;
mod listen;
mod page;
mod problem;
mod result;
mod session;
mod thread;
mod tickets;
mod twilio;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::DefaultBodyLimit, middleware, routing::get};
use tokio::{net::TcpListener, sync::oneshot};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{gateway::Shared, metrics::Metrics, snapshot::Snapshots};
use auth::TokenScheme;
pub(crate) use auth::{Access, generated_token};
pub(crate) use thread::HttpThread;

/// The longest body of a request.
const MAX_BODY: usize = 16 * 1024;

/// What all requests share.
struct App {
    shared: Arc<Shared>,
    access: Access,
    metrics: Metrics,
    snapshots: Snapshots,
    /// The address that the AudioSocket server listens on.
    audio_socket: SocketAddr,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sidetone's voice gateway",
        description = "Tickets and results for dialplans; calls, events and control for operators and their programs. Errors are problem+json (RFC 9457); requests for plain text get an empty body beside the status."
    ),
    security(("token" = [])),
    modifiers(&TokenScheme)
)]
struct Description;

/// Serves until `stop` has a message. Requests that are being answered then may take as long as `patience`.
async fn serve(listener: TcpListener, app: App, stop: oneshot::Receiver<()>, patience: Duration) {
    let app = Arc::new(app);
    let router = router(&app);
    connections::serve(listener, router, stop, patience).await;
}

fn router(app: &Arc<App>) -> Router {
    let (router, description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(tickets::mint))
        .routes(routes!(result::result))
        .routes(routes!(calls::list))
        .routes(routes!(calls::one))
        .routes(routes!(calls::status))
        .routes(routes!(control::hang_up))
        .routes(routes!(control::play))
        .routes(routes!(control::clear))
        .routes(routes!(control::record))
        .routes(routes!(control::set_result))
        .routes(routes!(control::drain, control::end_drain))
        .routes(routes!(listen::listen))
        .routes(routes!(events::events))
        .routes(routes!(twilio::show, twilio::update))
        .routes(routes!(session::log_in, session::log_out, session::who))
        .routes(routes!(health::metrics))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .split_for_parts();
    router
        .route("/openapi.json", get(health::openapi))
        .route("/", get(page::page))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(axum::Extension(Arc::new(description)))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(
            Arc::clone(app),
            guard::guard,
        ))
        .with_state(Arc::clone(app))
}
