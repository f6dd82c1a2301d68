//! Tickets for dialplans.

use std::{sync::Arc, time::Instant};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use uuid::Uuid;

use super::{
    App,
    auth::Identity,
    problem::{Problem, wants_json},
};
use crate::{call::Params, registry::NoTicket, ticket::check_params};

/// A ticket, for a program that asks for JSON.
#[derive(Serialize, utoipa::ToSchema)]
struct Minted {
    /// The UUID that the call says.
    id: Uuid,
    /// Where Asterisk connects to, as `HOST:PORT`.
    address: String,
    /// Both, for `Dial()`.
    dial: String,
    /// How long it is good for.
    expires_in_ms: u64,
}

/// Mint a ticket for one call
///
/// Every query parameter but `route` and `format` describes the call. The answer is `UUID,HOST:PORT`, with `format=dial`
/// `AudioSocket/HOST:PORT/UUID`, or JSON for who accepts it. On failure the body is empty.
#[utoipa::path(
    get, path = "/v1/tickets", tag = "dialplan",
    params(
        ("route" = Option<String>, Query, description = "The route of the call; the default route unless given"),
        ("format" = Option<String>, Query, description = "`dial` for Dial()"),
    ),
    responses(
        (status = OK, body = String, content_type = "text/plain"),
        (status = BAD_REQUEST, description = "A wrong parameter or route"),
        (status = UNAUTHORIZED, description = "No token"),
        (status = TOO_MANY_REQUESTS, description = "Too many tickets of this token are unused"),
        (status = SERVICE_UNAVAILABLE, description = "Full, or draining"),
    )
)]
pub(super) async fn mint(
    State(app): State<Arc<App>>,
    identity: Result<Identity, Problem>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let minted = identity.and_then(|identity| mint_for(&app, identity, &query.unwrap_or_default()));
    let (ticket, is_dial) = match minted {
        Ok(minted) => minted,
        Err(problem) => return problem.for_dialplan(&headers),
    };
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    if wants_json(&headers) {
        return (no_store, Json(ticket)).into_response();
    }
    let text = match is_dial {
        true => ticket.dial,
        false => format!("{},{}", ticket.id, ticket.address),
    };
    (no_store, text).into_response()
}

fn mint_for(app: &App, identity: Identity, query: &str) -> Result<(Minted, bool), Problem> {
    if !identity.may.tickets {
        return Err(Problem::may_not("tickets"));
    }
    // This GET changes something, for dialplans can't send anything else.
    if identity.is_unconfirmed {
        return Err(Problem::unconfirmed());
    }
    let registry = &app.shared.registry;
    let config = registry.config();
    let Query {
        route,
        is_dial,
        params,
    } = Query::parse(query)?;
    let route = route.or_else(|| config.server.default_route.clone());
    let route = route.ok_or_else(|| Problem::bad_request("name the call's route: ?route=NAME"))?;
    let address = app.address();
    let now = Instant::now();
    let id = registry
        .mint(&route, params, identity.name, identity.max_unused, now)
        .map_err(|error| no_ticket(error, &route))?;
    let ticket = Minted {
        id,
        dial: format!("AudioSocket/{address}/{id}"),
        address,
        expires_in_ms: config.server.ticket_lifetime.as_millis() as u64,
    };
    Ok((ticket, is_dial))
}

fn no_ticket(error: NoTicket, route: &str) -> Problem {
    match error {
        NoTicket::Full => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "all calls are taken, or promised to other tickets",
        ),
        NoTicket::RouteFull => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("all calls of route {route:?} are taken, or promised to other tickets"),
        ),
        NoTicket::Draining => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the gateway takes no new calls",
        ),
        NoTicket::TooManyUnused => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many tickets of this token are unused: place their calls, or raise its max_unused",
        ),
        NoTicket::UnknownRoute => Problem::bad_request(format!("there is no route {route:?}")),
    }
}

impl App {
    /// Where Asterisk connects to.
    fn address(&self) -> String {
        let config = self.shared.registry.config();
        let advertised = config.server.advertise.clone();
        advertised.unwrap_or_else(|| self.audio_socket.to_string())
    }
}

/// What a dialplan asks for.
#[derive(Debug, PartialEq, Eq)]
struct Query {
    route: Option<String>,
    is_dial: bool,
    params: Params,
}

impl Query {
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut parsed = Self {
            route: None,
            is_dial: false,
            params: Params::new(),
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "route" => parsed.route = Some(value.into_owned()),
                "format" => parsed.is_dial = is_dial(&value)?,
                _ => {
                    let again = parsed.params.insert(name.to_string(), value.into_owned());
                    if again.is_some() {
                        return Err(Problem::bad_request(format!("{name} is given twice")));
                    }
                }
            }
        }
        check_params(&parsed.params).map_err(Problem::bad_request)?;
        Ok(parsed)
    }
}

fn is_dial(format: &str) -> Result<bool, Problem> {
    match format {
        "dial" => Ok(true),
        "" | "text" => Ok(false),
        _ => Err(Problem::bad_request("format is `dial`, or left out")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_query_describes_the_call() {
        let query = "route=support&from=%2B49%2030%2C1&name=Ann+%22B%22&format=dial&empty=";
        let parsed = Query::parse(query).unwrap();
        let params = [("from", "+49 30,1"), ("name", "Ann \"B\""), ("empty", "")];
        let params = params.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(
            parsed,
            Query {
                route: Some("support".into()),
                is_dial: true,
                params: params.into(),
            }
        );
        for wrong in ["a=1&a=2", "format=xml", "a%20b=1", "=1"] {
            assert!(Query::parse(wrong).is_err(), "{wrong}");
        }
    }
}
