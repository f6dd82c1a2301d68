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

use super::{App, auth::MayListen, calls::ThisCall, problem::Problem};
use crate::event::GatewayEvent;

/// More than a telephone call has. Browsers play nothing before they have some hundred kilobytes, which at this rate, on two
/// channels, takes about a second.
const RATE: Rate = Rate::Slin48;
const CHANNELS: u16 = 2;

/// A header for a stream whose end is not known.
const UNKNOWN_LENGTH: u32 = u32::MAX;

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
            let header = Bytes::copy_from_slice(&wav_header());
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

/// The header of a WAV file with linear samples of 16 bits, of unknown length.
fn wav_header() -> [u8; 44] {
    let frame = CHANNELS * 2;
    let mut header = [0; 44];
    header[..4].copy_from_slice(b"RIFF");
    header[4..8].copy_from_slice(&UNKNOWN_LENGTH.to_le_bytes());
    header[8..16].copy_from_slice(b"WAVEfmt ");
    header[16..20].copy_from_slice(&16_u32.to_le_bytes());
    // Linear samples.
    header[20..22].copy_from_slice(&1_u16.to_le_bytes());
    header[22..24].copy_from_slice(&CHANNELS.to_le_bytes());
    header[24..28].copy_from_slice(&RATE.hz().to_le_bytes());
    header[28..32].copy_from_slice(&(RATE.hz() * u32::from(frame)).to_le_bytes());
    header[32..34].copy_from_slice(&frame.to_le_bytes());
    header[34..36].copy_from_slice(&16_u16.to_le_bytes());
    header[36..40].copy_from_slice(b"data");
    header[40..].copy_from_slice(&UNKNOWN_LENGTH.to_le_bytes());
    header
}
