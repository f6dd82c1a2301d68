//! What happens, as server-sent events.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_core::Stream;
use futures_util::stream;
use tokio::sync::{broadcast, watch};

use super::{App, auth::MayRead};
use crate::{event::Published, snapshot::Frame};

/// How often a connection shows that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What happens, as it happens
///
/// Server-sent events. `calls` has the status and all calls, each second; `levels` has the levels of all calls, five times a
/// second, as `[[id, caller's dBFS, server's dBFS], …]`; every other event is named by its type and is what hooks get. Digits
/// and transcripts are only sent to tokens that may listen. A client that reads too slowly misses events, and is told `missed`.
#[utoipa::path(
    get, path = "/v1/events", tag = "calls",
    responses((status = OK, content_type = "text/event-stream", body = String), (status = UNAUTHORIZED, body = super::problem::Problem))
)]
pub(super) async fn events(
    MayRead(identity): MayRead,
    State(app): State<Arc<App>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let watcher = Watcher {
        events: app.shared.registry.bus.watch(),
        snapshots: app.snapshots.watch(),
        is_full: identity.may.listen,
        has_levels: false,
    };
    let events = stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok(event), watcher))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

struct Watcher {
    events: broadcast::Receiver<Arc<Published>>,
    snapshots: watch::Receiver<Arc<Frame>>,
    /// Digits and transcripts are shown.
    is_full: bool,
    /// The levels of a frame are due, whose calls have been sent.
    has_levels: bool,
}

impl Watcher {
    /// `None` when the gateway ends.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if std::mem::take(&mut self.has_levels) {
                let frame = Arc::clone(&self.snapshots.borrow());
                return Some(Event::default().event("levels").data(&frame.levels));
            }
            tokio::select! {
                event = self.events.recv() => return match event {
                    Ok(event) => match self.show(&event) {
                        Some(event) => Some(event),
                        None => continue,
                    },
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        Some(Event::default().event("missed").data(missed.to_string()))
                    }
                    Err(broadcast::error::RecvError::Closed) => None,
                },
                changed = self.snapshots.changed() => {
                    changed.ok()?;
                    self.has_levels = true;
                    let frame = Arc::clone(&self.snapshots.borrow_and_update());
                    if let Some(full) = &frame.full {
                        return Some(Event::default().event("calls").data(full));
                    }
                }
            }
        }
    }

    fn show(&self, event: &Published) -> Option<Event> {
        let name = event.kind?.name();
        let data = match self.is_full {
            true => &event.full,
            false => &event.log,
        };
        Some(Event::default().event(name).data(data))
    }
}
