//! What changes calls. Each action is logged with the token's name.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use sidetone::{CallHandle, Clip, Rate};
use uuid::Uuid;

use super::{
    App,
    auth::{Identity, MayControl},
    calls::ThisCall,
    problem::Problem,
};
use crate::{
    event::{GatewayEvent, milliseconds},
    recording::RecordingState,
    with_sources,
};

/// The longest time that an operator can give calls when draining.
const LONGEST_DRAIN: Duration = Duration::from_secs(24 * 3600);

type Body<T> = Result<Json<T>, JsonRejection>;

impl App {
    fn log(&self, identity: &Identity, action: &'static str, call: Option<Uuid>, detail: String) {
        self.shared.registry.bus.publish(GatewayEvent::Control {
            token: identity.name(),
            action,
            call,
            detail,
        });
    }
}

/// The handle of a call. It has none in its first milliseconds.
fn handle(call: &ThisCall) -> Result<&CallHandle, Problem> {
    let text = "the call is not being handled yet: try again";
    let handle = call.0.handle();
    handle.ok_or_else(|| Problem::new(StatusCode::CONFLICT, text.to_owned()))
}

/// Hang a call up
#[utoipa::path(
    post, path = "/v1/calls/{id}/hangup", tag = "control",
    params(("id" = Uuid, Path, description = "The call's UUID")),
    responses((status = NO_CONTENT), (status = NOT_FOUND, body = Problem), (status = FORBIDDEN, body = Problem))
)]
pub(super) async fn hang_up(
    MayControl(identity): MayControl,
    State(app): State<Arc<App>>,
    call: ThisCall,
) -> Result<StatusCode, Problem> {
    app.log(&identity, "hangup", Some(call.0.context.id), String::new());
    call.0.hang_up();
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Play {
    /// The name of a file in `sounds_dir`.
    file: String,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Playing {
    /// How long the file is.
    duration_ms: u64,
}

/// Play a file to the caller
///
/// It is queued behind what plays. The file lies in the folder that the gateway's file names as `sounds_dir`.
#[utoipa::path(
    post, path = "/v1/calls/{id}/play", tag = "control", request_body = Play,
    params(("id" = Uuid, Path, description = "The call's UUID")),
    responses(
        (status = ACCEPTED, body = Playing),
        (status = NOT_FOUND, body = Problem, description = "No such call, or no such file"),
        (status = CONFLICT, body = Problem, description = "The call is not handled yet"),
        (status = FORBIDDEN, body = Problem),
    )
)]
pub(super) async fn play(
    MayControl(identity): MayControl,
    State(app): State<Arc<App>>,
    call: ThisCall,
    body: Body<Play>,
) -> Result<(StatusCode, Json<Playing>), Problem> {
    let Json(Play { file }) = body?;
    let config = app.shared.registry.config();
    let dir = config.server.sounds_dir.as_deref().ok_or_else(|| {
        Problem::bad_request("the gateway's file names no folder with sounds: set sounds_dir")
    })?;
    let clip = open(dir, &file).await?;
    let duration_ms = milliseconds(clip.duration());
    app.log(&identity, "play", Some(call.0.context.id), file);
    let player = handle(&call)?.player(Rate::Slin.hz());
    let mut player = player.map_err(|error| Problem::bad_request(error.to_string()))?;
    let queued = player.play_clip(&clip).await;
    queued.map_err(|_| Problem::no_such_call())?;
    Ok((StatusCode::ACCEPTED, Json(Playing { duration_ms })))
}

/// Opens a file of the folder, by a name that leads nowhere else.
async fn open(dir: &Path, name: &str) -> Result<Clip, Problem> {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'-' | b'_');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_plain) {
        return Err(Problem::bad_request(
            "name a file of sounds_dir, with letters, digits, dots, - and _",
        ));
    }
    let path = dir.join(name);
    let opened = tokio::task::spawn_blocking(move || Clip::open(path)).await;
    match opened {
        Ok(Ok(clip)) => Ok(clip),
        Ok(Err(error)) => Err(Problem::new(StatusCode::NOT_FOUND, with_sources(&error))),
        Err(_) => Err(Problem::bad_request("the file can't be read")),
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Cleared {
    /// Of what was queued, this much was heard.
    heard_ms: u64,
    /// And this much was discarded.
    discarded_ms: u64,
}

/// Stop what plays, and discard what is queued
#[utoipa::path(
    post, path = "/v1/calls/{id}/clear", tag = "control",
    params(("id" = Uuid, Path, description = "The call's UUID")),
    responses(
        (status = OK, body = Cleared),
        (status = CONFLICT, body = Problem, description = "The call is not handled yet"),
        (status = NOT_FOUND, body = Problem),
        (status = FORBIDDEN, body = Problem),
    )
)]
pub(super) async fn clear(
    MayControl(identity): MayControl,
    State(app): State<Arc<App>>,
    call: ThisCall,
) -> Result<Json<Cleared>, Problem> {
    app.log(&identity, "clear", Some(call.0.context.id), String::new());
    let cleared = handle(&call)?.clear().await;
    let cleared = cleared.map_err(|_| Problem::no_such_call())?;
    Ok(Json(Cleared {
        heard_ms: milliseconds(cleared.heard),
        discarded_ms: milliseconds(cleared.unheard),
    }))
}

#[derive(Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RecordAction {
    /// Record from now on.
    Start,
    /// Write silence from now on.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Complete the file.
    Stop,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    action: RecordAction,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct RecordAnswer {
    recording: RecordingState,
}

/// Start, pause, resume or stop the recording of a call
///
/// While it is paused, the file has silence on both sides, and nothing is written down: for card numbers, say.
#[utoipa::path(
    post, path = "/v1/calls/{id}/record", tag = "control", request_body = Record,
    params(("id" = Uuid, Path, description = "The call's UUID")),
    responses(
        (status = OK, body = RecordAnswer),
        (status = CONFLICT, body = Problem, description = "The call is not recorded, or can't be"),
        (status = NOT_FOUND, body = Problem),
        (status = FORBIDDEN, body = Problem),
    )
)]
pub(super) async fn record(
    MayControl(identity): MayControl,
    State(app): State<Arc<App>>,
    call: ThisCall,
    body: Body<Record>,
) -> Result<Json<RecordAnswer>, Problem> {
    let Json(Record { action }) = body?;
    let call = call.0;
    let name = match action {
        RecordAction::Start => "record.start",
        RecordAction::Pause => "record.pause",
        RecordAction::Resume => "record.resume",
        RecordAction::Stop => "record.stop",
    };
    app.log(&identity, name, Some(call.context.id), String::new());
    let at = call.context.started_at.elapsed();
    let conflict = |text: String| Problem::new(StatusCode::CONFLICT, text);
    let not_recorded = || conflict("the call is not recorded".into());
    match action {
        RecordAction::Pause if !call.recording.pause(at) => return Err(not_recorded()),
        RecordAction::Stop if !call.recording.stop() => return Err(not_recorded()),
        RecordAction::Resume if !call.recording.resume(at) => return Err(not_recorded()),
        RecordAction::Pause | RecordAction::Resume | RecordAction::Stop => {}
        RecordAction::Start => {
            let recordings = app.shared.recordings.as_ref().ok_or_else(|| {
                conflict("the gateway's file says nowhere to record: add [recording]".into())
            })?;
            let started = recordings.start(&call);
            started.map_err(|error| conflict(error.to_string()))?;
        }
    }
    let recording = call.recording.state();
    Ok(Json(RecordAnswer { recording }))
}

#[derive(Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetResult {
    /// `continue`, `hangup`, `dial,EXTENSION` or `set,WORD`.
    result: String,
}

/// Decide what the dialplan does after the call
#[utoipa::path(
    put, path = "/v1/calls/{id}/result", tag = "control", request_body = SetResult,
    params(("id" = Uuid, Path, description = "The call's UUID")),
    responses(
        (status = OK, body = SetResult),
        (status = BAD_REQUEST, body = Problem, description = "No result, or one that the route does not allow"),
        (status = NOT_FOUND, body = Problem),
        (status = FORBIDDEN, body = Problem),
    )
)]
pub(super) async fn set_result(
    MayControl(identity): MayControl,
    State(app): State<Arc<App>>,
    call: ThisCall,
    body: Body<SetResult>,
) -> Result<Json<SetResult>, Problem> {
    let Json(SetResult { result }) = body?;
    let action = result.parse().map_err(Problem::bad_request)?;
    call.0.set_result(action).map_err(Problem::bad_request)?;
    app.log(&identity, "result", Some(call.0.context.id), result.clone());
    Ok(Json(SetResult { result }))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    /// Calls that are still running after so many seconds are hung up.
    deadline_s: u64,
}

/// Take no new calls
///
/// Dialplans get no more tickets, and go elsewhere. Calls may go on until the deadline.
#[utoipa::path(
    post, path = "/v1/drain", tag = "control", request_body = Drain,
    responses((status = ACCEPTED), (status = BAD_REQUEST, body = Problem), (status = FORBIDDEN, body = Problem))
)]
pub(super) async fn drain(
    MayControl(identity): MayControl,
    State(app): State<Arc<App>>,
    body: Body<Drain>,
) -> Result<StatusCode, Problem> {
    let Json(Drain { deadline_s }) = body?;
    let deadline = Duration::from_secs(deadline_s);
    if deadline > LONGEST_DRAIN {
        return Err(Problem::bad_request("give calls a day at most"));
    }
    app.log(&identity, "drain", None, format!("{deadline_s} s"));
    app.shared.registry.drain(Some(Instant::now() + deadline));
    Ok(StatusCode::ACCEPTED)
}

/// Take new calls again
#[utoipa::path(
    delete, path = "/v1/drain", tag = "control",
    responses((status = NO_CONTENT), (status = FORBIDDEN, body = Problem))
)]
pub(super) async fn end_drain(
    MayControl(identity): MayControl,
    State(app): State<Arc<App>>,
) -> StatusCode {
    app.log(&identity, "drain.end", None, String::new());
    app.shared.registry.drain(None);
    StatusCode::NO_CONTENT
}
