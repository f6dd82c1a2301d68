//! What is known of a call besides its audio.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Instant, SystemTime},
};

use parking_lot::Mutex;

use serde_json::{Map, Value, json};
use sidetone::{CallHandle, CallInfo, CallSummary};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    action::Action, config::Route, event::timestamp, recording::RecordingControl, ticket::Ticket,
};

/// What the dialplan said of a call, by name.
pub(crate) type Params = BTreeMap<String, String>;

/// Everything that goes with a call to hooks, side files and the page.
#[derive(Debug)]
pub(crate) struct CallContext {
    pub(crate) id: Uuid,
    pub(crate) peer: SocketAddr,
    pub(crate) route: String,
    pub(crate) params: Arc<Params>,
    /// The token that minted its ticket.
    pub(crate) minted_by: Option<String>,
    pub(crate) started: SystemTime,
    pub(crate) started_at: Instant,
}

impl CallContext {
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let mut data = Map::new();
        data.insert("call".into(), json!(self.id));
        data.insert("route".into(), json!(self.route));
        data.insert("params".into(), json!(*self.params));
        data.insert("peer".into(), json!(self.peer));
        data.insert("started".into(), json!(rfc3339(self.started)));
        data
    }
}

pub(crate) fn rfc3339(time: SystemTime) -> String {
    timestamp(time.into())
}

/// A call that was let in and is not over.
#[derive(Debug)]
pub(crate) struct RunningCall {
    pub(crate) context: Arc<CallContext>,
    pub(crate) route: Arc<Route>,
    pub(crate) recording: RecordingControl,
    handle: OnceLock<CallHandle>,
    action: Mutex<Action>,
    last_event: Mutex<String>,
    ending: Mutex<EndingState>,
    is_over: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct EndingState {
    summary: Option<Box<CallSummary>>,
    is_handled: bool,
}

impl RunningCall {
    pub(crate) fn new(info: CallInfo, ticket: Ticket, route: Arc<Route>, now: Instant) -> Self {
        let CallInfo { id, peer, .. } = info;
        Self {
            context: Arc::new(CallContext {
                id,
                peer,
                route: ticket.route,
                params: ticket.params,
                minted_by: ticket.minted_by,
                started: SystemTime::now(),
                started_at: now,
            }),
            action: Mutex::new(route.result.clone()),
            route,
            recording: RecordingControl::default(),
            handle: OnceLock::new(),
            last_event: Mutex::new("started".into()),
            ending: Mutex::default(),
            is_over: watch::Sender::new(false),
        }
    }

    /// What the HTTP API reaches it by; none until it is handled.
    pub(crate) fn handle(&self) -> Option<&CallHandle> {
        self.handle.get()
    }

    pub(crate) fn set_handle(&self, handle: CallHandle) {
        let _ = self.handle.set(handle);
    }

    /// Decides what the dialplan does next.
    ///
    /// # Errors
    ///
    /// A result that the route does not allow.
    pub(crate) fn set_result(&self, action: Action) -> Result<(), String> {
        action.check(&self.route)?;
        *self.action.lock() = action;
        Ok(())
    }

    pub(crate) fn result(&self) -> Action {
        self.action.lock().clone()
    }

    pub(crate) fn note(&self, event: impl Into<String>) {
        *self.last_event.lock() = event.into();
    }

    pub(crate) fn last_event(&self) -> String {
        self.last_event.lock().clone()
    }

    /// Takes note of how it ended.
    pub(crate) fn set_summary(&self, summary: CallSummary) {
        self.ending.lock().summary = Some(Box::new(summary));
    }

    /// Takes note that its handler is done.
    pub(crate) fn set_handled(&self) {
        self.ending.lock().is_handled = true;
    }

    /// How it ended, once, when its handler is done, too.
    pub(crate) fn take_end(&self) -> Option<Box<CallSummary>> {
        let mut ending = self.ending.lock();
        match ending.is_handled {
            true => ending.summary.take(),
            false => None,
        }
    }

    /// Takes note that its end has been reported.
    pub(crate) fn set_over(&self) {
        self.is_over.send_replace(true);
    }

    /// Waits until its end has been reported.
    pub(crate) async fn over(&self) {
        // It fails only if the sender is gone, and that is `self`.
        let _ = self.is_over.subscribe().wait_for(|is_over| *is_over).await;
    }
}
