//! Hearing a call, in an `<audio>` element.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use sidetone::{MonoMix, PlayError, Rate, Sides};
use sidetone_audio::wav::{Channels, stream_header};

use super::{App, auth::MayListen, calls::ThisCall, problem::Problem};
use crate::event::GatewayEvent;

/// More than a telephone call has. Browsers play nothing before they have some hundred kilobytes, which at this rate, on two
/// channels, takes about a second.
const RATE: Rate = Rate::Slin48;

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    /// Whom to hear: both, unless given.
    #[serde(default)]
    side: Side,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Side {
    Caller,
    Server,
    #[default]
    Both,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Server => "server",
            Self::Both => "both",
        }
    }
}

/// Hear a call, from now on to its end
///
/// A WAV stream, 48 kHz, 100 to 200 ms behind the call, the same on both channels. It is logged who listens.
#[utoipa::path(
    get, path = "/v1/calls/{id}/listen", tag = "calls",
    params(("id" = uuid::Uuid, Path, description = "The call's UUID"), Listen),
    responses(
        (status = OK, content_type = "audio/wav", body = Vec<u8>),
        (status = CONFLICT, body = Problem, description = "Too many listen already"),
        (status = NOT_FOUND, body = Problem),
        (status = FORBIDDEN, body = Problem),
    )
)]
pub(super) async fn listen(
    MayListen(identity): MayListen,
    State(app): State<Arc<App>>,
    ThisCall(call): ThisCall,
    query: Result<Query<Listen>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(Listen { side }) =
        query.map_err(|_| Problem::bad_request("side is `caller`, `server` or `both`"))?;
    // A browser asks for the rest of what it has. There is none: the call goes on.
    let is_rest = headers
        .get(header::RANGE)
        .is_some_and(|range| !range.as_bytes().starts_with(b"bytes=0-"));
    if is_rest {
        return Err(Problem::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "a call can only be heard from now on",
        ));
    }
    let handle = call.handle().ok_or_else(Problem::no_such_call)?;
    let sides = match side {
        Side::Caller => Sides::Caller,
        Side::Server => Sides::Server,
        Side::Both => Sides::Both,
    };
    let mix = handle.listen(sides, RATE).map_err(|error| match error {
        PlayError::TooManyMonitors => Problem::new(
            StatusCode::CONFLICT,
            "too many listen to this call already: let one of them end first",
        ),
        _ => Problem::no_such_call(),
    })?;
    app.shared.registry.bus.publish(GatewayEvent::Control {
        token: identity.name(),
        action: "listen",
        call: Some(call.context.id),
        detail: side.name().into(),
    });
    let body = Body::from_stream(stream::unfold(Listening::Header(mix), next));
    Ok(([(header::CONTENT_TYPE, "audio/wav")], body).into_response())
}

enum Listening {
    /// The header goes first.
    Header(MonoMix),
    Samples(MonoMix),
}

/// The next bytes of the stream, and what follows.
async fn next(listening: Listening) -> Option<(std::io::Result<Bytes>, Listening)> {
    match listening {
        Listening::Header(mix) => {
            let header = Bytes::copy_from_slice(&stream_header(RATE.hz(), Channels::Stereo));
            Some((Ok(header), Listening::Samples(mix)))
        }
        Listening::Samples(mut mix) => {
            let samples = mix.next().await?;
            let samples = samples.iter().map(|sample| sample.to_le_bytes());
            let bytes: Bytes = samples
                .flat_map(|sample| [sample, sample])
                .flatten()
                .collect();
            Some((Ok(bytes), Listening::Samples(mix)))
        }
    }
}
