//! Why calls are not let in.

use crate::ticket::ClaimError;

/// Why the gateway rejects a call, besides the reasons of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    NoTicket,
    TicketUsed,
    TicketExpired,
    AlreadyConnected,
    RouteGone,
    NoRoute,
    Full,
    RouteFull,
    Draining,
}

impl Rejection {
    pub(crate) const ALL: [Self; 9] = [
        Self::NoTicket,
        Self::TicketUsed,
        Self::TicketExpired,
        Self::AlreadyConnected,
        Self::RouteGone,
        Self::NoRoute,
        Self::Full,
        Self::RouteFull,
        Self::Draining,
    ];

    /// As a label of a metric, and in events.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NoTicket => "no_ticket",
            Self::TicketUsed => "ticket_used",
            Self::TicketExpired => "ticket_expired",
            Self::AlreadyConnected => "already_connected",
            Self::RouteGone => "route_gone",
            Self::NoRoute => "no_route",
            Self::Full => "full",
            Self::RouteFull => "route_full",
            Self::Draining => "draining",
        }
    }

    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::NoTicket => "has no ticket: the dialplan gets one from /v1/tickets for each call",
            Self::TicketUsed => "comes with a ticket that was used: each is good for one call",
            Self::TicketExpired => {
                "comes with a ticket that has expired: raise ticket_lifetime if calls take so long to come"
            }
            Self::AlreadyConnected => "has the UUID of a call that is connected",
            Self::RouteGone => "has a ticket for a route that is no longer in the file",
            Self::NoRoute => "has no ticket, and the file has no default_route",
            Self::Full => "exceeds max_calls",
            Self::RouteFull => "exceeds the max_calls of its route",
            Self::Draining => "came while the gateway is draining",
        }
    }
}

impl From<ClaimError> for Rejection {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Unknown => Self::NoTicket,
            ClaimError::Used => Self::TicketUsed,
            ClaimError::Expired => Self::TicketExpired,
        }
    }
}
