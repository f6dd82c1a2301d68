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
    /// It is to be hung up as soon as there is a handle.
    is_hung_up: Mutex<bool>,
    result: Mutex<Decision>,
    last_event: Mutex<String>,
    ending: Mutex<EndingState>,
    is_over: watch::Sender<bool>,
}

/// What the dialplan does next.
#[derive(Debug)]
struct Decision {
    action: Action,
    /// Somebody has decided it during the call.
    is_decided: bool,
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
            result: Mutex::new(Decision {
                action: route.result.clone(),
                is_decided: false,
            }),
            route,
            recording: RecordingControl::default(),
            handle: OnceLock::new(),
            is_hung_up: Mutex::default(),
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
        let is_hung_up = self.is_hung_up.lock();
        let handle = self.handle.get_or_init(|| handle);
        if *is_hung_up {
            handle.hang_up();
        }
    }

    /// Hangs up, also if the call is not handled yet.
    pub(crate) fn hang_up(&self) {
        let mut is_hung_up = self.is_hung_up.lock();
        *is_hung_up = true;
        if let Some(handle) = self.handle() {
            handle.hang_up();
        }
    }

    /// Decides what the dialplan does next.
    ///
    /// # Errors
    ///
    /// A result that the route does not allow.
    pub(crate) fn set_result(&self, action: Action) -> Result<(), String> {
        action.check(&self.route)?;
        *self.result.lock() = Decision {
            action,
            is_decided: true,
        };
        Ok(())
    }

    /// Decides what the dialplan does next since the bot has failed. What was decided during the call stays: a bot may break just
    /// when it has ended its call.
    pub(crate) fn set_result_of_failure(&self, action: Action) {
        let mut result = self.result.lock();
        if !result.is_decided {
            result.action = action;
        }
    }

    pub(crate) fn result(&self) -> Action {
        self.result.lock().action.clone()
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
        self.recording.end_transcript();
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
